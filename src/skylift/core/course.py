"""How the devices of one phase ask and end over time, as counts: what a rehearsal moves its tallies by.

A few are drawn from what the fleet did before; of a large phase all others are copies of them.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from random import Random

from skylift.core.world import Phase, Tally

DRAWN = 128  # devices drawn for a large phase, of which all others are copies
EXACT_UP_TO = 64  # devices of a phase that are drawn one by one


@dataclass(frozen=True, slots=True)
class Model:
    """What devices do. `heard_s`: seconds since devices were last heard, a sample; `lost_share`: of devices
    that are not expected back. `run_s`: seconds from an offer to its end, a sample. `failure_rate`: the share
    of updates that fails though the release is good. `asks_again_s`: how soon a device comes back that knows
    of the deployment."""

    heard_s: Sequence[float]
    run_s: Sequence[float]
    failure_rate: float = 0.0
    lost_share: float = 0.0
    asks_again_s: float = 60.0
    max_parallel: int | None = None


@dataclass(frozen=True, slots=True)
class Grain:
    """The moments of a large phase that are looked at: `steps`, evenly over its finishers, and before the
    first of them every count that is `early` times the one before (0: none)."""

    steps: int
    early: int


@dataclass
class Course:
    """One phase under way: when devices ask and when they end, as counts over time."""

    size: int
    opened: float
    asks: list[float]  # sorted, relative to `opened`
    moments: list[tuple[float, int, int]]  # at (absolute), ended by then, failed by then
    weight: float  # devices for each of `asks`
    ends_per_s: float = 0.0  # in its busiest stretch
    at: int = 0

    def tally(self, now: float, max_parallel: int | None) -> Tally:
        ended, failed = self.ended
        asked = min(self.size, round(bisect_right(self.asks, now - self.opened) * self.weight))
        asked = max(asked, ended)
        if max_parallel is not None:
            asked = min(asked, ended + max_parallel)
        return Tally(
            waiting=self.size - asked, installing=asked - ended, complete=ended - failed, rolled_back=failed
        )

    @property
    def ended(self) -> tuple[int, int]:
        return self.moments[self.at - 1][1:] if self.at else (0, 0)

    def next(self) -> float | None:
        return self.moments[self.at][0] if self.at < len(self.moments) else None


def drawn_again(sample: Sequence[float], draw: Random) -> list[float]:
    """The sample drawn anew: what a few hundred devices did is known only so well."""
    return sorted(draw.choices(sample, k=min(len(sample), DRAWN * 2)))


def course_of(
    phase: Phase,
    opened: float,
    heard: Sequence[float],
    takes: Sequence[float],
    model: Model,
    rate: float,
    draw: Random,
    grain: Grain,
) -> Course:
    """The course of a phase that opens `opened` seconds after the start, with all its devices waiting.
    `heard` and `takes` are sorted samples; `rate` is the share of its updates that fails."""
    size = phase.tally.size
    lost = min(size, _binomial(size, model.lost_share, draw))
    coming = size - lost
    if not coming:
        return Course(size, opened, [], [], 1.0)
    drawn = coming if coming <= EXACT_UP_TO else DRAWN
    pairs = [(_asks(_between(heard, draw), opened, model, draw), _between(takes, draw)) for _ in range(drawn)]
    ends = sorted(ask + run for ask, run in pairs)
    mean = sum(run for _, run in pairs) / drawn
    moments, failed, before = [], 0, 0
    for count in _counts(coming, drawn, grain):
        at = _quantile(ends, count, coming)
        if model.max_parallel is not None:  # no more than so many at a time: the rest wait their turn
            at = max(at, mean * -(-count // model.max_parallel))
        failed += _binomial(count - before, rate, draw)
        before = count
        moments.append((opened + at, count, failed))
    most = float("inf") if model.max_parallel is None else model.max_parallel / max(mean, 1.0)
    busiest = _busiest(ends, coming / drawn, most)
    return Course(size, opened, sorted(ask for ask, _ in pairs), moments, coming / drawn, busiest)


def _asks(heard: float, opened: float, model: Model, draw: Random) -> float:
    """Seconds from the phase's opening to the device's next check."""
    if heard > opened:
        return heard - opened
    return draw.uniform(0, model.asks_again_s)


def _between(ordered: Sequence[float], draw: Random) -> float:
    """A value of the sample's distribution, also between two of its values."""
    place = draw.random() * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _counts(coming: int, drawn: int, grain: Grain) -> list[int]:
    """The numbers of finishers to look at."""
    if coming == drawn:
        return list(range(1, coming + 1))
    early, count = set[int](), 1
    while grain.early and count < coming // grain.steps:
        early.add(count)
        count *= grain.early
    return sorted({*early, *(coming * n // grain.steps for n in range(1, grain.steps + 1))} - {0})


def _quantile(ends: Sequence[float], count: int, coming: int) -> float:
    """When the `count`-th of `coming` devices ends, by those that were drawn."""
    place = (count - 0.5) / coming * len(ends) - 0.5
    low = min(max(int(place), 0), len(ends) - 1)
    high = min(low + 1, len(ends) - 1)
    return ends[low] + (ends[high] - ends[low]) * min(max(place - low, 0.0), 1.0)


def _binomial(n: int, p: float, draw: Random) -> int:
    """How many of `n`, each with probability `p`; by the normal curve where both ends are far away."""
    if n <= 0 or p <= 0:
        return 0
    if n <= 64:
        return sum(draw.random() < p for _ in range(n))
    mean = n * p
    if mean < 30:  # rare among many: Poisson, by counting gaps
        count, gap = 0, draw.expovariate(mean)
        while gap < 1 and count < n:
            count, gap = count + 1, gap + draw.expovariate(mean)
        return count
    return min(n, max(0, round(draw.gauss(mean, sqrt(mean * (1 - min(p, 1.0)))))))


def _busiest(ends: Sequence[float], each: float, most: float) -> float:
    """Updates ending per second in the busiest eighth of those drawn, each of which stands for `each`."""
    count = max(1, len(ends) // 8)
    shortest = min((ends[n + count] - ends[n] for n in range(len(ends) - count)), default=1.0)
    return min(most, count * each / max(shortest, 1.0))
