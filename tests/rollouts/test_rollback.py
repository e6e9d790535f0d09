"""Rolling a deployment back: a deployment like any other, of what the devices ran before."""

import threading
from typing import Any

import pytest

from skylift.store import deployments, members

ALL_AT_ONCE = {"all_at_once": True}


def waited_for(yard: Any, deployment: str) -> int:
    return sum(phase.waiting for phase in yard.read(lambda conn: deployments.phases_of(conn, deployment)))


def test_updated_devices_go_back_to_the_release_each_came_from(yard: Any) -> None:
    for version in ("1.0.0", "1.0.1", "1.1.0"):
        yard.release(version)
    first = yard.fleet(3, "1.0.0", "a")
    second = yard.fleet(2, "1.0.1", "b")
    deployment = yard.running(**ALL_AT_ONCE)
    for name in (*first, *second[:1]):
        yard.finish(name, deployment)
    assert yard.offered(second[1]) == deployment
    yard.clock.forward(seconds=1)
    done = yard.roll_back(deployment)
    assert yard.status(deployment) == "aborted"
    assert len(done.deployments) == 2
    assert done.left == {}
    yard.tick()
    sent = {yard.row(made).version: yard.checks([*first, *second], made) for made in done.deployments}
    assert sent == {"1.0.0": first, "1.0.1": second[:1]}
    for made in done.deployments:
        assert yard.row(made).rollback_of == deployment
        for name in list(yard.states(made)):
            yard.finish(name, made)
    yard.tick()
    assert {yard.status(made) for made in done.deployments} == {"complete"}
    assert [yard.runs[name] for name in (*first, *second)] == ["1.0.0"] * 3 + ["1.0.1"] * 2
    yard.must_hold()
    again = yard.roll_back(deployment)  # again: nothing is left to roll back
    assert (again.deployments, again.left) == ((), {})


def test_asked_twice_it_is_done_once(yard: Any) -> None:
    yard.release("1.0.0")
    yard.release("1.1.0")
    fleet = yard.fleet(2)
    deployment = yard.running(**ALL_AT_ONCE)
    for name in fleet:
        yard.finish(name, deployment)
    first = yard.roll_back(deployment)
    before = yard.everything()
    assert yard.roll_back(deployment) == first
    assert yard.everything() == before


def test_devices_without_a_former_release_are_named(yard: Any) -> None:
    yard.release("1.0.0")
    yard.release("1.1.0")
    known, unknown = yard.enroll("known", "1.0.0"), yard.enroll("unknown", "0.9-factory")
    deployment = yard.running(**ALL_AT_ONCE)
    yard.finish(known, deployment)
    yard.finish(unknown, deployment)
    yard.tick()
    done = yard.roll_back(deployment)
    assert len(done.deployments) == 1
    assert done.left == {"0.9-factory": 1}


def test_nothing_to_roll_back_is_an_answer_and_no_error(yard: Any) -> None:
    yard.release("1.1.0")
    yard.fleet(2)
    deployment = yard.running(**ALL_AT_ONCE)
    done = yard.roll_back(deployment)
    assert (done.deployments, done.left) == ((), {})
    assert yard.status(deployment) == "aborted"


def test_a_device_that_went_on_to_something_else_is_not_sent_back(yard: Any) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        yard.release(version)
    fleet = yard.fleet(2)
    bad = yard.running("1.1.0", **ALL_AT_ONCE)
    for name in fleet:
        yard.finish(name, bad)
    yard.tick(seconds=1)
    newer = yard.running("1.2.0", target_devices=[fleet[0]], **ALL_AT_ONCE)
    yard.finish(fleet[0], newer)
    yard.clock.forward(seconds=1)
    (made,) = yard.roll_back(bad).deployments
    yard.tick()
    assert yard.checks(fleet, made) == [fleet[1]]


def test_a_device_that_completes_after_the_abort_is_sent_back_too(yard: Any) -> None:
    yard.release("1.0.0")
    yard.release("1.1.0")
    fleet = yard.fleet(2)
    deployment = yard.running(**ALL_AT_ONCE)
    yard.finish(fleet[0], deployment)
    assert yard.offered(fleet[1]) == deployment
    yard.report(fleet[1], deployment, "validating")  # too late to stop it
    yard.clock.forward(seconds=1)
    (made,) = yard.roll_back(deployment).deployments
    yard.tick()
    yard.report(fleet[1], deployment, "complete")
    assert yard.checks(fleet, made) == fleet
    yard.must_hold()


def test_a_device_that_takes_its_success_back_is_no_longer_waited_for(yard: Any) -> None:
    """It fell back by itself, after it had said that it runs."""
    yard.release("1.0.0")
    yard.release("1.1.0")
    fleet = yard.fleet(2)
    deployment = yard.running(**ALL_AT_ONCE)
    for name in fleet:
        yard.finish(name, deployment)
    yard.clock.forward(seconds=1)
    (made,) = yard.roll_back(deployment).deployments
    yard.tick()
    assert waited_for(yard, made) == 2
    yard.report(fleet[0], deployment, "rolled_back", reason="boot_failed")
    assert waited_for(yard, made) == 1
    yard.must_hold()
    yard.finish(fleet[1], made)
    yard.tick()
    assert yard.status(made) == "complete"


def test_a_device_that_is_seen_to_run_it_before_it_says_so_is_waited_for(yard: Any) -> None:
    yard.release("1.0.0")
    yard.release("1.1.0")
    fleet = yard.fleet(2)
    deployment = yard.running(**ALL_AT_ONCE)
    yard.finish(fleet[0], deployment)
    assert yard.offered(fleet[1]) == deployment
    yard.report(fleet[1], deployment, "validating")
    yard.clock.forward(seconds=1)
    (made,) = yard.roll_back(deployment).deployments
    yard.tick()
    yard.runs[fleet[1]] = "1.1.0"
    yard.check(fleet[1])
    assert waited_for(yard, made) == 1
    yard.report(fleet[1], deployment, "complete")
    assert waited_for(yard, made) == 2
    yard.must_hold()


def test_a_breach_that_rolls_back_asks_for_it_in_the_same_transaction(yard: Any) -> None:
    yard.release("1.0.0")
    yard.release("1.1.0")
    fleet = yard.fleet(4)
    deployment = yard.running(failure_action="rollback", failure_threshold_percent=25, **ALL_AT_ONCE)
    yard.finish(fleet[0], deployment)
    yard.finish(fleet[1], deployment, "failed", "boot_failed")
    assert yard.outbox("rollback") == []
    yard.finish(fleet[2], deployment, "failed", "boot_failed")
    assert yard.status(deployment) == "failed"
    assert yard.outbox("rollback") == [{"deployment": deployment}]
    yard.clock.forward(seconds=1)
    (made,) = yard.roll_back(deployment).deployments
    yard.tick()
    assert yard.checks(fleet, made) == [fleet[0]]
    yard.must_hold()


def test_who_goes_back_is_counted_outside_of_the_one_writer(
    yard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every report of the fleet would queue behind it."""
    where: list[str] = []
    by_phase = members.by_phase

    def watched(*words: Any, **more: Any) -> Any:
        where.append(threading.current_thread().name)
        return by_phase(*words, **more)

    fleet = yard.fleet(4)
    for version in ("1.0.0", "1.1.0"):
        yard.release(version)
    deployment = yard.running(all_at_once=True)
    for name in fleet[:2]:
        yard.end(name, deployment)
    assert yard.offered(fleet[2]) == deployment
    yard.clock.forward(seconds=1)
    monkeypatch.setattr(members, "by_phase", watched)
    (made,) = yard.roll_back(deployment).deployments
    assert where
    assert "skylift-writer" not in where
    assert yard.status(deployment) == "aborted"
    yard.tick()
    assert yard.checks(fleet, made) == fleet[:2]
    yard.must_hold()
