"""What is forgotten: deleted deployments, and what is older than the server keeps."""

from datetime import timedelta
from typing import Any

import pytest

from skylift.core.errors import Rejected
from skylift.engine import retention
from skylift.engine.retention import Purge, Retention
from skylift.store import deployments


def delete(yard: Any, deployment: str) -> None:
    yard.write(lambda conn: retention.delete(conn, deployment, "ada", yard.clock()))


def purge(yard: Any) -> None:
    """What the courier does."""
    for payload in yard.outbox("purge"):
        Purge(yard.database)(payload)


def ended(yard: Any, fleet: list[str], version: str = "1.1.0", **config: Any) -> str:
    yard.release(version)
    deployment: str = yard.running(version, all_at_once=True, **config)
    for name in fleet:
        yard.finish(name, deployment)
    yard.tick()
    assert yard.status(deployment) == "complete"
    return deployment


def refused(yard: Any, deployment: str) -> str:
    with pytest.raises(Rejected) as caught:
        delete(yard, deployment)
    assert caught.value.field == "deployment"
    return f"{caught.value.code}: {caught.value}"


def test_a_deleted_deployment_is_gone_at_once_and_its_rows_soon(yard: Any, monkeypatch: Any) -> None:
    fleet = yard.fleet(8)
    before = {name: len(rows) for name, rows in yard.everything().items()}
    deployment = ended(yard, fleet)
    kept = yard.create("1.1.0", target_devices=[yard.enroll("other")])
    delete(yard, deployment)
    assert yard.read(lambda conn: deployments.find(conn, deployment)) is None
    assert [row.id for row in yard.read(lambda conn: deployments.page(conn, limit=10))] == [kept]
    assert sum(yard.read(deployments.count_by_status).values()) == 1
    assert len(yard.states(deployment)) == 8
    monkeypatch.setattr(retention, "CHUNK", 3)
    purge(yard)
    purge(yard)  # an effect may come twice
    after = yard.everything()
    assert len(after["updates"]) == before["updates"]
    assert len(after["deployments"]) == 1
    assert not [row for row in after["events"] + after["counters"] + after["phases"] if deployment in row]
    assert any("deployment.delete" in row for row in after["audit"])
    assert {yard.device(name).current_version for name in fleet} == {"1.1.0"}
    yard.must_hold()


def test_what_is_needed_is_not_deleted(yard: Any) -> None:
    fleet = yard.fleet(6)
    first = ended(yard, fleet)
    yard.release("1.2.0")
    running = yard.running("1.2.0", all_at_once=True)
    assert refused(yard, running) == (
        f"deployment_in_use: deployment is {running!r}: it is running; abort it first"
    )
    yard.check(fleet[0])
    yard.report(fleet[0], running, "downloading")
    yard.report(fleet[0], running, "installing")
    yard.abort(running)
    assert refused(yard, running).endswith("1 devices are still at it")
    yard.report(fleet[0], running, "validating")
    yard.report(fleet[0], running, "complete")
    delete(yard, running)
    with pytest.raises(Rejected, match="there is no such deployment"):
        delete(yard, running)
    yard.release("1.0.0")
    (back,) = yard.roll_back(first).deployments
    assert f"{back} is live and sends back what it updated" in refused(yard, first)
    yard.abort(back)
    delete(yard, first)


def test_a_word_about_a_deleted_deployment_changes_nothing(yard: Any) -> None:
    (name,) = fleet = yard.fleet(1)
    deployment = ended(yard, fleet)
    delete(yard, deployment)
    for state in ("complete", "rolled_back", "failed"):
        with pytest.raises(Rejected) as caught:
            yard.report(name, deployment, state)
        assert caught.value.code == "unknown_update"
    purge(yard)
    assert yard.offered(name) is None
    yard.release("1.2.0")
    newer = yard.running("1.2.0", all_at_once=True)
    yard.finish(name, newer)


def test_only_what_is_older_than_the_server_keeps_goes(yard: Any) -> None:
    fleet = yard.fleet(3)
    old = ended(yard, fleet)
    yard.runs[fleet[0]] = "9.9.9"
    yard.check(fleet[0])  # says so: an event of its own, outside any deployment
    yard.tick(days=20)
    young = ended(yard, fleet, "1.2.0")
    yard.tick(days=20)
    running = yard.create("1.1.0", starts_at=(yard.clock() + timedelta(days=1)).isoformat())
    facts = len([row for row in yard.everything()["events"] if "facts" in row])
    assert Retention(yard.database, 0)(yard.clock()) == 0
    assert Retention(yard.database, 90)(yard.clock()) == 0
    assert len([row for row in yard.everything()["events"] if "facts" in row]) == facts
    assert Retention(yard.database, 30)(yard.clock()) == 1
    there = {row.id for row in yard.read(lambda conn: deployments.page(conn, limit=10))}
    assert there == {young, running}
    assert old not in there
    assert len([row for row in yard.everything()["events"] if "facts" in row]) < facts
