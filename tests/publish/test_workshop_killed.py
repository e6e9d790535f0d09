"""A server that is killed while it makes a delta, and another on the same database: SQLite and PostgreSQL."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_until
from skylift.engine.deltas import DeltaPlanner
from skylift.engine.lease import Held
from skylift.engine.workshop import Bounds, Workshop
from skylift.store import pieces, tables
from skylift.testkit.trustlab import Lab

from .test_deltas import deltas, publish_all

LEASE_S = 4.0
# A server's workshop, whose encoders take for ever.
SERVER = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from skylift.engine.blobs import BlobStore
from skylift.engine.workshop import Bounds, Workshop
from skylift.firmware import apart
from skylift.store.db import Database

url, folder, encoder, lease = sys.argv[1:]
apart.sys.executable = encoder
blobs = BlobStore(Path(folder), shared=True)
Workshop(Database(url), blobs, lambda: datetime.now(UTC), Bounds(lease=float(lease))).start()
threading.Event().wait()
"""


def now() -> datetime:
    return datetime.now(UTC)


def making(lab: Lab) -> Any:
    """The row somebody is at; None where nobody is."""
    with lab.database.read() as conn:
        return conn.execute(tables.pieces.select().where(tables.pieces.c.state == pieces.MAKING)).first()


def piece(lab: Lab, pk: int) -> Any:
    with lab.database.read() as conn:
        return conn.execute(tables.pieces.select().where(tables.pieces.c.pk == pk)).one()


@pytest.fixture
def slow(lab: Lab, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The other server, at the first file of two releases. Its encoders end with it, as the real ones do."""
    encoder = tmp_path / "encoder"
    encoder.write_text("#!/bin/sh\nexec cat > /dev/null\n")
    encoder.chmod(0o755)
    _, new = publish_all(lab, 2)
    DeltaPlanner(lab.database, now)({"release": new})
    words = [lab.database.url, str(lab.blobs.directory), str(encoder), str(LEASE_S)]
    child = subprocess.Popen([sys.executable, "-c", SERVER, *words])
    try:
        wait_until(lambda: making(lab) is not None)
        yield child
    finally:
        child.kill()
        child.wait()


def test_what_a_killed_server_was_making_is_taken_over_soon_and_not_before(
    lab: Lab, slow: "subprocess.Popen[bytes]"
) -> None:
    held = making(lab)
    other = Workshop(lab.database, lab.blobs, now, Bounds(lease=LEASE_S))
    wait_until(lambda: making(lab).due_at > held.due_at + timedelta(seconds=LEASE_S))
    assert making(lab).lease == held.lease, "renewed by who holds it"
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    killed, last = now(), making(lab)
    assert (last.pk, last.lease, last.attempts) == (held.pk, held.lease, 1)
    assert last.due_at <= killed + timedelta(seconds=LEASE_S), "however long it may take"
    wait_until(lambda: other.work() and piece(lab, held.pk).attempts == 2)
    assert now() >= last.due_at, "not before its lease was over"
    wait_until(lambda: not other.work() and set(deltas(lab)) == {("0", "1"), ("1", "0")})


def test_who_has_lost_a_lease_stops(lab: Lab, slow: "subprocess.Popen[bytes]") -> None:
    """And says nothing about the file: it is another's."""
    held = making(lab)
    lab.database.write(
        lambda conn: conn.execute(
            tables.pieces.update()
            .where(tables.pieces.c.pk == held.pk)
            .values(lease="another", due_at=now() + timedelta(hours=1))
        )
    )
    with lab.database.read() as conn:
        others = [row.pk for row in conn.execute(tables.pieces.select()) if row.pk != held.pk]
    wait_until(lambda: any(piece(lab, pk).state == pieces.MAKING for pk in others))
    mine = piece(lab, held.pk)
    assert (mine.state, mine.lease, mine.attempts) == (pieces.MAKING, "another", 1)


def test_a_lease_outlives_a_database_that_is_away_for_a_while(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skylift.core.errors import Unavailable

    _, new = publish_all(lab, 2)
    DeltaPlanner(lab.database, now)({"release": new})
    row = lab.database.write(lambda conn: pieces.lease(conn, "mine", now() + timedelta(seconds=1), now()))
    row_end = making(lab).due_at
    writes, away, lost = lab.database.write, [3], []

    def write(deed: Any) -> Any:
        if away[0]:
            away[0] -= 1
            raise Unavailable("the database is away")
        return writes(deed)

    monkeypatch.setattr(lab.database, "write", write)
    with Held(lab.database, now, row.pk, "mine", 1.0, lambda: lost.append(True)):
        wait_until(lambda: making(lab).due_at > row_end)
    assert not away[0]
    assert not lost
