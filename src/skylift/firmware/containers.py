"""What an image holds packed: squashfs, gzip, xz and LZMA streams, zip, and the kernels that unpack
themselves; and the description of its types in a kernel that does not.

`units` names the packed pieces; whether they are opened is the encoder's business (`firmware.layered`), and
whether they can be packed again to the bit is found by trying. `beyond` says what nobody here opens. One
level only: a module in a squashfs stays as packed as it is.
"""

import re
import struct
from collections.abc import Iterator

from skylift.firmware import btf, codecs, libraries, squashfs
from skylift.firmware.native import DeltaError
from skylift.firmware.unit import Unit

MOST_HELD = 1 << 30  # bytes that one stream may hold to be opened
_KERNEL_MOST = 128 << 20
_SMALLEST = 1 << 16  # of a stream inside a kernel; less is taken for chance
_GZIP, _XZ, _LZMA = b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x5d\0\0"
_ZIP = b"PK\x03\x04"
_INSIDE = re.compile(rb"\x1f\x8b\x08[\x00\x08]|\xfd7zXZ\0|\x5d\x00\x00.{2}\xff{8}", re.DOTALL)


def units(image: memoryview) -> list[Unit]:
    """The packed pieces, in order, none overlapping. Empty where nothing is recognised."""
    if len(image) < 32:
        return []
    try:
        found = sorted(_found(image), key=lambda unit: unit.at)
    except (DeltaError, struct.error, IndexError, OverflowError):
        return []  # damaged, or of a dialect nobody here speaks: it is compared as it is
    kept: list[Unit] = []
    for unit in found:  # files that are the same share their blocks
        if not kept or unit.at >= kept[-1].end:
            kept.append(unit)
    return kept


def _found(image: memoryview) -> Iterator[Unit]:
    head = bytes(image[:6])
    if head.startswith(squashfs.MAGIC):
        yield from squashfs.units(image)
    elif head.startswith(_ZIP):
        yield from _zip(image)
    elif head.startswith(_GZIP):
        yield from _gzip(image, 0)
    elif head.startswith(_XZ):
        yield from _stream("xz", image, 0)
    elif head.startswith(_LZMA):
        yield from _stream("lzma", image, 0)
    elif _is_kernel(image):
        yield from _inside(image)
    elif len(image) <= _KERNEL_MOST:
        yield from btf.units(image)


def _is_kernel(image: memoryview) -> bool:
    """x86's boot header, or ARM's zImage magic."""
    if not 0x400 < len(image) <= _KERNEL_MOST:
        return False
    return _boots_x86(image) or bytes(image[0x24:0x28]) == b"\x18\x28\x6f\x01"


def _boots_x86(image: memoryview) -> bool:
    return 0x400 < len(image) <= _KERNEL_MOST and bytes(image[0x202:0x206]) == b"HdrS"


def _payload(image: memoryview) -> tuple[int, int]:
    """(place, bytes) of what an x86 kernel unpacks, as its boot header says; (0, 0): it does not."""
    sectors = image[0x1F1] or 4
    version = int.from_bytes(image[0x206:0x208], "little")
    offset, length = struct.unpack_from("<II", image, 0x248)
    at = (sectors + 1) * 512 + offset
    return (at, length) if version >= 0x208 and 8 < length <= len(image) - at else (0, 0)


def _inside(image: memoryview) -> Iterator[Unit]:
    """What a kernel is packed as: as its boot header says, else the first stream large enough to be it."""
    at, length = _payload(image) if _boots_x86(image) else (0, 0)
    packed = image[at : at + length - 4]
    head = bytes(packed[:4])
    if length and head in _STREAMS:  # its size stands behind it
        size = int.from_bytes(image[at + length - 4 : at + length], "little")
        if size <= MOST_HELD and (head != libraries.ZSTD or libraries.zstd_frame(packed) == len(packed)):
            yield Unit(at, len(packed), size, _STREAMS[head])
        return
    for hit in _INSIDE.finditer(image):
        at = hit.start()
        if image[at] == 0x1F:
            found = list(_gzip(image, at))
        else:
            found = list(_stream("xz" if image[at] == 0xFD else "lzma", image, at))
        if found and found[0].size >= _SMALLEST:
            yield from found
            return


def beyond(image: memoryview) -> str | None:
    """What the image is packed as, where nobody here opens that; None where somebody does."""
    if not _boots_x86(image) or units(image):
        return None
    at, length = _payload(image)
    head = bytes(image[at : at + 4])
    return next((name for magic, name in _BEYOND.items() if length and head.startswith(magic)), None)


_STREAMS = {libraries.ZSTD: "zstds", libraries.LEGACY: "lz4l"}
_BEYOND = {b"\x89LZO": "LZO", b"BZh": "bzip2", libraries.ZSTD: "zstd", b"\x1f\x8b": "gzip"}


def _stream(kind: str, image: memoryview, at: int, end: int | None = None) -> Iterator[Unit]:
    ends = codecs.stream_end(kind, image[at:end], MOST_HELD)
    if ends is not None:
        yield Unit(at, ends[0], ends[1], kind)


def _gzip(image: memoryview, at: int) -> Iterator[Unit]:
    """Its deflate stream; header and trailer stay as they are."""
    flags, body = image[at + 3], at + 10
    if flags & 4:
        body += 2 + int.from_bytes(image[body : body + 2], "little")
    for bit in (8, 16):
        if flags & bit:
            end = bytes(image[body : body + 4096]).find(b"\0")
            if end < 0:
                return
            body += end + 1
    yield from _stream("deflate", image, body + (2 if flags & 2 else 0))


def _zip(image: memoryview) -> Iterator[Unit]:
    """Deflated members, by the central directory."""
    tail = bytes(image[-65557:])
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        return
    count, _, at = struct.unpack_from("<HII", tail, end + 10)
    for _ in range(count):
        if at + 46 > len(image) or bytes(image[at : at + 4]) != b"PK\x01\x02":
            return
        method, packed, size, name, extra, comment, local = struct.unpack_from("<H8xIIHHH8xI", image, at + 10)
        at += 46 + name + extra + comment
        if method != 8 or local + 30 > len(image) or not size or packed == 0xFFFFFFFF:
            continue
        body = local + 30 + sum(struct.unpack_from("<HH", image, local + 26))
        if body + packed <= len(image):
            yield Unit(body, packed, size, "deflate")
