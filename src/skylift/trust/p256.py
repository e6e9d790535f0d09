"""ECDSA on P-256 with integers only: for verifying, where no library is. No secrets are handled here, so it
may take as long as it takes. Runs on CPython and on MicroPython.
"""

from binascii import hexlify, unhexlify

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def on_curve(x: int, y: int) -> bool:
    """Whether these are the coordinates of a point."""
    return x < P and y < P and (y * y - x * x * x + 3 * x - B) % P == 0


def verifies(key: tuple[int, int], sig: str, digest: bytes) -> bool:
    """Whether this key, a point of the curve, signed this SHA-256. `sig`: DER, lower-case hexadecimal."""
    pair = _pair(sig)
    if pair is None or not (0 < pair[0] < N and 0 < pair[1] < N):
        return False
    r, s = pair
    w = pow(s, N - 2, N)
    u, v = int.from_bytes(digest, "big") * w % N, r * w % N
    g, k = (G[0], G[1], 1), (key[0], key[1], 1)  # MicroPython has no (*G, 1)
    table = (None, g, k, _add(g, k))
    sum_ = None
    for bit in range(255, -1, -1):
        sum_ = _add(_double(sum_), table[(u >> bit & 1) + 2 * (v >> bit & 1)])
    if sum_ is None:
        return False
    x, zz = sum_[0], sum_[2] * sum_[2] % P
    return x == r * zz % P or (r + N < P and x == (r + N) * zz % P)


def _pair(sig: str) -> tuple[int, int] | None:
    """r and s of SEQUENCE { INTEGER, INTEGER }, each in its shortest form."""
    try:
        der = unhexlify(sig)
    except ValueError:
        return None
    if hexlify(der).decode() != sig or not 8 <= len(der) <= 72 or der[0] != 0x30 or der[1] != len(der) - 2:
        return None
    found, at = [], 2
    for _ in range(2):
        size = der[at + 1] if der[at : at + 1] == b"\x02" and at + 1 < len(der) else 0
        raw = der[at + 2 : at + 2 + size]
        if (
            not 0 < size <= 33
            or len(raw) != size
            or raw[0] > 0x7F
            or (size > 1 and raw[0] == 0 and raw[1] < 0x80)
        ):
            return None
        found.append(int.from_bytes(raw, "big"))
        at += 2 + size
    return (found[0], found[1]) if at == len(der) else None


# Points are (x, y, z), Jacobian; None is the point at infinity.


def _double(a: "tuple[int, int, int] | None") -> "tuple[int, int, int] | None":
    if a is None:
        return None
    x, y, z = a
    yy, zz = y * y % P, z * z % P
    m, s = 3 * (x - zz) * (x + zz) % P, 4 * x * yy % P
    x3 = (m * m - 2 * s) % P
    return x3, (m * (s - x3) - 8 * yy * yy) % P, 2 * y * z % P


def _add(a: "tuple[int, int, int] | None", b: "tuple[int, int, int] | None") -> "tuple[int, int, int] | None":
    if a is None or b is None:
        return b if a is None else a
    za, zb = a[2] * a[2] % P, b[2] * b[2] % P
    u, v = a[0] * zb % P, b[0] * za % P
    s, t = a[1] * zb * b[2] % P, b[1] * za * a[2] % P
    if u == v:
        return _double(a) if s == t else None
    h, r = v - u, t - s
    hh = h * h % P
    hhh, q = h * hh % P, u * hh % P
    x3 = (r * r - hhh - 2 * q) % P
    return x3, (r * (q - x3) - s * hhh) % P, h * a[2] * b[2] % P
