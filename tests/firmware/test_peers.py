"""Other tools' formats, held against the tools: what they make is applied here, and the other way round."""

import base64
import contextlib
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import missing
from skylift.core.errors import Rejected
from skylift.firmware import codecs, native, peers
from skylift.firmware.native import DeltaError
from skylift.firmware.peers import bsdiff, detools, vcdiff

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "conformance" / "delta" / "detools.json").read_text()
)


@pytest.fixture(autouse=True)
def core(built: bool) -> None:
    """The C core finds what both images have."""
    if not built:
        missing("the C core (a C compiler)")
    if not codecs.available("zstd"):
        missing("libzstd")


def edited(seed: int, size: int) -> tuple[bytes, bytes]:
    """Something like code, and the same with bytes changed, put in, taken out and moved."""
    random = Random(seed)
    old = b"".join(random.choice(WORDS) for _ in range(size // 8))
    new = bytearray(old)
    for _ in range(size // 500):
        new[random.randrange(len(new))] ^= 0x5A
    cut = len(new) // 3
    body = bytes(new)
    return old, body[:900] + random.randbytes(700) + body[1000:cut] + body[cut + 300 :] + body[cut:][:5000]


WORDS = [hashlib.sha256(b"%d" % k).digest()[:8] for k in range(3000)]


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    return edited(1, 300_000)


def tool(folder: Path, *words: str) -> None:
    if not shutil.which(words[0]):
        missing(words[0])
    subprocess.run(words, check=True, capture_output=True, cwd=folder)


MAKES = {
    "bsdiff": [("bsdiff", "old", "new", "patch")],
    "zstd": [("zstd", "-q", "-f", "-19", "--long=27", "--patch-from=old", "new", "-o", "patch")],
    "vcdiff": [
        ("xdelta3", "-f", *how, "-s", "old", "new", "patch")
        for how in (["-S", "none"], ["-S", "lzma"], ["-9", "-n", "-A"], ["-W", "16384"])
    ],
}
APPLIES = {
    "bsdiff": ("bspatch", "old", "back", "patch"),
    "zstd": ("zstd", "-q", "-d", "--long=31", "--patch-from=old", "patch", "-o", "back"),
    "vcdiff": ("xdelta3", "-d", "-s", "old", "patch", "back"),
}
EVERY_MAKE = [(name, words) for name, each in MAKES.items() for words in each]


@pytest.mark.parametrize(("name", "words"), EVERY_MAKE, ids=lambda value: " ".join(value)[:40])
def test_what_a_tool_makes_is_told_and_applied_here(
    name: str, words: tuple[str, ...], pair: tuple[bytes, bytes], tmp_path: Path
) -> None:
    for file, body in zip(("old", "new"), pair, strict=True):
        (tmp_path / file).write_bytes(body)
    tool(tmp_path, *words)
    patch = (tmp_path / "patch").read_bytes()
    assert peers.format_of(patch) == name
    assert peers.apply(name, pair[0], patch) == pair[1]


@pytest.mark.parametrize("name", APPLIES)
@pytest.mark.parametrize("which", ["edited", "from nothing", "identical", "one byte"])
def test_what_is_made_here_a_tool_applies(
    name: str, which: str, pair: tuple[bytes, bytes], tmp_path: Path
) -> None:
    old, new = {
        "edited": pair,
        "from nothing": (b"", pair[1][:5000]),
        "identical": (pair[0], pair[0]),
        "one byte": (b"a", b"b"),
    }[which]
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "patch").write_bytes(peers.make(name, old, new))
    tool(tmp_path, *APPLIES[name])
    assert (tmp_path / "back").read_bytes() == new


def test_what_is_made_here_is_as_small_as_the_tools(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    for file, body in zip(("old", "new"), pair, strict=True):
        (tmp_path / file).write_bytes(body)
    for name, most in (("bsdiff", 1.1), ("zstd", 1.02), ("vcdiff", 1.5)):
        tool(tmp_path, *MAKES[name][0])
        assert len(peers.make(name, *pair)) <= most * (tmp_path / "patch").stat().st_size, name


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: str(case["compression"]))
def test_what_detools_made_is_applied_here(case: dict[str, Any]) -> None:
    """Made once by detools 0.53.0 (tests/firmware/test_peers.py, `VECTORS`): it has no wheel."""
    old = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(60)) + bytes(300)
    patch = base64.b64decode(case["patch"])
    made = peers.apply("detools", old, patch)
    assert hashlib.sha256(made).hexdigest() == (
        hashlib.sha256(b"").hexdigest() if case.get("empty") else VECTORS["sha256"]
    )
    assert peers.format_of(patch) == "detools"


@pytest.mark.parametrize("compression", ["none", "lzma", "crle", "bz2", "heatshrink"])
def test_detools_patches_come_in_every_compression(compression: str) -> None:
    old, new = edited(2, 40_000)
    patch = detools.make(old, new, compression)
    assert detools.COMPRESSIONS[patch[0]] == compression
    assert detools.apply(old, patch) == new
    assert detools.apply(b"", detools.make(b"", b"", compression)) == b""


def test_a_compression_that_is_not_written_or_read_is_refused_by_name() -> None:
    with pytest.raises(Rejected, match="is none of none, lzma"):
        detools.make(b"a", b"b", "zstd")
    with pytest.raises(DeltaError, match="packed by zstd"):
        detools.apply(b"a", bytes([detools.COMPRESSIONS.index("zstd"), 1, 0, 0]))
    djw = vcdiff.MAGIC + b"\0\1\1"
    with pytest.raises(DeltaError, match="number 1, which is not read here"):
        vcdiff.apply(b"a", djw)


EDITS = st.lists(st.tuples(st.integers(0, 1999), st.integers(0, 40), st.binary(max_size=40)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(old=st.binary(max_size=2000), edits=EDITS, name=st.sampled_from(list(peers.FORMATS)))
def test_every_format_goes_there_and_back(old: bytes, edits: list[tuple[int, int, bytes]], name: str) -> None:
    new = old
    for at, gone, words in edits:
        at %= len(new) + 1
        new = new[:at] + words + new[at + gone :]
    patch = peers.make(name, old, new)
    assert peers.apply(name, old, patch) == new
    if (told := peers.told(name, patch, old)) is not None:
        assert told[0] == len(new)
        assert all(start + length <= len(old) and at + length <= len(new) for at, start, length in told[1])
    if new:
        assert peers.format_of(patch) == name


# HDiffPatch's are read by its own library, in C: what it does with garbage is its own (tests/test_hdiff.py).
OWN = [name for name in peers.FORMATS if name != "hdiffpatch"]


@pytest.mark.parametrize("name", OWN)
def test_a_patch_cut_anywhere_is_refused_or_makes_the_very_image(name: str) -> None:
    old, new = edited(3, 8000)
    patch = peers.make(name, old, new)
    for length in range(len(patch)):
        with contextlib.suppress(DeltaError):
            made = peers.apply(name, old, patch[:length])
            assert name == "vcdiff" or made == new, "VCDIFF alone does not tell where it ends"
            assert new.startswith(made)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(OWN),
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_garbage_in_any_format_is_refused_or_makes_no_more_than_it_says(
    name: str, changes: list[tuple[int, int]]
) -> None:
    old, new = edited(4, 3000)
    body = bytearray(peers.make(name, old, new))
    for at, value in changes:
        body[at % len(body)] = value
    with contextlib.suppress(DeltaError):
        peers.apply(name, old, bytes(body))


def test_sizes_that_lie_are_refused_before_memory_is_taken_for_them() -> None:
    """Gigabytes and more, told in a few bytes."""
    huge = (1 << 62).to_bytes(8, "little")
    with pytest.raises(DeltaError):
        bsdiff.apply(b"a", bsdiff.MAGIC + bytes(16) + huge)
    with pytest.raises(DeltaError):
        detools.apply(b"a", b"\0" + detools.packed(1 << 60) + b"\0" + detools.packed(1 << 59))
    window = b"\0" + vcdiff._number(12) + vcdiff._number(1 << 40) + b"\0\0\0\0"
    with pytest.raises(DeltaError, match="at most"):
        vcdiff.apply(b"a", vcdiff.MAGIC + b"\0\0" + window + bytes(20))
    frame = bytearray(peers.make("zstd", b"a" * 50, b"b" * 50))
    with pytest.raises(DeltaError):
        peers.apply("zstd", b"a" * 50, bytes(frame[:4]) + b"\xe0" + huge + bytes(frame[6:]))


def test_where_the_core_is_missing_formats_that_need_it_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_library", lambda: None)
    for name in ("bsdiff", "detools", "vcdiff"):
        with pytest.raises(Rejected, match="needs the C core"):
            peers.make(name, b"a" * 99, b"b" * 99)
