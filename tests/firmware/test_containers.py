"""Packed images, opened for a delta and closed to the same bytes: streams, archives, kernels, squashfs."""

import io
import lzma
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from conftest import missing
from skylift.firmware import codecs, containers, delta, layered, layers, squashfs

from .conftest import gzipped, rebuilt, words

Change = Callable[[bytes], bytes]
pytestmark = pytest.mark.usefixtures("core")  # it makes layers


def zipped(body: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(0, len(body), 50_000):
            archive.writestr(zipfile.ZipInfo(f"part{k}"), body[k : k + 50_000], zipfile.ZIP_DEFLATED)
    return out.getvalue()


def xz_kernel(body: bytes) -> bytes:
    """What an ARM kernel that unpacks itself looks like from outside."""
    chain = [{"id": lzma.FILTER_ARM}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 32 << 20}]
    packed = lzma.compress(body * 2, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=chain)
    return bytes(0x24) + b"\x18\x28\x6f\x01" + words(1, 2000) + packed + b"tail"


def lzma_stream(body: bytes) -> bytes:
    return lzma.compress(body, lzma.FORMAT_ALONE, preset=9)


@pytest.mark.parametrize("pack", [gzipped, zipped, xz_kernel, lzma_stream], ids=lambda pack: pack.__name__)
def test_a_small_change_inside_a_packed_image_stays_small(pack: Change, tmp_path: Path) -> None:
    before = words(1, 550_000)
    after = before[:200_000] + b"a line that was put in" + before[200_000:]
    old, new = pack(before), pack(after)
    made = layered.make(old, new)
    assert made.opened >= 1
    assert made.closed == 0
    assert rebuilt(old, made.patch, tmp_path) == new
    assert len(made.patch) < 0.05 * len(new)
    assert (tmp_path / "patch").exists() is False
    told = delta.create_delta(old, new, tmp_path / "patch")
    assert told is not None
    assert told["patch_size"] == len(made.patch), "packed images go in layers by themselves"


def test_what_nothing_packs_to_the_same_bytes_stays_closed_and_is_said() -> None:
    """Two deflate streams one behind the other with a flush between: no level makes that again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    before, after = words(1, 100_000), words(1, 99_000) + words(2, 1000)
    streams = []
    for body in (before, after):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        head = b"\x1f\x8b\x08\0\0\0\0\0\0\3"
        streams.append(
            head + packer.compress(body[:5000]) + packer.flush(zlib.Z_FULL_FLUSH)
            + packer.compress(body[5000:]) + packer.flush() + struct.pack("<II", zlib.crc32(body), len(body))
        )  # fmt: skip
    made = layered.make(*streams)
    assert (made.opened, made.closed) == (0, 1)
    assert rebuilt(streams[0], made.patch) == streams[1]


# --- squashfs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sixty files; in the second tree one of them was updated and is a little longer."""
    if not shutil.which("mksquashfs"):
        missing("mksquashfs")
    folders = []
    for name in ("old", "new"):
        folder = tmp_path_factory.mktemp(name)
        for k in range(60):
            body = words(k, 20_000 + 9000 * (k % 7))
            if (name, k) == ("new", 20):
                body = body[:9000] + b"security update" + body[9000:]
            (folder / f"file{k}").write_bytes(body)
        (folder / "link").symlink_to("file1")
        (folder / "deep").mkdir()
        (folder / "deep" / "large").write_bytes(words(99, 700_000))
        folders.append(folder)
    return folders[0], folders[1]


def squashed(tree: Path, image: Path, *how: str) -> bytes:
    quiet = ["-noappend", "-quiet", "-no-progress", "-all-root", "-all-time", "0", "-mkfs-time", "0"]
    subprocess.run(["mksquashfs", str(tree), str(image), *quiet, *how], check=True, capture_output=True)
    return image.read_bytes()


@pytest.mark.parametrize("how", ["gzip", "xz", "zstd", "lz4"])
def test_an_updated_file_in_a_squashfs_costs_little_more_than_its_change(
    how: str, trees: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = (squashed(tree, tmp_path / tree.name, "-comp", how) for tree in trees)
    if not all(codecs.available(name) for name in {"zstd": ["zstd"], "lz4": ["lz4"]}.get(how, [])):
        missing(f"lib{how}")
    made = layered.make(old, new)
    assert rebuilt(old, made.patch, tmp_path) == new
    assert made.opened > 0
    assert len(made.patch) < 0.03 * len(new)
    head = layers.read_head(made.patch)
    assert any(name.startswith({"gzip": "zlib"}.get(how, how)) for name in head.needs)


def test_every_compressed_block_of_a_squashfs_is_found(trees: tuple[Path, Path], tmp_path: Path) -> None:
    image = squashed(trees[0], tmp_path / "image", "-comp", "gzip")
    units = containers.units(memoryview(image))
    held = b"".join(squashfs.opened_block("zlib", image[unit.at : unit.end], 1 << 20) for unit in units)
    for k in range(60):
        assert (trees[0] / f"file{k}").read_bytes()[:500] in held
    assert units[0].at == 96, "the first block follows the superblock"
    assert sum(unit.length for unit in units) > 0.97 * len(image.rstrip(b"\0"))


def test_a_squashfs_with_tables_that_lie_is_compared_as_it_is(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    image = bytearray(squashed(trees[0], tmp_path / "image", "-comp", "gzip"))
    random = Random(3)
    good = len(containers.units(memoryview(bytes(image))))
    for _ in range(400):
        bad = bytearray(image)
        at = random.randrange(96) if random.random() < 0.5 else random.randrange(len(bad) - 3000, len(bad))
        bad[at] = random.randrange(256)
        found = containers.units(memoryview(bytes(bad)))
        assert len(found) <= good + 5
        assert all(unit.end <= len(bad) for unit in found)
