"""A deployment played through before anything is sent: `rehearse(world, model, seed) -> Rehearsal`.

The real planner runs on tallies that a model moves, again and again; what it decides is what it would decide.
The model knows how long devices take to ask and to install, and how many fail: from what the fleet did before
(`Model`), or defaults, and the caller says which. Costs O(phases x steps x runs), whatever the fleet.

What it rests on:

- How long ago devices were heard is how long it takes until they ask: of anything that comes again and again,
  time since and time until have the same distribution. A device that has asked since the deployment was
  created is told to come back sooner.
- Of a phase with many devices only a few moments are looked at, close together at its beginning, where a bad
  release shows.
- Offers that are out when a deployment stops run to their end: they count as hurt when they fail.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import sqrt
from random import Random

from skylift.core.audit import audit
from skylift.core.lifecycle import DeploymentStatus
from skylift.core.planner import plan
from skylift.core.world import (
    EndPhase,
    Finish,
    Gate,
    OpenPhase,
    Pause,
    Phase,
    PhaseState,
    Plan,
    Start,
    Stop,
    Tally,
    World,
)

FEW = 20  # phases; of more of them each is looked at less often
DRAWN = 128  # devices drawn for a large phase, of which all others are copies
EXACT_UP_TO = 64  # devices of a phase that are drawn one by one
WORK = 9_000  # phases judged in one rehearsal: about a second
MOST_RUNS, LEAST_RUNS = 40, 2
MOST_STEPS = 20_000  # of one run: far more than its phases can have


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
class Spread:
    """Of all runs: the middle, and what nine of ten stay within."""

    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class PhaseTimes:
    """Seconds from the start; None where the middle run never came there."""

    opens_s: Spread | None
    through_s: Spread | None


@dataclass(frozen=True, slots=True)
class Trip:
    """A release of which `defect_percent` fail. `trips`: the share of runs that stopped themselves. Of those:
    when, in which phase (by number, of the middle run), how many had been offered it by then. `hurt`: how
    many failed, or will, being under way when it stopped or ended; of all runs."""

    defect_percent: float
    trips: float
    after_s: Spread | None
    phase: int | None
    offered: Spread | None
    hurt: Spread


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`duration_s`: until every phase is through, of the runs that came there; `completes`: their share.
    `ends_per_s`: updates that end in the busiest stretch."""

    runs: int
    completes: float
    duration_s: Spread | None
    phases: tuple[PhaseTimes, ...]
    ends_per_s: float
    trips: tuple[Trip, ...]


@dataclass(frozen=True, slots=True)
class Grain:
    """The moments of a large phase that are looked at: `steps`, evenly over its finishers, and before the
    first of them every count that is `early` times the one before (0: none)."""

    steps: int
    early: int


@dataclass
class _Course:
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


@dataclass
class _Run:
    """One playing-through."""

    opened: dict[int, float]
    through: dict[int, float]
    stopped: tuple[float, int] | None = None  # when, in which phase
    offered: int = 0
    failed: int = 0
    under_way: int = 0
    ends_per_s: float = 0.0
    whole: bool = False  # every phase came through


def rehearse(
    world: World, model: Model, *, now: datetime, seed: int = 1, defects: Sequence[float] = (1.0, 5.0, 20.0)
) -> Rehearsal:
    """Play `world` (scheduled, its tallies all waiting) through; the same seed, the same answer.

    `defects`: percent of devices that a bad release breaks, beside those that always fail. Manual gates are
    opened after the soak, as by an operator who does not hesitate.
    """
    ready = replace(world, phases=tuple(replace(phase, gate=_auto(phase.gate)) for phase in world.phases))
    # Every look judges every phase that has opened, and every phase is looked at a few times.
    few = len(world.phases) <= FEW
    runs = max(LEAST_RUNS, min(MOST_RUNS, WORK // (6 * len(world.phases) ** 2)))
    good_grain, bad_grain = (Grain(4, 0), Grain(16, 2)) if few else (Grain(1, 0), Grain(4, 8))
    good = [
        _play(ready, model, model.failure_rate, now, _draw(seed, "good", n), good_grain) for n in range(runs)
    ]
    trips = tuple(
        _trip(ready, model, now, seed, percent, max(LEAST_RUNS, runs // 2), bad_grain) for percent in defects
    )
    whole = [run for run in good if run.whole]
    return Rehearsal(
        runs=runs,
        completes=len(whole) / len(good),
        duration_s=_spread([max(run.through.values(), default=0.0) for run in whole]),
        phases=tuple(
            PhaseTimes(
                _spread([run.opened[n] for run in good if n in run.opened]),
                _spread([run.through[n] for run in good if n in run.through]),
            )
            for n in range(len(world.phases))
        ),
        ends_per_s=max((run.ends_per_s for run in good), default=0.0),
        trips=trips,
    )


def _auto(gate: Gate) -> Gate:
    return Gate.AUTO if gate is Gate.MANUAL else gate


def _trip(
    world: World, model: Model, now: datetime, seed: int, percent: float, runs: int, grain: Grain
) -> Trip:
    rate = 1 - (1 - model.failure_rate) * (1 - percent / 100)
    played = [_play(world, model, rate, now, _draw(seed, percent, n), grain) for n in range(runs)]
    stopped = [run for run in played if run.stopped is not None]
    at = sorted(run.stopped for run in stopped if run.stopped is not None)
    return Trip(
        defect_percent=percent,
        trips=len(stopped) / runs,
        after_s=_spread([moment for moment, _ in at]),
        phase=at[len(at) // 2][1] if at else None,
        offered=_spread([float(run.offered) for run in stopped]),
        hurt=_spread([run.failed + run.under_way * rate for run in played]) or Spread(0.0, 0.0),
    )


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    ordered = sorted(values)
    return Spread(ordered[(len(ordered) - 1) // 2], ordered[int((len(ordered) - 1) * 0.9 + 0.5)])


def _draw(*names: object) -> Random:
    """Chance that can be had again; nothing here is a secret."""
    return Random("/".join(map(str, names)))  # noqa: S311


# --- one run --------------------------------------------------------------------------------------------


def _play(world: World, model: Model, rate: float, began: datetime, draw: Random, grain: Grain) -> _Run:
    """Plan, audit, apply; then on to the next moment at which something happens."""
    run, courses, at = _Run({}, {}), dict[int, _Course](), 0.0
    heard, takes = _again(model.heard_s, draw), _again(model.run_s, draw)
    for _ in range(MOST_STEPS):
        now = began + timedelta(seconds=at)
        world = replace(world, phases=tuple(_seen(phase, courses, at, model) for phase in world.phases))
        planned = plan(world, now)
        if findings := audit(world, planned, now):
            raise AssertionError(f"plan of a rehearsal refused by the auditor: {'; '.join(findings)}")
        if planned.actions:
            world = _apply(world, planned, now, at, run)
            for number in [n for n in run.opened if n not in courses]:
                courses[number] = _course(world.phases[number], at, heard, takes, model, rate, draw, grain)
            if world.status is not DeploymentStatus.RUNNING:
                break
            continue
        if run.through.keys() >= set(range(len(world.phases))):
            run.whole = True  # stragglers may still come; what was planned is done
            break
        upcoming = _next(courses, planned, began, at)
        if upcoming is None:
            break
        at = upcoming
    _close(run, world, courses)
    return run


def _again(sample: Sequence[float], draw: Random) -> list[float]:
    """The sample drawn anew: what a few hundred devices did is known only so well."""
    return sorted(draw.choices(sample, k=min(len(sample), DRAWN * 2)))


def _seen(phase: Phase, courses: dict[int, _Course], at: float, model: Model) -> Phase:
    course = courses.get(phase.number)
    if course is None:
        return phase
    return replace(phase, tally=course.tally(at, model.max_parallel))


def _next(courses: dict[int, _Course], planned: Plan, began: datetime, at: float) -> float | None:
    """The next moment anything changes; the courses are there then."""
    moments = [moment for course in courses.values() if (moment := course.next()) is not None]
    if planned.wake_at is not None:
        moments.append((planned.wake_at - began).total_seconds())
    if not moments:
        return None
    upcoming = max(min(moments), at)
    for course in courses.values():
        while (moment := course.next()) is not None and moment <= upcoming:
            course.at += 1
    return upcoming


def _apply(world: World, planned: Plan, now: datetime, at: float, run: _Run) -> World:
    """What `store.apply` would write down, on paper."""
    phases, status = list(world.phases), world.status
    for action in planned.actions:
        match action:
            case Start():
                status = DeploymentStatus.RUNNING
            case OpenPhase(number):
                phases[number] = replace(phases[number], state=PhaseState.OPEN, opened_at=now)
                run.opened[number] = at
            case EndPhase(number):
                phases[number] = replace(phases[number], state=PhaseState.THROUGH, finished_at=now)
                run.through[number] = at
            case Pause() | Stop():
                status = DeploymentStatus.PAUSED if isinstance(action, Pause) else DeploymentStatus.FAILED
                run.stopped = (at, max(run.opened, default=0))
            case Finish():
                status = DeploymentStatus.COMPLETE
                run.whole = len(run.through) == len(phases)
    return replace(world, phases=tuple(phases), status=status, generation=world.generation + 1)


def _close(run: _Run, world: World, courses: dict[int, _Course]) -> None:
    tallies = [world.phases[number].tally for number in courses]
    run.failed = sum(tally.failures for tally in tallies)
    run.under_way = sum(tally.in_flight for tally in tallies)
    run.offered = sum(tally.decided for tally in tallies) + run.under_way
    run.ends_per_s = max((course.ends_per_s for course in courses.values()), default=0.0)


def _busiest(ends: Sequence[float], each: float, most: float) -> float:
    """Updates ending per second in the busiest eighth of those drawn, each of which stands for `each`."""
    count = max(1, len(ends) // 8)
    shortest = min((ends[n + count] - ends[n] for n in range(len(ends) - count)), default=1.0)
    return min(most, count * each / max(shortest, 1.0))


# --- a phase's devices --------------------------------------------------------------------------------------


def _course(
    phase: Phase,
    opened: float,
    heard: Sequence[float],
    takes: Sequence[float],
    model: Model,
    rate: float,
    draw: Random,
    grain: Grain,
) -> _Course:
    size = phase.tally.size
    lost = min(size, _binomial(size, model.lost_share, draw))
    coming = size - lost
    if not coming:
        return _Course(size, opened, [], [], 1.0)
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
    return _Course(size, opened, sorted(ask for ask, _ in pairs), moments, coming / drawn, busiest)


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
