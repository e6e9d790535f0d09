"""The statistical gate: what it promises, over generated worlds and simulated fleets."""

import importlib.util
import math
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skylift.core.audit import audit
from skylift.core.gate import CONTROLS, DEFECTS, evidence, log_ratio, note, stops
from skylift.core.lifecycle import DeploymentStatus, PausedBy
from skylift.core.planner import plan
from skylift.core.world import (
    EndPhase,
    FailureGate,
    FailureRule,
    Matched,
    Pause,
    Phase,
    PhaseState,
    Tally,
    World,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
# A threshold of 100 % takes the net away: what is judged here is the test alone.
ALONE = FailureRule(threshold_percent=100, gate=FailureGate.STATISTICAL, min_devices=1)
BENCH = Path(__file__).resolve().parents[2] / "bench" / "gate.py"


def world(
    *tallies: Tally, rule: FailureRule = ALONE, closed: int = 0, matched: Matched | None = None
) -> World:
    """A running deployment; the last `closed` phases have not opened."""
    phases = tuple(
        Phase(
            number=i,
            name=f"phase {i + 1}",
            tally=tally,
            state=PhaseState.CLOSED if i >= len(tallies) - closed else PhaseState.OPEN,
            opened_at=NOW,
        )
        for i, tally in enumerate(tallies)
    )
    return World(
        "dep_x", "1.1.0", 3, DeploymentStatus.RUNNING, phases, rule, matched=matched or Matched()
    )  # fmt: skip


# --- false alarms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expected",
    [1.0, pytest.param(0.5, marks=pytest.mark.slow), pytest.param(5.0, marks=pytest.mark.slow)],
)
def test_a_good_release_is_stopped_no_more_often_than_stated_however_often_one_looks(expected: float) -> None:
    """2,000 deployments to 400 devices each in three phases, exactly at the expected rate, and a control
    group that is as flaky; judged after every report that could stop it."""
    count, stated = 2000, 0.05
    rule = replace(ALONE, expected_percent=expected, false_alarm_rate=stated)
    draw = Random(f"false alarms at {expected}")
    stopped = sum(is_stopped(rule, expected / 100, draw) for _ in range(count))
    assert stopped / count <= stated
    assert stopped > 0, "a test that never stops anything would pass this too"


def is_stopped(rule: FailureRule, rate: float, draw: Random, sizes: tuple[int, ...] = (8, 92, 300)) -> bool:
    """One deployment. Only a bad report can stop it: good ones weigh against a stop (a property below)."""
    tallies = [Tally(waiting=size) for size in sizes]
    matched = Matched()
    for number, size in enumerate(sizes):
        for device in range(1, size + 1):
            bad = draw.random() < rate
            updated, controls = draw.random() < 0.01, sum(draw.random() < 0.01 for _ in range(CONTROLS))
            if updated + controls == 1:
                matched = Matched(matched.updated + updated, matched.control + controls)
            failed = tallies[number].failed + bad
            tallies[number] = Tally(waiting=size - device, complete=device - failed, failed=failed)
            if (bad or updated) and stops(world(*tallies, rule=rule, closed=2 - number, matched=matched)):
                return True
    return False


def test_the_mean_of_the_evidence_of_a_good_release_is_one() -> None:
    """What makes Ville's inequality hold, summed exactly over everything that can happen to n devices."""
    for expected in (0.005, 0.01, 0.25):
        for n in (1, 7, 60):
            mean = sum(
                math.comb(n, bad)
                * expected**bad
                * (1 - expected) ** (n - bad)
                * math.exp(log_ratio(bad, n, expected))
                for bad in range(n + 1)
            )
            assert mean == pytest.approx(1)


def test_a_release_that_is_better_than_expected_makes_the_evidence_shrink() -> None:
    for rate in (0.0, 0.004, 0.009):
        mean = rate * math.exp(log_ratio(1, 1, 0.01)) + (1 - rate) * math.exp(log_ratio(0, 1, 0.01))
        assert mean < 1


def test_no_order_of_reports_makes_a_good_release_look_worse_than_its_end() -> None:
    """Failures that come first, with everybody else still at it, count against all who were offered."""
    early = world(Tally(waiting=0, installing=96, complete=1, failed=3))
    late = world(Tally(complete=97, failed=3))
    assert evidence(early) == evidence(late)


# --- what makes it stop --------------------------------------------------------------------------------

tallies = st.builds(
    Tally,
    waiting=st.integers(0, 500),
    pending=st.integers(0, 9),
    validating=st.integers(0, 9),
    complete=st.integers(0, 3000),
    failed=st.integers(0, 60),
    rolled_back=st.integers(0, 60),
)
rules = st.builds(
    FailureRule,
    threshold_percent=st.sampled_from([0.0, 10.0, 100.0]),
    min_devices=st.none() | st.integers(1, 60),
    gate=st.just(FailureGate.STATISTICAL),
    false_alarm_rate=st.sampled_from([0.0001, 0.01, 0.05, 0.3]),
    expected_percent=st.sampled_from([0.01, 0.5, 1.0, 3.3, 50.0]),
)
sets = st.builds(Matched, st.integers(0, 40), st.integers(0, 40))
worlds = st.builds(
    lambda some, rule, matched, closed: world(
        *some, rule=rule, matched=matched, closed=min(closed, len(some) - 1)
    ),
    st.lists(tallies, min_size=1, max_size=5),
    rules,
    sets,
    st.integers(0, 2),
)


@settings(max_examples=300)
@given(worlds)
def test_planner_and_auditor_agree_about_every_verdict(some: World) -> None:
    assert audit(some, plan(some, NOW), NOW) == []


weighty = st.builds(  # about as many failures as make a verdict
    lambda bad, good, at_it, updated: world(
        Tally(waiting=9, installing=at_it, complete=good, failed=bad),
        Tally(waiting=400),
        rule=replace(ALONE, expected_percent=3.0),
        closed=1,
        matched=Matched(updated, 1),
    ),
    st.integers(2, 5),
    st.integers(0, 25),
    st.integers(0, 5),
    st.integers(0, 9),
)


@settings(max_examples=200)
@given(weighty)
def test_the_verdict_falls_exactly_where_the_evidence_reaches_the_stated_rate(some: World) -> None:
    """A hair below and a hair above it, for planner and auditor alike."""
    weighs = evidence(some)
    assume(2.1 < weighs < 1e8)
    for hair, stop in ((1.0001, True), (0.9999, False)):
        rule = replace(
            ALONE, expected_percent=some.failure_rule.expected_percent, false_alarm_rate=hair / weighs
        )
        judged = replace(some, failure_rule=rule)
        planned = plan(judged, NOW)
        assert isinstance(planned.actions[0] if planned.actions else None, Pause) is stop
        assert audit(judged, planned, NOW) == []


@settings(max_examples=300)
@given(worlds, st.integers(0, 4))
def test_one_more_failure_never_speaks_for_the_release(some: World, at: int) -> None:
    number = at % len([p for p in some.phases if p.state is PhaseState.OPEN])
    tally = some.phases[number].tally
    worse = with_tally(some, number, replace(tally, failed=tally.failed + 1))
    better = with_tally(some, number, replace(tally, complete=tally.complete + 1))
    at_it = with_tally(some, number, replace(tally, pending=tally.pending + 1))
    assert evidence(worse) >= evidence(some) >= evidence(better) == evidence(at_it)
    more = replace(some, matched=Matched(some.matched.updated + 1, some.matched.control))
    assert evidence(more) >= evidence(some)
    if stops(some) and tally.waiting:  # who failed had been waiting: the minimum sample cannot grow
        asked = replace(tally, waiting=tally.waiting - 1, failed=tally.failed + 1)
        assert stops(with_tally(some, number, asked))


def with_tally(some: World, number: int, tally: Tally) -> World:
    phases = list(some.phases)
    phases[number] = replace(phases[number], tally=tally)
    return replace(some, phases=tuple(phases))


def test_what_has_not_opened_has_no_say() -> None:
    opened = world(Tally(complete=50, failed=1), Tally(), closed=1)
    assert evidence(opened) == evidence(world(Tally(complete=50, failed=1), Tally(waiting=900), closed=1))


def test_a_worse_release_is_stopped_after_fewer_devices() -> None:
    def devices_until_stopped(defect: float) -> int:
        return next(n for n in range(1, 5000) if log_ratio(round(n * defect), n, 0.01) > math.log(20))

    needed = [devices_until_stopped(defect) for defect in (0.03, 0.06, 0.1, 0.2, 0.5, 1.0)]
    assert all(a >= b for a, b in pairwise(needed)), needed
    assert needed[-1] <= 2
    assert needed[0] < 1000


def test_the_defects_it_looks_for_span_one_percent_to_nearly_all() -> None:
    assert DEFECTS[0] <= 0.01
    assert DEFECTS[-1] >= 0.9
    assert list(DEFECTS) == sorted(set(DEFECTS))


def test_a_phase_that_goes_bad_late_is_not_drowned_in_what_went_well() -> None:
    calm = Tally(complete=3960, failed=40)
    bad = world(calm, Tally(waiting=950, complete=40, failed=10), Tally(waiting=9), closed=1)
    found = stops(bad)
    assert found is not None
    assert found.sentence.startswith("phase 2: 10 of 50 devices failed")


# --- its sentence, its sample, its net -------------------------------------------------------------------

DEFAULT = FailureRule(gate=FailureGate.STATISTICAL)


def test_the_verdict_is_one_sentence_with_its_numbers() -> None:
    some = world(Tally(installing=3, complete=31, rolled_back=7, top_reason="health_check_failed"),
                 Tally(waiting=400), rule=replace(DEFAULT, threshold_percent=30), closed=1)  # fmt: skip
    (action,) = plan(some, NOW).actions
    assert isinstance(action, Pause)
    assert action.by is PausedBy.FAILURE_THRESHOLD
    assert action.sentence == (
        "7 of 41 devices failed or rolled back (17.1 %), 1 % expected: by chance at most once in 125,881 "
        "deployments; top reason: health_check_failed"
    )


def test_silence_after_the_update_stops_it_too_and_says_how_it_is_known() -> None:
    some = world(Tally(waiting=900, complete=100), rule=DEFAULT, matched=Matched(updated=8, control=1))
    (action,) = plan(some, NOW).actions
    assert isinstance(action, Pause)
    assert action.sentence.startswith(
        "in 8 of 9 matched sets the device that went silent or unhealthy was the updated one, "
        "1 in 4 expected: by chance at most once in"
    )


def test_an_outage_that_silences_the_control_group_as_well_stops_nothing() -> None:
    some = world(Tally(waiting=900, complete=100), rule=DEFAULT, matched=Matched(updated=25, control=75))
    assert plan(some, NOW).actions == ()


def test_the_minimum_sample_is_kept() -> None:
    two = world(Tally(waiting=998, failed=2), rule=DEFAULT)
    assert evidence(two) > 1000
    assert plan(two, NOW).actions == ()
    asked = replace(DEFAULT, min_devices=2)
    assert isinstance(plan(replace(two, failure_rule=asked), NOW).actions[0], Pause)
    many = replace(DEFAULT, min_devices=50)
    forty = world(Tally(waiting=960, complete=30, failed=10), rule=many)
    assert plan(forty, NOW).actions == ()


def test_a_deployment_smaller_than_the_sample_is_judged_when_all_of_it_is_decided() -> None:
    assert stops(world(Tally(failed=2, waiting=1))) is not None  # a sample of one was asked for
    rule = replace(DEFAULT, threshold_percent=100)
    assert stops(world(Tally(waiting=1, failed=2), rule=rule)) is None
    assert stops(world(Tally(failed=3), rule=rule)) is not None


def test_the_net_of_the_threshold_stays() -> None:
    expects_much = replace(DEFAULT, expected_percent=50.0)
    caught = world(Tally(waiting=17, failed=3), rule=expects_much)
    (action,) = plan(caught, NOW).actions
    assert isinstance(action, Pause)
    assert "above the threshold of 10 %" in action.sentence
    early = world(Tally(waiting=780, complete=17, failed=3), rule=expects_much)  # 15 %, but not certain yet
    assert plan(early, NOW).actions == ()


def test_its_note_says_where_it_stands_and_a_threshold_has_none() -> None:
    some = world(Tally(waiting=900, installing=2, complete=97, failed=1), rule=DEFAULT)
    assert plan(some, NOW).notes[1] == (
        "statistical gate: 1 of 100 devices offered failed or rolled back, 1 % expected; "
        "evidence 0.376, stops at 20"
    )
    assert note(replace(some, failure_rule=FailureRule())) == ""
    assert len(plan(replace(some, failure_rule=FailureRule()), NOW).notes) == 1


def test_the_auditor_refuses_to_overlook_a_verdict_and_to_invent_one() -> None:
    bad = world(Tally(waiting=900, complete=30, failed=9), rule=DEFAULT)
    idle = plan(world(Tally(waiting=900, complete=30), rule=DEFAULT), NOW)
    assert audit(bad, idle, NOW)
    assert audit(bad, replace(idle, actions=(EndPhase(0),)), NOW)
    fine = world(Tally(waiting=900, complete=30), rule=DEFAULT)
    assert audit(fine, replace(plan(bad, NOW), based_on=fine.generation), NOW)


def test_a_million_devices_are_weighed_as_ten_are() -> None:
    huge = world(Tally(complete=1_000_000, failed=60_000), rule=ALONE)
    found = stops(huge)
    assert found is not None
    assert "1,000,000,000 deployments" in found.sentence
    assert audit(huge, plan(huge, NOW), NOW) == []
    quiet = world(Tally(complete=1_000_000, failed=900), rule=ALONE)
    assert stops(quiet) is None
    assert audit(quiet, plan(quiet, NOW), NOW) == []


# --- the bench -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_gate", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_gate"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_bench_skips_only_looks_that_change_nothing(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "FLEET", 300)
    for number in range(12):
        luck = bench.draw_luck(Random(number), (0, 5, 20)[number % 3])
        for rule in (bench.THRESHOLD, bench.STATISTICAL):
            assert bench.Life(rule, luck).live() == bench.Life(rule, luck, every_report=True).live()


@pytest.mark.slow
def test_five_and_twenty_percent_defects_hurt_fewer_devices_than_under_the_threshold(
    bench: ModuleType,
) -> None:
    """At the rate where both raise as many false alarms, and at the one that is the default."""
    within = bench.ASKS_WITHIN
    found = bench.table((0, 5, 20), lambda defect: 60, 7, within, bench.FOUND[within])
    for gate in ("statistical", "default"):
        for defect in ("5", "20"):
            assert found[defect][f"{gate}_hurt"] < found[defect]["threshold_hurt"]
            assert found[defect][f"{gate}_stopped"] >= found[defect]["threshold_stopped"]
        assert found["0"][f"{gate}_stopped"] <= 0.1


def test_the_calibrated_rate_stops_no_more_of_its_good_releases_than_the_threshold(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With phases in which a threshold often errs: 3 of the first 20 at a base rate of 3 %."""
    monkeypatch.setattr(bench, "FLEET", 400)
    monkeypatch.setattr(bench, "BASE_PERCENT", 3.0)
    rate = bench.calibrated(60, 5, bench.ASKS_WITHIN)
    lucks = [bench.draw_luck(Random(f"5/calibration/{number}"), 0) for number in range(60)]
    matched = replace(bench.STATISTICAL, false_alarm_rate=rate)
    stopped = [
        sum(bench.Life(rule, luck).live().stopped for luck in lucks) for rule in (bench.THRESHOLD, matched)
    ]
    assert stopped[0] >= stopped[1] > 0
