"""Admission: one more device of a phase, or not. Conditional writes, no reading first and hoping later.

The phase row is the ticket: an offer holds it, then looks at the deployment's status; whoever pauses locks
the phase rows first (`store.world.lock`). A shared lock on the deployment instead let a pause starve for
seconds.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.lifecycle import OPEN, DeploymentStatus
from skylift.core.world import PhaseState
from skylift.store.counters import rows as counters_rows
from skylift.store.tables import counters, deployments, phases


def admit(conn: Connection, deployment_id: str, phase: int, max_parallel: int | None) -> bool:
    """Hold the phase's ticket; True if the phase is open, the deployment runs and there is room: at most
    `max_parallel` at it, and in a phase of a number of devices never more than that number, whoever came
    after they were counted."""
    held = conn.execute(
        sa.update(phases)
        .where(_is(deployment_id, phase), phases.c.state != PhaseState.CLOSED.value)
        .values(waiting=phases.c.waiting)
    )
    return (
        held.rowcount == 1
        and _running(conn, deployment_id)
        and _room(conn, deployment_id, max_parallel)
        and _below_count(conn, deployment_id, phase)
    )


def take(conn: Connection, deployment_id: str, phase: int) -> None:
    """One device fewer waits in this phase. A late joiner may not have been counted: never below zero."""
    conn.execute(
        sa.update(phases)
        .where(_is(deployment_id, phase), phases.c.waiting > 0)
        .values(waiting=phases.c.waiting - 1)
    )


def _is(deployment_id: str, phase: int) -> sa.ColumnElement[bool]:
    return sa.and_(phases.c.deployment_id == deployment_id, phases.c.number == phase)


def _running(conn: Connection, deployment_id: str) -> bool:
    status = conn.execute(sa.select(deployments.c.status).where(deployments.c.id == deployment_id)).scalar()
    return bool(status == DeploymentStatus.RUNNING.value)


def _room(conn: Connection, deployment_id: str, max_parallel: int | None) -> bool:
    if max_parallel is None:
        return True
    in_flight = conn.execute(
        sa.select(sa.func.coalesce(sa.func.sum(counters.c.n), 0)).where(
            counters.c.deployment_id == deployment_id,
            counters.c.state.in_([state.value for state in OPEN]),
        )
    ).scalar_one()
    return int(in_flight) < max_parallel


def _below_count(conn: Connection, deployment_id: str, phase: int) -> bool:
    most = conn.execute(sa.select(phases.c.count).where(_is(deployment_id, phase))).scalar()
    return most is None or counters_rows(conn, deployment_id).get(phase, 0) < int(most)
