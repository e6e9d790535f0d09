"""The operator's verbs: what they do, twice, and at the wrong moment."""

from typing import Any

import pytest
import sqlalchemy as sa

from skylift.core.errors import Rejected, Unavailable
from skylift.core.planner import plan
from skylift.engine import moves
from skylift.engine import retry as retrying
from skylift.store import apply, tables, world

ALL_AT_ONCE = {"all_at_once": True}


def audits(yard: Any, deployment: str) -> list[str]:
    question = (
        sa.select(tables.audit.c.action)
        .where(tables.audit.c.subject == deployment)
        .order_by(tables.audit.c.pk)
    )
    return [row.action for row in yard.read(lambda conn: conn.execute(question).all())]


def refused(verb: Any, *args: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        verb(*args)
    return caught.value


def test_a_pause_holds_who_has_not_begun_and_lets_the_others_finish(yard: Any) -> None:
    fleet = yard.fleet(4)
    yard.release("1.1.0")
    deployment = yard.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    assert yard.checks(fleet[:2], deployment) == fleet[:2]
    yard.report(fleet[1], deployment, "downloading")
    yard.pause(deployment)
    held = yard.check(fleet[0])
    assert held["update_available"] is False
    assert held["retry_after"] < 300
    assert yard.offered(fleet[1]) == deployment
    assert yard.offered(fleet[2]) is None
    yard.tick(minutes=40)  # what is held does not age
    assert yard.states(deployment)[fleet[0]] == "pending"
    yard.resume(deployment)
    yard.tick()
    assert yard.check(fleet[0])["attempt"] == 1
    yard.tick(minutes=29)
    assert yard.states(deployment)[fleet[0]] == "pending"
    yard.tick(minutes=2)
    assert yard.states(deployment)[fleet[0]] == "failed"
    yard.must_hold()


def test_every_verb_leaves_an_audit_row_and_a_second_time_changes_nothing(yard: Any) -> None:
    yard.fleet(4)
    yard.release("1.1.0")
    deployment = yard.running(phases=[{"percent": 50}, {"percent": 100, "gate": "manual"}])
    for verb in (yard.pause, yard.resume, yard.promote, yard.abort):
        verb(deployment)
        before = yard.everything()
        verb(deployment)
        assert yard.everything() == before
    done = [action.removeprefix("deployment.") for action in audits(yard, deployment)]
    assert done == ["create", "pause", "resume", "promote", "abort"]


def test_verbs_at_the_wrong_moment_say_why_not(yard: Any) -> None:
    yard.fleet(4)
    yard.release("1.1.0")
    draft = yard.create(draft=True)
    assert refused(yard.promote, draft).code == "not_running"
    assert refused(yard.pause, draft).code == "not_running"
    assert refused(yard.retry, draft).code == "not_retryable"
    assert refused(yard.pause, "dep_unknown").code == "unknown_deployment"
    yard.abort(draft)
    for verb in (yard.pause, yard.resume, yard.promote, yard.retry):
        error = refused(verb, draft)
        assert error.kind == "conflict"
        assert error.value == "aborted"
        assert draft in str(error)


def test_a_draft_waits_for_its_resume(yard: Any) -> None:
    fleet = yard.fleet(2)
    yard.release("1.1.0")
    deployment = yard.create(draft=True, **ALL_AT_ONCE)
    yard.tick(hours=1)
    assert yard.checks(fleet, deployment) == []
    yard.resume(deployment)
    yard.tick()
    assert yard.checks(fleet, deployment) == fleet


def test_promote_opens_the_next_phase_now_and_passes_a_manual_gate(yard: Any) -> None:
    fleet = yard.fleet(10)
    yard.release("1.1.0")
    gates = [{"percent": 20}, {"percent": 50}, {"percent": 100, "gate": "manual"}]
    deployment = yard.running(phases=gates)
    assert len(yard.checks(fleet, deployment)) == 2
    yard.promote(deployment)
    yard.tick()
    assert len(yard.checks(fleet, deployment)) == 5
    yard.tick()
    yard.promote(deployment)
    yard.tick()
    assert len(yard.checks(fleet, deployment)) == 10
    assert refused(yard.promote, deployment).code == "last_phase"
    yard.must_hold()


def test_a_manual_gate_waits_until_the_lifetime_is_over_and_then_says_so(yard: Any) -> None:
    fleet = yard.fleet(4)
    yard.release("1.1.0")
    gates = [{"percent": 50, "min_minutes": 0}, {"percent": 100, "gate": "manual"}]
    deployment = yard.running(phases=gates, lifetime_minutes=600)
    for name in yard.checks(fleet, deployment):
        yard.finish(name, deployment)
    yard.tick()
    yard.tick(hours=9)
    assert yard.status(deployment) == "running"
    assert "promote" in yard.row(deployment).notes[0]
    yard.tick(hours=2)
    assert yard.status(deployment) == "failed"
    assert "lifetime" in yard.row(deployment).status_reason


def test_abort_cancels_who_has_not_written_and_lets_the_rest_end(yard: Any) -> None:
    fleet = yard.fleet(5)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    for name, state in zip(fleet[1:4], ("downloading", "installing", "validating"), strict=True):
        assert yard.offered(name) == deployment
        yard.report(name, deployment, state)
    assert yard.offered(fleet[0]) == deployment
    yard.abort(deployment)
    yard.must_hold()
    assert list(yard.states(deployment).values()).count("canceled") == 2
    assert yard.offered(fleet[0]) is None
    assert yard.offered(fleet[4]) is None
    late = yard.report(fleet[1], deployment, "installing")
    assert (late.recorded, late.state) == (False, "canceled")
    assert yard.offered(fleet[2]) == deployment
    assert yard.report(fleet[2], deployment, "complete").recorded
    assert yard.report(fleet[3], deployment, "rolled_back", reason="boot_failed").recorded
    assert yard.status(deployment) == "aborted"
    assert order_of(yard, fleet[0]) == {}  # nothing signed is left that says "install"
    yard.must_hold()


def test_an_abort_costs_the_same_however_many_are_under_way(
    yard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few are canceled with it; the others some at a time, and whoever asks before is told by the check."""
    monkeypatch.setattr(moves, "AT_ONCE", 3)
    fleet = yard.fleet(12)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    assert yard.checks(fleet, deployment) == fleet
    yard.abort(deployment)
    yard.must_hold()
    states = yard.states(deployment)
    assert list(states.values()).count("canceled") == 3
    asks = next(name for name, state in states.items() if state == "pending")
    assert yard.offered(asks) is None
    assert yard.states(deployment)[asks] == "canceled"
    begins = next(name for name, state in yard.states(deployment).items() if state == "pending")
    yard.report(begins, deployment, "installing")
    rest = moves.Cancel(yard.database, yard.clock, yard.deadlines)
    commits = yard.database.stats.commits
    for payload in yard.outbox("cancel") * 2:  # an effect may come twice
        rest(payload)
    assert yard.database.stats.commits - commits >= 4, "of three each"
    canceled = [name for name, state in yard.states(deployment).items() if state == "canceled"]
    assert sorted([*canceled, begins]) == fleet
    yard.must_hold()


def test_what_runs_again_is_not_canceled_by_an_end_of_before(yard: Any) -> None:
    fleet = yard.fleet(2)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    assert yard.checks(fleet, deployment) == fleet
    moves.Cancel(yard.database, yard.clock, yard.deadlines)({"deployment": deployment})
    assert set(yard.states(deployment).values()) == {"pending"}
    moves.Cancel(yard.database, yard.clock, yard.deadlines)({"deployment": "dep_gone"})


def order_of(yard: Any, name: str) -> Any:
    question = sa.select(tables.director_orders.c.order).where(
        tables.director_orders.c.device_pk == yard.device(name).pk
    )
    return yard.read(lambda conn: conn.execute(question).scalar_one())


def test_a_breach_that_aborts_cancels_who_has_not_written(yard: Any) -> None:
    fleet = yard.fleet(5)
    yard.release("1.1.0")
    deployment = yard.running(failure_action="abort", failure_threshold_percent=0, **ALL_AT_ONCE)
    yard.checks(fleet, deployment)
    yard.report(fleet[0], deployment, "downloading")
    yard.report(fleet[1], deployment, "installing")
    yard.report(fleet[2], deployment, "failed", reason="no_space")
    assert yard.status(deployment) == "failed"
    states = yard.states(deployment)
    assert [states[name] for name in fleet] == ["canceled", "installing", "failed", "canceled", "canceled"]
    yard.must_hold()


def test_a_standing_breach_needs_a_higher_threshold_or_a_retry(yard: Any) -> None:
    fleet = yard.fleet(4)
    yard.release("1.1.0")
    deployment = yard.running(failure_threshold_percent=10, **ALL_AT_ONCE)
    yard.finish(fleet[0], deployment, "failed", "install_error")
    assert yard.status(deployment) == "paused"
    error = refused(yard.resume, deployment)
    assert error.code == "breach_stands"
    assert "threshold" in str(error)
    yard.resume(deployment, 30)
    yard.tick()
    assert yard.status(deployment) == "running"
    yard.finish(fleet[1], deployment, "failed", "install_error")
    assert yard.status(deployment) == "paused"
    assert yard.retry(deployment) == 2
    yard.resume(deployment)
    yard.tick()
    assert yard.status(deployment) == "running"  # the old failures are pending again: no breach
    yard.must_hold()


def test_retry_is_a_new_attempt_that_fences_the_old_one(yard: Any) -> None:
    fleet = yard.fleet(4)
    yard.release("1.1.0")
    deployment = yard.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    yard.finish(fleet[0], deployment, "failed", "install_error")
    yard.finish(fleet[1], deployment, "rolled_back", "boot_failed")
    assert yard.retry(deployment, fleet[0]) == 1
    assert yard.states(deployment)[fleet[1]] == "rolled_back"
    late = yard.report(fleet[0], deployment, "failed", attempt=1)
    assert (late.recorded, late.state) == (False, "pending")
    answer = yard.check(fleet[0])
    assert answer["attempt"] == 2
    assert order_of(yard, fleet[0])["attempt"] == 2
    assert yard.report(fleet[0], deployment, "complete", attempt=2).recorded
    yard.must_hold()


def test_many_are_retried_some_at_a_time_and_it_is_one_word_in_the_audit(
    yard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skylift.engine.retry.AT_ONCE", 3)
    fleet = yard.fleet(11)
    yard.release("1.1.0")
    deployment = yard.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    for name in fleet:
        yard.end(name, deployment, "complete" if name == fleet[4] else "failed")
    yard.tick()
    assert yard.status(deployment) == "complete"
    commits = yard.database.stats.commits
    assert yard.retry(deployment) == 10
    assert yard.database.stats.commits - commits == 4
    yard.must_hold()
    assert yard.status(deployment) == "running"
    assert list(yard.states(deployment).values()).count("pending") == 10
    assert audits(yard, deployment).count("deployment.retry") == 1
    assert yard.retry(deployment) == 0
    assert yard.retry(deployment, *fleet) == 0


def test_a_server_that_dies_while_it_retries_retries_the_rest_when_asked_again(
    yard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = yard.fleet(5)
    yard.release("1.1.0")
    deployment = yard.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    for name in fleet:
        yard.end(name, deployment, "failed")
    done, some = [], retrying._some

    def dies(*words: Any) -> Any:
        done.append(1)
        if len(done) == 2:
            raise Unavailable("the power has failed")
        return some(*words)

    monkeypatch.setattr(retrying, "AT_ONCE", 2)
    monkeypatch.setattr(retrying, "_some", dies)
    with pytest.raises(Unavailable):
        yard.retry(deployment)
    yard.restart()
    yard.must_hold()
    assert yard.retry(deployment) == 3
    attempts = {yard.update(name, deployment).attempt for name in fleet}
    assert attempts == {2}


def test_retry_opens_a_finished_deployment_again(yard: Any) -> None:
    fleet = yard.fleet(3)
    yard.release("1.1.0")
    deployment = yard.running(failure_threshold_percent=50, **ALL_AT_ONCE)
    yard.finish(fleet[0], deployment, "failed", "install_error")
    for name in fleet[1:]:
        yard.finish(name, deployment)
    yard.tick()
    assert yard.status(deployment) == "complete"
    assert yard.retry(deployment) == 1
    assert yard.status(deployment) == "running"
    yard.tick()
    yard.finish(fleet[0], deployment)
    yard.tick()
    assert yard.status(deployment) == "complete"
    assert "3 devices complete, 0 failed" in yard.row(deployment).status_reason
    assert yard.retry(deployment) == 0  # again: nothing changes
    assert yard.status(deployment) == "complete"


def test_retry_leaves_a_device_alone_that_another_deployment_holds(yard: Any) -> None:
    fleet = yard.fleet(2)
    yard.release("1.1.0")
    yard.release("1.2.0")
    old = yard.running(failure_threshold_percent=100, **ALL_AT_ONCE)
    yard.finish(fleet[0], old, "failed", "install_error")
    yard.clock.forward(seconds=1)
    new = yard.running("1.2.0", **ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == new
    assert yard.retry(old) == 0
    yard.must_hold()


def test_a_plan_from_a_stale_generation_never_applies(yard: Any) -> None:
    yard.fleet(4)
    yard.release("1.1.0")
    deployment = yard.create(**ALL_AT_ONCE)
    seen = yard.world(deployment)
    stale = plan(seen, yard.clock())
    assert stale.actions
    yard.pause(deployment)
    before = yard.everything()
    assert yard.write(lambda conn: apply.apply_plan(conn, seen, stale, yard.clock())) is False
    assert yard.everything() == before


def test_of_two_changes_from_one_look_the_second_is_refused(yard: Any) -> None:
    yard.fleet(4)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    seen = yard.read(lambda conn: world.load_world(conn, deployment))
    now = yard.clock()
    assert yard.write(lambda conn: apply.change(conn, seen, now, status="paused", paused_by="operator"))
    assert not yard.write(lambda conn: apply.change(conn, seen, now, status="aborted"))
    assert yard.status(deployment) == "paused"
