"""A desk, a server's trust and devices, on SQLite: these tests are about signatures, not about SQL."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from skylift.store.db import Database
from skylift.testkit.trustlab import Lab


@pytest.fixture
def lab(tmp_path: Path, sqlite_database: Database, clock: Callable[[], datetime]) -> Lab:
    """With a ceremony held for one product, `sensor`."""
    made = Lab(tmp_path / "lab", sqlite_database, clock)
    made.ceremony()
    return made
