"""ARM, and the older Thumb of images that mix both."""

from skylift.firmware.fields.form import ANYWHERE, SELF, U32, WORD, Form, Got, View, rel, signed
from skylift.firmware.fields.thumb import B8, B11, LDR


def _arm_b(v: View, w: int) -> Got:
    return None if w >> 28 == 15 else ((v.pc + 8 + signed(w, 24) * 4) & U32, None)


def _put_arm_b(w: int, pc: int, t: int) -> int:
    return (w & 0xFF000000) | ((t - (pc + 8)) >> 2 & 0xFFFFFF)


def _arm_ldr(v: View, w: int) -> Got:
    d = w & 0xFFF
    return (v.pc + 8 + (d if w >> 23 & 1 else -d)) & U32, None


def _put_arm_ldr(w: int, pc: int, t: int) -> int:
    d = signed(t - (pc + 8), 64)
    return (w & ~0x800FFF) | (1 << 23 if d >= 0 else 0) | (abs(d) & 0xFFF)


def _arm_imm(w: int) -> int:
    return (w >> 4 & 0xF000) | (w & 0xFFF)


def _arm_movw(v: View, w: int) -> Got:
    for k in range(4, min(24, v.fwd - 4) + 1, 4):
        x = v.word(k)
        if (x & 0x0FF00000) == 0x03400000 and (x >> 12 & 15) == (w >> 12 & 15):
            return _arm_imm(x) << 16 | _arm_imm(w), None
    return None


def _arm_movt(v: View, w: int) -> Got:
    for k in range(4, min(24, v.back) + 1, 4):
        x = v.word(-k)
        if (x & 0x0FF00000) == 0x03000000 and (x >> 12 & 15) == (w >> 12 & 15):
            return _arm_imm(w) << 16 | _arm_imm(x), None
    return None


def _put_arm_mov(w: int, t: int) -> int:
    return (w & ~0xF0FFF) | (t & 0xF000) << 4 | (t & 0xFFF)


ARM: tuple[Form, ...] = (
    (4, 4, ANYWHERE, 0x0F000000, 0x0B000000, _arm_b, _put_arm_b),
    (4, 4, ANYWHERE, 0x0F000000, 0x0A000000, _arm_b, _put_arm_b),
    (4, 4, 0, 0x0F7F0000, 0x051F0000, _arm_ldr, _put_arm_ldr),
    (4, 4, 0, 0x0FF00000, 0x03000000, _arm_movw, lambda w, pc, t: _put_arm_mov(w, t)),
    (4, 4, 0, 0x0FF00000, 0x03400000, _arm_movt, lambda w, pc, t: _put_arm_mov(w, t >> 16)),
    WORD,
    SELF,
)


def _t1(w: int) -> int:
    return signed((w & 0x7FF) << 12 | (w >> 16 & 0x7FF) << 1, 23)


def _put_t1(w: int, pc: int, t: int) -> int:
    d = t - (pc + 4)
    return (w & 0xF800F800) | (d >> 12 & 0x7FF) | (d >> 1 & 0x7FF) << 16


MIXED: tuple[Form, ...] = (
    (4, 4, ANYWHERE, 0xFF000000, 0xEB000000, _arm_b, _put_arm_b),
    (4, 4, ANYWHERE, 0xFF000000, 0xEA000000, _arm_b, _put_arm_b),
    (4, 4, 0, 0xFF7F0000, 0xE51F0000, _arm_ldr, _put_arm_ldr),
    (4, 2, ANYWHERE, 0xF800F800, 0xF800F000, rel(_t1, lambda pc: pc + 4), _put_t1),
    (
        4,
        2,
        ANYWHERE,
        0xF801F800,
        0xE800F000,
        lambda v, w: ((v.pc + 4 + _t1(w)) & U32 & ~3, None),
        lambda w, pc, t: _put_t1(w, pc & ~3, t) & ~0x10000,
    ),
    WORD,
    LDR,
    B11,
    B8,
)
