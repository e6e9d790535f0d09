"""Whose updates leave a deployment's count, asked of the database: parts of its devices, named by scopes.

A part is a scope and the former versions it holds for: a cohort is what its devices were when they were
offered the update. Devices that were decommissioned since belong as well: what they did is counted too.
"""

from array import array
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.lifecycle import UpdateState
from skylift.store.members import Scope, named
from skylift.store.queries import Condition, among
from skylift.store.tables import devices as fleet
from skylift.store.tables import updates

_STREAM = 10_000  # rows fetched at a time

Part = tuple[Scope, list[str | None]]
Tally = dict[int, list[tuple[UpdateState, str, int]]]  # phase -> (state, reason, how many)


def versions(conn: Connection, deployment_id: str) -> list[str | None]:
    """What its devices came from, of those whose updates count."""
    question = sa.select(updates.c.from_version).where(_counting(deployment_id)).distinct()
    return sorted(conn.execute(question).scalars(), key=str)


def devices(conn: Connection, deployment_id: str, parts: Sequence[Part]) -> "array[int]":
    """Primary keys of those in any of the parts, in their order; eight bytes each."""
    question = _in_parts(conn, deployment_id, parts, updates.c.device_pk).order_by(updates.c.device_pk)
    return array("q", conn.execute(question.execution_options(yield_per=_STREAM)).scalars())


def tally(conn: Connection, deployment_id: str, parts: Sequence[Part]) -> Tally:
    """What their updates count for."""
    columns = (updates.c.phase, updates.c.state, updates.c.reason)
    question = _in_parts(conn, deployment_id, parts, *columns, sa.func.count()).group_by(*columns)
    found: Tally = {}
    for phase, state, reason, n in conn.execute(question):
        found.setdefault(phase, []).append((UpdateState(state), reason, n))
    return found


def _in_parts(
    conn: Connection, deployment_id: str, parts: Sequence[Part], *columns: sa.ColumnElement[Any]
) -> "sa.Select[Any]":
    inside = sa.or_(sa.false(), *(_part(conn, part) for part in parts))
    joined = updates.join(fleet, fleet.c.pk == updates.c.device_pk)
    return sa.select(*columns).select_from(joined).where(_counting(deployment_id), inside)


def _part(conn: Connection, part: Part) -> Condition:
    scope, some = part
    known = among(conn, updates.c.from_version, [version for version in some if version is not None])
    came = sa.or_(known, updates.c.from_version.is_(None)) if None in some else known
    return sa.and_(came, named(conn, scope))


def _counting(deployment_id: str) -> Condition:
    return sa.and_(updates.c.deployment_id == deployment_id, updates.c.left_out.is_(False))
