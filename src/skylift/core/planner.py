"""What a deployment does next: `plan(world, now) -> Plan`.

The planner sees tallies per phase and the time, and answers with actions, with notes that say what it
waits for, and with the moment to look again. It decides; `store.apply` acts, and only if the generation
is still the one the plan was based on.

The rules, in order:

1. A breach in any phase that ever opened, or the statistical gate's verdict over all of them, stops the
   deployment before anything else happens.
2. A deployment to more devices than one person may decide on waits, paused, for a second: before it starts,
   and again where it grows beyond that on the way.
3. One phase at a time is *current*: the last one opened. It ends when every device is decided, or when
   its time to wait is over, nobody is in flight and at least one device has proved the release.
4. The next phase opens when the current one has ended and soaked (or was promoted). A manual gate opens
   only by promotion.
5. After the last phase, the deployment finishes when nobody is waiting or in flight; devices that never
   ask are waited for until `ends_at`.
6. At `ends_at` a running deployment that still has phases to open has failed: nobody proved the release
   in time, or nobody promoted it. Every running deployment therefore ends.
7. Whatever happens, something is returned that has a next time, or that only an event can change.
"""

from datetime import datetime

from skylift.core.gate import note as gate_note
from skylift.core.gate import stops
from skylift.core.lifecycle import DeploymentStatus, PausedBy
from skylift.core.world import (
    Action,
    EndPhase,
    FailureAction,
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


def plan(world: World, now: datetime) -> Plan:
    """The next step of this deployment at `now`."""
    match world.status:
        case DeploymentStatus.SCHEDULED:
            return _start(world, now)
        case DeploymentStatus.RUNNING:
            return _run(world, now)
        case DeploymentStatus.PAUSED:
            return _wait(world, "paused: waits for an operator")
        case DeploymentStatus.DRAFT:
            return _wait(world, "draft: waits to be scheduled")
        case _:
            return _wait(world, f"{world.status}: nothing left to do")


def _start(world: World, now: datetime) -> Plan:
    if sentence := _needs_second(world):
        return _act(world, sentence, Pause(PausedBy.APPROVAL, sentence))
    if world.starts_at is not None and now < world.starts_at:
        note = f"scheduled: starts at {world.starts_at:%Y-%m-%d %H:%M} UTC"
        return Plan(world.generation, (), (note,), world.starts_at)
    return _act(world, "starting", Start())


def _run(world: World, now: datetime) -> Plan:
    if found := stops(world):
        return _act(world, found.sentence, _breach_action(world, found.sentence))

    if sentence := _needs_second(world):
        return _act(world, sentence, Pause(PausedBy.APPROVAL, sentence))
    current = _current(world)
    if current is None:
        return _open_next(world, -1)
    if current.state is PhaseState.OPEN:
        return _watch(world, current, now)
    return _after(world, current, now)


def _needs_second(world: World) -> str:
    """The sentence that asks for a second person; empty where one is enough."""
    if world.approval_above is None or world.size <= world.approval_above:
        return ""
    return f"{world.size} devices are more than {world.approval_above}: waits for a second person's approval"


def _breach_action(world: World, sentence: str) -> Action:
    if world.failure_rule.action is FailureAction.PAUSE:
        return Pause(PausedBy.FAILURE_THRESHOLD, sentence)
    return Stop(sentence, roll_back=world.failure_rule.action is FailureAction.ROLLBACK)


def _current(world: World) -> Phase | None:
    """The last phase that opened, or None at the very beginning."""
    opened = [phase for phase in world.phases if phase.state is not PhaseState.CLOSED]
    return opened[-1] if opened else None


def _watch(world: World, phase: Phase, now: datetime) -> Plan:
    """The current phase is open: has it ended?"""
    tally = phase.tally
    if not tally.waiting and not tally.in_flight:
        return _act(world, f"{phase.name}: every device is decided", EndPhase(phase.number))

    waits_until = (phase.opened_at or now) + phase.wait
    if not tally.in_flight and tally.decided and now >= waits_until:
        note = f"{phase.name}: {tally.waiting} devices did not ask in their time; going on without them"
        return _act(world, note, EndPhase(phase.number))

    if phase.promoted and not _last(world, phase):
        return _act(world, f"{phase.name}: promoted by an operator", EndPhase(phase.number))

    if _lifetime_over(world, now) and not _in_flight(world):
        return _expire(world, phase)
    notes = [f"{phase.name}: {_waiting_for(phase)}", gate_note(world)]
    later = [at for at in (waits_until, world.ends_at) if at is not None and at > now]
    return Plan(world.generation, (), tuple(filter(None, notes)), min(later, default=None))


def _after(world: World, phase: Phase, now: datetime) -> Plan:
    """The current phase is through: open the next one, or finish."""
    if _last(world, phase):
        return _last_mile(world, now)
    if phase.promoted:
        return _open_next(world, phase.number)
    following = world.phases[phase.number + 1]
    if following.gate is Gate.MANUAL:
        if _lifetime_over(world, now) and not _in_flight(world):
            return _expire(world, phase)
        note = f"{phase.name}: through; {following.name} waits for an operator to promote it"
        return _until_lifetime(world, now, note)
    opens_at = (phase.finished_at or now) + phase.soak
    if now < opens_at:
        note = f"{phase.name}: through; soaking until {opens_at:%H:%M:%S} UTC, then {following.name} opens"
        return Plan(world.generation, (), (note,), opens_at)
    return _open_next(world, phase.number)


def _last_mile(world: World, now: datetime) -> Plan:
    """Every phase is through; stragglers may still come."""
    waiting = sum(phase.tally.waiting for phase in world.phases)
    in_flight = _in_flight(world)
    if (not waiting or _lifetime_over(world, now)) and not in_flight:
        return _finish(world)
    note = f"every phase is through; {waiting} devices have not asked yet, {in_flight} are on their way"
    return _until_lifetime(world, now, note)


def _finish(world: World) -> Plan:
    complete = sum(phase.tally.complete for phase in world.phases)
    failures = sum(phase.tally.failures for phase in world.phases)
    missed = sum(phase.tally.waiting for phase in world.phases)
    sentence = f"{complete} devices complete, {failures} failed or rolled back"
    if missed:
        sentence += f", {missed} never asked"
    return _act(world, sentence, Finish(sentence))


def _expire(world: World, phase: Phase) -> Plan:
    """The lifetime is over with this phase current and nobody in flight, in no phase."""
    if _last(world, phase):
        return _finish(world)
    sentence = f"{phase.name}: the deployment's lifetime is over and later phases never opened"
    return _act(world, sentence, Stop(sentence, roll_back=False))


def _open_next(world: World, number: int) -> Plan:
    """Open the first phase after `number` that holds anybody; the empty ones on the way end at once."""
    actions: list[Action] = []
    for phase in world.phases[number + 1 :]:
        if actions and phase.gate is Gate.MANUAL:
            break
        actions.append(OpenPhase(phase.number))
        if phase.tally.size:
            return Plan(world.generation, tuple(actions), (f"{phase.name}: opening",), None)
        actions.append(EndPhase(phase.number))
    return Plan(world.generation, tuple(actions), ("every phase is open",), None)


def _last(world: World, phase: Phase) -> bool:
    return phase.number + 1 == len(world.phases)


def _in_flight(world: World) -> int:
    """Devices on their way in any phase: late joiners and retries are in flight in phases long through."""
    return sum(phase.tally.in_flight for phase in world.phases)


def _lifetime_over(world: World, now: datetime) -> bool:
    return world.ends_at is not None and now >= world.ends_at


def _waiting_for(phase: Phase) -> str:
    tally = phase.tally
    parts = []
    if tally.waiting:
        parts.append(f"{tally.waiting} devices to ask")
    if tally.in_flight:
        parts.append(f"{tally.in_flight} on their way")
    return "waiting for " + " and ".join(parts)


def _act(world: World, note: str, action: Action) -> Plan:
    return Plan(world.generation, (action,), (note,), None)


def _wait(world: World, note: str) -> Plan:
    return Plan(world.generation, (), (note,), None)


def _until_lifetime(world: World, now: datetime, note: str) -> Plan:
    later = world.ends_at if world.ends_at is not None and world.ends_at > now else None
    return Plan(world.generation, (), (note,), later)
