"""A group's query as SQL, so that a million devices are asked where they lie. Means what `core.query` means.

What neither database can say for itself (versions in their order, sets of characters in a pattern) is
decided here for each value that occurs, and asked as "one of these": a fleet has few versions.
"""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.query import And, Compare, Not, Or, Query, holds
from skylift.store.tables import devices

Condition = sa.ColumnElement[bool]
_FEW = 500  # bound one by one; more go over as one JSON document
_LABEL = "label."


def condition(conn: Connection, query: Query) -> Condition:
    """True or false for every row of `devices`, never unknown: `not` must turn it around."""
    match query:
        case Compare():
            return sa.func.coalesce(_compare(conn, query), sa.false())
        case Not(of):
            return sa.not_(condition(conn, of))
        case And(parts):
            return sa.and_(sa.true(), *(condition(conn, part) for part in parts))
        case Or(parts):
            return sa.or_(sa.false(), *(condition(conn, part) for part in parts))


def among(conn: Connection, column: Any, values: Sequence[Any]) -> Condition:
    """`column in values`, however many they are."""
    if len(values) <= _FEW:
        found: Condition = column.in_(values)
        return found
    document = sa.literal(json.dumps(list(values)), sa.Text)
    if conn.dialect.name == "postgresql":
        rows = sa.func.json_array_elements_text(sa.cast(document, sa.JSON)).table_valued("value")
        listed: Condition = column.in_(sa.select(sa.cast(rows.c.value, column.type)))
        return listed
    rows = sa.func.json_each(document).table_valued("value")
    inside: Condition = column.in_(sa.select(rows.c.value))
    return inside


def _compare(conn: Connection, compare: Compare) -> Condition:
    field = _field(conn, compare.field)
    first = compare.values[0]
    match compare.operator:
        case "=" | "in":
            return among(conn, field, compare.values)
        case "!=":
            different: Condition = field.is_distinct_from(first)
            return different
        case "~" if "[" not in first:
            return _glob(conn, field, first)
        case _:
            return among(conn, field, _occurring(conn, field, compare))


def _field(conn: Connection, name: str) -> Any:
    if not name.startswith(_LABEL):
        return devices.c[name]
    label = name.removeprefix(_LABEL)
    if conn.dialect.name == "postgresql":
        return sa.cast(devices.c.labels, sa.JSON).op("->>", return_type=sa.Text())(sa.literal(label, sa.Text))
    return sa.func.json_extract(sa.cast(devices.c.labels, sa.Text), f'$."{label}"', type_=sa.Text())


def _glob(conn: Connection, field: Any, pattern: str) -> Condition:
    """`*` and `?` only."""
    if conn.dialect.name != "postgresql":
        return sa.cast(field, sa.Text).op("GLOB", is_comparison=True)(pattern)
    escaped = "".join("\\" + c if c in "\\%_" else c for c in pattern)
    like: Condition = field.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
    return like


def _occurring(conn: Connection, field: Any, compare: Compare) -> list[str]:
    """The values of this field, of those that occur in the fleet, for which the comparison holds."""
    rows = conn.execute(sa.select(field).distinct().where(field.is_not(None)))
    return [value for (value,) in rows if holds(compare.operator, value, compare.values)]
