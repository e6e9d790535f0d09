"""The coder of our deltas, decoding only: a binary range decoder under a mixer of adaptive probabilities.

Integers only, the same steps as native/decoder/model.c: the two must agree to the last bit. Probabilities are
P(1) in 1/65536; what is mixed is ln(p / (1 - p)) in 1/256.
"""

from math import exp, log

from skylift.firmware.native import DeltaError

U32 = 0xFFFFFFFF
INPUTS = 12
MOST_WEIGHT = 1 << 22


def _ladder() -> list[int]:
    first = [round(65536 / (n + 1.6)) for n in range(16)]
    return first + [round(65536 / (17.6 * (1024 / 17.6) ** ((n - 15) / 16))) for n in range(16, 32)]


SQUASH = [min(65535, round(65536 / (1 + exp(-k / 4)))) for k in range(49)]  # checked against the vectors
LOGS = [round(1024 * log(1 + k / 32)) for k in range(33)]
RATE = _ladder()
TRUST = (0, 9, 12, 14)


def mix(a: int, b: int) -> int:
    """A hash of two words."""
    h = (a * 0x9E3779B1 ^ (b + 0x7F4A7C15) * 0x85EBCA6B) & U32
    h ^= h >> 15
    h = h * 0xC2B2AE35 & U32
    return h ^ h >> 13


def _log1024(x: int) -> int:
    n = x.bit_length() - 1
    f = (x << 16 >> n) & 0xFFFF
    k, r = f >> 11, f & 2047
    return n * 710 + (n * 200 >> 8) + LOGS[k] + ((LOGS[k + 1] - LOGS[k]) * r >> 11)


def _toward_zero(a: int, b: int) -> int:
    return a // b if a >= 0 else -(-a // b)


STRETCH = [_toward_zero(_log1024(8 * k + 4) - _log1024(65536 - 8 * k - 4), 4) for k in range(8192)]


def squash(x: int) -> int:
    """P(1) of what was mixed."""
    a = min(abs(x), 2815)
    k, r = a >> 6, a & 63
    p = min(SQUASH[k] + ((SQUASH[k + 1] - SQUASH[k]) * r >> 6), 65533)
    return 65536 - p if x < 0 else p


class Decoder:
    """Bits out of bytes. At most four bytes may be missing at the end: zeros the encoder left out."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._range = U32
        self._code = 0
        for _ in range(4):
            self._code = self._code << 8 | self._byte()

    def _byte(self) -> int:
        at = self._at
        self._at = at + 1
        if at < len(self._data):
            return self._data[at]
        if at >= len(self._data) + 4:
            raise DeltaError("the delta ends before the image does")
        return 0

    def bit(self, p1: int) -> int:
        bound = self._range * p1 >> 16
        if self._code < bound:
            self._range, bit = bound, 1
        else:
            self._code -= bound
            self._range -= bound
            bit = 0
        while self._range < 1 << 24:
            self._range <<= 8
            self._code = (self._code << 8 | self._byte()) & U32
        return bit

    def plain(self, counters: list[int], at: int) -> int:
        """A bit by one counter of its own."""
        p = counters[at]
        bit = self.bit(min(max(p, 512), 65024))
        counters[at] = p + ((65535 - p) >> 4) if bit else p - (p >> 4)
        return bit


class Mixer:
    """Slots of adaptive probabilities found by hashed context, and the weights they are mixed by."""

    def __init__(self, coder: Decoder, slots: int, sets: int, rate: int) -> None:
        self._coder = coder
        self._p = [32768] * slots
        self._s = bytearray(slots)
        self._n = slots
        self._rate = rate
        self._weights = [[20000] * INPUTS for _ in range(sets)]
        self.sets = sets

    def _find(self, key: int, make: bool) -> int:
        a = key * self._n >> 32
        b = a ^ 1
        if b >= self._n:
            b = a
        check, s = (key & 7) << 5, self._s
        if s[a] & 31 and s[a] & 0xE0 == check:
            return a
        if s[b] & 31 and s[b] & 0xE0 == check:
            return b
        if not make:
            return -1
        if s[b] & 31 < s[a] & 31:
            a = b
        self._p[a] = 32768
        s[a] = check
        return a

    def _learn(self, at: int, bit: int) -> None:
        n, p = self._s[at] & 31, self._p[at]
        p += ((65535 if bit else 0) - p) * RATE[n] >> 16
        self._p[at] = p
        if n < 16 or (n < self._rate and not p >> 3 & 7):
            self._s[at] += 1

    def teach(self, key: int, bit: int) -> None:
        """Let a slot see a bit that is not coded."""
        self._learn(self._find(key, True), bit)

    def bit(self, keys: list[int], set_a: int, set_b: int, lazy: bool) -> int:
        """One bit, by the slots of `keys` and two sets of weights. `lazy`: no slot is made but for a 0."""
        wa, wb = self._weights[set_a % self.sets], self._weights[set_b % self.sets]
        places, inputs, da, db = [], [], 0, 0
        for k, key in enumerate(keys):
            at = self._find(key, not lazy)
            places.append(at)
            x = 0
            if at >= 0:
                seen = self._s[at] & 31
                x = _toward_zero(STRETCH[self._p[at] >> 3] * TRUST[min(seen, 3)], 14)
            inputs.append(x)
            da += wa[k] * x
            db += wb[k] * x
        n = len(keys)
        inputs.append(90)
        xa, xb = (da + wa[n] * 90) >> 16, (db + wb[n] * 90) >> 16
        bit = self._coder.bit(squash(_toward_zero(xa + xb, 2)))
        ea, eb = (bit << 16) - squash(xa), (bit << 16) - squash(xb)
        for k, x in enumerate(inputs):
            wa[k] = min(max(wa[k] + (ea * x >> 14), -MOST_WEIGHT), MOST_WEIGHT)
            wb[k] = min(max(wb[k] + (eb * x >> 14), -MOST_WEIGHT), MOST_WEIGHT)
        for key, at in zip(keys, places, strict=True):
            if at < 0 and not bit:
                at = self._find(key, True)
            if at >= 0:
                self._learn(at, bit)
        return bit
