"""A fleet of a million, written straight into a database: what enrolling it one by one would take a day for.

Every device follows from its number: name, type, labels, token. Whoever knows the seed can speak for any of
them without a list.
"""

import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256

from skylift.engine.access import token_hash
from skylift.store import devices
from skylift.store.db import Database

BATCH = 20_000
REGIONS = ("eu", "us", "ap")
BOARDS = ("a", "b")


def device_id(number: int) -> str:
    return f"sim-{number:07}"


def token(seed: int, number: int) -> str:
    """The device's token: nobody else's, and nowhere stored."""
    return "sim_" + hmac.new(str(seed).encode(), str(number).encode(), sha256).hexdigest()[:40]


def labels(number: int) -> dict[str, str]:
    return {"board": BOARDS[number % len(BOARDS)], "region": REGIONS[number % len(REGIONS)]}


def fill(
    database: Database,
    count: int,
    *,
    seed: int = 1,
    device_type: str = "sensor-v2",
    version: str = "1.0.0",
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """`count` devices that run `version`; `progress` hears how many are done."""
    now = datetime.now(UTC)
    for begin in range(0, count, BATCH):
        batch = [
            (device_id(n), device_type, token_hash(token(seed, n)), version, labels(n))
            for n in range(begin, min(count, begin + BATCH))
        ]
        database.write(partial(devices.insert_many, given=batch, now=now))
        progress(min(count, begin + BATCH))
    database.write(lambda conn: conn.exec_driver_sql("ANALYZE"))
