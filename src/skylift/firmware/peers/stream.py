"""What bsdiff's and detools' patches have in common: compressed streams read piece by piece, and an image
told as runs of the old one with a difference added, what is new between them, and a jump."""

import lzma
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

from skylift.core.errors import invalid
from skylift.firmware import native
from skylift.firmware.native import DeltaError

_PIECE = 64 << 10
_HIGH, _LOW, _ALL = (int.from_bytes(bytes([byte]) * _PIECE, "little") for byte in (0x80, 0x7F, 0xFF))

Run = tuple[int, int, int]  # place in the new image, in the old one, bytes
Chunk = tuple[bytes, bytes, int]  # difference, new bytes, jump in the old image


class Opener(Protocol):
    """A decompressor of the standard library."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def opened(opener: Opener, packed: bytes) -> Iterator[bytes]:
    """What a compressed stream holds, never more of it at a time than a piece."""
    piece = opener.decompress(packed, _PIECE)
    while piece or not (opener.eof or opener.needs_input):
        yield piece
        piece = b"" if opener.eof else opener.decompress(b"", _PIECE)


class Stream:
    """Pieces, read as many bytes at a time as are asked for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held, self._at = pieces, b"", 0

    def read(self, size: int) -> bytes:
        """Exactly so many. Raises `DeltaError` where the stream is damaged or ends before."""
        try:
            while len(self._held) - self._at < size:
                self._held, self._at = self._held[self._at :] + next(self._pieces), 0
        except StopIteration:
            raise DeltaError("the patch ends before the image does") from None
        except (OSError, EOFError, ValueError, IndexError, lzma.LZMAError) as e:
            raise DeltaError(f"the patch is damaged: {e}") from e
        self._at += size
        return self._held[self._at - size : self._at]


def added(one: bytes, other: bytes) -> bytes:
    """Byte by byte, modulo 256."""
    return b"".join(
        _bytes(((x & _LOW) + (y & _LOW)) ^ ((x ^ y) & _HIGH), size) for x, y, size in _pieces(one, other)
    )


def subtracted(one: bytes, other: bytes) -> bytes:
    """Byte by byte, modulo 256."""
    return b"".join(
        _bytes(((x | _HIGH) - (y & _LOW)) ^ ((x ^ y ^ _ALL) & _HIGH), size)
        for x, y, size in _pieces(one, other)
    )


def _pieces(one: bytes, other: bytes) -> Iterator[tuple[int, int, int]]:
    """As long numbers, so that a piece takes a few operations."""
    for at in range(0, len(one), _PIECE):
        a, b = one[at : at + _PIECE], other[at : at + _PIECE]
        yield int.from_bytes(a, "little"), int.from_bytes(b, "little"), len(a)


def _bytes(number: int, size: int) -> bytes:
    return (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def runs(old: bytes, new: bytes) -> list[Run]:
    """What stands in both, by the C core. Raises `Rejected` where that was not built."""
    if not native.available():
        raise invalid("format", "this", "needs the C core, which was not built here")
    return native.runs(old, new)


def chunks(old: bytes, new: bytes) -> Iterator[Chunk]:
    """The image, run by run."""
    found = [(0, 0, 0), *runs(old, new), (len(new), len(old), 0)]
    for (at, start, length), (then, there, _) in pairwise(found):
        difference = subtracted(new[at : at + length], old[start : start + length])
        yield difference, new[at + length : then], there - start - length


def difference_at(old: bytes, start: int, length: int) -> bytes:
    """The old bytes that a difference is added to; what lies outside the image counts as zero."""
    before = bytes(min(max(-start, 0), length))
    inside = old[max(start, 0) : max(start + length, 0)]
    return before + inside + bytes(length - len(before) - len(inside))
