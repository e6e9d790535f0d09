"""Devices by the project's query language, a page at a time, whatever the size of the fleet.

What an index can find (one type, one version, the beginning of a name) narrows the rows; the rest of the
query is asked of each of them here, by `core.query` itself. At most `MOST_ROWS` are looked at for one page:
where that is not enough the answer says so, what would narrow it, and goes on from there when asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from skylift.core.query import FIELDS, And, Compare, Query, matches, parse
from skylift.engine.select import facts
from skylift.store import devices, looks
from skylift.store.db import Connection, Database
from skylift.store.devices import Device
from skylift.store.looks import Narrow

MOST_ROWS = 4_000  # a row and its judgement cost 15 us: well under a tenth of a second
FIRST_LOOK = 200
STREAM = 5_000
STATUSES = ("active", "decommissioned", "any")


@dataclass(frozen=True, slots=True)
class Found:
    """A page. `next`: the name to go on behind; `too_broad`: rows looked at, where that was the limit."""

    devices: list[Device]
    next: str | None
    too_broad: int = 0


def narrow(query: Query | None) -> Narrow:
    """The part of a query that an index answers: of its outermost `and`."""
    found = Narrow()
    parts = query.of if isinstance(query, And) else (query,)
    for part in parts:
        match part:
            case Compare("device_type", "=", (value,)):
                found = replace(found, device_type=value)
            case Compare("current_version", "=", (value,)):
                found = replace(found, current_version=value)
            case Compare("device_id", "=", (value,)):
                found = replace(found, prefix=value)
            case Compare("device_id", "~", (pattern,)):
                found = replace(found, prefix=_fixed(pattern) or found.prefix)
            case _:
                pass
    return found


def _fixed(pattern: str) -> str:
    """What a glob's matches all begin with."""
    cut = [at for at in map(pattern.find, "*?[") if at >= 0]
    return pattern[: min(cut)] if cut else pattern


def find(conn: Connection, text: str, status: str, *, after: str, limit: int) -> Found:
    """The next `limit` devices behind this name that fit. Raises `Rejected` for a query nobody can read."""
    query = parse(text) if text.strip() else None
    by, found, looked, last, step = narrow(query), [], 0, after, max(limit + 1, FIRST_LOOK)
    while looked < MOST_ROWS:
        asked = min(step, MOST_ROWS - looked)
        rows = looks.window(conn, by, after=last, limit=asked)
        for device in rows:
            looked += 1
            last = device.device_id
            if _fits(device, query, status):
                found.append(device)
                if len(found) > limit:
                    return Found(found[:limit], found[limit - 1].device_id)
        if len(rows) < asked:
            return Found(found, None)
        step *= 4
    return Found(found, last, looked)


def every(database: Database, text: str, status: str) -> Iterator[list[tuple[Device, datetime | None]]]:
    """All of them with their last contacts, for an export: one look after the other, each at its moment."""
    query = parse(text) if text.strip() else None
    by, last = narrow(query), ""
    while True:
        with database.read() as conn:
            rows = looks.window(conn, by, after=last, limit=STREAM)
            fitting = [device for device in rows if _fits(device, query, status)]
            seen = devices.last_seen(conn, [device.pk for device in fitting])
        yield [(device, seen.get(device.pk)) for device in fitting]
        if len(rows) < STREAM:
            return
        last = rows[-1].device_id


def _fits(device: Device, query: Query | None, status: str) -> bool:
    if status != "any" and device.status != (
        devices.ACTIVE if status == "active" else devices.DECOMMISSIONED
    ):
        return False
    return query is None or matches(query, facts(device))


# --- completion --------------------------------------------------------------------------------------

OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "~", "in (")


def complete(text: str, values: dict[str, list[str]]) -> tuple[str, list[str]]:
    """What could stand next: (the text that stays, words to put behind it). `values`: by field, what occurs.

    By a look at the last words only; what is suggested is checked by `parse` like anything typed.
    """
    words = text.split(" ")
    last, before = words[-1], [word for word in words[:-1] if word]
    stays = text[: len(text) - len(last)]
    expected = _expected(before, values)
    return stays, [word for word in expected if word.lower().startswith(last.lower()) and word != last][:12]


def _expected(before: list[str], values: dict[str, list[str]]) -> list[str]:
    fields = [*FIELDS, *(name for name in values if name not in FIELDS)]
    if not before or before[-1] in ("and", "or", "not", "("):
        return [*fields, "not"]
    if before[-1] in ("=", "!=", "<", "<=", ">", ">=", "~"):
        known = values.get(before[-2], []) if len(before) > 1 else []
        return [
            value
            if value.replace(".", "").replace("-", "").replace("_", "").replace("+", "").isalnum()
            else f'"{value}"'
            for value in known
        ]
    if before[-1] in fields:
        return list(OPERATORS)
    return ["and", "or"]
