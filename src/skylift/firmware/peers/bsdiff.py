"""bsdiff's format, BSDIFF40: three bzip2 streams, of control, differences and new bytes.

Written and read here, by its published description: no library is needed, and none of a patch's sizes is
believed.
"""

import bz2
import struct
from collections.abc import Iterator

from skylift.firmware.native import DeltaError
from skylift.firmware.peers.stream import Run, Stream, added, chunks, difference_at, opened

MAGIC = b"BSDIFF40"
_HEADER = struct.Struct("<8sQQQ")
_SIGN = 1 << 63


def make(old: bytes, new: bytes) -> bytes:
    control, differences, fresh = bytearray(), bytearray(), bytearray()
    for difference, extra, jump in chunks(old, new):
        control += struct.pack("<3Q", len(difference), len(extra), _signed(jump))
        differences += difference
        fresh += extra
    first, second, third = (bz2.compress(bytes(part), 9) for part in (control, differences, fresh))
    return _HEADER.pack(MAGIC, len(first), len(second), len(new)) + first + second + third


def apply(old: bytes, patch: bytes) -> bytes:
    """Raises `DeltaError`."""
    size, control, differences, fresh = _opened(patch)
    out, start = bytearray(), 0
    for covered, extra, jump in _controls(control, size):
        out += added(differences.read(covered), difference_at(old, start, covered))
        out += fresh.read(extra)
        start += covered + jump
    return bytes(out)


def told(patch: bytes) -> tuple[int, list[Run]]:
    """(bytes of the image, which runs of it the patch takes from the old one)."""
    size, control, _, _ = _opened(patch)
    found, at, start = [], 0, 0
    for covered, extra, jump in _controls(control, size):
        found.append((at, start, covered))
        at, start = at + covered + extra, start + covered + jump
    return size, found


def _opened(patch: bytes) -> tuple[int, Stream, Stream, Stream]:
    if len(patch) < _HEADER.size or not patch.startswith(MAGIC):
        raise DeltaError("this is no patch of bsdiff's")
    _, first, second, size = _HEADER.unpack_from(patch)
    start, middle, end = _HEADER.size, _HEADER.size + first, _HEADER.size + first + second
    if max(first, second, size) >= _SIGN or end > len(patch):
        raise DeltaError("the patch ends before its header says")
    bounds = ((start, middle), (middle, end), (end, len(patch)))
    parts = [Stream(opened(bz2.BZ2Decompressor(), patch[a:b])) for a, b in bounds]
    return size, parts[0], parts[1], parts[2]


def _controls(control: Stream, size: int) -> Iterator[tuple[int, int, int]]:
    """(bytes covered, bytes new, jump) until the image is whole."""
    left = size
    while left:
        covered, extra, jump = struct.unpack("<3Q", control.read(24))
        if covered + extra > left:
            raise DeltaError("the patch makes more bytes than its header says")
        left -= covered + extra
        yield covered, extra, -(jump - _SIGN) if jump & _SIGN else jump


def _signed(value: int) -> int:
    """A sign and a magnitude, as the format has them."""
    return value if value >= 0 else -value | _SIGN
