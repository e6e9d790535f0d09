"""AArch64: branches, ADRP with what is added to its page, literals."""

from skylift.firmware.fields.form import (
    ANYWHERE,
    HIGH,
    SELF,
    U64,
    Form,
    Got,
    View,
    abs64,
    put_abs64,
    rel,
    signed,
)


def _page(w: int, pc: int) -> int:
    return (pc & ~4095) + signed((w >> 5 & 0x7FFFF) << 2 | (w >> 29 & 3), 21) * 4096


def _scale(w: int) -> int:
    return 4 if (w & 0x04800000) == 0x04800000 else w >> 30 & 3


def _lo12(x: int, register: int) -> int | None:
    if (x >> 5 & 31) != register:
        return None
    if (x & 0xFFC00000) == 0x91000000:
        return x >> 10 & 0xFFF
    if (x & 0x3B000000) == 0x39000000:
        low = (x >> 10 & 0xFFF) << _scale(x)
        return low if low < 4096 else None
    return None


def _adrp(v: View, w: int) -> Got:
    page = _page(w, v.pc)
    for k in range(4, min(24, v.fwd - 4) + 1, 4):
        low = _lo12(v.word(k), w & 31)
        if low is not None:
            return (page + low) & U64, None
    return page & U64, None


def _put_adrp(w: int, pc: int, t: int) -> int:
    d = ((t & ~4095) - (pc & ~4095)) >> 12
    return (w & 0x9F00001F) | (d & 3) << 29 | (d >> 2 & 0x7FFFF) << 5


def _a_lo(v: View, w: int) -> Got:
    register = w >> 5 & 31
    for k in range(4, min(32, v.back) + 1, 4):
        x = v.word(-k)
        if (x & 0x9F000000) == 0x90000000 and (x & 31) == register:
            low = _lo12(w, register)
            return None if low is None else ((_page(x, v.pc - k) + low) & U64, None)
    return None


def _put_19(w: int, pc: int, t: int) -> int:
    return (w & ~(0x7FFFF << 5)) | ((t - pc) >> 2 & 0x7FFFF) << 5


A19 = rel(lambda w: signed(w >> 5, 19) * 4, lambda pc: pc, wide=True)
A26 = rel(lambda w: signed(w, 26) * 4, lambda pc: pc, wide=True)
A14 = rel(lambda w: signed(w >> 5, 14) * 4, lambda pc: pc, wide=True)


def _put_26(w: int, pc: int, t: int) -> int:
    return (w & 0xFC000000) | ((t - pc) >> 2 & 0x3FFFFFF)


A64: tuple[Form, ...] = (
    (4, 4, ANYWHERE, 0xFC000000, 0x94000000, A26, _put_26),
    (4, 4, ANYWHERE, 0xFC000000, 0x14000000, A26, _put_26),
    (4, 4, HIGH, 0x9F000000, 0x90000000, _adrp, _put_adrp),
    (4, 4, 0, 0xFFC00000, 0x91000000, _a_lo, lambda w, pc, t: (w & ~(0xFFF << 10)) | (t & 0xFFF) << 10),
    (
        4,
        4,
        0,
        0x3B000000,
        0x39000000,
        _a_lo,
        lambda w, pc, t: (w & ~(0xFFF << 10)) | ((t & 0xFFF) >> _scale(w) & 0xFFF) << 10,
    ),
    (4, 4, 0, 0xFF000010, 0x54000000, A19, _put_19),
    (4, 4, 0, 0x7E000000, 0x34000000, A19, _put_19),
    (4, 4, 0, 0xBF000000, 0x18000000, A19, _put_19),
    (
        4,
        4,
        0,
        0x7E000000,
        0x36000000,
        A14,
        lambda w, pc, t: (w & ~(0x3FFF << 5)) | ((t - pc) >> 2 & 0x3FFF) << 5,
    ),
    (8, 8, 0, 0, 0, abs64, put_abs64),
    SELF,
)
