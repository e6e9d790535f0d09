"""Thumb and Thumb-2: calls, branches, literals, pairs of movw and movt."""

from skylift.firmware.fields.form import ANYWHERE, U32, WORD, Form, Got, View, rel, signed


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


BL = rel(_thumb25, lambda pc: pc + 4)
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
    rel(lambda w: signed(w, 11) * 2, lambda pc: pc + 4),
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
