"""Releases on both databases, with a ceremony held; and one real server for what only HTTP can show."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from skylift.store.db import Database
from skylift.testkit.stage import Stage
from skylift.testkit.trustlab import Lab


@pytest.fixture
def lab(tmp_path: Path, database: Database, clock: Callable[[], datetime]) -> Lab:
    """With a ceremony held for one product, `sensor`."""
    made = Lab(tmp_path / "lab", database, clock)
    made.ceremony()
    return made


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server process with a ceremony held, and small limits."""
    made = Stage(tmp_path_factory.mktemp("stage"), settings={"SKYLIFT_MAX_IMAGE_BYTES": "3000000"})
    try:
        made.serve("--mqtt", "off")
        made.ceremony()
        yield made
    finally:
        made.close()
