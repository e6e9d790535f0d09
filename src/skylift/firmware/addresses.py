"""Where addresses of the base lead in the target: by segments, by matches, by what was learned on the way.

For the decoder in Python; the same as native/decoder/address.c.
"""

from bisect import bisect_right
from dataclasses import dataclass
from struct import unpack_from

from skylift.firmware.fields import Machine
from skylift.firmware.mixing import U32, mix

U64 = 0xFFFFFFFFFFFFFFFF
NONE = U32
MOST_SEGMENTS = 24
Segment = tuple[int, int, int]  # offset, length, address


@dataclass(frozen=True, slots=True)
class Match:
    """`length` bytes of the target at `at` that stand in the base at `start`."""

    at: int
    start: int
    length: int


class Addresses:
    """Of one base and its target. `now`: the match whose bytes are being made."""

    def __init__(self, machine: Machine, links: int) -> None:
        self._machine = machine
        self._links: list[tuple[int, int]] = [(0, 0)] * links
        self.old: list[Segment] = []
        self.new: list[Segment] = []
        self.now = Match(0, 0, 0)
        self.matches: list[Match] = []
        self._by_start: list[Match] = []
        self._starts: list[int] = []
        self._end = 0

    def load(self, old: list[Segment], new: list[Segment]) -> None:
        """Where both images are loaded."""
        self.old, self.new = old, new
        self._end = max((va + length for _, length, va in old), default=0)

    def match(self, matches: list[Match]) -> None:
        """What of the base stands in the target too."""
        self.matches = matches
        self._by_start = sorted(matches, key=lambda match: match.start)
        self._starts = [match.start for match in self._by_start]

    def offset(self, va: int) -> int | None:
        """Where in the base an address is, if it is in it."""
        for offset, length, start in self.old:
            if (va - start) & U64 < length:
                return va - start + offset
        return None

    def before(self, offset: int) -> int:
        """The address of a byte of the base."""
        return _address(self.old, offset)

    def after(self, offset: int) -> int:
        """The address of a byte of the target."""
        return _address(self.new, offset)

    def _project(self, t: int) -> int:
        """Where a byte of the base went: by this match, the longest around it, or the nearest."""
        if 0 <= t - self.now.start < self.now.length:
            return t - self.now.start + self.now.at
        if not self.matches:
            return t
        after = bisect_right(self._starts, t)
        best: Match | None = None
        near: Match | None = None
        gap = NONE
        for k in range(after - 1, max(after - 9, -1), -1):
            match = self._by_start[k]
            if t - match.start < match.length:
                if match.length > (best.length if best else 0):
                    best = match
            elif t - match.start - match.length < gap:
                near, gap = match, t - match.start - match.length
        if best is None:
            if after < len(self._starts) and self._starts[after] - t < gap:
                near = self._by_start[after]
            best = near
        assert best is not None
        return max(0, t - best.start + best.at) & U32

    def _link(self, target: int, shift: int) -> tuple[int, int]:
        """Key and place of what was learned about a target, or about its neighbourhood."""
        t = target >> shift
        key = ((t & U32) ^ (t >> 32) * 0x9E3779B1) & U32
        key = (key << 2 | {0: 1, 4: 2, 10: 3}[shift]) & U32
        return key, mix(key, shift) * len(self._links) >> 32

    def _linked(self, target: int, shift: int) -> int | None:
        key, place = self._link(target, shift)
        known, delta = self._links[place]
        return (target + delta) & U64 if known == key else None

    def _away(self, t: int) -> bool:
        low, high = self._machine.away
        if high:
            return low <= t < high
        return t >= self._end and t - self._end < 64 << 20

    def moved(self, t: int, anywhere: bool) -> int | None:
        """Where an address of the base leads in the target; None: it is no address."""
        offset = self.offset(t)
        if offset is None and not anywhere and not self._away(t):
            return None
        known = self._linked(t, 0)
        if known is not None:
            return known
        if offset is not None:
            return self.after(self._project(offset))
        if self._away(t):
            for shift in (4, 10):
                known = self._linked(t, shift)
                if known is not None:
                    return known
        return t

    def learn(self, target: int, delta: int) -> None:
        """An address moved by so much; of one outside of the base its neighbourhood is told, too."""
        for shift in (0,) if self.offset(target) is not None else (0, 4, 10):
            key, place = self._link(target, shift)
            self._links[place] = (key, delta)


def _address(segments: list[Segment], offset: int) -> int:
    for start, length, va in segments:
        if (offset - start) & U32 < length:
            return va + offset - start
    return (segments[0][2] + offset - segments[0][0]) & U64 if segments else offset


def esp_segments(image: bytes) -> list[Segment] | None:
    """The segments of an Espressif image; None when it is none."""
    if len(image) < 32 or image[0] != 0xE9 or not 1 <= image[1] <= MOST_SEGMENTS:
        return None
    at, found = 24, []
    for _ in range(image[1]):
        if at + 8 > len(image):
            return None
        va, length = unpack_from("<II", image, at)
        if length > len(image) - at - 8:
            return None
        found.append((at + 8, length, va))
        at += 8 + length
    return found
