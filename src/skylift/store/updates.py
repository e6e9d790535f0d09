"""Update rows: one device's run through one deployment. They exist from the first offer, and are history.

Moves happen in `move`, conditional on the state and attempt that were read: of two writers one wins, and the
loser is told.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import COUNTED, FAILURES, OPEN, DeploymentStatus, UpdateState
from skylift.store import counters
from skylift.store import devices as devices_
from skylift.store.bulk import Question, Statement
from skylift.store.queries import among
from skylift.store.tables import Instant, deployments, devices, group_members, groups, updates

_CHUNK = 500  # bound parameters in one statement
_STREAM = 2_000  # rows fetched at a time
_GROUPS = 1_000
_OPEN = [state.value for state in OPEN]


class Update(NamedTuple):
    """One row of `updates`, as far as decisions need it."""

    deployment_id: DeploymentId
    device_pk: int
    phase: int
    state: UpdateState
    attempt: int
    reason: str
    progress: int
    from_version: str | None
    deadline_at: datetime | None
    left_out: bool

    @property
    def counted_in(self) -> int:
        """The phase of its counters."""
        return counters.OUTSIDE if self.left_out else self.phase


_DECIDING = (
    updates.c.deployment_id,
    updates.c.device_pk,
    updates.c.phase,
    updates.c.state,
    updates.c.attempt,
    updates.c.reason,
    updates.c.progress,
    updates.c.from_version,
    updates.c.deadline_at,
    updates.c.left_out,
)


STATES = {state.value: state for state in UpdateState}  # the same as UpdateState(value), at a third


def _update(row: Sequence[Any]) -> Update:
    deployment_id, device_pk, phase, state, *rest = row
    return Update(deployment_id, device_pk, phase, STATES[state], *rest)


def find(conn: Connection, deployment_id: str, device_pk: int) -> Update | None:
    question = sa.select(*_DECIDING).where(
        updates.c.deployment_id == deployment_id, updates.c.device_pk == device_pk
    )
    row = conn.execute(question).first()
    return None if row is None else _update(row)


def changed_at(conn: Connection, update: Update) -> datetime:
    """When it was last moved, or heard of."""
    question = sa.select(updates.c.updated_at).where(
        updates.c.deployment_id == update.deployment_id, updates.c.device_pk == update.device_pk
    )
    at: datetime = conn.execute(question).scalar_one()
    return at


_FIND_MANY = Question(
    f"SELECT {', '.join(column.name for column in _DECIDING)} FROM updates"
    " WHERE deployment_id = :deployment AND device_pk IN {keys}"
)


def find_many(conn: Connection, keys: set[tuple[str, int]]) -> dict[tuple[str, int], Update]:
    """The updates of these (deployment, device) that exist."""
    pks: dict[str, list[int]] = {}
    for deployment_id, pk in keys:
        pks.setdefault(deployment_id, []).append(pk)
    at = Instant()
    found: dict[tuple[str, int], Update] = {}
    for deployment_id, some in pks.items():
        for *row, deadline, left_out in _FIND_MANY.ask(conn, some, deployment=deployment_id):
            deadline_at = at.process_result_value(deadline, conn.dialect)
            update = _update((*row, deadline_at, bool(left_out)))
            found[deployment_id, update.device_pk] = update
    return found


def exists(conn: Connection, deployment_id: str, device_pk: int) -> bool:
    question = sa.select(sa.literal(1)).where(
        updates.c.deployment_id == deployment_id, updates.c.device_pk == device_pk
    )
    return conn.execute(question).first() is not None


def insert(
    conn: Connection,
    deployment_id: str,
    device_pk: int,
    phase: int,
    *,
    from_version: str | None,
    from_sha256: str | None,
    deadline_at: datetime | None,
    now: datetime,
) -> None:
    """The row of a first offer: pending, attempt 1."""
    conn.execute(
        sa.insert(updates).values(
            deployment_id=deployment_id,
            device_pk=device_pk,
            phase=phase,
            state=UpdateState.PENDING.value,
            attempt=1,
            from_version=from_version,
            from_sha256=from_sha256,
            offered_at=now,
            updated_at=now,
            deadline_at=deadline_at,
        )
    )


def take_slot(
    conn: Connection, device_pk: int, deployment_id: str, attempt: int, instead_of: str | None
) -> bool:
    """Claim the device's one open slot; False when another deployment holds it."""
    holder = devices.c.deployment_id
    free = holder.is_(None) if instead_of is None else sa.or_(holder.is_(None), holder == instead_of)
    taken = conn.execute(
        sa.update(devices)
        .where(devices.c.pk == device_pk, devices.c.status == "active", free)
        .values(deployment_id=deployment_id, attempt=attempt)
    )
    return taken.rowcount == 1


def release_slot(conn: Connection, device_pk: int, deployment_id: str) -> None:
    """Free the slot, if this deployment holds it."""
    conn.execute(
        sa.update(devices)
        .where(devices.c.pk == device_pk, devices.c.deployment_id == deployment_id)
        .values(deployment_id=None, attempt=None)
    )


def move(conn: Connection, update: Update, to: UpdateState, **values: Any) -> bool:
    """Conditional on what was read; False when somebody else was first."""
    moved = conn.execute(
        sa.update(updates)
        .where(
            updates.c.deployment_id == update.deployment_id,
            updates.c.device_pk == update.device_pk,
            updates.c.state == update.state.value,
            updates.c.attempt == update.attempt,
        )
        .values(state=to.value, **values)
    )
    return moved.rowcount == 1


class Moved(NamedTuple):
    """One of many moves that devices report in the ordinary course; to its own state it is a refresh.
    `message` None leaves what is there."""

    update: Update
    to: UpdateState
    progress: int
    message: str | None
    deadline_at: datetime | None
    now: datetime


_MOVE_MANY = Statement(
    """
    UPDATE updates SET state = a, progress = b, message = coalesce(c, message), deadline_at = d,
        updated_at = e, started_at = coalesce(f, started_at), completed_at = coalesce(g, completed_at)
    FROM {rows} WHERE deployment_id = h AND device_pk = i AND state = j AND attempt = k
    """,
    ("text", "integer", "text", "bigint", "bigint", "bigint", "bigint", "text", "bigint", "text", "integer"),
)


def move_many(conn: Connection, moves: Sequence[Moved]) -> None:
    """All of them, conditional on what was read; raises where somebody else was first: then one by one."""
    if _move_many(conn, moves) != len(moves):
        raise AssertionError("an update moved between the look and the move")


def refresh_many(conn: Connection, moves: Sequence[Moved]) -> None:
    """Words about states that updates were in a moment ago; where one is further by now its word is late."""
    _move_many(conn, moves)


def _move_many(conn: Connection, moves: Sequence[Moved]) -> int:
    us = partial(Instant().process_bind_param, dialect=conn.dialect)
    rows = []
    for update, to, progress, message, deadline_at, moment in moves:
        now, was = us(moment), update.state
        started = now if was is UpdateState.PENDING and to is not was else None
        completed = now if to is UpdateState.COMPLETE else None
        key = (update.deployment_id, update.device_pk, was, update.attempt)
        rows.append((to, progress, message, us(deadline_at), now, started, completed, *key))
    return _MOVE_MANY.run(conn, rows)


def overdue(conn: Connection, now: datetime, resumed_before: datetime, limit: int) -> list[Update]:
    """Updates past their deadline. A pending one counts only while its deployment has been running since
    `resumed_before` at least: offers do not age during a pause."""
    question = (
        sa.select(*_DECIDING)
        .join(deployments, deployments.c.id == updates.c.deployment_id)
        .where(
            updates.c.deadline_at < now,
            updates.c.state.in_(_OPEN),
            sa.or_(
                updates.c.state != UpdateState.PENDING.value,
                sa.and_(
                    deployments.c.status == DeploymentStatus.RUNNING.value,
                    deployments.c.running_since <= resumed_before,
                ),
                deployments.c.status.not_in([DeploymentStatus.RUNNING.value, DeploymentStatus.PAUSED.value]),
            ),
        )
        .order_by(updates.c.deadline_at)
        .limit(limit)
    )
    return [_update(row) for row in conn.execute(question)]


def in_states(
    conn: Connection, deployment_id: str, states: tuple[UpdateState, ...], limit: int = 1000
) -> list[Update]:
    """Some updates of the deployment in these states."""
    question = (
        sa.select(*_DECIDING)
        .where(
            updates.c.deployment_id == deployment_id, updates.c.state.in_([state.value for state in states])
        )
        .limit(limit)
    )
    return [_update(row) for row in conn.execute(question)]


def decided(
    conn: Connection, deployment_id: str, every: int = 1
) -> Iterator[tuple[devices_.Device, str, str | None]]:
    """(device, state, the version it came from) of every update that counts in the failure rate, streamed; of
    one device in `every`, evenly by their hashes."""
    question = (
        sa.select(updates.c.state, updates.c.from_version, *devices.c)
        .join(devices, devices.c.pk == updates.c.device_pk)
        .where(_decided(deployment_id))
    )
    if every > 1:
        question = question.where(devices.c.h % every == 0)
    for state, from_version, *device in conn.execute(question.execution_options(yield_per=_STREAM)):
        yield devices_.Device(*device), state, from_version


def by_list(conn: Connection, deployment_id: str) -> list[tuple[str, int, int]]:
    """(group, decided, failed) for every group by list."""
    bad = sa.case((updates.c.state.in_([state.value for state in FAILURES]), 1), else_=0)
    question = (
        sa.select(groups.c.name, sa.func.count(), sa.func.sum(bad))
        .join(group_members, group_members.c.group_id == groups.c.id)
        .join(updates, updates.c.device_pk == group_members.c.device_pk)
        .where(_decided(deployment_id))
        .group_by(groups.c.name)
        .order_by(groups.c.name)
        .limit(_GROUPS)
    )
    return [(name, int(total), int(failed)) for name, total, failed in conn.execute(question)]


def _decided(deployment_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        updates.c.deployment_id == deployment_id,
        updates.c.state.in_([state.value for state in COUNTED]),
        updates.c.left_out.is_(False),
    )


def leave_out(conn: Connection, deployment_id: str, device_pks: Sequence[int]) -> None:
    """These count no more."""
    for at in range(0, len(device_pks), _CHUNK):
        conn.execute(
            sa.update(updates)
            .where(
                updates.c.deployment_id == deployment_id,
                updates.c.device_pk.in_(device_pks[at : at + _CHUNK]),
            )
            .values(left_out=True)
        )


def failed_of(
    conn: Connection, deployment_id: str, device_ids: tuple[str, ...] | None, after: int, limit: int
) -> list[Update]:
    """A page of failed and rolled-back updates, of all or of the named devices, by device, behind `after`."""
    question = (
        sa.select(*_DECIDING)
        .join(devices, devices.c.pk == updates.c.device_pk)
        .where(
            updates.c.deployment_id == deployment_id,
            updates.c.device_pk > after,
            updates.c.state.in_([state.value for state in FAILURES]),
            updates.c.left_out.is_(False),
            devices.c.status == "active",
        )
        .order_by(updates.c.device_pk)
        .limit(limit)
    )
    if device_ids is not None:
        question = question.where(among(conn, devices.c.device_id, device_ids))
    return [_update(row) for row in conn.execute(question)]


def page(
    conn: Connection,
    deployment_id: str,
    *,
    limit: int,
    after: str | None = None,
    state: str | None = None,
) -> "list[Row[Any]]":
    """Updates of a deployment with their devices' names, in the order of the names."""
    question = (
        sa.select(updates, devices.c.device_id)
        .join(devices, devices.c.pk == updates.c.device_pk)
        .where(updates.c.deployment_id == deployment_id)
        .order_by(devices.c.device_id)
        .limit(limit)
    )
    if after is not None:
        question = question.where(devices.c.device_id > after)
    if state is not None:
        question = question.where(updates.c.state == state)
    return list(conn.execute(question))


def of_device(conn: Connection, device_pk: int, limit: int = 100) -> "list[Row[Any]]":
    """The device's updates, newest first, with the version each was to."""
    question = (
        sa.select(updates, deployments.c.version)
        .join(deployments, deployments.c.id == updates.c.deployment_id)
        .where(updates.c.device_pk == device_pk)
        .order_by(updates.c.offered_at.desc())
        .limit(limit)
    )
    return list(conn.execute(question))


def recent_failures(conn: Connection, deployment_id: str, limit: int = 10) -> "list[Row[Any]]":
    question = (
        sa.select(updates, devices.c.device_id)
        .join(devices, devices.c.pk == updates.c.device_pk)
        .where(
            updates.c.deployment_id == deployment_id,
            # As the partial index says it, to the letter: bound values would not be recognised.
            sa.text("updates.state IN ('failed', 'rolled_back')"),
        )
        .order_by(updates.c.updated_at.desc())
        .limit(limit)
    )
    return list(conn.execute(question))
