"""The outbox: side effects on their way out, at least once.

A row is put in the transaction of the deed it follows from. Who works on a row holds its *lease*: a fencing
token, with `due_at` moved to where the lease ends. A worker that outlived its lease finds the token changed
and its `done` or `failed` without effect; whoever holds the row now decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.tables import outbox

FARTHEST = timedelta(hours=1)  # ahead: leases are minutes, back-off is five


@dataclass(frozen=True, slots=True)
class Job:
    """A leased row: `attempts` counts this one too."""

    pk: int
    kind: str
    payload: dict[str, Any]
    attempts: int
    lease: str


def put(
    conn: Connection, kind: str, payload: dict[str, Any], now: datetime, due_at: datetime | None = None
) -> None:
    """Adds one side effect, to happen after the commit and not before `due_at`."""
    conn.execute(
        outbox.insert().values(kind=kind, payload=payload, created_at=now, due_at=due_at or now, attempts=0)
    )


def lease(conn: Connection, kinds: list[str], token: str, until: datetime, now: datetime) -> Job | None:
    """Takes the row that is due the longest, until `until`; None where nothing is due."""
    question = sa.select(outbox).where(_due(kinds, now)).order_by(outbox.c.due_at, outbox.c.pk).limit(1)
    if conn.dialect.name == "postgresql":
        question = question.with_for_update(skip_locked=True)
    row = conn.execute(question).first()
    if row is None:
        return None
    conn.execute(
        outbox.update()
        .where(outbox.c.pk == row.pk)
        .values(lease=token, due_at=until, attempts=outbox.c.attempts + 1)
    )
    return Job(row.pk, row.kind, row.payload, row.attempts + 1, token)


def extend(conn: Connection, job: Job, until: datetime) -> bool:
    """Moves the end of a lease that is still held; False where it was lost."""
    held = (outbox.c.pk == job.pk) & (outbox.c.lease == job.lease) & outbox.c.done_at.is_(None)
    return conn.execute(outbox.update().where(held).values(due_at=until)).rowcount == 1


def done(conn: Connection, job: Job, now: datetime) -> bool:
    """The effect happened; False where the lease was lost meanwhile."""
    held = (outbox.c.pk == job.pk) & (outbox.c.lease == job.lease) & outbox.c.done_at.is_(None)
    values = {"done_at": now, "lease": None, "error": None}
    return conn.execute(outbox.update().where(held).values(**values)).rowcount == 1


def failed(conn: Connection, job: Job, error: str, again_at: datetime) -> bool:
    """The effect did not happen: it is due again at `again_at`; False where the lease was lost."""
    held = (outbox.c.pk == job.pk) & (outbox.c.lease == job.lease) & outbox.c.done_at.is_(None)
    values = {"lease": None, "error": error[:500], "due_at": again_at}
    return conn.execute(outbox.update().where(held).values(**values)).rowcount == 1


def due(conn: Connection, lanes: Sequence[list[str]], now: datetime) -> list[bool]:
    """For each list of kinds, whether `lease` would find something."""
    questions = [sa.select(sa.literal(1)).where(_due(kinds, now)).exists() for kinds in lanes]
    return [bool(is_due) for is_due in conn.execute(sa.select(*questions)).one()]


def _due(kinds: list[str], now: datetime) -> sa.ColumnElement[bool]:
    """Open and due. What is due later than anything is ever put was put by a clock that has jumped back
    since, and must not wait for as long as it jumped."""
    at = outbox.c.due_at
    return outbox.c.done_at.is_(None) & outbox.c.kind.in_(kinds) & ((at <= now) | (at > now + FARTHEST))


def depth(conn: Connection) -> int:
    """How many effects have not happened yet."""
    question = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.done_at.is_(None))
    return int(conn.execute(question).scalar_one())


def sweep(conn: Connection, before: datetime) -> int:
    """Forgets effects that happened before `before`; how many."""
    return conn.execute(outbox.delete().where(outbox.c.done_at < before)).rowcount


def put_off(conn: Connection, kind: str, payload: dict[str, Any], due_at: datetime) -> bool:
    """The same effect, wherever it waits, happens not before `due_at`; False while a worker is at one."""
    same = outbox.c.done_at.is_(None) & (outbox.c.kind == kind) & (outbox.c.payload == payload)
    conn.execute(outbox.update().where(same, outbox.c.lease.is_(None)).values(due_at=due_at))
    held = sa.select(sa.literal(1)).where(same, outbox.c.lease.is_not(None)).limit(1)
    return conn.execute(held).first() is None


def is_waiting(conn: Connection, kind: str, payload: dict[str, Any], *, begun: bool = False) -> bool:
    """Whether the same effect waits already, untouched by any worker; `begun`: or one is at it."""
    question = sa.select(sa.literal(1)).where(
        outbox.c.done_at.is_(None), outbox.c.kind == kind, outbox.c.payload == payload
    )
    if not begun:
        question = question.where(outbox.c.lease.is_(None))
    return conn.execute(question.limit(1)).first() is not None
