"""Where a delta goes on when the image's first bytes are there already, after a power cut.

A delta makes the same bytes whenever it is followed. So nothing is remembered but how many of them are there:
of layers, the steps behind that place are passed over, and the parts that made nothing but what is behind it
are not even decoded. A packed block that was cut is packed once more from its beginning.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from skylift.firmware.layers import COPY, HELD, NEW, PACKED, Plan, Step

Write = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of a description. In bytes: `new` and `held` of what the parts make is behind; `drop` of
    what the steps make is there, too."""

    steps: Iterator[Step]
    new: int
    held: int
    drop: int


def rest(plan: Plan, start: int) -> Rest:
    """What of a judged description makes the image from byte `start` on."""
    behind = {NEW: 0, HELD: 0}
    at, steps = 0, plan.steps()
    for kind, first, second in steps:
        makes = first if kind >= PACKED else second
        if at + makes > start or at == start:
            step, drop = _cut((kind, first, second), start - at, behind)
            return Rest(chain([step], steps), behind[NEW], behind[HELD], drop)
        at += makes
        for made, length in _within(kind, second, steps):
            if made in behind:
                behind[made] += length
    return Rest(iter(()), behind[NEW], behind[HELD], 0)


def _cut(step: Step, away: int, behind: dict[int, int]) -> tuple[Step, int]:
    """The step without its first bytes, and how many of them it makes all the same."""
    kind, first, second = step
    if kind >= PACKED:
        return step, away
    if kind in behind:
        behind[kind] += away
    return (kind, first + away if kind == COPY else first, second - away), 0


def _within(kind: int, length: int, steps: Iterator[Step]) -> Iterator[tuple[int, int]]:
    """A step's kind and length; of a packed block those of what goes into it."""
    if kind < PACKED:
        yield kind, length
        return
    while length > 0:
        inside, _, second = next(steps)
        length -= second
        yield inside, second


def after(count: int, write: Write) -> Write:
    """A `write` that lets the first `count` bytes go."""
    left = count

    def late(piece: bytes) -> None:
        nonlocal left
        if left >= len(piece):
            left -= len(piece)
            return
        write(piece[left:] if left else piece)
        left = 0

    return late if count > 0 else write
