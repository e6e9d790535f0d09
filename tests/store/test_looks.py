"""A page of devices: what the database narrows comes in the order of the names, and nothing is left out."""

from datetime import UTC, datetime
from itertools import product

import pytest

from skylift.store import devices, looks
from skylift.store.db import Connection, Database
from skylift.store.looks import Narrow

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
# Of 300: a version that most run, one that every fifth of them does, and one that is rare and comes late.
FLEET = [
    (f"dev-{n:03}", f"type-{n % 3}", "9.9.9" if n in (7, 260, 299) else "1.1.0" if n % 5 == 0 else "1.0.0")
    for n in range(300)
]


@pytest.fixture
def fleet(database: Database) -> Database:
    rows = [(name, kind, f"{number:064x}", version, {}) for number, (name, kind, version) in enumerate(FLEET)]
    database.write(lambda conn: devices.insert_many(conn, rows, NOW))
    return database


@pytest.mark.parametrize("near", [1, 10, 10_000])
def test_every_page_holds_the_next_that_fit(
    fleet: Database, near: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many names are looked at before everybody is."""
    monkeypatch.setattr(looks, "NEAR", near)

    def deed(conn: Connection) -> None:
        versions, kinds = (None, "1.0.0", "1.1.0", "9.9.9", "0"), (None, "type-1", "type-9")
        for version, kind, prefix, after, limit in product(
            versions, kinds, ("", "dev-", "dev-2", "x"), ("", "dev-100", "dev-299"), (1, 20)
        ):
            found = looks.window(conn, Narrow(kind, version, prefix), after=after, limit=limit)
            fitting = [
                name
                for name, type_, runs in FLEET
                if version in (None, runs)
                and kind in (None, type_)
                and name.startswith(prefix)
                and name > after
            ]
            assert [device.device_id for device in found] == fitting[:limit]

    fleet.write(deed)
