"""Questions of people who look: the fleet counted, a page of it, a deployment's course.

Never on a device's path. What reads many rows says so; whoever asks often keeps the answer for a while.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.lifecycle import FAILURES, UpdateState
from skylift.store.devices import ACTIVE, Device
from skylift.store.queries import Condition
from skylift.store.tables import (
    Instant,
    counters,
    deployments,
    devices,
    events,
    health,
    seen,
    updates,
)

Column = sa.ColumnElement[str]

NEAR = 4_000  # names that SQLite looks at for a version, before everybody is


def census(conn: Connection) -> list[tuple[str, str | None, int]]:
    """(device type, version, active devices). Reads every device."""
    columns = (devices.c.device_type, devices.c.current_version)
    question = sa.select(*columns, sa.func.count()).where(devices.c.status == ACTIVE).group_by(*columns)
    return [(kind, version, int(n)) for kind, version, n in conn.execute(question)]


@dataclass(frozen=True, slots=True)
class Heard:
    """Active devices by their last contact, and by their own last word on their health."""

    hour: int
    day: int
    month: int
    longer: int
    unhealthy: int


def heard(conn: Connection, now: datetime) -> Heard:
    """Reads every last contact; who was never heard is in none of the four."""

    def since(span: timedelta) -> Any:
        return sa.func.coalesce(sa.func.sum(sa.case((seen.c.at > now - span, 1), else_=0)), 0)

    contacts = sa.select(
        since(timedelta(hours=1)), since(timedelta(days=1)), since(timedelta(days=30)), sa.func.count()
    )
    active = contacts.select_from(seen.join(devices, devices.c.pk == seen.c.device_pk))
    hour, day, month, all_ = (int(n) for n in conn.execute(active.where(devices.c.status == ACTIVE)).one())
    ill = sa.select(sa.func.count()).select_from(health).where(health.c.healthy.is_(False))
    return Heard(hour, day - hour, month - day, all_ - month, int(conn.execute(ill).scalar_one()))


def carrying(conn: Connection, version: str, types: Sequence[str], kind: str) -> int:
    """Active devices of these types that run this version. Reads every device."""
    have = devices.c.config_version if kind == "config" else devices.c.current_version
    question = sa.select(sa.func.count()).select_from(devices)
    found = question.where(
        have == version, devices.c.device_type.in_(sorted(types)), devices.c.status == ACTIVE
    )
    return int(conn.execute(found).scalar_one())


# --- a page of devices -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Narrow:
    """What the database narrows: one value of each of these, and the beginning of the names."""

    device_type: str | None = None
    current_version: str | None = None
    prefix: str = ""


def window(conn: Connection, narrow: Narrow, *, after: str, limit: int) -> list[Device]:
    """The next devices behind this name, in the order of the names. Of a type, or by the beginning of their
    names, no more rows than `limit` are read. No index knows versions (`store.tables.fleet`): where too
    few of the next names run it, every device is looked at, in one pass."""
    fits = _narrowed(conn, narrow, after)
    if narrow.current_version is None:
        return _read(conn, fits, limit)
    runs = devices.c.current_version == narrow.current_version
    if conn.dialect.name != "sqlite":  # it knows how many run it, and goes the better way by itself
        return _read(conn, sa.and_(runs, fits), limit)
    name, kind = devices.c.device_id, devices.c.device_type
    until = conn.execute(
        sa.select(name).where(fits).order_by(name).offset(NEAR).limit(1)
    ).scalar_one_or_none()
    if until is None:
        return _read(conn, sa.and_(runs, fits), limit)
    found = _read(conn, sa.and_(runs, fits, name < until), limit)
    if len(found) == limit:
        return found
    # By the index of names, row by row, it would take three times as long as by the rows as they lie.
    return _read(conn, sa.and_(runs, _narrowed(conn, narrow, after, name + "", kind + "")), limit, name + "")


def _narrowed(
    conn: Connection,
    narrow: Narrow,
    after: str,
    name: Column = devices.c.device_id,
    kind: Column = devices.c.device_type,
) -> Condition:
    """All of it but the version. `name` and `kind`: what stands for these columns."""
    # One lower bound: of two SQLite takes either, and may read everything in front of the other.
    by_bytes = conn.dialect.name == "sqlite"  # elsewhere a collation may order names otherwise
    found = [name >= narrow.prefix if by_bytes and after < narrow.prefix else name > after]
    if narrow.device_type is not None:
        found.append(kind == narrow.device_type)
    if narrow.prefix and by_bytes:
        found.append(name < narrow.prefix[:-1] + chr(ord(narrow.prefix[-1]) + 1))
    elif narrow.prefix:
        found.append(name.startswith(narrow.prefix, autoescape=True))
    return sa.and_(*found)


def _read(conn: Connection, fits: Condition, limit: int, by: Column = devices.c.device_id) -> list[Device]:
    question = sa.select(*devices.c).where(fits).order_by(by).limit(limit)
    return [Device(*row) for row in conn.execute(question)]


def labels_of_some(conn: Connection, most: int = 500) -> dict[str, set[str]]:
    """Labels and values that occur, by a look at some devices: for suggestions."""
    found: dict[str, set[str]] = {}
    for (labels,) in conn.execute(sa.select(devices.c.labels).limit(most)):
        for name, value in labels.items():
            found.setdefault(name, set()).add(value)
    return found


# --- a deployment's course ---------------------------------------------------------------------------


def mark(conn: Connection, deployment_id: str) -> tuple[int, int] | None:
    """Changes whenever anything about the deployment does: its generation, and its latest event."""
    latest = sa.select(sa.func.max(events.c.pk)).where(events.c.deployment_id == deployment_id)
    question = sa.select(deployments.c.generation, latest.scalar_subquery())
    there = question.where(deployments.c.id == deployment_id, deployments.c.deleted_at.is_(None))
    row = conn.execute(there).first()
    return None if row is None else (row[0], row[1] or 0)


def endings(
    conn: Connection, deployment_id: str, since: datetime, slot_s: float
) -> dict[tuple[int, bool], int]:
    """(slot, whether it failed) -> updates that ended in it. Reads the deployment's updates."""
    zero = Instant().process_bind_param(since, conn.dialect) or 0
    # Whole numbers of ours in the text: PostgreSQL groups by an expression only where it is the same one.
    slot: sa.ColumnElement[int] = sa.literal_column(
        f"(updates.completed_at - {int(zero)}) / {int(slot_s * 1_000_000)}"
    )
    bad: sa.ColumnElement[int] = sa.literal_column(
        f"CASE WHEN updates.state = '{UpdateState.COMPLETE.value}' THEN 0 ELSE 1 END"
    )
    counted = [UpdateState.COMPLETE.value, *(state.value for state in FAILURES)]
    question = (
        sa.select(slot, bad, sa.func.count())
        .where(updates.c.deployment_id == deployment_id, updates.c.state.in_(counted))
        .where(updates.c.completed_at.is_not(None))
        .group_by(slot, bad)
    )
    return {(max(0, int(number)), bool(failed)): int(n) for number, failed, n in conn.execute(question)}


def totals(conn: Connection, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """By deployment: updates in each state, over all phases; for lists of deployments."""
    question = (
        sa.select(counters.c.deployment_id, counters.c.state, sa.func.sum(counters.c.n))
        .where(counters.c.deployment_id.in_(ids), counters.c.phase >= 0)
        .group_by(counters.c.deployment_id, counters.c.state)
    )
    found: dict[str, dict[str, int]] = {}
    for deployment, state, n in conn.execute(question):
        found.setdefault(deployment, {})[state] = int(n)
    return found
