"""The planner's promises as properties over generated worlds, then the few stories worth telling."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skylift.core.audit import audit
from skylift.core.bucket import SPAN, device_hash, place, upto
from skylift.core.failure import breach
from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import DeploymentStatus, PausedBy
from skylift.core.offer import Asking, Live, Offer, Step, decide
from skylift.core.planner import plan
from skylift.core.world import (
    EndPhase,
    FailureAction,
    FailureRule,
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

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
counts = st.integers(0, 40)
tallies = st.builds(
    Tally,
    waiting=counts,
    pending=st.integers(0, 3),
    downloading=st.integers(0, 3),
    installing=st.integers(0, 3),
    validating=st.integers(0, 3),
    complete=counts,
    failed=st.integers(0, 8),
    rolled_back=st.integers(0, 8),
    skipped=st.integers(0, 3),
    canceled=st.integers(0, 3),
)
calm = st.builds(Tally, waiting=counts, pending=st.integers(0, 2), complete=counts)
minutes = st.integers(0, 120).map(lambda m: timedelta(minutes=m))
rules = st.builds(
    FailureRule,
    threshold_percent=st.sampled_from([0.0, 5.0, 10.0, 33.3, 50.0, 100.0]),
    min_devices=st.none() | st.integers(1, 30),
    action=st.sampled_from(FailureAction),
)


@st.composite
def worlds(draw: st.DrawFn, of: st.SearchStrategy[Tally] = tallies) -> World:
    opened = draw(st.integers(0, 4))
    phases = []
    for number in range(draw(st.integers(max(1, opened), 5))):
        state = PhaseState.CLOSED
        if number < opened:
            last = number == opened - 1
            state = (
                draw(st.sampled_from([PhaseState.OPEN, PhaseState.THROUGH])) if last else PhaseState.THROUGH
            )
        tally = draw(of) if number < opened else Tally(waiting=draw(counts))
        opened_at = NOW - timedelta(minutes=draw(st.integers(0, 300))) if number < opened else None
        phases.append(
            Phase(
                number=number,
                name=f"phase {number + 1}",
                tally=tally,
                state=state,
                soak=draw(minutes),
                wait=draw(minutes),
                gate=draw(st.sampled_from(Gate)),
                promoted=draw(st.booleans()) and number < opened,
                opened_at=opened_at,
                finished_at=draw(
                    st.datetimes(NOW.replace(tzinfo=None) - timedelta(hours=5), NOW.replace(tzinfo=None))
                ).replace(tzinfo=UTC)
                if state is PhaseState.THROUGH
                else None,
            )
        )
    return World(
        deployment="dep_x",
        version="1.1.0",
        generation=draw(st.integers(1, 9)),
        status=draw(st.sampled_from(DeploymentStatus)),
        phases=tuple(phases),
        failure_rule=draw(rules),
        starts_at=draw(st.none() | st.just(NOW + timedelta(hours=1)) | st.just(NOW - timedelta(hours=1))),
        ends_at=NOW + draw(st.sampled_from([timedelta(days=7), timedelta(0), timedelta(days=-1)])),
        approval_above=draw(st.none() | st.none() | counts),
    )


@settings(max_examples=250)
@given(worlds())
def test_the_auditor_finds_nothing_wrong_with_any_plan(world: World) -> None:
    assert audit(world, plan(world, NOW), NOW) == []


@settings(max_examples=200)
@given(worlds())
def test_a_breach_always_pauses_or_stops(world: World) -> None:
    world = replace(world, status=DeploymentStatus.RUNNING)
    breached = [p for p in world.phases if p.state is not PhaseState.CLOSED and breach(p, world.failure_rule)]
    assume(breached)
    actions = plan(world, NOW).actions
    assert len(actions) == 1
    assert isinstance(actions[0], Pause | Stop)


@settings(max_examples=200)
@given(worlds())
def test_a_plan_that_does_nothing_says_what_it_waits_for_and_until_when(world: World) -> None:
    decided = plan(world, NOW)
    assert decided.notes
    assert all(decided.notes)
    if not decided.actions and world.status is DeploymentStatus.RUNNING:
        in_flight = sum(phase.tally.in_flight for phase in world.phases)
        assert decided.wake_at is not None or in_flight  # devices in flight end by their own deadlines


@settings(max_examples=150)
@given(worlds(), st.sampled_from(DeploymentStatus))
def test_only_a_scheduled_or_running_deployment_is_ever_acted_on(
    world: World, status: DeploymentStatus
) -> None:
    assume(status not in (DeploymentStatus.RUNNING, DeploymentStatus.SCHEDULED))
    assert plan(replace(world, status=status), NOW).actions == ()


def carry_out(world: World, decided: Plan, now: datetime) -> World:
    """The effect of a plan on a world, as the store's apply has it."""
    phases = list(world.phases)
    status = world.status
    for action in decided.actions:
        match action:
            case Start():
                status = DeploymentStatus.RUNNING
            case OpenPhase(number):
                phases[number] = replace(phases[number], state=PhaseState.OPEN, opened_at=now)
            case EndPhase(number):
                phases[number] = replace(phases[number], state=PhaseState.THROUGH, finished_at=now)
            case Pause():
                status = DeploymentStatus.PAUSED
            case Stop():
                status = DeploymentStatus.FAILED
            case Finish():
                status = DeploymentStatus.COMPLETE
    bump = 1 if decided.actions else 0
    return replace(world, phases=tuple(phases), status=status, generation=world.generation + bump)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[World, list[int], list[int]]:
    """A fresh deployment, how many devices of each phase ever ask, and how many of those fail."""
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=5))
    asking = [draw(st.integers(0, size)) for size in sizes]
    failing = [draw(st.integers(0, n)) for n in asking]
    phases = tuple(
        Phase(i, f"phase {i + 1}", Tally(waiting=size), soak=draw(minutes), wait=draw(minutes))
        for i, size in enumerate(sizes)
    )
    world = World(
        "dep_x",
        "1.1.0",
        1,
        DeploymentStatus.SCHEDULED,
        phases,
        draw(rules),
        starts_at=NOW + timedelta(minutes=draw(st.integers(0, 100))),
        ends_at=NOW + timedelta(days=7),
    )
    return world, asking, failing


@settings(max_examples=250)
@given(fleets())
def test_every_deployment_ends(fleet: tuple[World, list[int], list[int]]) -> None:
    world, asking, failing = fleet
    now = NOW
    for _ in range(200):
        decided = plan(world, now)
        assert audit(world, decided, now) == []
        world = carry_out(world, decided, now)
        if world.status not in (DeploymentStatus.SCHEDULED, DeploymentStatus.RUNNING):
            break
        if decided.actions:
            continue
        moved = False
        for phase in world.phases:
            come = min(asking[phase.number], phase.tally.waiting)
            if phase.state is PhaseState.CLOSED or not come:
                continue
            bad = failing[phase.number]
            tally = replace(phase.tally, waiting=phase.tally.waiting - come, complete=come - bad, failed=bad)
            phases = list(world.phases)
            phases[phase.number] = replace(phase, tally=tally)
            world = replace(world, phases=tuple(phases))
            asking[phase.number] = 0
            moved = True
        if not moved:
            assert decided.wake_at is not None, decided.notes
            now = decided.wake_at
    assert world.status in (
        DeploymentStatus.PAUSED,
        DeploymentStatus.FAILED,
        DeploymentStatus.COMPLETE,
    )


@settings(max_examples=250)
@given(fleets())
def test_a_later_phase_never_opens_while_an_earlier_one_has_proved_nothing(
    fleet: tuple[World, list[int], list[int]],
) -> None:
    world, _, _ = fleet
    now = NOW + timedelta(minutes=100)
    for _ in range(50):  # nobody ever asks
        decided = plan(world, now)
        world = carry_out(world, decided, now)
        now = decided.wake_at or now
    open_with_devices = [p for p in world.phases if p.tally.size and p.state is not PhaseState.CLOSED]
    assert len(open_with_devices) <= 1


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[World, Live, list[int]]:
    """A fresh deployment in up to five phases, as the planner sees it and as offers do, and its devices."""
    ends = sorted(draw(st.sets(st.integers(1, 99), max_size=4)) | {100})
    salt = draw(st.integers(0, SPAN - 1))
    devices = [device_hash(f"d{n}") for n in range(draw(st.integers(1, 60)))]
    steps = tuple(Step(n, upto(end), PhaseState.CLOSED) for n, end in enumerate(ends))
    live = Live(
        DeploymentId("dep_x"),
        "1.1.0",
        "image",
        DeploymentStatus.SCHEDULED,
        salt,
        frozenset({"sensor"}),
        steps,
    )
    phases = tuple(
        Phase(n, f"phase {n + 1}", Tally(waiting=len(held(devices, live, n))), soak=draw(minutes))
        for n in range(len(ends))
    )
    status, rule = DeploymentStatus.SCHEDULED, draw(rules)
    world = World("dep_x", "1.1.0", 1, status, phases, rule, starts_at=NOW, ends_at=NOW + timedelta(days=7))
    return world, live, devices


def held(devices: list[int], live: Live, phase: int) -> list[int]:
    """The devices whose places are this phase's."""
    low = live.steps[phase - 1].upto if phase else -1
    return [h for h in devices if low < place(h, live.salt) <= live.steps[phase].upto]


@settings(max_examples=60)
@given(rollouts(), st.randoms(use_true_random=False))
def test_never_more_devices_are_offered_than_the_phases_allow(
    rollout: tuple[World, Live, list[int]], draw: Random
) -> None:
    """Whoever asks, how often and in which order; whatever becomes of it."""
    world, live, devices = rollout
    now, offered = NOW, dict[int, int]()
    for _ in range(40):
        decided = plan(world, now)
        world = carry_out(world, decided, now)
        steps = tuple(replace(s, state=world.phases[s.number].state) for s in live.steps)
        live = replace(live, status=world.status, steps=steps)
        for h in draw.choices(devices, k=20):
            asking = Asking(h, "sensor", "1.0.0", None)
            answer = decide(asking, [live], None, lambda _: True, lambda _, h=h: h in offered, now)
            if isinstance(answer, Offer):
                assert h not in offered, "offered twice"
                offered[h] = answer.phase
        for phase in world.phases:
            mine = [h for h, number in offered.items() if number == phase.number]
            allowed = [] if phase.state is PhaseState.CLOSED else held(devices, live, phase.number)
            assert set(mine) <= set(allowed)
        world = replace(world, phases=tuple(counted(p, offered, draw) for p in world.phases))
        now = decided.wake_at or now + timedelta(minutes=30)
    if world.status is DeploymentStatus.COMPLETE:
        assert offered


def counted(phase: Phase, offered: dict[int, int], draw: Random) -> Phase:
    """The phase with every offer in its tally, decided one way or another."""
    tally = phase.tally
    new = sum(number == phase.number for number in offered.values()) - tally.complete - tally.failed
    bad = sum(draw.random() < 0.1 for _ in range(new))
    return replace(
        phase,
        tally=replace(
            tally, waiting=tally.waiting - new, complete=tally.complete + new - bad, failed=tally.failed + bad
        ),
    )


# --- stories ----------------------------------------------------------------------------------------


def running(*tallies: Tally, rule: FailureRule | None = None, **first: object) -> World:
    """A running deployment whose first phase is open."""
    phases = tuple(Phase(i, f"phase {i + 1}", tally) for i, tally in enumerate(tallies))
    opened = replace(phases[0], state=PhaseState.OPEN, opened_at=NOW, **first)
    return World(
        "dep_x",
        "1.1.0",
        3,
        DeploymentStatus.RUNNING,
        (opened, *phases[1:]),
        rule or FailureRule(),
        ends_at=NOW + timedelta(days=7),
    )


def scheduled(devices: int) -> World:
    """A deployment about to start."""
    phase = Phase(0, "phase 1", Tally(waiting=devices))
    return World("dep_x", "1.1.0", 1, DeploymentStatus.SCHEDULED, (phase,))


def test_to_more_devices_than_one_person_may_decide_on_it_waits_before_it_starts() -> None:
    assert plan(replace(scheduled(5), approval_above=5), NOW).actions == (Start(),)
    (action,) = plan(replace(scheduled(6), approval_above=5), NOW).actions
    assert action == Pause(
        PausedBy.APPROVAL, "6 devices are more than 5: waits for a second person's approval"
    )
    later = replace(scheduled(6), approval_above=5, starts_at=NOW + timedelta(days=1))
    assert plan(later, NOW).actions == (action,)  # asked for now, not when it is to start


def test_a_deployment_that_grows_beyond_that_on_its_way_waits_too_and_a_breach_is_said_first() -> None:
    world = replace(running(Tally(complete=3), Tally(waiting=4)), approval_above=6)
    (action,) = plan(world, NOW).actions
    assert isinstance(action, Pause)
    assert action.by is PausedBy.APPROVAL
    (action,) = plan(replace(running(Tally(failed=30)), approval_above=6), NOW).actions
    assert isinstance(action, Pause)
    assert action.by is PausedBy.FAILURE_THRESHOLD


def test_exactly_at_the_limit_goes_on() -> None:
    world = running(Tally(waiting=80, complete=18, failed=2), Tally(waiting=100))
    assert plan(world, NOW).actions == ()


def test_one_bad_device_too_many_pauses() -> None:
    world = running(Tally(waiting=79, complete=18, failed=1, rolled_back=2, top_reason="boot_failed"))
    (action,) = plan(world, NOW).actions
    assert action == Pause(
        PausedBy.FAILURE_THRESHOLD,
        "phase 1: 3 of 21 decided devices failed or rolled back (14.3 %), above the threshold of 10 % "
        "(phase of 100); top reason: boot_failed",
    )


def test_a_small_sample_waits_for_more_devices() -> None:
    world = running(Tally(waiting=96, complete=2, failed=2))
    assert plan(world, NOW).actions == ()


def test_a_certain_breach_stops_at_once_in_a_tiny_canary() -> None:
    world = running(Tally(waiting=2, rolled_back=1))
    (action,) = plan(world, NOW).actions
    assert isinstance(action, Pause)


def test_a_threshold_of_zero_stops_at_the_first_failure() -> None:
    world = running(Tally(waiting=999, failed=1), rule=FailureRule(threshold_percent=0))
    (action,) = plan(world, NOW).actions
    assert isinstance(action, Pause)


def test_a_threshold_of_hundred_never_stops() -> None:
    world = running(Tally(failed=10), rule=FailureRule(threshold_percent=100))
    (action,) = plan(world, NOW).actions
    assert action == EndPhase(0)


def test_devices_that_never_ask_do_not_hold_the_next_phase_for_ever() -> None:
    world = running(Tally(waiting=3, complete=7), Tally(waiting=10))
    assert plan(world, NOW).wake_at == NOW + timedelta(minutes=30)
    later = NOW + timedelta(minutes=30)
    assert plan(world, later).actions == (EndPhase(0),)


def test_without_one_proof_nobody_else_is_touched() -> None:
    world = running(Tally(waiting=10), Tally(waiting=90))
    assert plan(world, NOW + timedelta(days=6)).actions == ()
    (action,) = plan(world, NOW + timedelta(days=7)).actions
    assert isinstance(action, Stop)


def test_the_soak_is_kept() -> None:
    world = running(Tally(complete=10), Tally(waiting=90))
    ended = carry_out(world, plan(world, NOW), NOW)
    waits = plan(ended, NOW)
    assert waits.actions == ()
    assert waits.wake_at == NOW + timedelta(minutes=60)
    assert waits.notes == ("phase 1: through; soaking until 13:00:00 UTC, then phase 2 opens",)
    assert plan(ended, NOW + timedelta(minutes=60)).actions == (OpenPhase(1),)


def test_a_manual_gate_waits_for_its_operator() -> None:
    world = running(Tally(complete=10), Tally(waiting=90))
    world = replace(world, phases=(world.phases[0], replace(world.phases[1], gate=Gate.MANUAL)))
    ended = carry_out(world, plan(world, NOW), NOW)
    assert plan(ended, NOW + timedelta(days=1)).actions == ()
    promoted = replace(ended, phases=(replace(ended.phases[0], promoted=True), ended.phases[1]))
    assert plan(promoted, NOW).actions == (OpenPhase(1),)


def test_a_late_fallback_in_a_finished_phase_stops_the_deployment() -> None:
    world = running(Tally(complete=8, rolled_back=2), Tally(waiting=80, complete=10))
    phases = (
        replace(world.phases[0], state=PhaseState.THROUGH, finished_at=NOW),
        replace(world.phases[1], state=PhaseState.OPEN, opened_at=NOW),
    )
    (action,) = plan(replace(world, phases=phases), NOW).actions
    assert isinstance(action, Pause)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (FailureAction.PAUSE, Pause),
        (FailureAction.ABORT, Stop),
        (FailureAction.ROLLBACK, Stop),
    ],
)
def test_the_failure_action_is_the_operators_choice(action: FailureAction, expected: type) -> None:
    world = running(Tally(failed=3), rule=FailureRule(action=action))
    (planned,) = plan(world, NOW).actions
    assert isinstance(planned, expected)
    if isinstance(planned, Stop):
        assert planned.roll_back is (action is FailureAction.ROLLBACK)


# --- the auditor catches what a broken planner would do -----------------------------------------------


def proposal(world: World, *actions: object) -> Plan:
    return Plan(world.generation, actions, ("because",), None)


@pytest.mark.parametrize(
    ("world", "actions"),
    [
        (running(Tally(waiting=5), Tally(waiting=5)), [OpenPhase(1)]),
        (running(Tally(failed=5), Tally(waiting=5)), [EndPhase(0)]),
        (running(Tally(failed=5), Tally(waiting=5)), []),
        (running(Tally(waiting=5), Tally(waiting=5)), [Finish("done")]),
        (running(Tally(pending=5)), [Finish("done")]),
        (running(Tally(waiting=5, pending=1)), [EndPhase(0)]),
        (running(Tally(waiting=5)), [EndPhase(0)]),
        (running(Tally(complete=5)), [Pause(PausedBy.FAILURE_THRESHOLD, "no")]),
        (running(Tally(complete=5)), [Start()]),
        (running(Tally(complete=5)), [Pause(PausedBy.APPROVAL, "no")]),
        (replace(scheduled(6), approval_above=5), [Start()]),
        (replace(running(Tally(complete=5)), status=DeploymentStatus.PAUSED), [EndPhase(0)]),
    ],
)
def test_the_auditor_refuses_a_wrong_plan(world: World, actions: list[object]) -> None:
    assert audit(world, proposal(world, *actions), NOW)


@given(worlds(), st.integers(1, 5))
def test_a_plan_from_a_stale_generation_never_applies(world: World, changes: int) -> None:
    """The auditor refuses it; that the store does is shown in rollouts/test_verbs."""
    since = replace(world, generation=world.generation + changes)
    assert "generation" in " ".join(audit(since, plan(world, NOW), NOW))


def test_an_empty_phase_ends_at_once_but_never_carries_anyone_past_a_manual_gate() -> None:
    world = running(Tally(complete=3), Tally(), Tally(waiting=9))
    phases = (
        replace(world.phases[0], state=PhaseState.THROUGH, finished_at=NOW - timedelta(hours=2)),
        world.phases[1],
        world.phases[2],
    )
    assert plan(replace(world, phases=phases), NOW).actions == (OpenPhase(1), EndPhase(1), OpenPhase(2))
    gated = (*phases[:2], replace(phases[2], gate=Gate.MANUAL))
    assert plan(replace(world, phases=gated), NOW).actions == (OpenPhase(1), EndPhase(1))


@pytest.mark.parametrize(
    ("percent", "size", "failed"), [(2.4, 125, 3), (1.2, 250, 3), (2.8, 250, 7), (0.3, 1000, 3)]
)
def test_a_threshold_is_the_number_that_was_written_as_a_decimal(
    percent: float, size: int, failed: int
) -> None:
    """Exactly at the limit goes on, also where the float is a hair beside it; planner and auditor agree."""
    tally = Tally(complete=size - failed, failed=failed)
    phase = Phase(0, "phase 1", tally, state=PhaseState.OPEN, opened_at=NOW)
    world = World(
        deployment="dep_x",
        version="1.1.0",
        generation=1,
        status=DeploymentStatus.RUNNING,
        phases=(phase,),
        failure_rule=FailureRule(percent),
    )
    decided = plan(world, NOW)
    assert not any(isinstance(action, Pause | Stop) for action in decided.actions)
    assert audit(world, decided, NOW) == []
    worse = replace(world, phases=(replace(phase, tally=replace(tally, failed=failed + 1)),))
    assert isinstance(plan(worse, NOW).actions[0], Pause)
    assert audit(worse, plan(worse, NOW), NOW) == []


def test_the_end_of_its_lifetime_waits_for_devices_on_their_way_in_any_phase() -> None:
    """A late joiner or a retry is in flight in a phase that was through long ago."""
    through = Phase(
        0,
        "phase 1",
        Tally(validating=1, complete=3),
        state=PhaseState.THROUGH,
        opened_at=NOW,
        finished_at=NOW,
    )
    last = Phase(1, "phase 2", Tally(waiting=2, complete=1), state=PhaseState.OPEN, opened_at=NOW)
    world = World(
        deployment="dep_x",
        version="1.1.0",
        generation=1,
        status=DeploymentStatus.RUNNING,
        phases=(through, last),
        ends_at=NOW + timedelta(minutes=10),
    )
    later = NOW + timedelta(minutes=20)
    assert plan(world, later).actions == ()
    assert audit(world, plan(world, later), later) == []
    landed = replace(through, tally=Tally(complete=4))
    assert isinstance(plan(replace(world, phases=(landed, last)), later).actions[0], Finish)
