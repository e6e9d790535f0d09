"""A patch's script: where both images are loaded, and which stretches of the base stand where in the target.

For the decoder in Python; the same as native/decoder/script.c.
"""

from skylift.firmware.addresses import MOST_SEGMENTS, U64, Match, Segment, esp_segments
from skylift.firmware.fields import RISCV_ARCH, XTENSA_ARCH
from skylift.firmware.mixing import U32, Decoder
from skylift.firmware.native import DeltaError
from skylift.firmware.skd2 import HEADER, Facts, read_header


class Script:
    """Read in the patch's order: `segments`, `matches`; between two of these as many more as `count` says."""

    def __init__(self, coder: Decoder, facts: Facts) -> None:
        self._coder, self._facts = coder, facts
        self._counters = [[32768] * 68 for _ in range(11)]

    def segments(self, old: bytes) -> tuple[list[Segment], list[Segment]]:
        """Of the base, as its own header has them or as they are told; and of the target, by how they
        differ."""
        parsed = esp_segments(old) if self._facts.arch in (XTENSA_ARCH, RISCV_ARCH) else None
        if parsed is None:
            parsed = []
            for _ in range(self._few()):
                offset, length = self._number(4), self._number(4)
                parsed.append((offset, length, self._number(5) << 32 | self._number(5)))
        moved: list[Segment] = []
        for k in range(self._few()):
            offset, length, va = parsed[k] if k < len(parsed) else (0, 0, 0)
            if k and k < len(parsed):
                before, last = moved[-1], parsed[k - 1]
                offset = before[0] + before[1] + offset - last[0] - last[1]
            offset = (offset + _zagzig(self._number(6))) & U32
            length = (length + _zagzig(self._number(6))) & U32
            moved.append((offset, length, (va + _zagzig(self._number(6))) & U64))
        return parsed, moved

    def matches(self) -> list[Match]:
        """Those that are kept, in the target's order."""
        at = start = 0
        found = []
        for _ in range(self._facts.matches):
            match = self._match(0, at, start, self._facts.target_size)
            found.append(match)
            at, start = match.at + match.length, match.start + match.length
        return found

    def count(self) -> int:
        """How many matches come before the next that is kept."""
        return self._number(7)

    def between(self, at: int, start: int, end: int) -> Match:
        """One of them: behind `at` and `start`, and before `end`."""
        return self._match(8, at, start, end)

    def _match(self, kind: int, at: int, start: int, end: int) -> Match:
        gap, length, jump = self._number(kind), self._number(kind + 1), self._number(kind + 2)
        begin = start + _zagzig(jump)
        if not length or begin < 0 or begin + length > self._facts.base_size or gap + length > end - at:
            raise DeltaError("this is no delta, or a damaged one")
        return Match(at + gap, begin, length)

    def _few(self) -> int:
        count = self._number(3)
        if count > MOST_SEGMENTS:
            raise DeltaError("this is no delta, or a damaged one")
        return count

    def _number(self, kind: int) -> int:
        counters, n = self._counters[kind], 0
        while n < 32 and self._coder.plain(counters, n):
            n += 1
        value = 1
        for k in range(n):
            value = value << 1 | (self._coder.bit(32768) if k else self._coder.plain(counters, 33 + n))
        return (value - 1) & U32


def _zagzig(z: int) -> int:
    return -((z >> 1) + 1) if z & 1 else z >> 1


def matches_of(old: bytes, patch: bytes) -> list[Match]:
    """The matches a patch keeps, in the target's order: what stands in the base too. Raises `DeltaError`."""
    script = Script(Decoder(patch, HEADER.size), read_header(patch))
    script.segments(old)
    return script.matches()
