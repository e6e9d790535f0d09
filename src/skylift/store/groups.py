"""Groups: named sets of devices, as a list or as a query that stays live."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.devices import Device
from skylift.store.tables import devices, group_members, groups


@dataclass(frozen=True, slots=True)
class Group:
    """One row. `kind`: list or query."""

    id: str
    name: str
    kind: str
    query: str | None
    created_at: datetime


_COLUMNS = (groups.c.id, groups.c.name, groups.c.kind, groups.c.query, groups.c.created_at)


def find(conn: Connection, group_id: str) -> Group | None:
    row = conn.execute(sa.select(*_COLUMNS).where(groups.c.id == group_id)).first()
    return Group(*row) if row else None


def by_name(conn: Connection, name: str) -> Group | None:
    row = conn.execute(sa.select(*_COLUMNS).where(groups.c.name == name)).first()
    return Group(*row) if row else None


def page(conn: Connection, *, limit: int, after: str = "") -> list[Group]:
    question = sa.select(*_COLUMNS).where(groups.c.id > after).order_by(groups.c.id).limit(limit)
    return [Group(*row) for row in conn.execute(question)]


def insert(conn: Connection, group: Group) -> None:
    conn.execute(
        sa.insert(groups).values(
            id=group.id,
            name=group.name,
            kind=group.kind,
            query=group.query,
            created_at=group.created_at,
        )
    )


def delete(conn: Connection, group_id: str) -> None:
    conn.execute(sa.delete(groups).where(groups.c.id == group_id))


def add(conn: Connection, group_id: str, device_pks: Sequence[int]) -> None:
    """Those that are members already stay so."""
    here = members(conn, group_id)
    rows = [{"group_id": group_id, "device_pk": pk} for pk in device_pks if pk not in here]
    if rows:
        conn.execute(sa.insert(group_members), rows)


def remove(conn: Connection, group_id: str, device_pks: Sequence[int]) -> None:
    conn.execute(
        sa.delete(group_members).where(
            group_members.c.group_id == group_id, group_members.c.device_pk.in_(device_pks)
        )
    )


def members(conn: Connection, group_id: str) -> set[int]:
    question = sa.select(group_members.c.device_pk).where(group_members.c.group_id == group_id)
    return {row.device_pk for row in conn.execute(question)}


def some(conn: Connection, group_id: str, limit: int) -> list[Device]:
    """The first members of a list, by name."""
    question = sa.select(*devices.c).join(group_members, group_members.c.device_pk == devices.c.pk)
    found = question.where(group_members.c.group_id == group_id).order_by(devices.c.device_id).limit(limit)
    return [Device(*row) for row in conn.execute(found)]
