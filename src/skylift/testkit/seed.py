"""A simulated fleet written straight into a database: what enrolling it one by one would take a day for."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from skylift.core.errors import invalid
from skylift.engine.access import token_hash
from skylift.store import devices
from skylift.store.db import Database, migrate
from skylift.testkit.identity import Identity

BATCH = 50_000
CACHE_KB = (
    400_000  # SQLite: two unique indexes over random text; with 16 MB of pages every insert misses them
)


def seeded(data: Path, identity: Identity, *, device_type: str, version: str, now: datetime) -> Database:
    """A new server's folder, its SQLite database with every device of the fleet in it."""
    data.mkdir()
    url = f"sqlite:///{data / 'skylift.db'}"
    migrate(url)
    database = Database(url)
    seed(database, identity, device_type=device_type, version=version, now=now)
    return database


def seed(
    database: Database,
    identity: Identity,
    *,
    device_type: str,
    version: str,
    now: datetime,
    moved: Callable[[int], None] = lambda total: None,
) -> None:
    """Every device of the fleet into an empty, migrated database. `moved` is told how many are in.

    Raises `Rejected` where devices are enrolled already: this is no way into a real fleet.
    """
    with database.read() as conn:
        there = devices.page(conn, limit=1)
    if there:
        raise invalid("--database", there[0].device_id, "an empty database: devices are enrolled in this one")
    if database.dialect == "sqlite":
        database.write(lambda conn: conn.exec_driver_sql(f"PRAGMA cache_size=-{CACHE_KB}"))
    for begin in range(0, identity.count, BATCH):
        end = min(identity.count, begin + BATCH)
        batch = [
            (
                identity.name(number),
                device_type,
                token_hash(identity.token(number)),
                version,
                identity.behaviour(number).labels,
            )
            for number in range(begin, end)
        ]
        database.write(partial(devices.insert_many, given=batch, now=now))
        moved(end)
    database.write(lambda conn: conn.exec_driver_sql("ANALYZE"))
