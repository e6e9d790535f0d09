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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from skylift.core.audit import audit
from skylift.core.course import Course, Grain, Model, course_of, drawn_again
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
    World,
)

FEW = 20  # phases; of more of them each is looked at less often
WORK = 9_000  # phases judged in one rehearsal: about a second
MOST_RUNS, LEAST_RUNS = 40, 2
MOST_STEPS = 20_000  # of one run: far more than its phases can have


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
    run, courses, at = _Run({}, {}), dict[int, Course](), 0.0
    heard, takes = drawn_again(model.heard_s, draw), drawn_again(model.run_s, draw)
    for _ in range(MOST_STEPS):
        now = began + timedelta(seconds=at)
        world = replace(world, phases=tuple(_seen(phase, courses, at, model) for phase in world.phases))
        planned = plan(world, now)
        if findings := audit(world, planned, now):
            raise AssertionError(f"plan of a rehearsal refused by the auditor: {'; '.join(findings)}")
        if planned.actions:
            world = _apply(world, planned, now, at, run)
            for number in [n for n in run.opened if n not in courses]:
                courses[number] = course_of(world.phases[number], at, heard, takes, model, rate, draw, grain)
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


def _seen(phase: Phase, courses: dict[int, Course], at: float, model: Model) -> Phase:
    course = courses.get(phase.number)
    if course is None:
        return phase
    return replace(phase, tally=course.tally(at, model.max_parallel))


def _next(courses: dict[int, Course], planned: Plan, began: datetime, at: float) -> float | None:
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


def _close(run: _Run, world: World, courses: dict[int, Course]) -> None:
    tallies = [world.phases[number].tally for number in courses]
    run.failed = sum(tally.failures for tally in tallies)
    run.under_way = sum(tally.in_flight for tally in tallies)
    run.offered = sum(tally.decided for tally in tallies) + run.under_way
    run.ends_per_s = max((course.ends_per_s for course in courses.values()), default=0.0)
