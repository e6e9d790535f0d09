"""Address-bearing fields of each machine, as tables: native/decoder/predict.c's, for the decoder in Python.

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


def _rel(read: Callable[[int], int], base: Callable[[int], int], wide: bool = False) -> Get:
    """A target at an offset from the field's address, rounded by `base`."""
    mask = U64 if wide else U32
    return lambda v, w: ((base(v.pc) + read(w)) & mask, None)


# --- words ------------------------------------------------------------------------------------------------


def _abs32(v: View, w: int) -> Got:
    return (w, None) if w > 255 else None


def _abs64(v: View, w: int) -> Got:
    return (w, None) if w > 4095 else None


def _self(limit: int, mask: int) -> Get:
    def get(v: View, w: int) -> Got:
        d = signed(w, 32)
        return ((v.pc + d) & mask, None) if abs(d) > limit else None

    return get


def _put_abs32(w: int, pc: int, t: int) -> int:
    return t & U32


def _put_abs64(w: int, pc: int, t: int) -> int:
    return t


def _put_self(w: int, pc: int, t: int) -> int:
    return (t - pc) & U32


WORD: Form = (4, 4, 0, 0, 0, _abs32, _put_abs32)
SELF: Form = (4, 4, 0, 0, 0, _self(256, U64), _put_self)
SELF_DATA: Form = (4, 4, DATA, 0, 0, _self(64, U32), _put_self)

# --- Thumb ------------------------------------------------------------------------------------------------


def _thumb25(w: int) -> int:
    a, b = w & 0xFFFF, w >> 16
    s = a >> 10 & 1
    i1, i2 = 1 ^ (b >> 13 & 1) ^ s, 1 ^ (b >> 11 & 1) ^ s
    return signed(s << 24 | i1 << 23 | i2 << 22 | (a & 0x3FF) << 12 | (b & 0x7FF) << 1, 25)


def _put25(w: int, d: int, keep: int) -> int:
    d &= U32
    s, i1, i2 = d >> 24 & 1, d >> 23 & 1, d >> 22 & 1
    a = 0xF000 | s << 10 | (d >> 12 & 0x3FF)
    b = (w >> 16 & keep) | (i1 ^ 1 ^ s) << 13 | (i2 ^ 1 ^ s) << 11 | (d >> 1 & 0x7FF)
    return a | b << 16


def _blx(v: View, w: int) -> Got:
    return (v.pc + 4 + _thumb25(w)) & U32 & ~3, None


def _put_blx(w: int, pc: int, t: int) -> int:
    return _put25(w, t - ((pc + 4) & ~3), 0xD000) & ~0x10000


def _bcc(v: View, w: int) -> Got:
    a, b = w & 0xFFFF, w >> 16
    if (a >> 6 & 0xE) == 0xE:
        return None
    d = (a >> 10 & 1) << 20 | (b >> 11 & 1) << 19 | (b >> 13 & 1) << 18 | (a & 0x3F) << 12 | (b & 0x7FF) << 1
    return (v.pc + 4 + signed(d, 21)) & U32, None


def _put_bcc(w: int, pc: int, t: int) -> int:
    d = (t - (pc + 4)) & U32
    a = (w & 0xFBC0) | (d >> 20 & 1) << 10 | (d >> 12 & 0x3F)
    b = (w >> 16 & 0xD000) | (d >> 18 & 1) << 13 | (d >> 19 & 1) << 11 | (d >> 1 & 0x7FF)
    return a | b << 16


def _ldrw(v: View, w: int) -> Got:
    d = w >> 16 & 0xFFF
    return (((v.pc + 4) & ~3) + (d if w & 0x80 else -d)) & U32, None


def _put_ldrw(w: int, pc: int, t: int) -> int:
    d = signed(t - ((pc + 4) & ~3), 64)
    return (w & 0xFF7F) | (0x80 if d >= 0 else 0) | ((w >> 16 & 0xF000) | (abs(d) & 0xFFF)) << 16


def _ldr(v: View, w: int) -> Got:
    return (((v.pc + 4) & ~3) + (w & 0xFF) * 4) & U32, None


def _b8(v: View, w: int) -> Got:
    return None if (w >> 8 & 0xE) == 0xE else ((v.pc + 4 + signed(w, 8) * 2) & U32, None)


def _movt_imm(w: int) -> int:
    a, b = w & 0xFFFF, w >> 16
    return (a & 15) << 12 | (a >> 10 & 1) << 11 | (b >> 12 & 7) << 8 | (b & 255)


def _put_movt(w: int, x: int) -> int:
    a = (w & 0xFBF0) | (x >> 12 & 15) | (x >> 11 & 1) << 10
    return a | ((w >> 16 & 0x8F00) | (x >> 8 & 7) << 12 | (x & 255)) << 16


def _tmovw(v: View, w: int) -> Got:
    for k in range(4, min(20, v.fwd - 4) + 1, 2):
        x = v.word(k)
        if (x & 0x8000FBF0) == 0xF2C0 and (x >> 24 & 15) == (w >> 24 & 15):
            return _movt_imm(x) << 16 | _movt_imm(w), None
    return None


def _tmovt(v: View, w: int) -> Got:
    for k in range(4, min(20, v.back) + 1, 2):
        x = v.word(-k)
        if (x & 0x8000FBF0) == 0xF240 and (x >> 24 & 15) == (w >> 24 & 15):
            return _movt_imm(w) << 16 | _movt_imm(x), None
    return None


def _cbz(v: View, w: int) -> Got:
    return (v.pc + 4 + ((w >> 9 & 1) << 6 | (w >> 3 & 31) << 1)) & U32, None


def _put_cbz(w: int, pc: int, t: int) -> int:
    d = t - (pc + 4)
    return (w & 0xFD07) | (d >> 6 & 1) << 9 | (d >> 1 & 31) << 3


BL = _rel(_thumb25, lambda pc: pc + 4)
LDR: Form = (
    2,
    2,
    0,
    0xF800,
    0x4800,
    _ldr,
    lambda w, pc, t: (w & 0xFF00) | ((t - ((pc + 4) & ~3)) >> 2 & 0xFF),
)
B11: Form = (
    2,
    2,
    0,
    0xF800,
    0xE000,
    _rel(lambda w: signed(w, 11) * 2, lambda pc: pc + 4),
    lambda w, pc, t: (w & 0xF800) | ((t - (pc + 4)) >> 1 & 0x7FF),
)
B8: Form = (2, 2, 0, 0xF000, 0xD000, _b8, lambda w, pc, t: (w & 0xFF00) | ((t - (pc + 4)) >> 1 & 0xFF))


def _put_bl(w: int, pc: int, t: int) -> int:
    return _put25(w, t - (pc + 4), 0xD000)


THUMB: tuple[Form, ...] = (
    (4, 2, ANYWHERE, 0xD000F800, 0xD000F000, BL, _put_bl),
    (4, 2, ANYWHERE, 0xD000F800, 0x9000F000, BL, _put_bl),
    (4, 2, ANYWHERE, 0xD001F800, 0xC000F000, _blx, _put_blx),
    (4, 2, 0, 0xD000F800, 0x8000F000, _bcc, _put_bcc),
    (4, 2, 0, 0xFF7F, 0xF85F, _ldrw, _put_ldrw),
    (4, 2, 0, 0x8000FBF0, 0xF240, _tmovw, lambda w, pc, t: _put_movt(w, t & 0xFFFF)),
    (4, 2, 0, 0x8000FBF0, 0xF2C0, _tmovt, lambda w, pc, t: _put_movt(w, t >> 16 & 0xFFFF)),
    WORD,
    LDR,
    B11,
    B8,
    (2, 2, 0, 0xF500, 0xB100, _cbz, _put_cbz),
)

# --- ARM --------------------------------------------------------------------------------------------------


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
    (4, 2, ANYWHERE, 0xF800F800, 0xF800F000, _rel(_t1, lambda pc: pc + 4), _put_t1),
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

# --- AArch64 ----------------------------------------------------------------------------------------------


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


A19 = _rel(lambda w: signed(w >> 5, 19) * 4, lambda pc: pc, wide=True)
A26 = _rel(lambda w: signed(w, 26) * 4, lambda pc: pc, wide=True)
A14 = _rel(lambda w: signed(w >> 5, 14) * 4, lambda pc: pc, wide=True)


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
    (8, 8, 0, 0, 0, _abs64, _put_abs64),
    SELF,
)

# --- x86-64 -----------------------------------------------------------------------------------------------


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
    (4, 1, 0, 0, 0, _x_abs, _put_abs32),
    SELF,
)

# --- Xtensa -----------------------------------------------------------------------------------------------


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
        _rel(lambda w: signed(w >> 6, 18) * 4, lambda pc: (pc & ~3) + 4),
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
        _rel(lambda w: signed(w >> 6, 18), lambda pc: pc + 4),
        lambda w, pc, t: (w & 0x3F) | ((t - (pc + 4)) & 0x3FFFF) << 6,
    ),
    (3, 1, UNIT, 0x0F, 0x07, _xt_b8, _put_xt_b8),
    (
        3,
        1,
        UNIT,
        0x3F,
        0x16,
        _rel(lambda w: signed(w >> 12, 12), lambda pc: pc + 4),
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
        _rel(lambda w: (w >> 12 & 15) | (w >> 4 & 3) << 4, lambda pc: pc + 4),
        _put_xt_bn,
    ),
    WORD,
    SELF_DATA,
)

# --- RISC-V -----------------------------------------------------------------------------------------------


def _rv_jal(w: int) -> int:
    return signed((w >> 31 & 1) << 20 | (w & 0xFF000) | (w >> 9 & 0x800) | (w >> 20 & 0x7FE), 21)


def _put_jal(w: int, pc: int, t: int) -> int:
    d = t - pc
    return (w & 0xFFF) | (d >> 20 & 1) << 31 | (d & 0x7FE) << 20 | (d & 0x800) << 9 | (d & 0xFF000)


def _rv_imm(x: int, register: int) -> int | None:
    op = x & 0x7F
    if (x & 3) != 3 or (x >> 15 & 31) != register or op not in (0x67, 0x13, 3, 0x23):
        return None
    return signed((x >> 25 & 0x7F) << 5 | (x >> 7 & 31), 12) if op == 0x23 else signed(x >> 20, 12)


def _rv_hi(v: View, w: int) -> Got:
    k = 4
    while k <= 16 and k + 4 <= v.fwd:
        x = v.word(k)
        low = _rv_imm(x, w >> 7 & 31)
        if low is not None:
            return ((0 if w & 0x20 else v.pc) + (w & 0xFFFFF000) + low) & U32, None
        k += 4 if (x & 3) == 3 else 2
    return None


def _put_hi(w: int, pc: int, t: int) -> int:
    d = t - (0 if w & 0x20 else pc)
    return (w & 0xFFF) | ((d + 0x800) & 0xFFFFF000)


def _rv_lo(v: View, w: int) -> Got:
    register = w >> 15 & 31
    low = _rv_imm(w, register) if register else None
    if low is None or ((w & 0x7F) == 0x13 and w >> 12 & 7):
        return None
    for k in range(4, min(16, v.back) + 1, 2):
        x = v.word(-k)
        if x & 0x7F in (0x17, 0x37) and (x >> 7 & 31) == register:
            absolute = bool(x & 0x20)
            target = ((0 if absolute else v.pc - k) + (x & 0xFFFFF000) + low) & U32
            return target, 0 if absolute else k
    return None


def _put_lo(w: int, pc: int, t: int) -> int:
    d = t - pc
    if (w & 0x7F) == 0x23:
        return (w & 0x01FFF07F) | (d >> 5 & 0x7F) << 25 | (d & 31) << 7
    return (w & 0xFFFFF) | (d & 0xFFF) << 20


def _rv_b(w: int) -> int:
    return signed((w >> 31 & 1) << 12 | (w << 4 & 0x800) | (w >> 20 & 0x7E0) | (w >> 7 & 0x1E), 13)


def _put_b(w: int, pc: int, t: int) -> int:
    d = t - pc
    high = (d >> 12 & 1) << 31 | (d & 0x7E0) << 20
    return (w & 0x01FFF07F) | high | (d & 0x1E) << 7 | (d & 0x800) >> 4


def _rv_cj(w: int) -> int:
    d = (w >> 12 & 1) << 11 | (w >> 11 & 1) << 4 | (w >> 9 & 3) << 8 | (w >> 8 & 1) << 10
    return signed(d | (w >> 7 & 1) << 6 | (w >> 6 & 1) << 7 | (w >> 3 & 7) << 1 | (w >> 2 & 1) << 5, 12)


def _put_cj(w: int, pc: int, t: int) -> int:
    d = t - pc
    high = (d >> 11 & 1) << 12 | (d >> 4 & 1) << 11 | (d >> 8 & 3) << 9 | (d >> 10 & 1) << 8
    low = (d >> 6 & 1) << 7 | (d >> 7 & 1) << 6 | (d >> 1 & 7) << 3 | (d >> 5 & 1) << 2
    return (w & 0xE003) | high | low


def _rv_cb(w: int) -> int:
    d = (w >> 12 & 1) << 8 | (w >> 10 & 3) << 3 | (w >> 5 & 3) << 6 | (w >> 3 & 3) << 1 | (w >> 2 & 1) << 5
    return signed(d, 9)


def _put_cb(w: int, pc: int, t: int) -> int:
    d = t - pc
    high = (d >> 8 & 1) << 12 | (d >> 3 & 3) << 10 | (d >> 6 & 3) << 5
    return (w & 0xE383) | high | (d >> 1 & 3) << 3 | (d >> 5 & 1) << 2


_FREE = UNIT | ANYWHERE
RISCV: tuple[Form, ...] = (
    (4, 2, _FREE, 0x7F, 0x6F, _rel(_rv_jal, lambda pc: pc), _put_jal),
    (4, 2, _FREE, 0x7F, 0x17, _rv_hi, _put_hi),
    (4, 2, _FREE, 0x7F, 0x37, _rv_hi, _put_hi),
    (4, 2, _FREE, 0x707F, 0x67, _rv_lo, _put_lo),
    (4, 2, _FREE, 0x707F, 0x13, _rv_lo, _put_lo),
    (4, 2, _FREE, 0x7F, 0x03, _rv_lo, _put_lo),
    (4, 2, _FREE, 0x7F, 0x23, _rv_lo, _put_lo),
    (4, 2, UNIT, 0x7F, 0x63, _rel(_rv_b, lambda pc: pc), _put_b),
    (2, 2, UNIT, 0x6003, 0x2001, _rel(_rv_cj, lambda pc: pc), _put_cj),
    (2, 2, UNIT, 0xC003, 0xC001, _rel(_rv_cb, lambda pc: pc), _put_cb),
    WORD,
    SELF_DATA,
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Forms, the step between addresses where one may start, where code is mapped, and which addresses
    outside the image may be meant (both as half-open ranges; (0, 0) is none)."""

    forms: tuple[Form, ...]
    step: int
    code: tuple[int, int] = (0, 0)
    away: tuple[int, int] = (0, 0)


_ESP = ((0x40000000, 0x50000000), (0x3F000000, 0x40000000))
XTENSA_ARCH, RISCV_ARCH = 5, 6
MACHINES = (
    Machine((), 1),
    Machine(THUMB, 2, away=(0x10000000, 0x20100000)),
    Machine(ARM, 4),
    Machine(A64, 4),
    Machine(X86, 1),
    Machine(XTENSA, 1, *_ESP),
    Machine(RISCV, 2, *_ESP),
    Machine(MIXED, 2),
)


def unit_length(arch: int, data: bytes | memoryview, at: int, pc: int) -> int:
    """How long the instruction at `at` is: only where a machine's have several lengths."""
    if arch == RISCV_ARCH:
        return 4 if (data[at] & 3) == 3 else 2
    if arch == XTENSA_ARCH:
        op, fwd = data[at] & 15, len(data) - at
        length = 2 if 8 <= op <= 13 else 3
        for k in range(1, length):
            if not (pc + k) & 3 and fwd > k + 1 and data[at + k] == 0x36 and (data[at + k + 1] & 15) == 1:
                return k
        return length
    return 1
