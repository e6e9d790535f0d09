"""Patches: worth it or not made, right or refused; no bad one gets further than a `DeltaError`."""

import contextlib
import hashlib
import subprocess
import sys
from pathlib import Path

import hdiffpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylift.firmware import delta
from skylift.firmware.delta import DeltaError, apply_delta, create_delta, read_header

CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "mcu"
PAIRS = sorted(path.name for path in CORPUS.iterdir()) if CORPUS.is_dir() else []
HEADER = 92  # bytes of our own header


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    """Two images that differ in a few places and in length."""
    old = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(300))
    new = bytearray(old)
    for at in range(100, len(new), 1500):
        new[at] ^= 0xA5
    return old, bytes(new[:4000] + b"something of its own" + new[4000:])


@pytest.fixture(scope="module")
def patch(pair: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("patch") / "patch"
    assert create_delta(*pair, path) is not None
    return path.read_bytes()


def test_a_delta_tells_what_the_document_asks_for(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    old, new = pair
    told = create_delta(old, new, tmp_path / "patch")
    body = (tmp_path / "patch").read_bytes()
    assert told == {
        "type": "delta",
        "old_version_hash": sha(old),
        "new_version_hash": sha(new),
        "patch_hash": sha(body),
        "patch_size": len(body),
        "full_size": len(new),
        "savings_percent": round(100 * (1 - len(body) / len(new)), 1),
    }
    assert apply_delta(old, body) == new
    assert create_delta(old, new, tmp_path / "again") == told, "the same images give the same patch"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "patch"]


def test_files_do_as_well_as_bytes(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    for name, body in zip(("old", "new"), pair, strict=True):
        (tmp_path / name).write_bytes(body)
    assert create_delta(tmp_path / "old", str(tmp_path / "new"), tmp_path / "patch") is not None
    assert apply_delta(tmp_path / "old", tmp_path / "patch") == pair[1]


def test_a_delta_that_saves_too_little_is_not_made(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    stranger = hashlib.shake_256(b"stranger").digest(9000)
    assert create_delta(pair[0], stranger, tmp_path / "patch") is None
    assert create_delta(pair[0], b"", tmp_path / "patch") is None
    assert list(tmp_path.iterdir()) == []


def test_a_delta_from_nothing_is_a_delta_or_none(tmp_path: Path) -> None:
    new = b"the same again " * 400
    if create_delta(b"", new, tmp_path / "patch") is not None:
        assert apply_delta(b"", tmp_path / "patch") == new


def test_a_patch_cut_at_any_byte_is_refused(pair: tuple[bytes, bytes], patch: bytes) -> None:
    for length in range(len(patch)):
        with pytest.raises(DeltaError):
            apply_delta(pair[0], patch[:length])


def test_a_patch_with_any_byte_flipped_is_refused_or_makes_the_very_image(
    pair: tuple[bytes, bytes], patch: bytes
) -> None:
    for at in range(len(patch)):
        for bits in (0x01, 0x80, 0xFF):
            bad = patch[:at] + bytes([patch[at] ^ bits]) + patch[at + 1 :]
            try:
                assert apply_delta(pair[0], bad) == pair[1]
            except DeltaError:
                continue


@settings(max_examples=300, deadline=None)
@given(garbage=st.binary(max_size=300), keep=st.integers(0, 200))
def test_garbage_behind_any_good_beginning_is_refused(garbage: bytes, keep: int) -> None:
    old, new = b"a" * 5000, b"a" * 5000 + b"b"
    inner = hdiffpatch.diff(old, new, "lzma2")
    good = delta._HEADER.pack(
        delta.MAGIC, delta.FORMAT, delta._digest(old), delta._digest(new), len(old), len(new)
    )
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
    header = delta._HEADER.pack(
        delta.MAGIC, delta.FORMAT, delta._digest(old), delta._digest(new), len(old), len(new)
    )
    assert apply_delta(old, header + inner, max_size=len(new)) == new


def test_a_patch_fits_only_the_image_it_was_made_from(pair: tuple[bytes, bytes], patch: bytes) -> None:
    old, new = pair
    for other in (b"", old[:-1], old + b"\0", new, bytes(len(old))):
        with pytest.raises(DeltaError, match="another image"):
            apply_delta(other, patch)


def test_a_patch_makes_no_more_than_signed_metadata_allows(pair: tuple[bytes, bytes], patch: bytes) -> None:
    with pytest.raises(DeltaError, match="at most"):
        apply_delta(pair[0], patch, max_size=len(pair[1]) - 1)
    assert apply_delta(pair[0], patch, max_size=len(pair[1])) == pair[1]


def test_a_patch_whose_inside_contradicts_its_header_is_refused(
    pair: tuple[bytes, bytes], patch: bytes
) -> None:
    old, new = pair
    bigger = hdiffpatch.diff(old, new + bytes(1 << 20), "lzma2")
    with pytest.raises(DeltaError, match="contradict"):
        apply_delta(old, patch[:HEADER] + bigger)
    promised = delta._HEADER.pack(
        delta.MAGIC, delta.FORMAT, delta._digest(old), bytes(32), len(old), len(new)
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
        number, at = delta._varint(inner, at)
        numbers.append(number)
    plain_before = sum(numbers[3:9:2])  # three small parts, stored plain; then the one that is compressed
    assert numbers[10] > 0
    inner[at + plain_before] = 40  # the largest window LZMA2 knows: 4 GiB
    head = delta._HEADER.pack(
        delta.MAGIC, delta.FORMAT, delta._digest(old), delta._digest(new), len(old), len(new)
    )
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "patch").write_bytes(head + inner)
    done = subprocess.run(
        [sys.executable, "-c", _HUNGRY, tmp_path / "old", tmp_path / "patch"],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 42, done.stderr


def test_inspecting_says_what_the_header_says(pair: tuple[bytes, bytes], patch: bytes) -> None:
    header = read_header(patch)
    assert (header.base_sha256, header.target_sha256) == (sha(pair[0]), sha(pair[1]))
    assert (header.base_size, header.target_size) == (len(pair[0]), len(pair[1]))
    for wrong in (b"", b"SKYDELTA", b"BSDIFF40" + patch[8:], patch[:9] + b"\x09" + patch[10:]):
        with pytest.raises(DeltaError):
            read_header(wrong)


def _machine_code(folder: Path) -> tuple[Path, Path]:
    """Where the corpus of firmware is not at hand: this interpreter's own code, and a build of it in which a
    few hundred bytes were taken out and others put in."""
    code = Path(sys.executable).resolve().read_bytes()[: 1 << 20]
    moved = code[:200_000] + hashlib.sha256(code).digest() * 9 + code[200_400:700_000] + code[700_128:]
    old, new = folder / "old.bin", folder / "new.bin"
    old.write_bytes(code)
    new.write_bytes(moved)
    return old, new


@pytest.mark.parametrize("name", PAIRS or [""])
def test_real_machine_code_goes_there_and_back(name: str, tmp_path: Path) -> None:
    old, new = (CORPUS / name / "old.bin", CORPUS / name / "new.bin") if name else _machine_code(tmp_path)
    told = create_delta(old, new, tmp_path / "patch")
    assert told is not None
    assert told["savings_percent"] > 80
    assert apply_delta(old, tmp_path / "patch", new.stat().st_size) == new.read_bytes()
    with pytest.raises(DeltaError):
        apply_delta(new, tmp_path / "patch")
