"""The transparency log's rows: entries in their order, and the hashes of its complete subtrees.

Nothing here is ever changed or deleted. Of all servers on a database one writes at a time (`store.db`), so
entries get their numbers in the order in which they are committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.tables import devices, log_entries, log_nodes, log_witnessed


@dataclass(frozen=True, slots=True)
class Entry:
    """One line; `leaf` is its hash, hex."""

    number: int
    leaf: str
    entry: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint that devices reported. `agrees`: it is this log's; `device_pk`: who said so last."""

    size: int
    root: str
    agrees: bool
    reports: int
    device_pk: int
    first_at: datetime
    last_at: datetime


def size(conn: Connection) -> int:
    return int(
        conn.execute(sa.select(sa.func.coalesce(sa.func.max(log_entries.c.number) + 1, 0))).scalar_one()
    )


def place(conn: Connection, leaf: str) -> int | None:
    """Where the entry with this hash stands."""
    found = conn.execute(sa.select(log_entries.c.number).where(log_entries.c.leaf == leaf)).scalar()
    return None if found is None else int(found)


def put(conn: Connection, entry: Entry, nodes: Sequence[tuple[int, int, bytes]]) -> None:
    """The next entry, and the (level, number, hash) of each subtree it completes."""
    conn.execute(
        sa.insert(log_entries).values(number=entry.number, leaf=entry.leaf, entry=entry.entry, at=entry.at)
    )
    rows = [{"level": level, "number": number, "hash": made.hex()} for level, number, made in nodes]
    conn.execute(sa.insert(log_nodes), rows)


def node(conn: Connection, level: int, number: int) -> bytes:
    """The hash of a complete subtree."""
    question = sa.select(log_nodes.c.hash).where(log_nodes.c.level == level, log_nodes.c.number == number)
    return bytes.fromhex(conn.execute(question).scalar_one())


def page(conn: Connection, start: int, limit: int) -> list[Entry]:
    question = (
        sa.select(log_entries)
        .where(log_entries.c.number >= start)
        .order_by(log_entries.c.number)
        .limit(limit)
    )
    return [Entry(*row) for row in conn.execute(question)]


# --- what devices saw -------------------------------------------------------------------------------


def witness(conn: Connection, seen: Witnessed) -> bool:
    """Count `seen.reports` more reports of this checkpoint; whether it is the first."""
    c = log_witnessed.c
    changed = conn.execute(
        sa.update(log_witnessed)
        .where(c.size == seen.size, c.root == seen.root)
        .values(reports=c.reports + seen.reports, device_pk=seen.device_pk, last_at=seen.last_at)
    )
    if changed.rowcount:
        return False
    conn.execute(
        sa.insert(log_witnessed).values(
            size=seen.size,
            root=seen.root,
            agrees=seen.agrees,
            reports=seen.reports,
            device_pk=seen.device_pk,
            first_at=seen.first_at,
            last_at=seen.last_at,
        )
    )
    return True


def strangers(conn: Connection) -> int:
    """How many checkpoints were reported that are not this log's."""
    question = sa.select(sa.func.count()).where(log_witnessed.c.agrees.is_(sa.false()))
    return int(conn.execute(question).scalar_one())


def witnessed(conn: Connection, limit: int) -> list[tuple[Witnessed, str]]:
    """With the device that said so last; those that do not agree first, then the largest."""
    c = log_witnessed.c
    question = (
        sa.select(log_witnessed, devices.c.device_id)
        .join(devices, devices.c.pk == c.device_pk, isouter=True)
        .order_by(c.agrees, c.size.desc(), c.root)
        .limit(limit)
    )
    return [(Witnessed(*row[:-1]), row[-1] or "") for row in conn.execute(question)]
