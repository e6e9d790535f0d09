"""A rehearsal runs the real planner: what it says follows from the plan, the model, and nothing else."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylift.core.course import Model
from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import DeploymentStatus
from skylift.core.rehearsal import Rehearsal, rehearse
from skylift.core.world import FailureAction, FailureGate, FailureRule, Gate, Phase, Tally, World

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
POLLS = tuple(300 * (n + 0.5) / 100 for n in range(100))
MODEL = Model(heard_s=POLLS, run_s=(60.0, 90.0, 120.0, 240.0))


def world(*sizes: int, soak: float = 60, wait: float = 30, threshold: float = 10) -> World:
    phases = tuple(
        Phase(number, f"phase {number + 1}", Tally(waiting=size), soak=timedelta(minutes=soak),
              wait=timedelta(minutes=wait))
        for number, size in enumerate(sizes)
    )  # fmt: skip
    return World(
        DeploymentId("rehearsal"), "1.1.0", 1, DeploymentStatus.SCHEDULED, phases, FailureRule(threshold),
        ends_at=NOW + timedelta(days=7),
    )  # fmt: skip


def played(seen: World, model: Model = MODEL, *defects: float, seed: int = 1) -> Rehearsal:
    return rehearse(seen, model, now=NOW, seed=seed, defects=defects or (1.0, 5.0, 20.0))


def test_the_same_seed_gives_the_same_answer_and_another_one_another() -> None:
    seen = world(50, 450)
    assert played(seen, seed=1) == played(seen, seed=1)
    assert played(seen, seed=1) != played(seen, seed=2)


def test_phases_follow_each_other_after_their_soak() -> None:
    found = played(world(10, 40, 50, soak=60))
    assert found.completes == 1.0
    for before, phase in zip(found.phases, found.phases[1:], strict=False):
        assert before.through_s is not None
        assert phase.opens_s is not None
        assert phase.opens_s.p50 >= before.through_s.p50 + 3_600 - 1
    assert found.duration_s is not None
    assert found.duration_s.p50 >= 2 * 3_600
    assert found.duration_s.p50 <= 2 * 3_600 + 3 * (300 + 240) + 1
    assert found.duration_s.p90 >= found.duration_s.p50


def test_a_large_first_phase_takes_as_long_as_its_last_device() -> None:
    found = played(world(500_000))
    assert found.duration_s is not None
    assert 400 < found.duration_s.p50 <= 300 + 240 + 1
    assert 500_000 / 540 < found.ends_per_s < 500_000 / 60


def test_devices_that_know_of_the_deployment_come_sooner() -> None:
    found = played(world(1_000, 100_000, soak=10))
    assert found.phases[1].opens_s is not None
    assert found.phases[1].through_s is not None
    took = found.phases[1].through_s.p50 - found.phases[1].opens_s.p50
    assert took <= 60 + 240 + 1


def test_a_release_that_always_fails_stops_and_hurts_few() -> None:
    (trip,) = played(world(1_000, 999_000), MODEL, 100.0).trips
    assert trip.trips == 1.0
    assert trip.phase == 0
    assert trip.hurt.p90 <= 1_000
    assert trip.after_s is not None
    assert 60 <= trip.after_s.p50 <= 540


def test_who_is_under_way_when_it_stops_is_hurt_too() -> None:
    (trip,) = played(world(100_000), MODEL, 100.0).trips
    assert trip.offered is not None
    assert trip.hurt == trip.offered
    assert trip.offered.p50 > 1_000


def test_without_a_canary_the_same_release_hurts_many_more() -> None:
    (careful,) = played(world(1_000, 999_000), MODEL, 100.0).trips
    (careless,) = played(world(1_000_000), MODEL, 100.0).trips
    assert careless.trips == 1.0
    assert careless.hurt.p50 > 50 * careful.hurt.p50


def test_a_defect_below_the_threshold_goes_everywhere() -> None:
    (trip,) = played(world(10_000, 90_000, threshold=10), MODEL, 3.0).trips
    assert trip.trips == 0.0
    assert trip.after_s is None
    assert trip.hurt.p50 == pytest.approx(3_000, rel=0.1)
    (strict,) = played(world(10_000, 90_000, threshold=1), MODEL, 3.0).trips
    assert strict.trips == 1.0
    assert strict.hurt.p90 < 1_000


def test_the_statistical_gate_is_rehearsed_as_it_will_judge() -> None:
    """Five percent of defects pass a threshold of ten for good; the test sees them, and hurts fewer."""
    plain = world(100, 900, 9_000)
    (passed,) = played(plain, MODEL, 5.0).trips
    (seen,) = played(replace(plain, failure_rule=FailureRule(gate=FailureGate.STATISTICAL)), MODEL, 5.0).trips
    assert passed.trips < 0.5 < seen.trips
    assert seen.hurt.p50 < passed.hurt.p50 / 4
    assert seen.phase in (0, 1)


def test_failures_of_the_past_count_without_any_defect() -> None:
    found = played(world(100, 900, threshold=5), replace(MODEL, failure_rate=0.3))
    assert found.completes < 0.2


def test_devices_that_are_not_expected_hold_a_phase_for_its_waiting_time_only() -> None:
    found = played(world(200, 800, soak=0, wait=30), replace(MODEL, lost_share=0.2))
    assert found.completes == 1.0
    assert found.duration_s is not None
    assert 2 * 1_800 - 1 <= found.duration_s.p50 <= 2 * 1_800 + 2 * 540
    alone = played(world(5, soak=0), replace(MODEL, lost_share=1.0))
    assert (alone.completes, alone.phases[0].through_s) == (0.0, None)


def test_a_bound_on_parallel_devices_makes_it_longer() -> None:
    free = played(world(1_000, soak=0))
    bound = played(world(1_000, soak=0), replace(MODEL, max_parallel=10))
    assert free.duration_s is not None
    assert bound.duration_s is not None
    assert bound.duration_s.p50 > 90 * 60  # a hundred times ten devices of more than a minute and a half
    assert bound.ends_per_s < free.ends_per_s


def test_manual_gates_are_opened_after_the_soak() -> None:
    seen = world(10, 10)
    manual = replace(seen, phases=(seen.phases[0], replace(seen.phases[1], gate=Gate.MANUAL)))
    assert played(manual) == played(seen)


def test_who_was_heard_long_ago_comes_late_but_not_later_than_that() -> None:
    seen = replace(world(10), starts_at=NOW + timedelta(hours=5))
    found = played(seen, replace(MODEL, heard_s=(10 * 3_600.0,)))
    assert found.duration_s is not None
    assert 10 * 3_600 + 60 <= found.duration_s.p50 <= 10 * 3_600 + 240


def test_it_begins_when_it_is_scheduled_to() -> None:
    found = played(replace(world(10), starts_at=NOW + timedelta(hours=5)))
    assert found.phases[0].opens_s is not None
    assert found.phases[0].opens_s.p50 == 5 * 3_600


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3_000), min_size=1, max_size=6).filter(any),
    threshold=st.floats(0, 100),
    rate=st.floats(0, 1),
    lost=st.floats(0, 1),
    action=st.sampled_from(FailureAction),
    most=st.none() | st.integers(1, 50),
    gate=st.sampled_from(FailureGate),
)
def test_every_rehearsal_ends_and_its_plans_pass_the_auditor(
    sizes: list[int],
    threshold: float,
    rate: float,
    lost: float,
    action: FailureAction,
    most: int | None,
    gate: FailureGate,
) -> None:
    model = replace(MODEL, failure_rate=rate, lost_share=lost, max_parallel=most)
    seen = replace(world(*sizes), failure_rule=FailureRule(threshold, None, action, gate=gate))
    found = rehearse(seen, model, now=NOW, defects=(10.0,))
    assert 0 <= found.completes <= 1
    (trip,) = found.trips
    assert 0 <= trip.hurt.p50 <= trip.hurt.p90 <= sum(sizes)
    for phase in found.phases:
        if phase.through_s is not None:
            assert phase.opens_s is not None


def test_a_million_devices_are_rehearsed_in_two_seconds_of_work() -> None:
    import time

    began = time.process_time()
    played(world(10_000, 40_000, 50_000, 100_000, 300_000, 500_000), replace(MODEL, failure_rate=0.01))
    assert time.process_time() - began < 2
