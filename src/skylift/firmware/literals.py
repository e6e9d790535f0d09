"""Bytes that stand nowhere in the base: coded by what is around them, and by where the same stood before.

For the decoder in Python; the same as native/decoder/extra.c.
"""

from skylift.firmware.addresses import NONE
from skylift.firmware.mixing import Mixer, mix
from skylift.firmware.rebuilt import Rebuilt, u32
from skylift.firmware.skd2 import Facts, Size


class Literals:
    """Of one image. In small profiles nothing is looked up: `note` and the chase are for large ones."""

    def __init__(self, facts: Facts, size: Size, old: bytes, mixer: Mixer, made: Rebuilt) -> None:
        self._old, self._base, self._prime = old, facts.base_size, facts.prime
        self._mixer, self._made, self._large = mixer, made, bool(size.history)
        self._seen = [NONE] * size.seen  # where five bytes stood last; behind the base the image goes on

    def prime(self) -> None:
        """Teach the model, and the table of what was seen, the base's end."""
        if not self._prime:
            return
        old, base = self._old, self._base
        places = (0, 1, 5, 6, 7)[: 5 if self._large else 3]
        for q in range(max(base - self._prime, 6), base):
            o = u32(old, q - 4)
            contexts = (
                o >> 24 | 0x100,
                o >> 16 | 0x10000,
                o >> 8 | 0x3000000,
                mix(o, 4),
                mix(o, old[q - 5] | old[q - 6] << 8 | 0x10000),
            )
            c0 = 1
            for b in range(7, -1, -1):
                bit = old[q] >> b & 1
                for context, place in zip(contexts, places, strict=False):
                    self._mixer.teach(mix(context, c0 * 32 + place + 16), bit)
                c0 = c0 << 1 | bit
        if self._large:
            for q in range(max(base - self._prime, 5), base):
                self._seen[self._key(old, q - 5)] = q

    def note(self) -> None:
        """The last five bytes may come again."""
        made = self._made
        if self._large and made.at >= 5 and made.at < 0xFFFFFF00 - self._base:
            self._seen[self._key(made.out, len(made.out) - 5)] = self._base + made.at

    def put(self, end: int, start: int, shift: int) -> None:
        """All bytes up to `end`. The base goes on at `start`, and, if it moved by `shift`, beside each."""
        chase = [0, 0]  # where the same bytes stood, and for how long they have agreed
        old, base, made = self._old, self._base, self._made
        while made.at < end:
            there = made.at + shift
            before = old[start] if start < base else 0
            after = old[there] if 0 <= there < base else 0
            made.put(self._next(chase, before, after))
            self.note()
            start += 1

    def _key(self, data: bytes | bytearray, at: int) -> int:
        return mix(u32(data, at), data[at + 4]) * len(self._seen) >> 32

    def _byte(self, at: int) -> int | None:
        return self._old[at] if at < self._base else self._made.byte(at - self._base)

    def _agreed(self, at: int) -> int:
        """How many bytes before a place are those that were made last; 0: too few."""
        made, n = self._made, 0
        while n < 32 and n < at and n < made.at and self._byte(at - 1 - n) == made.out[-1 - n]:
            n += 1
        return n if n >= 4 else 0

    def _next(self, chase: list[int], before: int, after: int) -> int:
        made, out, guess = self._made, self._made.out, 0
        if self._large and not chase[1] and made.at >= 5:
            chase[0] = self._seen[self._key(out, len(out) - 5)]
            if chase[0] != NONE:
                chase[1] = self._agreed(chase[0])
        if chase[1]:
            there = self._byte(chase[0])
            if there is None:
                chase[1] = 0
            else:
                guess = there
        o = u32(out, len(out) - 4)
        c1, agreed = o >> 24, min(chase[1], 15)
        contexts = [
            c1 | 0x100,
            o >> 16 | 0x10000,
            (guess | agreed << 8 | 0x6000000) if chase[1] else 0x6000000,
            before | c1 << 8 | 0x7000000,
            after | c1 << 8 | 0x8000000,
            o >> 8 | 0x3000000,
        ]
        if self._large:
            contexts += [
                mix(o, 4),
                mix(o, out[-5] | out[-6] << 8 | 0x10000),
                (made.at & 3) | c1 << 8 | 0x9000000,
            ]
        c0, sets = 1, self._mixer.sets
        quarter = sets // 4
        for b in range(7, -1, -1):
            expected = 1 + agreed if chase[1] and (guess | 256) >> (b + 1) == c0 else 0
            keys = [mix(context, c0 * 32 + k + 16) for k, context in enumerate(contexts)]
            first = sets - quarter + expected % quarter
            c0 = c0 << 1 | self._mixer.bit(keys, first, sets - quarter + (7 - b) % quarter, False)
        byte = c0 & 255
        if chase[1]:
            if guess == byte:
                chase[1] = min(chase[1] + 1, 200)
                chase[0] += 1
            else:
                chase[1] = 0
        return byte
