"""RISC-V: jumps, AUIPC and LUI with what follows them, branches."""

from skylift.firmware.fields.form import ANYWHERE, SELF_DATA, U32, UNIT, WORD, Form, Got, View, rel, signed


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
    (4, 2, _FREE, 0x7F, 0x6F, rel(_rv_jal, lambda pc: pc), _put_jal),
    (4, 2, _FREE, 0x7F, 0x17, _rv_hi, _put_hi),
    (4, 2, _FREE, 0x7F, 0x37, _rv_hi, _put_hi),
    (4, 2, _FREE, 0x707F, 0x67, _rv_lo, _put_lo),
    (4, 2, _FREE, 0x707F, 0x13, _rv_lo, _put_lo),
    (4, 2, _FREE, 0x7F, 0x03, _rv_lo, _put_lo),
    (4, 2, _FREE, 0x7F, 0x23, _rv_lo, _put_lo),
    (4, 2, UNIT, 0x7F, 0x63, rel(_rv_b, lambda pc: pc), _put_b),
    (2, 2, UNIT, 0x6003, 0x2001, rel(_rv_cj, lambda pc: pc), _put_cj),
    (2, 2, UNIT, 0xC003, 0xC001, rel(_rv_cb, lambda pc: pc), _put_cb),
    WORD,
    SELF_DATA,
)
