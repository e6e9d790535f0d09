"""Small facts of the whole installation, by name; every server on the database reads the same."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.tables import settings_kv


def get(conn: Connection, name: str) -> Any:
    """The fact; None where nobody has put it down yet."""
    return conn.execute(sa.select(settings_kv.c.value).where(settings_kv.c.key == name)).scalar()


def put(conn: Connection, name: str, value: Any) -> None:
    """Put it down, or replace it."""
    changed = conn.execute(sa.update(settings_kv).where(settings_kv.c.key == name).values(value=value))
    if changed.rowcount == 0:
        conn.execute(sa.insert(settings_kv).values(key=name, value=value))
