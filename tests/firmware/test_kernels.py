"""Kernels for x86 that unpack themselves: opened, compared, packed again to the bit; or it is said why."""

import ctypes
import gzip
import lzma
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import missing
from skylift.firmware import codecs, containers, delta, layered, layers, libraries
from skylift.firmware.native import DeltaError

Pack = Callable[[bytes], bytes]
STUB = b"\xfc\xfa\x31\xc0" * 100  # what would unpack it


def bz_image(packed: bytes, size: int) -> bytes:
    """What a boot loader sees of a kernel: a sector, setup of one more, a payload, its size behind it."""
    head = bytearray(1024)
    head[0x1F1] = 1
    struct.pack_into("<4sH", head, 0x202, b"HdrS", 0x20F)
    struct.pack_into("<II", head, 0x248, len(STUB), len(packed) + 4)
    return bytes(head) + STUB + packed + struct.pack("<I", size) + STUB[:77]


@pytest.fixture(scope="module")
def kernels() -> tuple[bytes, bytes]:
    """Two of 2 MB: the second has some lines of code more."""
    chance = random.Random(5)
    words = [chance.randbytes(chance.randrange(2, 9)) for _ in range(4000)]
    before = b"".join(chance.choices(words, k=450_000))
    assert len(before) > 2 << 20
    return before, before[:900_000] + b"a security update of the kernel" + before[900_000:]


def xz(body: bytes) -> bytes:
    """As the kernel's own script calls it."""
    chain = [
        {"id": lzma.FILTER_X86},
        {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 32 << 20},
    ]
    return lzma.compress(body, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=chain)


def zstd(body: bytes) -> bytes:
    if libraries.zstd() is None or not shutil.which("zstd"):
        missing("zstd and libzstd")
    return subprocess.run(["zstd", "-q", "-19"], input=body, check=True, capture_output=True).stdout


def lz4(body: bytes) -> bytes:
    """The legacy format, put together from the library's blocks."""
    library = libraries.lz4()
    if library is None:
        missing("liblz4")
    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(body), 8 << 20):
        block = body[at : at + (8 << 20)]
        room = ctypes.create_string_buffer(len(block) + len(block) // 255 + 16)
        size = library.LZ4_compress_HC(block, room, len(block), len(room), 9)
        out += struct.pack("<I", size) + room.raw[:size]
    return out


@pytest.mark.parametrize("pack", [xz, zstd, lz4], ids=lambda pack: pack.__name__)
def test_a_packed_kernel_costs_what_changed_in_it(
    pack: Pack, built: bool, kernels: tuple[bytes, bytes], tmp_path: Path
) -> None:
    assert built
    old, new = (bz_image(pack(kernel), len(kernel)) for kernel in kernels)
    said: list[str] = []
    made = delta.create_delta(old, new, tmp_path / "patch", said.append)
    assert made is not None
    assert made["patch_size"] * 100 < len(new)
    assert said == ["comparing", "writing"]
    pieces: list[bytes] = []
    most = 1 << 30
    delta.rebuild(old, (tmp_path / "patch").read_bytes(), pieces.append, len(new), most, tmp_path)
    assert b"".join(pieces) == new


def another_gzip(body: bytes) -> bytes:
    """By a program that flushes in between: no level of zlib's makes that again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = packer.compress(body[:5000]) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + packer.compress(body[5000:]) + packer.flush()


def test_one_whose_packer_is_not_here_is_compared_packed_and_the_reason_is_said(
    built: bool, kernels: tuple[bytes, bytes], tmp_path: Path
) -> None:
    assert built
    old, new = (bz_image(another_gzip(kernel), len(kernel)) for kernel in kernels)
    said: list[str] = []
    delta.create_delta(old, new, tmp_path / "patch", said.append, max_ratio=2)
    assert any("stay packed: nothing here packs what they hold to the same bytes" in each for each in said)
    assert delta.apply_delta(old, tmp_path / "patch") == new


@pytest.mark.parametrize(("magic", "name"), [(b"\x89LZO\0\r\n\x1a\n", "LZO"), (b"BZh9", "bzip2")])
def test_one_that_nothing_opens_is_named(magic: bytes, name: str, tmp_path: Path) -> None:
    bodies = [magic + random.Random(seed).randbytes(9000) for seed in (1, 2)]
    old, new = (bz_image(body, 1 << 20) for body in bodies)
    made = layered.make(old, new)
    assert made.reasons == (
        f"the kernel is packed as {name}, which nothing here opens: it is compared packed",
    )
    assert delta.apply_delta(old, made.patch) == new


def test_a_boot_header_that_lies_is_not_followed() -> None:
    body = gzip.compress(b"nothing of a kernel", mtime=0)
    for offset, length in ((1 << 31, 100), (0, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (10, 3)):
        image = bytearray(bz_image(body, 19))
        struct.pack_into("<II", image, 0x248, offset, length)
        assert containers.units(memoryview(bytes(image))) == []
        assert containers.beyond(memoryview(bytes(image))) is None


def test_a_stream_that_holds_more_than_it_says_is_refused_in_time(kernels: tuple[bytes, bytes]) -> None:
    packed = zstd(kernels[0])
    seen: list[bytes] = []
    with pytest.raises(DeltaError, match="holds"):
        seen.extend(codecs.opened("zstds", packed, 1000))
    assert sum(map(len, seen)) <= 1000 + (1 << 20)
    for cut in (1, 5, 17, len(packed) // 2, len(packed) - 1):
        with pytest.raises(DeltaError):
            list(codecs.opened("zstds", packed[:cut], len(kernels[0])))


def test_what_a_stream_takes_on_the_device_is_told(kernels: tuple[bytes, bytes]) -> None:
    old, new = (bz_image(zstd(kernel), len(kernel)) for kernel in kernels)
    head = layers.read_head(layered.make(old, new).patch)
    assert any(name.startswith("zstds 19 ") for name in head.needs)
    assert head.memory > 256 << 20
    with pytest.raises(DeltaError, match="at most"):
        delta.rebuild(old, layered.make(old, new).patch, lambda piece: None, len(new), 64 << 20)
