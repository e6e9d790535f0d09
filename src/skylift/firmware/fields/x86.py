"""x86-64: calls, jumps, addresses from RIP and in the upper 2 GiB; the four bytes of the displacement."""

from collections.abc import Callable

from skylift.firmware.fields.form import (
    SELF,
    U32,
    U64,
    Form,
    Get,
    Got,
    View,
    put_abs32,
    signed,
)


def _x_rel(opcode: Callable[[View], bool]) -> Get:
    return lambda v, w: ((v.pc + 4 + signed(w, 32)) & U64, None) if opcode(v) else None


def _x_abs(v: View, w: int) -> Got:
    return (signed(w, 32) & U64, None) if 0x81 <= w >> 24 < 0x90 else None


def _put_x(w: int, pc: int, t: int) -> int:
    return (t - (pc + 4)) & U32


X86: tuple[Form, ...] = (
    (4, 1, 0, 0, 0, _x_rel(lambda v: v.back >= 1 and (v.data[v.at - 1] & 0xFE) == 0xE8), _put_x),
    (
        4,
        1,
        0,
        0,
        0,
        _x_rel(lambda v: v.back >= 2 and v.data[v.at - 2] == 0x0F and (v.data[v.at - 1] & 0xF0) == 0x80),
        _put_x,
    ),
    (4, 1, 0, 0, 0, _x_rel(lambda v: v.back >= 2 and (v.data[v.at - 1] & 0xC7) == 0x05), _put_x),
    (4, 1, 0, 0, 0, _x_abs, put_abs32),
    SELF,
)
