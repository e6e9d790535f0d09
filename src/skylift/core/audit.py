"""Judges a plan without having read the planner: `audit(world, plan, now) -> findings`.

An empty list lets the plan pass. Every rule is written from the promise to the operator, not from how
the planner works, so that a mistake in one is not a mistake in both.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Context, Decimal, localcontext
from fractions import Fraction

from skylift.core.lifecycle import DEPLOYMENT_MOVES, DeploymentStatus, PausedBy
from skylift.core.world import (
    EndPhase,
    FailureAction,
    FailureGate,
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

_LEADS_TO = {
    Start: DeploymentStatus.RUNNING,
    Pause: DeploymentStatus.PAUSED,
    Stop: DeploymentStatus.FAILED,
    Finish: DeploymentStatus.COMPLETE,
}


_EXACT = Context(prec=40, Emax=10**12, Emin=-(10**12))
_HAIR = Decimal("1e-9")  # closer to the limit than this, both answers are right


def audit(world: World, plan: Plan, now: datetime) -> list[str]:
    """What is wrong with this plan for this world; nothing wrong is an empty list."""
    return [
        finding
        for rule in (
            _generation,
            _status_moves,
            _breach_stops,
            _approval,
            _openings,
            _endings,
            _finish,
            _next_time,
        )
        for finding in rule(world, plan, now)
    ]


def _generation(world: World, plan: Plan, now: datetime) -> Iterator[str]:
    if plan.based_on != world.generation:
        yield f"based on generation {plan.based_on}, the world is at {world.generation}"


def _status_moves(world: World, plan: Plan, now: datetime) -> Iterator[str]:
    changes = [action for action in plan.actions if type(action) in _LEADS_TO]
    if len(changes) > 1:
        yield "changes the status more than once"
    for action in changes:
        move = (world.status, _LEADS_TO[type(action)])
        if move not in DEPLOYMENT_MOVES:
            yield f"no such move: {move[0]} -> {move[1]}"
        if isinstance(action, Start) and world.starts_at is not None and now < world.starts_at:
            yield "starts before its time"
    if plan.actions and world.status not in (DeploymentStatus.SCHEDULED, DeploymentStatus.RUNNING):
        yield f"acts on a deployment that is {world.status}"


def _breached(world: World) -> bool:
    """The glossary's failure rule, in fractions and from scratch."""
    limit = Fraction(repr(world.failure_rule.threshold_percent)) / 100  # 2.4 is 24/1000, as it was written
    for phase in world.phases:
        if phase.state is PhaseState.CLOSED:
            continue
        tally = phase.tally
        bad, judged = tally.failed + tally.rolled_back, tally.complete + tally.failed + tally.rolled_back
        everyone = tally.waiting + tally.in_flight + judged
        sample = world.failure_rule.min_devices
        needed = min(20, everyone) if sample is None else min(sample, everyone)
        by_rate = world.failure_rule.gate is FailureGate.THRESHOLD
        if by_rate and judged and judged >= needed and Fraction(bad, judged) > limit:
            return True
        if bad > limit * everyone:
            return True
    return False


def _unlikely(world: World) -> bool | None:
    """The statistical gate from scratch, as plain products in decimals; None: too close to say."""
    rule = world.failure_rule
    if rule.gate is not FailureGate.STATISTICAL:
        return False
    tallies = [phase.tally for phase in world.phases if phase.state is not PhaseState.CLOSED]
    judged = sum(t.complete + t.failed + t.rolled_back for t in tallies)
    everyone = sum(
        t.waiting
        + t.pending
        + t.downloading
        + t.installing
        + t.validating
        + t.complete
        + t.failed
        + t.rolled_back
        for t in (phase.tally for phase in world.phases)
    )
    if judged < max(1, min(5 if rule.min_devices is None else rule.min_devices, everyone)):
        return False
    bad = [t.failed + t.rolled_back for t in tallies]
    good = [t.complete + t.pending + t.downloading + t.installing + t.validating for t in tallies]
    with localcontext(_EXACT):
        expected = Decimal(repr(rule.expected_percent)) / 100
        each = sum((_times(b, g, expected) for b, g in zip(bad, good, strict=True)), Decimal(0))
        each += len(world.phases) - len(tallies)  # what has not opened says nothing: 1
        mean = (
            _times(sum(bad), sum(good), expected) / 2
            + each / (4 * len(world.phases))
            + _times(world.matched.updated, world.matched.control, Decimal("0.25")) / 4
        )
        over = mean * Decimal(repr(rule.false_alarm_rate))
        return None if abs(over - 1) < _HAIR else over > 1


def _times(bad: int, good: int, expected: Decimal) -> Decimal:
    """How many times likelier this is where a share of devices has a defect; the mean of seven shares."""
    total = Decimal(0)
    for share in map(Decimal, ("0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "0.9")):
        odds = (expected + (1 - expected) * share) / expected
        total += odds**bad * (1 - share) ** good
    return total / 7


def _must_stop(world: World) -> bool | None:
    return True if _breached(world) else _unlikely(world)


def _breach_stops(world: World, plan: Plan, now: datetime) -> Iterator[str]:
    stops = [action for action in plan.actions if isinstance(action, Pause | Stop)]
    must = _must_stop(world) if world.status is DeploymentStatus.RUNNING else False
    if must is None:
        return
    if must:
        if not stops:
            yield "it is above its failure threshold, or its gate has a verdict, and the plan does not stop"
        if len(plan.actions) > len(stops):
            yield "does something else beside stopping"
        if any(isinstance(a, Stop) and world.failure_rule.action is FailureAction.PAUSE for a in stops):
            yield "stops for good where a pause was asked for"
    elif any(isinstance(a, Pause) and a.by is PausedBy.FAILURE_THRESHOLD for a in stops):
        yield "pauses for a breach that is not there"


def _approval(world: World, plan: Plan, now: datetime) -> Iterator[str]:
    """Nobody alone sends a release to more devices than one person may."""
    counted = (
        "waiting",
        "pending",
        "downloading",
        "installing",
        "validating",
        "complete",
        "failed",
        "rolled_back",
    )
    everyone = sum(getattr(phase.tally, name) for phase in world.phases for name in counted)
    alone = world.approval_above is not None and everyone > world.approval_above
    if alone and any(isinstance(action, Start | OpenPhase) for action in plan.actions):
        yield "goes on without the second person it needs"
    if not alone and any(isinstance(a, Pause) and a.by is PausedBy.APPROVAL for a in plan.actions):
        yield "waits for a second person where one is enough"


def _openings(world: World, plan: Plan, now: datetime) -> Iterator[str]:
    opened = [action.number for action in plan.actions if isinstance(action, OpenPhase)]
    if not opened:
        return
    if world.status is not DeploymentStatus.RUNNING:
        yield f"opens a phase of a deployment that is {world.status}"
    first = sum(phase.state is not PhaseState.CLOSED for phase in world.phases)
    if opened != list(range(first, first + len(opened))) or first + len(opened) > len(world.phases):
        yield f"opens {opened}, next in line is {first}"
        return
    if sum(bool(world.phases[number].tally.size) for number in opened) > 1:
        yield "opens two phases with devices in them at once"
    if any(world.phases[n].gate is Gate.MANUAL for n in opened[1:]):
        yield "passes a manual gate behind an empty phase"
    if first:
        yield from _may_follow(world.phases[first - 1], world.phases[first], now)


def _may_follow(before: Phase, phase: Phase, now: datetime) -> Iterator[str]:
    if before.promoted:
        return
    if before.state is not PhaseState.THROUGH or before.finished_at is None:
        yield f"opens {phase.name} before {before.name} has ended"
    elif phase.gate is Gate.MANUAL:
        yield f"opens {phase.name} without the operator its gate asks for"
    elif now < before.finished_at + before.soak:
        yield f"opens {phase.name} before {before.name} has soaked"


def _endings(world: World, plan: Plan, now: datetime) -> Iterator[str]:
    opened = {action.number for action in plan.actions if isinstance(action, OpenPhase)}
    for action in plan.actions:
        if not isinstance(action, EndPhase):
            continue
        phase = world.phases[action.number]
        if phase.state is not PhaseState.OPEN and phase.number not in opened:
            yield f"ends {phase.name}, which is {phase.state}"
        if phase.promoted or not (phase.tally.waiting or phase.tally.in_flight):
            continue
        if phase.tally.in_flight:
            yield f"ends {phase.name} with devices on their way"
        if not phase.tally.decided:
            yield f"ends {phase.name} without one device that proved anything"
        if phase.opened_at is None or now < phase.opened_at + phase.wait:
            yield f"ends {phase.name} before its devices had their time to ask"


def _finish(world: World, plan: Plan, now: datetime) -> Iterator[str]:
    if not any(isinstance(action, Finish) for action in plan.actions):
        return
    if any(phase.state is PhaseState.CLOSED for phase in world.phases):
        yield "finishes with closed phases"
    if any(phase.tally.in_flight for phase in world.phases):
        yield "finishes with devices on their way"
    if any(phase.tally.waiting for phase in world.phases) and (world.ends_at is None or now < world.ends_at):
        yield "finishes before its lifetime is over, with devices still to ask"


def _next_time(world: World, plan: Plan, now: datetime) -> Iterator[str]:
    if plan.wake_at is not None and plan.wake_at <= now:
        yield "wants to be woken in the past"
    if not plan.notes:
        yield "says nothing about what it waits for"
