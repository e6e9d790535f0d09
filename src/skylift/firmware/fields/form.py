"""A form of an address-bearing field, and those that are the same on every machine.

A form is (bytes, alignment, flags, mask, value, get, put). `get(view, word)` gives (target, origin) or None,
where origin is what `put` counts from: None for the field's own address, a number of bytes before it, or 0
for nothing at all. `put(word, origin address, target)` gives the word that points there.
"""

from collections.abc import Callable
from dataclasses import dataclass

U32, U64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
UNIT, ANYWHERE, DATA, HIGH = 1, 2, 4, 8


@dataclass(slots=True)
class View:
    """Bytes around a field: `data[at]` is its first; `back` may be read before it, `fwd` from it on."""

    data: bytes | bytearray | memoryview
    at: int
    back: int
    fwd: int
    pc: int

    def word(self, offset: int, length: int = 4) -> int:
        at = self.at + offset
        return int.from_bytes(self.data[at : at + length], "little")


Got = tuple[int, int | None] | None
Get = Callable[[View, int], Got]
Put = Callable[[int, int, int], int]
Form = tuple[int, int, int, int, int, Get, Put]


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def rel(read: Callable[[int], int], base: Callable[[int], int], wide: bool = False) -> Get:
    """A target at an offset from the field's address, rounded by `base`."""
    mask = U64 if wide else U32
    return lambda v, w: ((base(v.pc) + read(w)) & mask, None)


def abs32(v: View, w: int) -> Got:
    return (w, None) if w > 255 else None


def abs64(v: View, w: int) -> Got:
    return (w, None) if w > 4095 else None


def _self(limit: int, mask: int) -> Get:
    def get(v: View, w: int) -> Got:
        d = signed(w, 32)
        return ((v.pc + d) & mask, None) if abs(d) > limit else None

    return get


def put_abs32(w: int, pc: int, t: int) -> int:
    return t & U32


def put_abs64(w: int, pc: int, t: int) -> int:
    return t


def _put_self(w: int, pc: int, t: int) -> int:
    return (t - pc) & U32


WORD: Form = (4, 4, 0, 0, 0, abs32, put_abs32)
SELF: Form = (4, 4, 0, 0, 0, _self(256, U64), _put_self)
SELF_DATA: Form = (4, 4, DATA, 0, 0, _self(64, U32), _put_self)
