"""Patches: worth it or not made, right or refused; no bad one gets further than a `DeltaError`."""

import hashlib
import sys
from pathlib import Path

import pytest

from skylift.firmware import native
from skylift.firmware.delta import DeltaError, apply_delta, create_delta, read_header

CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "mcu"
PAIRS = sorted(path.name for path in CORPUS.iterdir()) if CORPUS.is_dir() else []


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["core", "without"])
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the C core and without it."""
    if request.param == "without":
        monkeypatch.setattr(native, "_library", lambda: None)
    return str(request.param)


pytestmark = pytest.mark.usefixtures("core")


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    """Two images that differ in a few places and in length."""
    old = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(300))
    new = bytearray(old)
    for at in range(100, len(new), 1500):
        new[at] ^= 0xA5
    return old, bytes(new[:4000] + b"something of its own" + new[4000:])


@pytest.fixture
def patch(pair: tuple[bytes, bytes], core: str, tmp_path: Path) -> bytes:
    path = tmp_path / "made"
    assert create_delta(*pair, path, profile="mcu-64k") is not None
    body = path.read_bytes()
    path.unlink()
    return body


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


def test_a_patch_fits_only_the_image_it_was_made_from(pair: tuple[bytes, bytes], patch: bytes) -> None:
    old, new = pair
    for other in (b"", old[:-1], old + b"\0", new, bytes(len(old))):
        with pytest.raises(DeltaError, match="another image"):
            apply_delta(other, patch)


def test_a_patch_makes_no_more_than_signed_metadata_allows(pair: tuple[bytes, bytes], patch: bytes) -> None:
    with pytest.raises(DeltaError, match="at most"):
        apply_delta(pair[0], patch, max_size=len(pair[1]) - 1)
    assert apply_delta(pair[0], patch, max_size=len(pair[1])) == pair[1]


def test_inspecting_says_what_the_header_says(pair: tuple[bytes, bytes], patch: bytes, core: str) -> None:
    header = read_header(patch)
    assert sha(pair[0]).startswith(header.base_sha256)
    assert sha(pair[1]).startswith(header.target_sha256)
    assert (header.base_size, header.target_size) == (len(pair[0]), len(pair[1]))
    assert header.format == ("skylift" if core == "core" else "hdiffpatch")
    for wrong in (b"", b"SKYDELTA", b"SKD2", b"BSDIFF40" + patch[8:], patch[:9] + b"\x99" + patch[10:]):
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
