"""HDiffPatch's patches, which are made where the C core was not built: right or refused, like any other."""

import contextlib
import hashlib
import subprocess
import sys
from pathlib import Path

import hdiffpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylift.firmware import hdiff
from skylift.firmware.delta import DeltaError, apply_delta

HEADER = hdiff.HEADER.size


def head(old: bytes, new: bytes) -> bytes:
    digests = (hashlib.sha256(old).digest(), hashlib.sha256(new).digest())
    return hdiff.HEADER.pack(hdiff.MAGIC, hdiff.FORMAT, *digests, len(old), len(new))


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    old = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(300))
    return old, old[:4000] + b"something of its own" + old[4000:]


@pytest.fixture(scope="module")
def patch(pair: tuple[bytes, bytes]) -> bytes:
    return hdiff.make(*pair)


@settings(max_examples=300, deadline=None)
@given(garbage=st.binary(max_size=300), keep=st.integers(0, 200))
def test_garbage_behind_any_good_beginning_is_refused(garbage: bytes, keep: int) -> None:
    old, new = b"a" * 5000, b"a" * 5000 + b"b"
    inner = hdiffpatch.diff(old, new, "lzma2")
    good = head(old, new)
    with contextlib.suppress(DeltaError):
        assert apply_delta(old, (good + inner)[:keep] + garbage) == new


@settings(max_examples=60, deadline=None)
@given(
    old=st.binary(min_size=1, max_size=2000),
    edits=st.lists(st.tuples(st.integers(0, 1999), st.binary(max_size=40))),
)
def test_what_is_made_rebuilds_the_image(old: bytes, edits: list[tuple[int, bytes]]) -> None:
    new = old
    for at, words in edits:
        new = new[: at % len(new)] + words + new[at % len(new) :]
    inner = hdiffpatch.diff(old, new, "lzma2")
    header = head(old, new)
    assert apply_delta(old, header + inner, max_size=len(new)) == new


def test_a_patch_whose_inside_contradicts_its_header_is_refused(
    pair: tuple[bytes, bytes], patch: bytes
) -> None:
    old, new = pair
    bigger = hdiffpatch.diff(old, new + bytes(1 << 20), "lzma2")
    with pytest.raises(DeltaError, match="contradict"):
        apply_delta(old, patch[:HEADER] + bigger)
    promised = hdiff.HEADER.pack(
        hdiff.MAGIC, hdiff.FORMAT, hashlib.sha256(old).digest(), bytes(32), len(old), len(new)
    )
    with pytest.raises(DeltaError, match="not the one"):
        apply_delta(old, promised + patch[HEADER:])


_HUNGRY = """
import resource, sys
from pathlib import Path
from skylift.firmware.delta import DeltaError, apply_delta
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    apply_delta(Path(sys.argv[1]), Path(sys.argv[2]))
except DeltaError:
    sys.exit(42)
"""


def test_a_patch_that_asks_for_a_window_of_gigabytes_is_refused_where_memory_is_short(tmp_path: Path) -> None:
    old = bytes(range(256)) * 2000
    new = old[:9000] + hashlib.shake_256(b"new").digest(60000).hex().encode() + old[9000:]
    inner = bytearray(hdiffpatch.diff(old, new, "lzma2"))
    numbers, at = [], len(b"HDIFF13&lzma2\0")
    for _ in range(11):
        number, at = hdiff._varint(inner, at)
        numbers.append(number)
    plain_before = sum(numbers[3:9:2])  # three small parts, stored plain; then the one that is compressed
    assert numbers[10] > 0
    inner[at + plain_before] = 40  # the largest window LZMA2 knows: 4 GiB
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "patch").write_bytes(head(old, new) + inner)
    done = subprocess.run(
        [sys.executable, "-c", _HUNGRY, tmp_path / "old", tmp_path / "patch"],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 42, done.stderr
