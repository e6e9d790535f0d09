"""What operators are promised, told as stories; on SQLite and on PostgreSQL."""

from typing import Any

import pytest

from skylift.core.errors import Rejected
from skylift.engine import waiting

ALL_AT_ONCE = {"all_at_once": True}


def phased(*ends: float, soak: float = 10, wait: float = 30) -> dict[str, Any]:
    return {"phases": [{"percent": end, "min_minutes": soak, "wait_minutes": wait} for end in ends]}


def test_a_release_goes_out_in_phases_and_every_device_gets_it_once(yard: Any) -> None:
    fleet = yard.fleet(24)
    yard.release("1.1.0")
    deployment = yard.running(**phased(10, 40, 100))
    canaries = yard.checks(fleet, deployment)
    assert len(canaries) == 3  # ceil(2.4)
    for name in canaries:
        yard.finish(name, deployment)
    yard.tick()
    assert yard.checks(fleet, deployment) == []  # it soaks
    assert "soaking" in yard.row(deployment).notes[0]
    yard.tick(minutes=10)
    early = yard.checks(fleet, deployment)
    assert len(early) == 7  # ceil(9.6) in all
    assert not set(early) & set(canaries)
    for name in early:
        yard.finish(name, deployment)
    yard.tick()
    yard.tick(minutes=10)
    for name in yard.checks(fleet, deployment):
        yard.finish(name, deployment)
    yard.tick()
    assert yard.status(deployment) == "complete"
    assert set(yard.states(deployment).values()) == {"complete"}
    assert set(yard.runs.values()) == {"1.1.0"}
    assert len(yard.outbox("doorbell")) == 3
    yard.must_hold()
    before = yard.everything()
    yard.tick(hours=1)
    assert yard.checks(fleet, deployment) == []
    assert yard.everything() == before  # again: nothing changes


def test_one_bad_device_too_many_pauses_and_the_sentence_says_why(yard: Any) -> None:
    fleet = yard.fleet(20)
    yard.release("1.2.0")
    deployment = yard.running("1.2.0", failure_threshold_percent=10, **phased(50, 100))
    first = yard.checks(fleet, deployment)
    assert len(first) == 10
    yard.finish(first[0], deployment, "rolled_back", "health_check_failed")
    assert yard.status(deployment) == "running"  # 1 of 10 is the limit exactly: go on
    yard.report(first[1], deployment, "failed", reason="health_check_failed")
    row = yard.row(deployment)
    assert (row.status, row.paused_by) == ("paused", "failure_threshold")
    for part in ("phase 1", "2 of 2", "100.0 %", "threshold of 10 %", "phase of 10", "health_check_failed"):
        assert part in row.status_reason
    assert yard.events(deployment, "deployment")[-1]["status_reason"] == row.status_reason
    untouched = [name for name in fleet if name not in first]
    yard.tick(hours=5)
    assert yard.checks(untouched, deployment) == []
    yard.must_hold()


def test_a_breach_pauses_in_the_transaction_that_completes_it(yard: Any) -> None:
    fleet = yard.fleet(10)
    yard.release("1.2.0")
    deployment = yard.running("1.2.0", failure_threshold_percent=0, **ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == deployment
    yard.report(fleet[0], deployment, "failed", reason="download_error")
    assert yard.status(deployment) == "paused"  # no tick in between
    assert yard.offered(fleet[1]) is None


def test_silence_becomes_a_timeout_and_counts(yard: Any) -> None:
    fleet = yard.fleet(10)
    yard.release("1.1.0")
    deployment = yard.running(failure_threshold_percent=10, **ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == deployment
    assert yard.offered(fleet[1]) == deployment
    yard.report(fleet[1], deployment, "downloading", progress=10)
    yard.tick(minutes=29)
    assert yard.states(deployment)[fleet[0]] == "pending"
    yard.tick(minutes=2)
    late = yard.update(fleet[0], deployment)
    assert (late.state, late.reason) == ("failed", "timeout")
    assert late.started_at is None
    assert yard.states(deployment)[fleet[1]] == "downloading"  # it has an hour between words
    assert yard.status(deployment) == "running"
    yard.report(fleet[1], deployment, "downloading", progress=20)
    yard.tick(minutes=59)
    assert yard.states(deployment)[fleet[1]] == "downloading"  # a word of progress began the hour anew
    yard.tick(minutes=2)
    row = yard.row(deployment)
    assert (row.status, row.paused_by) == ("paused", "failure_threshold")
    assert "timeout" in row.status_reason
    assert not yard.report(fleet[0], deployment, "installing").recorded  # too late, and kindly so
    assert len(yard.events(deployment, "late_report")) == 1
    yard.must_hold()


def test_a_later_fallback_withdraws_the_success_and_pauses_again(yard: Any) -> None:
    fleet = yard.fleet(10)
    yard.release("1.1.0")
    deployment = yard.running(failure_threshold_percent=10, **phased(50, 100))
    first = yard.checks(fleet, deployment)
    for name in first:
        yard.finish(name, deployment)
    yard.tick()
    yard.tick(minutes=10)
    assert yard.world(deployment).phases[1].state == "open"
    assert yard.report(first[0], deployment, "rolled_back", reason="boot_failed").recorded
    row = yard.row(deployment)
    assert row.status == "paused"
    assert "boot_failed" in row.status_reason
    assert yard.world(deployment).phases[0].tally.complete == 4
    yard.must_hold()


def test_a_late_report_changes_nothing_and_is_remembered(yard: Any) -> None:
    fleet = yard.fleet(4)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    yard.finish(fleet[0], deployment)
    before = yard.everything(but=("events",))
    for state in ("downloading", "installing", "validating", "complete", "failed"):
        answer = yard.report(fleet[0], deployment, state)
        assert not answer.recorded
        assert answer.state == "complete"
    assert yard.everything(but=("events",)) == before
    assert [event["state"] for event in yard.events(deployment, "late_report")] == [
        "downloading",
        "installing",
        "validating",
        "failed",
    ]


def test_the_same_check_again_is_the_same_answer(yard: Any) -> None:
    fleet = yard.fleet(2)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    first = yard.check(fleet[0])
    before = yard.everything()
    assert yard.check(fleet[0]) == first
    assert first["attempt"] == 1
    assert yard.everything() == before
    yard.report(fleet[0], deployment, "downloading")
    assert yard.check(fleet[0]) == first


def test_a_newer_deployment_takes_over_who_has_not_begun_and_nobody_else(yard: Any) -> None:
    fleet = yard.fleet(4)
    yard.release("1.1.0")
    yard.release("1.2.0")
    old = yard.running("1.1.0", **ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == old
    assert yard.offered(fleet[1]) == old
    yard.report(fleet[1], old, "downloading")
    yard.clock.forward(seconds=1)
    new = yard.running("1.2.0", **ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == new
    assert yard.states(old)[fleet[0]] == "canceled"
    assert yard.offered(fleet[1]) == old  # it has begun
    assert yard.offered(fleet[2]) == new
    yard.must_hold()
    for state in ("installing", "validating", "complete"):
        yard.report(fleet[1], old, state)
    assert yard.offered(fleet[1]) == new  # now it is free
    assert not yard.report(fleet[0], old, "downloading").recorded
    yard.must_hold()


def test_priority_goes_before_age(yard: Any) -> None:
    fleet = yard.fleet(2)
    yard.release("1.1.0")
    yard.release("1.2.0")
    urgent = yard.running("1.1.0", priority=5, **ALL_AT_ONCE)
    yard.clock.forward(seconds=1)
    yard.running("1.2.0", **ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == urgent


def test_a_superseded_device_is_not_sent_back_to_the_older_deployment(yard: Any) -> None:
    (name,) = yard.fleet(1)
    yard.release("1.1.0")
    yard.release("1.2.0")
    old = yard.running("1.1.0", **ALL_AT_ONCE)
    assert yard.offered(name) == old
    yard.clock.forward(seconds=1)
    new = yard.running("1.2.0", **ALL_AT_ONCE)
    yard.finish(name, new)
    yard.tick()
    assert yard.offered(name) is None
    assert yard.status(old) == "complete"
    assert yard.runs[name] == "1.2.0"


def test_a_live_group_takes_in_who_joins_and_lets_go_who_leaves_before_the_offer(yard: Any) -> None:
    fleet = yard.fleet(3)
    yard.release("1.1.0")
    yard.group("old-ones", query="current_version < 1.1.0 and label.site = north")
    with pytest.raises(Rejected) as caught:
        yard.create(target_groups=["old-ones"])
    assert caught.value.code == "no_devices"
    yard.label(fleet[0], site="north")
    deployment = yard.running(target_groups=["old-ones"], lifetime_minutes=60, **ALL_AT_ONCE)
    assert yard.checks(fleet, deployment) == [fleet[0]]
    yard.label(fleet[1], site="north")  # joins
    assert yard.offered(fleet[1]) == deployment
    yard.label(fleet[0], site="south")  # too late to leave: its update is its own
    yard.finish(fleet[0], deployment)
    yard.finish(fleet[1], deployment)
    yard.label(fleet[2], site="north")
    yard.label(fleet[2], site="south")  # left before it asked
    assert yard.offered(fleet[2]) is None
    yard.tick()
    assert yard.status(deployment) == "complete"
    yard.must_hold()


def test_a_group_given_as_a_list_is_looked_up_at_the_check(yard: Any) -> None:
    fleet = yard.fleet(3)
    yard.release("1.1.0")
    yard.group("lab", members=(fleet[0],))
    deployment = yard.running(target_groups=["lab"], **ALL_AT_ONCE)
    assert yard.checks(fleet, deployment) == [fleet[0]]
    yard.join("lab", fleet[1])
    assert yard.checks(fleet, deployment) == fleet[:2]


def test_a_device_that_joins_late_belongs_to_the_phase_of_its_place(yard: Any) -> None:
    yard.fleet(10)
    yard.release("1.1.0")
    deployment = yard.running(**phased(50, 100))
    joined = [yard.enroll(f"late-{number}") for number in range(20)]
    offered = yard.checks(joined, deployment)
    assert 0 < len(offered) < 20  # some fall into the open half, the others wait for theirs
    yard.must_hold()


def test_a_restart_in_the_middle_loses_nothing(yard: Any) -> None:
    fleet = yard.fleet(12)
    yard.release("1.1.0")
    deployment = yard.create(**phased(25, 100))
    yard.restart()
    yard.tick()
    canaries = yard.checks(fleet, deployment)
    yard.restart()
    assert yard.checks(fleet, deployment) == canaries
    for name in canaries:
        for state in ("downloading", "installing", "validating"):
            yard.report(name, deployment, state)
            yard.restart()
        yard.report(name, deployment, "complete")
    yard.restart()
    yard.tick()
    yard.tick(minutes=10)
    yard.restart()
    rest = yard.checks(fleet, deployment)
    assert len(rest) == 9
    assert not set(rest) & set(canaries)
    for name in rest:
        yard.finish(name, deployment)
    yard.tick()
    assert yard.status(deployment) == "complete"
    assert [event["phase"] for event in yard.events(deployment, "phase_opened")] == [0, 1]
    yard.must_hold()


def test_max_parallel_is_never_exceeded(yard: Any) -> None:
    fleet = yard.fleet(10)
    yard.release("1.1.0")
    deployment = yard.running(max_parallel=3, **ALL_AT_ONCE)
    begun = yard.checks(fleet, deployment)
    assert len(begun) == 3
    yard.finish(begun[0], deployment)
    assert len(yard.checks(fleet, deployment)) == 3  # two that are at it, one new
    yard.must_hold()


def test_nothing_is_offered_outside_the_window_and_offers_do_not_age_there(yard: Any) -> None:
    fleet = yard.fleet(4)
    yard.release("1.1.0")
    window = {"start": "11:00", "end": "12:10"}  # the yard's clock begins at 12:00
    deployment = yard.running(window=window, **ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == deployment
    assert yard.offered(fleet[1]) == deployment
    yard.report(fleet[1], deployment, "downloading")
    yard.tick(minutes=15)
    answer = yard.check(fleet[0])  # it had not begun
    assert answer["update_available"] is False
    assert yard.offered(fleet[1]) == deployment  # it may finish
    assert yard.offered(fleet[2]) is None
    for _ in range(22):
        yard.tick(hours=1)
    assert yard.states(deployment)[fleet[0]] == "pending"
    assert yard.states(deployment)[fleet[1]] == "failed"
    yard.tick(minutes=45)  # 11:00 the next day
    yard.resume(deployment, 50)
    assert yard.offered(fleet[0]) == deployment
    yard.tick(minutes=35)
    yard.must_hold()


def test_a_device_that_is_there_already_is_skipped_and_stays_outside_the_rate(yard: Any) -> None:
    fleet = yard.fleet(3)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == deployment
    yard.runs[fleet[0]] = "1.1.0"  # somebody flashed it by hand
    assert yard.offered(fleet[0]) is None
    assert yard.states(deployment)[fleet[0]] == "skipped"
    assert yard.world(deployment).phases[0].tally.size == 2
    yard.must_hold()


def test_a_device_flashed_by_hand_is_no_longer_waited_for(yard: Any) -> None:
    fleet = yard.fleet(3)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    yard.runs[fleet[0]] = "1.1.0"
    assert yard.offered(fleet[0]) is None
    yard.carry_recounts()
    assert yard.world(deployment).phases[0].tally.waiting == 2


def test_a_complete_that_proves_another_image_is_refused(yard: Any) -> None:
    fleet = yard.fleet(2)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == deployment
    with pytest.raises(Rejected) as caught:
        yard.report(fleet[0], deployment, "complete", image="0" * 64)
    assert caught.value.kind == "conflict"
    assert caught.value.field == "image_sha256"
    assert yard.states(deployment)[fleet[0]] == "pending"


def test_reports_about_the_impossible_are_refused_by_name(yard: Any) -> None:
    fleet = yard.fleet(2)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    with pytest.raises(Rejected) as unknown:
        yard.report(fleet[0], deployment, "downloading")
    assert (unknown.value.kind, unknown.value.field) == ("not_found", "deployment")
    assert yard.offered(fleet[0]) == deployment
    with pytest.raises(Rejected) as future:
        yard.report(fleet[0], deployment, "downloading", attempt=7)
    assert (future.value.kind, future.value.field) == ("conflict", "attempt")


def test_a_configuration_goes_the_same_way_and_leaves_the_image_alone(yard: Any) -> None:
    fleet = yard.fleet(2)
    yard.release("cfg-7", kind="config")
    deployment = yard.running("cfg-7", **ALL_AT_ONCE)
    for name in fleet:
        yard.finish(name, deployment)
    yard.tick()
    assert yard.status(deployment) == "complete"
    assert yard.device(fleet[0]).config_version == "cfg-7"
    assert yard.device(fleet[0]).current_version == "1.0.0"
    assert yard.checks(fleet, deployment) == []


def test_a_scheduled_deployment_starts_at_its_time(yard: Any) -> None:
    fleet = yard.fleet(2)
    yard.release("1.1.0")
    starts = yard.clock().replace(hour=14).isoformat()
    deployment = yard.running(starts_at=starts, **ALL_AT_ONCE)
    assert yard.status(deployment) == "scheduled"
    assert yard.checks(fleet, deployment) == []
    yard.tick(hours=1, minutes=59)
    assert yard.status(deployment) == "scheduled"
    yard.tick(minutes=1)
    assert yard.checks(fleet, deployment) == fleet


def test_devices_that_never_ask_do_not_hold_the_fleet_for_ever(yard: Any) -> None:
    fleet = yard.fleet(4)
    yard.release("1.1.0")
    deployment = yard.running(lifetime_minutes=120, **phased(50, 100, soak=0))
    first = yard.checks(fleet, deployment)
    yard.finish(first[0], deployment)
    yard.report(first[1], deployment, "complete")
    yard.tick()
    assert len(yard.checks([fleet[0], *first], deployment)) <= 1  # phase 2 is open, one of it asks
    asked = [name for name in fleet if yard.states(deployment).get(name) == "pending"]
    for name in asked:
        yard.finish(name, deployment)
    yard.tick(minutes=31)
    assert yard.status(deployment) == "running"
    yard.tick(minutes=120)
    row = yard.row(deployment)
    assert row.status == "complete"
    assert "never asked" in row.status_reason


def test_offers_made_during_a_recount_are_not_waited_for_twice(yard: Any) -> None:
    fleet = yard.fleet(6)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    counted = yard.read(lambda conn: waiting.count(conn, deployment))
    assert yard.checks(fleet[:2], deployment) == fleet[:2]
    yard.write(lambda conn: waiting.put(conn, deployment, counted, yard.clock()))
    assert yard.world(deployment).phases[0].tally.waiting == 4
