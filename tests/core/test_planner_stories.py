"""The planner's few stories worth telling, and the auditor on what a broken planner would do."""

from dataclasses import replace
from datetime import timedelta

import pytest

from skylift.core.audit import audit
from skylift.core.lifecycle import DeploymentStatus, PausedBy
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

from .conftest import NOW, carry_out


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
