"""What happened: the one log behind SSE streams, time lines and the audit of operators' changes.

An event is written in the transaction of what it tells, so it tells nothing that did not happen. `pk` is the
event's number: streams resume behind it. Numbers are committed in their order, so that whoever has read up to
one has missed none before it: of all servers on a database one writes at a time (`store.db`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store import channels
from skylift.store.bulk import Statement
from skylift.store.tables import Instant, audit, events


@dataclass(frozen=True, slots=True)
class Event:
    """One row of `events`; `data` is the kind's own JSON object."""

    pk: int
    at: datetime
    deployment_id: str | None
    device_pk: int | None
    kind: str
    data: dict[str, Any]


_COLUMNS = tuple(events.c)


def say(
    conn: Connection,
    kind: str,
    data: dict[str, Any],
    now: datetime,
    *,
    deployment_id: str | None = None,
    device_pk: int | None = None,
) -> None:
    """Writes one event into the running transaction. A deployment's own are also told to people."""
    conn.execute(
        events.insert().values(at=now, deployment_id=deployment_id, device_pk=device_pk, kind=kind, data=data)
    )
    if deployment_id is not None and device_pk is None:
        channels.of_deployment(conn, kind, data, deployment_id, now)


class Told(NamedTuple):
    """One of many events of devices; `data` as `written`: many say the same."""

    at: datetime
    deployment_id: str
    device_pk: int
    kind: str
    data: str


def written(data: dict[str, Any]) -> str:
    """An event's data as the table has it."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


_SAY_MANY = Statement(
    "INSERT INTO events (at, deployment_id, device_pk, kind, data) SELECT * FROM {rows}",
    ("bigint", "text", "bigint", "text", "text"),
)


def say_many(conn: Connection, told: Sequence[Told]) -> None:
    us = partial(Instant().process_bind_param, dialect=conn.dialect)
    _SAY_MANY.run(conn, [(us(at), *rest) for at, *rest in told])


def of_deployment(conn: Connection, deployment_id: str, *, after: int, limit: int) -> list[Event]:
    """The deployment's events behind number `after`, oldest first."""
    question = (
        sa.select(*_COLUMNS)
        .where(events.c.deployment_id == deployment_id, events.c.pk > after)
        .order_by(events.c.pk)
        .limit(limit)
    )
    return [Event(*row) for row in conn.execute(question)]


def of_device(conn: Connection, device_pk: int, *, before: int | None, limit: int) -> list[Event]:
    """The device's events in front of number `before`, newest first."""
    question = sa.select(*_COLUMNS).where(events.c.device_pk == device_pk)
    if before is not None:
        question = question.where(events.c.pk < before)
    return [Event(*row) for row in conn.execute(question.order_by(events.c.pk.desc()).limit(limit))]


def forget_facts(conn: Connection, before: datetime, most: int) -> int:
    """Remove up to `most` events of devices outside any deployment that are older; how many there were."""
    some = (
        sa.select(events.c.pk)
        .where(events.c.deployment_id.is_(None), events.c.at < before)
        .order_by(events.c.pk)
        .limit(most)
    )
    return conn.execute(sa.delete(events).where(events.c.pk.in_(some))).rowcount


def newest(conn: Connection, deployment_id: str) -> int:
    """The number of the deployment's latest event; 0 where there is none."""
    question = sa.select(sa.func.max(events.c.pk)).where(events.c.deployment_id == deployment_id)
    return int(conn.execute(question).scalar() or 0)


def record(
    conn: Connection,
    actor: str,
    action: str,
    subject: str,
    data: dict[str, Any],
    now: datetime,
    before: dict[str, Any] | None = None,
) -> None:
    """Writes an operator's change into the audit log: who, what, on what, with which values, and which stood
    there `before`."""
    conn.execute(
        audit.insert().values(at=now, actor=actor, action=action, subject=subject, data=data, before=before)
    )


@dataclass(frozen=True, slots=True)
class Change:
    """One row of `audit`."""

    pk: int
    at: datetime
    actor: str
    action: str
    subject: str
    data: dict[str, Any]
    before: dict[str, Any] | None


def changes(
    conn: Connection,
    *,
    limit: int,
    under: int | None = None,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
) -> list[Change]:
    """The audit log, newest first, in front of number `under`; `action` may name a family (`deployment`)."""
    question = sa.select(*audit.c).order_by(audit.c.pk.desc()).limit(limit)
    if under is not None:
        question = question.where(audit.c.pk < under)
    if actor is not None:
        question = question.where(audit.c.actor == actor)
    if action is not None:
        question = question.where(
            sa.or_(audit.c.action == action, audit.c.action.startswith(f"{action}.", autoescape=True))
        )
    if subject is not None:
        question = question.where(audit.c.subject == subject)
    return [Change(*row) for row in conn.execute(question)]
