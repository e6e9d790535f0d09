"""What of the base the parts of a layered delta are made from: the stock, one range behind the other."""

from bisect import bisect_right
from dataclasses import dataclass

from skylift.firmware import layers, view
from skylift.firmware.layers import Step
from skylift.firmware.ranges import Range, complement, touching


@dataclass(frozen=True, slots=True)
class Stock:
    """Ranges of the old view, and where each begins in the stock."""

    ranges: tuple[Range, ...]
    places: tuple[int, ...]
    size: int

    def place(self, start: int) -> int:
        """Where something of the old view stands in the stock, or would."""
        k = bisect_right(self.ranges, (start, 1 << 62)) - 1
        if k < 0:
            return 0
        begin, end = self.ranges[k]
        return self.places[k] + min(start, end) - begin

    def read(self, old: view.View, start: int, size: int) -> bytes:
        out, end = bytearray(), start + size
        k = max(bisect_right(self.places, start) - 1, 0)
        while k < len(self.ranges) and self.places[k] < end:
            begin, stop = self.ranges[k]
            shift = begin - self.places[k]
            out += old.body[max(begin, start + shift) : min(stop, end + shift)]
            k += 1
        return bytes(out)


def stock_of(pair: view.Pair, copied: list[Step], bases: list[Range]) -> Stock:
    """What of the base is not copied, and what programs are compared with; a block that is opened is so
    whole."""
    used = sorted((start, start + length) for _, start, length in copied)
    wanted = complement(used, len(pair.old))
    wanted += bases
    whole = [(s.start, s.start + s.size) for s in pair.old.stretches if s.codec is not None]
    ranges: list[Range] = []
    for start, end in sorted(wanted):
        touched = touching(whole, start, end)
        if touched:
            start, end = min(start, touched[0][0]), max(end, touched[-1][1])
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    places = layers.regions(end - start for start, end in ranges)
    return Stock(tuple(ranges), tuple(place for place, _ in places), places[-1][1] if places else 0)
