"""Matched sets: an updated device and a few of the control group, watched over the same stretch of time.

The rows stay after the verdict: a device takes part once per deployment, and the two numbers on the
deployment (`sets_updated`, `sets_control`) can be counted again from them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from skylift.core.lifecycle import DeploymentStatus, UpdateState
from skylift.core.world import FailureGate
from skylift.store.tables import deployments, devices, health, matches, seen, updates


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a set, with what its verdict is made of. `state`: of its update in the deployment."""

    device_pk: int
    begun_at: datetime
    seen_at: datetime | None
    health_at: datetime | None
    healthy: bool | None
    metrics: dict[str, float]
    state: str | None
    busy_with: str | None
    status: str


def watched(conn: Connection) -> "list[Row[Any]]":
    """The running deployments with a statistical gate."""
    return list(
        conn.execute(
            sa.select(deployments).where(
                deployments.c.status == DeploymentStatus.RUNNING.value,
                deployments.c.gate == FailureGate.STATISTICAL.value,
            )
        )
    )


def compared(conn: Connection) -> frozenset[int]:
    """The devices (by key) of all sets that have no verdict yet."""
    return frozenset(
        conn.execute(sa.select(matches.c.device_pk).where(matches.c.closed.is_(False))).scalars()
    )


def sets(conn: Connection, deployment_id: str) -> int:
    """How many sets there are, with and without their verdict."""
    question = sa.select(sa.func.count()).where(
        matches.c.deployment_id == deployment_id, matches.c.device_pk == matches.c.updated_pk
    )
    return int(conn.execute(question).scalar_one())


def taking_part(conn: Connection, deployment_id: str) -> set[int]:
    question = sa.select(matches.c.device_pk).where(matches.c.deployment_id == deployment_id)
    return {row.device_pk for row in conn.execute(question)}


def newly_updated(
    conn: Connection, deployment_id: str, since: datetime, limit: int
) -> "list[Row[tuple[int, str]]]":
    """(pk, device type) of active devices that completed since then and take part in no set yet."""
    question = (
        sa.select(devices.c.pk, devices.c.device_type)
        .join(updates, updates.c.device_pk == devices.c.pk)
        .outerjoin(
            matches,
            sa.and_(matches.c.device_pk == devices.c.pk, matches.c.deployment_id == deployment_id),
        )
        .where(
            updates.c.deployment_id == deployment_id,
            updates.c.state == UpdateState.COMPLETE.value,
            updates.c.completed_at >= since,
            updates.c.left_out.is_(False),
            devices.c.status == "active",
            devices.c.deployment_id.is_(None),
            matches.c.device_pk.is_(None),
        )
        .order_by(updates.c.completed_at)
        .limit(limit)
    )
    return list(conn.execute(question))


def idle_devices(
    conn: Connection, device_type: str, from_h: int, seen_since: datetime, limit: int
) -> list[int]:
    """Active devices of this type with nothing to do that were heard of lately, from a place in the order of
    their hashes on: by the index, never the fleet."""
    question = (
        sa.select(devices.c.pk)
        .join(seen, seen.c.device_pk == devices.c.pk)
        .where(
            devices.c.device_type == device_type,
            devices.c.h >= from_h,
            devices.c.status == "active",
            devices.c.deployment_id.is_(None),
            seen.c.at >= seen_since,
        )
        .order_by(devices.c.h)
        .limit(limit)
    )
    return [row.pk for row in conn.execute(question)]


def begin(
    conn: Connection,
    deployment_id: str,
    updated_pk: int,
    controls: Sequence[int],
    now: datetime,
    due: datetime,
) -> None:
    rows = [
        {
            "deployment_id": deployment_id,
            "device_pk": pk,
            "updated_pk": updated_pk,
            "begun_at": now,
            "due_at": due,
        }
        for pk in (updated_pk, *controls)
    ]
    conn.execute(sa.insert(matches), rows)


def due(conn: Connection, before: datetime, limit: int) -> list[tuple[str, int]]:
    """(deployment, updated device) of sets that wait for their verdict."""
    question = (
        sa.select(matches.c.deployment_id, matches.c.updated_pk)
        .where(
            matches.c.closed.is_(False),
            matches.c.due_at <= before,
            matches.c.device_pk == matches.c.updated_pk,
        )
        .order_by(matches.c.due_at)
        .limit(limit)
    )
    return [(row.deployment_id, row.updated_pk) for row in conn.execute(question)]


def members(conn: Connection, deployment_id: str, updated_pk: int) -> list[Member]:
    """The set's devices; empty where it has had its verdict."""
    question = (
        sa.select(
            matches.c.device_pk,
            matches.c.begun_at,
            seen.c.at.label("seen_at"),
            health.c.at.label("health_at"),
            health.c.healthy,
            health.c.metrics,
            updates.c.state,
            devices.c.deployment_id.label("busy_with"),
            devices.c.status,
        )
        .join(devices, devices.c.pk == matches.c.device_pk)
        .outerjoin(seen, seen.c.device_pk == matches.c.device_pk)
        .outerjoin(health, health.c.device_pk == matches.c.device_pk)
        .outerjoin(
            updates,
            sa.and_(
                updates.c.device_pk == matches.c.device_pk,
                updates.c.deployment_id == matches.c.deployment_id,
            ),
        )
        .where(
            matches.c.deployment_id == deployment_id,
            matches.c.updated_pk == updated_pk,
            matches.c.closed.is_(False),
        )
    )
    return [Member(*row) for row in conn.execute(question)]


def close(conn: Connection, deployment_id: str, updated_pk: int, verdicts: dict[int, bool | None]) -> None:
    """Write the verdicts down: device -> unhealthy; None where none was possible."""
    for pk, unhealthy in verdicts.items():
        conn.execute(
            sa.update(matches)
            .where(
                matches.c.deployment_id == deployment_id,
                matches.c.device_pk == pk,
                matches.c.updated_pk == updated_pk,
            )
            .values(closed=True, unhealthy=unhealthy)
        )


def count(conn: Connection, deployment_id: str, but: Collection[int] = frozenset()) -> tuple[int, int]:
    """(updated, control): in how many sets exactly one device was unhealthy, by whose that was; without the
    sets of these updated devices."""
    own = sa.case((matches.c.device_pk == matches.c.updated_pk, 1), else_=0)
    bad = sa.case((matches.c.unhealthy.is_(True), 1), else_=0)
    question = (
        sa.select(matches.c.updated_pk, sa.func.sum(own * bad).label("updated"))
        .where(matches.c.deployment_id == deployment_id, matches.c.closed.is_(True))
        .group_by(matches.c.updated_pk)
        .having(sa.func.sum(bad) == 1, sa.func.count() == sa.func.count(matches.c.unhealthy))
    )
    found = [row.updated for row in conn.execute(question) if row.updated_pk not in but]
    return sum(found), len(found) - sum(found)


def put_count(conn: Connection, deployment_id: str) -> None:
    """Set the deployment's two numbers."""
    updated, control = count(conn, deployment_id)
    conn.execute(
        sa.update(deployments)
        .where(deployments.c.id == deployment_id)
        .values(sets_updated=updated, sets_control=control)
    )


def forget(conn: Connection, deployment_id: str) -> None:
    """Take the sets of devices that were left out away, and count again."""
    gone = sa.select(updates.c.device_pk).where(
        updates.c.deployment_id == deployment_id, updates.c.left_out.is_(True)
    )
    conn.execute(
        sa.delete(matches).where(
            matches.c.deployment_id == deployment_id, matches.c.updated_pk.in_(gone.scalar_subquery())
        )
    )
    put_count(conn, deployment_id)
