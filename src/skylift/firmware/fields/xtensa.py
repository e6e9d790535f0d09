"""Xtensa: calls, L32R, branches."""

from skylift.firmware.fields.form import ANYWHERE, SELF_DATA, U32, UNIT, WORD, Form, Got, View, rel, signed


def _xt_l32r(v: View, w: int) -> Got:
    return (((v.pc + 3) & ~3) + (0xFFFC0000 | (w >> 8 & 0xFFFF) << 2)) & U32, None


def _xt_b8(v: View, w: int) -> Got:
    if not ((w & 15) == 7 or (w & 0x3F) == 0x26 or (w & 0xFF) != 0x36):
        return None
    return (v.pc + 4 + signed(w >> 16, 8)) & U32, None


def _put_xt_b8(w: int, pc: int, t: int) -> int:
    return (w & 0xFFFF) | ((t - (pc + 4)) & 0xFF) << 16


def _put_xt_bn(w: int, pc: int, t: int) -> int:
    d = t - (pc + 4)
    return (w & 0x0FCF) | (d & 15) << 12 | (d >> 4 & 3) << 4


XTENSA: tuple[Form, ...] = (
    (
        3,
        1,
        UNIT | ANYWHERE,
        0x0F,
        0x05,
        rel(lambda w: signed(w >> 6, 18) * 4, lambda pc: (pc & ~3) + 4),
        lambda w, pc, t: (w & 0x3F) | ((t - ((pc & ~3) + 4)) >> 2 & 0x3FFFF) << 6,
    ),
    (
        3,
        1,
        UNIT,
        0x0F,
        0x01,
        _xt_l32r,
        lambda w, pc, t: (w & 0xFF) | ((t - ((pc + 3) & ~3)) >> 2 & 0xFFFF) << 8,
    ),
    (
        3,
        1,
        UNIT,
        0x3F,
        0x06,
        rel(lambda w: signed(w >> 6, 18), lambda pc: pc + 4),
        lambda w, pc, t: (w & 0x3F) | ((t - (pc + 4)) & 0x3FFFF) << 6,
    ),
    (3, 1, UNIT, 0x0F, 0x07, _xt_b8, _put_xt_b8),
    (
        3,
        1,
        UNIT,
        0x3F,
        0x16,
        rel(lambda w: signed(w >> 12, 12), lambda pc: pc + 4),
        lambda w, pc, t: (w & 0xFFF) | ((t - (pc + 4)) & 0xFFF) << 12,
    ),
    (3, 1, UNIT, 0x3F, 0x26, _xt_b8, _put_xt_b8),
    (3, 1, UNIT, 0x3F, 0x36, _xt_b8, _put_xt_b8),
    (
        2,
        1,
        UNIT,
        0x8F,
        0x8C,
        rel(lambda w: (w >> 12 & 15) | (w >> 4 & 3) << 4, lambda pc: pc + 4),
        _put_xt_bn,
    ),
    WORD,
    SELF_DATA,
)
