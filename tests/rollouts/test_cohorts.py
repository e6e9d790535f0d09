"""A cohort that is to blame: found, left out, or rolled back by itself."""

import shlex
import threading
from typing import Any

import pytest

from skylift.core.errors import Rejected, Unavailable
from skylift.engine import cohorts, leaving
from skylift.store import leavers, members

ALL_AT_ONCE = {"all_at_once": True}
BAD = "label.hw=rev-b"


@pytest.fixture
def mixed(yard: Any) -> Any:
    """Thirty devices on 1.0.0 in two regions, every third of hardware rev-b; 1.1.0 is published."""
    yard.release("1.0.0")
    yard.release("1.1.0")
    yard.enroll_all(
        {
            f"d{number:03}": {
                "hw": "rev-b" if number % 3 == 0 else "rev-a",
                "region": "eu" if number % 2 else "us",
            }
            for number in range(30)
        }
    )
    return yard


def bad(yard: Any, name: str) -> bool:
    return bool(yard.device(name).labels["hw"] == "rev-b")


def finish_all(yard: Any, deployment: str) -> None:
    """Everybody who is offered it, until it stops: rev-b falls back."""
    for name in sorted(yard.types):
        if yard.status(deployment) != "running" or yard.offered(name) != deployment:
            continue
        end, why = ("rolled_back", "boot_failed") if bad(yard, name) else ("complete", None)
        yard.report(name, deployment, end, reason=why)


def stopped(yard: Any, **body: Any) -> str:
    """A deployment that rev-b has brought to a stop."""
    deployment: str = yard.running(**{"failure_threshold_percent": 30, **ALL_AT_ONCE, **body})
    finish_all(yard, deployment)
    assert yard.status(deployment) == "paused"
    return deployment


def tally(yard: Any, deployment: str) -> tuple[int, int, int]:
    """(size, failures, complete) over all phases."""
    phases = yard.world(deployment).phases
    return (
        sum(phase.tally.size for phase in phases),
        sum(phase.tally.failures for phase in phases),
        sum(phase.tally.complete for phase in phases),
    )


def test_explain_finds_the_hardware_and_makes_two_offers(mixed: Any) -> None:
    deployment = stopped(mixed)
    found = mixed.explain(deployment)
    first = found["suspects"][0]
    assert (first["attribute"], first["value"], first["cohort"]) == ("label.hw", "rev-b", BAD)
    assert first["failed"] == found["failed"]
    assert first["failed_elsewhere"] == 0
    assert first["lift"] > first["lift_at_least"] > 1
    assert "label.hw rev-b" in found["sentence"]
    commands = [shlex.split(offer["command"]) for offer in found["offers"]]
    assert commands == [
        ["skylift", "deploy", "resume", deployment, "--without", BAD],
        ["skylift", "deploy", "rollback", deployment, "--only", BAD],
    ]


def test_explain_blames_nobody_where_failures_are_spread(mixed: Any) -> None:
    deployment = mixed.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    for number, name in enumerate(sorted(mixed.types)):
        mixed.end(name, deployment, "failed" if number % 5 == 4 else "complete")
    found = mixed.explain(deployment)
    assert (found["failed"], found["decided"]) == (6, 30)
    assert (found["suspects"], found["offers"]) == ([], [])
    assert "nothing separates the 6 failed of 30" in found["sentence"]


def test_explain_of_a_deployment_nobody_began_says_so(mixed: Any) -> None:
    deployment = mixed.create(**ALL_AT_ONCE)
    assert mixed.explain(deployment)["sentence"] == "none of 0 decided devices failed"


def test_explain_names_groups_former_versions_and_types(yard: Any) -> None:
    for version in ("1.0.0", "1.0.9", "2.0.0"):
        yard.release(version)
    old, new = yard.fleet(20, "1.0.0", "o"), yard.fleet(40, "1.0.9", "n")
    yard.group("seniors", members=tuple(old))
    yard.group("juniors", query='device_id ~ "n*"')
    deployment = yard.running("2.0.0", failure_threshold_percent=100, **ALL_AT_ONCE)
    for name in (*old, *new):
        yard.end(name, deployment, "failed" if name in old[:15] else "complete")
    suspects = {(one["attribute"], one["value"]): one for one in yard.explain(deployment)["suspects"]}
    assert suspects.keys() == {("current_version", "1.0.0"), ("group", "seniors")}
    assert suspects["current_version", "1.0.0"]["decided"] == 20
    assert suspects["group", "seniors"]["cohort"] == "group=seniors"


def test_a_label_that_differs_on_every_device_explains_nothing(
    yard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skylift.engine.explain.MOST_VALUES", 10)
    yard.release("1.1.0")
    names = yard.enroll_all({f"d{n:03}": {"serial": f"s{n}"} for n in range(30)})
    deployment = yard.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    for name in names:
        yard.end(name, deployment, "failed" if name < "d010" else "complete")
    found = yard.explain(deployment)
    assert found["suspects"] == []
    assert found["cohorts_looked_at"] == 0


def test_of_very_many_rows_an_even_sample_is_read(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = stopped(mixed, failure_threshold_percent=32)
    whole = mixed.explain(deployment)
    monkeypatch.setattr("skylift.engine.explain.MOST_ROWS", whole["decided"] // 2)
    part = mixed.explain(deployment)
    assert part["sampled_one_in"] > 1
    assert 0 < part["decided"] < whole["decided"]


def test_it_goes_on_without_the_cohort_to_its_end(mixed: Any) -> None:
    deployment = stopped(mixed)
    size, failures, complete = tally(mixed, deployment)
    assert (size, failures > 0) == (30, True)
    mixed.resume(deployment, None, BAD)
    mixed.must_hold()
    mixed.carry_recounts()
    assert tally(mixed, deployment) == (20, 0, complete)
    mixed.tick()
    assert mixed.status(deployment) == "running"
    before = mixed.states(deployment)
    finish_all(mixed, deployment)
    offered = mixed.states(deployment).keys() - before.keys()
    assert offered
    assert not any(bad(mixed, name) for name in offered)
    mixed.tick()
    assert mixed.status(deployment) == "complete"
    assert mixed.row(deployment).status_reason == "20 devices complete, 0 failed or rolled back"
    mixed.must_hold()


def test_who_joins_the_cohort_later_is_left_out_too_and_who_leaves_it_comes_back(mixed: Any) -> None:
    deployment = stopped(mixed)
    mixed.resume(deployment, None, BAD)
    mixed.tick()
    waiting = sorted(mixed.types.keys() - mixed.states(deployment).keys())
    joins = next(name for name in waiting if not bad(mixed, name))
    leaves = next(name for name in waiting if bad(mixed, name))
    mixed.label(joins, hw="rev-b")
    mixed.label(leaves, hw="rev-a")
    mixed.carry_recounts()
    assert tally(mixed, deployment)[0] == 20
    assert mixed.offered(joins) is None
    assert mixed.offered(leaves) == deployment


def test_who_has_not_written_is_canceled_and_who_has_goes_on_uncounted(mixed: Any) -> None:
    deployment = mixed.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    begun, early, fine = "d000", "d003", "d001"  # two of rev-b, one of rev-a
    for name in (begun, early, fine):
        assert mixed.offered(name) == deployment
    mixed.report(begun, deployment, "installing")
    mixed.pause(deployment)
    mixed.resume(deployment, None, BAD)
    mixed.must_hold()
    assert mixed.states(deployment) == {begun: "installing", early: "canceled", fine: "pending"}
    mixed.report(begun, deployment, "rolled_back", reason="boot_failed")
    mixed.must_hold()
    assert tally(mixed, deployment)[1] == 0
    assert mixed.offered(early) is None
    assert mixed.retry(deployment) == 0  # what was left out is not retried either


def test_a_cohort_by_former_version_holds_those_it_updated_as_well(yard: Any) -> None:
    for version in ("1.0.0", "1.0.9", "2.0.0"):
        yard.release(version)
    old, new = yard.fleet(4, "1.0.0", "o"), yard.fleet(4, "1.0.9", "n")
    deployment = yard.running("2.0.0", failure_threshold_percent=100, **ALL_AT_ONCE)
    yard.end(old[0], deployment)
    yard.end(old[1], deployment, "failed")
    yard.end(new[0], deployment)
    yard.pause(deployment)
    yard.resume(deployment, None, "current_version=1.0.0")
    yard.carry_recounts()
    yard.must_hold()
    assert tally(yard, deployment) == (4, 0, 1)
    yard.tick()
    assert yard.checks([*old, *new], deployment) == new[1:]


@pytest.mark.parametrize("kind", ["list", "query"])
def test_a_group_is_left_out_and_cannot_be_deleted_meanwhile(mixed: Any, kind: str) -> None:
    members = tuple(name for name in mixed.types if bad(mixed, name))
    group = (
        mixed.group("revb", query="label.hw = rev-b")
        if kind == "query"
        else mixed.group("revb", members=members)
    )
    deployment = stopped(mixed)
    mixed.resume(deployment, None, "group=revb")
    mixed.carry_recounts()
    assert tally(mixed, deployment)[:2] == (20, 0)
    mixed.tick()
    assert not any(bad(mixed, name) for name in mixed.checks(sorted(mixed.types), deployment))
    from skylift.engine import groups

    with pytest.raises(Rejected) as caught:
        mixed.write(lambda conn: groups.delete(conn, group, "ada", mixed.clock()))
    assert caught.value.code == "group_in_use"


def test_leaving_out_the_wrong_cohort_does_not_resume_and_changes_nothing(mixed: Any) -> None:
    deployment = stopped(mixed)
    before = mixed.everything()
    for wrong, code in (
        ("label.hw=rev-z", "breach_stands"),
        ("label.hw=", "bad_query"),
        ("group=nobody", "unknown_group"),
    ):
        with pytest.raises(Rejected) as caught:
            mixed.resume(deployment, None, wrong)
        assert caught.value.code == code
        assert mixed.everything() == before


def test_the_fleet_is_looked_over_outside_of_the_one_writer(
    mixed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every report of the fleet would queue behind it: what is written is a little at a time."""
    deployment = stopped(mixed)
    where: list[str] = []

    def watched(ask: Any) -> Any:
        def asking(*words: Any, **more: Any) -> Any:
            where.append(threading.current_thread().name)
            return ask(*words, **more)

        return asking

    for module, name in (
        (leavers, "devices"),
        (leavers, "tally"),
        (leavers, "versions"),
        (members, "by_phase"),
    ):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    monkeypatch.setattr(leaving, "AT_ONCE", 2)
    gone = sum(bad(mixed, name) for name in mixed.states(deployment))
    before = mixed.database.stats.commits
    mixed.resume(deployment, None, BAD)
    assert len(where) == 4
    assert "skylift-writer" not in where
    assert gone > 4
    assert mixed.database.stats.commits - before >= 3 + gone / 2
    assert mixed.status(deployment) == "running"
    mixed.must_hold()


def test_a_server_that_dies_in_the_middle_leaves_it_paused_and_asked_again_it_goes_on(
    mixed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = stopped(mixed)
    done, take_out = [], leaving._take_out

    def dies(*words: Any) -> None:
        done.append(1)
        if len(done) == 2:
            raise Unavailable("the power has failed")
        take_out(*words)

    monkeypatch.setattr(leaving, "AT_ONCE", 2)
    monkeypatch.setattr(leaving, "_take_out", dies)
    with pytest.raises(Unavailable):
        mixed.resume(deployment, None, BAD)
    mixed.restart()
    mixed.must_hold()
    assert mixed.status(deployment) == "paused"
    mixed.resume(deployment, None, BAD)
    mixed.must_hold()
    mixed.carry_recounts()
    assert tally(mixed, deployment)[:2] == (20, 0)
    assert mixed.row(deployment).selector["without"] == [{"text": BAD}]
    assert mixed.audit(deployment)["findings"] == []


def test_only_a_paused_deployment_goes_on_without_somebody(mixed: Any) -> None:
    deployment = mixed.running(**ALL_AT_ONCE)
    with pytest.raises(Rejected) as caught:
        mixed.resume(deployment, None, BAD)
    assert caught.value.code == "not_paused"


def test_only_the_cohort_is_rolled_back_and_nothing_is_aborted(mixed: Any) -> None:
    deployment = mixed.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    for name in sorted(mixed.types)[:12]:
        mixed.end(name, deployment)
    mixed.clock.forward(seconds=1)
    done = mixed.roll_back(deployment, BAD)
    assert done.left == {}
    (made,) = done.deployments
    assert mixed.status(deployment) == "running"
    mixed.tick()
    assert mixed.checks(sorted(mixed.types)[:12], made) == ["d000", "d003", "d006", "d009"]
    assert mixed.roll_back(deployment, BAD) == done  # again: nothing changes
    mixed.tick(seconds=1)
    for name in ("d000", "d003", "d006", "d009"):
        mixed.end(name, made)
    mixed.tick()
    assert mixed.status(made) == "complete"
    assert mixed.roll_back(deployment, BAD).deployments == ()
    assert mixed.roll_back(deployment, "label.hw=rev-z").deployments == ()
    mixed.must_hold()


def test_a_part_that_went_back_does_not_hide_the_rest_from_a_whole_rollback(mixed: Any) -> None:
    deployment = mixed.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    for name in ("d000", "d001"):
        mixed.end(name, deployment)
    mixed.clock.forward(seconds=1)
    (part,) = mixed.roll_back(deployment, BAD).deployments
    mixed.clock.forward(seconds=1)
    (whole,) = mixed.roll_back(deployment).deployments
    assert whole != part
    mixed.tick()
    assert mixed.offered("d001") == whole


def test_a_cohort_reads_back_as_it_was_kept(yard: Any) -> None:
    yard.group("eu", query="label.region = eu")
    for text in (BAD, "group=eu", 'label.owner="Ada Lovelace"'):
        made = yard.read(lambda conn, t=text: cohorts.read(conn, "without", t))
        assert cohorts.load(made.dump()) == made
