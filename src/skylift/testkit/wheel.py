"""Who acts next, among a million: a timer wheel in two arrays, 8 bytes a device.

A device stands in the wheel at most once. Times are seconds since the wheel began; a device comes out at the
first turn after its time, so up to one tick late.
"""

from array import array
from collections.abc import Iterator

TICK_S = 0.01
SLOTS = 1 << 13  # 82 seconds around; who is due later stays for another round
NOBODY = -1


class Wheel:
    """Devices by number, each with the tick it is due at."""

    def __init__(self, count: int) -> None:
        self._heads = array("i", [NOBODY]) * SLOTS
        self._next = array("i", [NOBODY]) * count
        self._due = array("Q", [0]) * count
        self._tick = 0  # the next one to look at
        self.waiting = 0

    def put(self, number: int, at_s: float) -> None:
        """Due at `at_s`; what is past is due at the next turn."""
        tick = max(self._tick, int(at_s / TICK_S) + 1)
        slot = tick % SLOTS
        self._due[number] = tick
        self._next[number] = self._heads[slot]
        self._heads[slot] = number
        self.waiting += 1

    def due(self, now_s: float) -> Iterator[tuple[int, float]]:
        """Everybody due until now, with the time they were due at."""
        last = int(now_s / TICK_S)
        while self._tick <= last:
            slot = self._tick % SLOTS
            number, self._heads[slot] = self._heads[slot], NOBODY
            tick = self._tick
            self._tick += 1  # before anybody comes out: who is put back at once must not be missed
            while number != NOBODY:
                following = self._next[number]
                if self._due[number] <= tick:
                    self.waiting -= 1
                    yield number, tick * TICK_S
                else:
                    self._next[number] = self._heads[slot]
                    self._heads[slot] = number
                number = following
