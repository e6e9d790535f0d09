"""Open slots against open updates, for the auditor: a device holds the one update it is at, and no other."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.lifecycle import OPEN
from skylift.store.tables import devices, updates

_OPEN = [state.value for state in OPEN]
_HELD = sa.and_(
    updates.c.device_pk == devices.c.pk,
    updates.c.deployment_id == devices.c.deployment_id,
    updates.c.attempt == devices.c.attempt,
    updates.c.state.in_(_OPEN),
)


def rows_without(conn: Connection, deployment: str, limit: int) -> list[str]:
    """Devices with an open update here that their slot does not hold."""
    question = (
        sa.select(devices.c.device_id)
        .join(updates, updates.c.device_pk == devices.c.pk)
        .where(updates.c.deployment_id == deployment, updates.c.state.in_(_OPEN))
        .where(sa.not_(sa.func.coalesce(_HELD, sa.false())))
    )
    return _names(conn, question, limit)


def without_rows(conn: Connection, deployment: str, limit: int) -> list[str]:
    """Devices whose slot holds this deployment, and that have no open update of this attempt in it."""
    held = sa.select(sa.literal(1)).select_from(updates).where(_HELD).correlate(devices).exists()
    question = sa.select(devices.c.device_id).where(devices.c.deployment_id == deployment, sa.not_(held))
    return _names(conn, question, limit)


def open_first_attempts(conn: Connection, deployment: str) -> int:
    """Devices at it without an operator's retry: those that `max_parallel` bounds."""
    question = sa.select(sa.func.count()).where(
        updates.c.deployment_id == deployment, updates.c.attempt == 1, updates.c.state.in_(_OPEN)
    )
    return int(conn.execute(question).scalar_one())


def _names(conn: Connection, question: "sa.Select[Any]", limit: int) -> list[str]:
    return list(conn.execute(question.order_by(devices.c.device_id).limit(limit)).scalars())
