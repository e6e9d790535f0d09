"""detools' sequential format, which its C library applies on microcontrollers: bsdiff's idea in one stream.

Written and read here, by its published description. A patch tells neither what it is nor its base: its first
byte is the type (0) and the compression. What knows the machine (`data-format`) is refused by name.
"""

import bz2
import lzma
from collections.abc import Callable, Iterator

from skylift.core.errors import invalid
from skylift.firmware.native import DeltaError
from skylift.firmware.peers import heatshrink
from skylift.firmware.peers.stream import Run, Stream, added, chunks, difference_at, opened

COMPRESSIONS = ("none", "lzma", "crle", "bz2", "heatshrink", "zstd", "lz4")  # by number
_LEAST_REPEATED = 6
_PIECE = 64 << 10

Read = Callable[[int], bytes]


def make(old: bytes, new: bytes, compression: str = "lzma") -> bytes:
    if compression not in _PACKERS:
        raise invalid("compression", compression, f"is none of {', '.join(_PACKERS)}")
    body = bytearray(packed(0))  # no data format
    for difference, extra, jump in chunks(old, new) if new else ():
        body += packed(len(difference)) + difference + packed(len(extra)) + extra + packed(jump)
    return bytes([COMPRESSIONS.index(compression)]) + packed(len(new)) + _PACKERS[compression](bytes(body))


def apply(old: bytes, patch: bytes) -> bytes:
    """Raises `DeltaError`."""
    out, start = bytearray(), 0
    size, stream = _opened(patch)
    while len(out) < size:
        covered = _length(stream, size - len(out))
        out += added(stream.read(covered), difference_at(old, start, covered))
        out += stream.read(_length(stream, size - len(out)))
        start += covered + number(stream.read)
    return bytes(out)


def told(patch: bytes) -> tuple[int, list[Run]]:
    """(bytes of the image, which runs of it the patch takes from the old one)."""
    found, at, start = [], 0, 0
    size, stream = _opened(patch)
    while at < size:
        covered = _length(stream, size - at)
        stream.read(covered)
        found.append((at, start, covered))
        extra = _length(stream, size - at - covered)
        stream.read(extra)
        at, start = at + covered + extra, start + covered + number(stream.read)
    return size, found


def looks_like(patch: bytes) -> bool:
    """Whether a patch begins as these do: a type and a compression, no more can be told."""
    return len(patch) > 1 and patch[0] < len(COMPRESSIONS)


def _opened(patch: bytes) -> tuple[int, Stream]:
    head = Stream(iter([patch]))
    kind = head.read(1)[0]
    if kind >= len(COMPRESSIONS):
        raise DeltaError("this is no sequential patch of detools'")
    name, size = COMPRESSIONS[kind], number(head.read)
    if name not in _OPENERS:
        raise DeltaError(f"the patch is packed by {name}, which is not read here")
    if size < 0:
        raise DeltaError("the patch promises an image of less than nothing")
    stream = Stream(_OPENERS[name](patch[1 + len(packed(size)) :]))
    if size and number(stream.read):
        raise DeltaError("the patch is of a data format of detools', which is not read here")
    return size, stream


def _length(stream: Stream, most: int) -> int:
    length = number(stream.read)
    if not 0 <= length <= most:
        raise DeltaError("the patch makes more bytes than its header says")
    return length


# --- numbers, and compressions that the standard library has not -----------------------------------------


def packed(value: int) -> bytes:
    """Six bits and a sign, then seven bits a byte, the lowest first; the top bit says that more follow."""
    rest = abs(value)
    first = rest & 0x3F | (0x40 if value < 0 else 0)
    return bytes([first | 0x80]) + _unsigned(rest >> 6) if rest >> 6 else bytes([first])


def number(read: Read) -> int:
    first = read(1)[0]
    value = first & 0x3F | (_read_unsigned(read) << 6 if first & 0x80 else 0)
    return -value if first & 0x40 else value


def _unsigned(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_unsigned(read: Read) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = read(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise DeltaError("the patch is damaged: a number without an end")


def _crle_opened(body: bytes) -> Iterator[bytes]:
    """Stretches as they are, and runs of one byte."""
    rest = Stream(iter([body]))
    while True:
        kind, left = rest.read(1)[0], _read_unsigned(rest.read)
        if kind > 1:
            raise ValueError("a run of a kind that nobody knows")
        byte = rest.read(kind)
        while left > 0:
            piece = min(left, _PIECE)
            yield byte * piece if kind else rest.read(piece)
            left -= piece


def _crle(body: bytes) -> bytes:
    out, plain, at = bytearray(), 0, 0
    while at < len(body):
        end = at + 1
        while end < len(body) and body[end] == body[at]:
            end += 1
        if end - at >= _LEAST_REPEATED:
            out += _stretch(body[plain:at]) + b"\1" + _unsigned(end - at) + body[at : at + 1]
            plain = end
        at = end
    return bytes(out + _stretch(body[plain:]))


def _stretch(body: bytes) -> bytes:
    return b"\0" + _unsigned(len(body)) + body if body else b""


_OPENERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "none": lambda body: iter([body]),
    "lzma": lambda body: opened(lzma.LZMADecompressor(memlimit=256 << 20), body),
    "crle": _crle_opened,
    "bz2": lambda body: opened(bz2.BZ2Decompressor(), body),
    "heatshrink": heatshrink.opened,
}
_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "lzma": lambda body: lzma.compress(body, lzma.FORMAT_ALONE),
    "crle": _crle,
    "bz2": bz2.compress,
    "heatshrink": heatshrink.packed,
}
