"""What is forgotten, and when: deployments an operator deletes, and what is older than the server keeps.

A deleted deployment is gone at once for everybody who asks; its rows (a million updates, their events) go
afterwards, some at a time, so that no report ever waits behind them. The audit log is kept.
"""

from datetime import datetime, timedelta
from typing import Any

from skylift.core.errors import Kind, Rejected
from skylift.core.lifecycle import ENDED, OPEN, DeploymentStatus
from skylift.engine.verbs import unknown
from skylift.store import counters, deployments, events, outbox, world
from skylift.store.db import Connection, Database
from skylift.store.purge import purge_some

CHUNK = 2_000  # rows per transaction
AT_ONCE = 100  # deployments that one look at the calendar deletes


def delete(conn: Connection, deployment_id: str, actor: str, now: datetime) -> None:
    """Refused while it is live, while a device is at it, and while a rollback of it runs."""
    world.lock(conn, deployment_id)
    row = deployments.find(conn, deployment_id)
    if row is None:
        raise unknown(deployment_id)
    if why := _held(conn, row):
        raise Rejected(
            "deployment_in_use",
            f"deployment is {deployment_id!r}: {why}",
            kind=Kind.CONFLICT,
            field="deployment",
            value=deployment_id,
            rule="has ended, and nothing needs it any more",
        )
    deployments.hide(conn, deployment_id, now)
    events.record(conn, actor, "deployment.delete", deployment_id, {"version": row.version}, now)
    outbox.put(conn, "purge", {"deployment": deployment_id}, now)


def _held(conn: Connection, row: Any) -> str:
    """Why it cannot go; empty where it can."""
    if DeploymentStatus(row.status) not in ENDED:
        return f"it is {row.status}; abort it first"
    tallies = counters.of_deployment(conn, row.id).values()
    if flying := sum(tally.get(state.value, 0) for tally in tallies for state in OPEN):
        return f"{flying} devices are still at it"
    if user := deployments.uses_updates_of(conn, row.id):
        return f"{user} is live and sends back what it updated"
    if outbox.is_waiting(conn, "rollback", {"deployment": row.id}, begun=True):
        return "what it updated is about to be sent back"
    return ""


class Purge:
    """The outbox's effect `purge`: remove the rows of a deleted deployment. Interrupted, it begins again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(self, payload: dict[str, Any]) -> None:
        deployment: str = payload["deployment"]
        while self._database.write(lambda conn: purge_some(conn, deployment, CHUNK)):
            pass


class Retention:
    """Deletes what is older than `days`; 0 keeps everything. A chore of the loop."""

    def __init__(self, database: Database, days: int) -> None:
        self._database, self._days = database, days

    def __call__(self, now: datetime) -> int:
        """How many deployments it deleted."""
        if not self._days:
            return 0
        before = now - timedelta(days=self._days)
        while self._database.write(lambda conn: events.forget_facts(conn, before, CHUNK)):
            pass
        with self._database.read() as conn:
            old = deployments.ended_before(conn, before, AT_ONCE)
        return sum(self._database.write(lambda conn, name=name: _expire(conn, name, now)) for name in old)  # type: ignore[misc] # mypy and defaults


def _expire(conn: Connection, deployment_id: str, now: datetime) -> bool:
    """Whether it could go; what is held stays until another day."""
    try:
        delete(conn, deployment_id, "skylift", now)
    except Rejected:
        return False
    return True
