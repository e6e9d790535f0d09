"""One writer, many readers: what was answered is durable, and nothing that goes wrong is anybody else's."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from conftest import START
from skylift.core.errors import Rejected, Unavailable
from skylift.store import tables
from skylift.store.connect import sqlstate
from skylift.store.db import Connection, Database
from skylift.store.tables import settings_kv


def put(key: str, value: int = 1) -> Callable[[Connection], str]:
    def deed(conn: Connection) -> str:
        conn.execute(settings_kv.insert().values(key=key, value=value))
        return key

    return deed


def keys(database: Database) -> set[str]:
    with database.read() as conn:
        return {row.key for row in conn.execute(sa.select(settings_kv.c.key))}


class Held:
    """A deed that keeps the writer busy until told, so that others pile up behind it."""

    def __init__(self, database: Database) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.future = database.submit(self._deed)
        assert self.begun.wait(60)

    def _deed(self, conn: Connection) -> None:
        self.begun.set()
        assert self.go.wait(60)


def test_a_write_that_was_answered_is_there(database: Database) -> None:
    assert database.write(put("a")) == "a"
    assert keys(database) == {"a"}


def test_deeds_that_wait_share_one_commit(database: Database) -> None:
    held = Held(database)
    futures = [database.submit(put(f"k{n}")) for n in range(50)]
    before = database.stats.commits
    held.go.set()
    assert [future.result(60) for future in futures] == [f"k{n}" for n in range(50)]
    assert database.stats.commits - before == 2  # the one that held them up, and all others


def test_a_deed_that_raises_is_undone_alone(database: Database) -> None:
    def half(conn: Connection) -> None:
        put("half")(conn)
        raise Rejected("no", "no")

    def clumsy(conn: Connection) -> None:
        put("clumsy")(conn)
        conn.exec_driver_sql("SELECT * FROM there_is_no_such_table")

    held = Held(database)
    good, bad, worse, last = (database.submit(deed) for deed in (put("a"), half, clumsy, put("b")))
    held.go.set()
    assert (good.result(60), last.result(60)) == ("a", "b")
    with pytest.raises(Rejected):
        bad.result(60)
    with pytest.raises(sa.exc.DBAPIError):
        worse.result(60)
    assert keys(database) == {"a", "b"}


DEVICE = {"device_id": "a", "device_type": "t", "h": 1, "token_hash": "0" * 64, "enrolled_at": START}


@pytest.mark.parametrize(
    ("table", "row", "code"),
    [
        (tables.devices, {**DEVICE, "token_hash": "1" * 64}, "23505"),
        (
            tables.devices,
            {**DEVICE, "device_id": "b"},
            "23P01",
        ),  # PostgreSQL keeps tokens apart by an exclusion
        (tables.devices, {**DEVICE, "device_id": "b", "token_hash": "1" * 64, "device_type": None}, "23502"),
        (tables.group_members, {"group_id": "nowhere", "device_pk": 1}, "23503"),
    ],
    ids=["a name twice", "a token twice", "no type", "a group that is not there"],
)
def test_a_row_that_breaks_a_rule_of_its_table_is_the_same_error_on_both(
    database: Database, table: sa.Table, row: dict[str, Any], code: str
) -> None:
    database.write(lambda conn: conn.execute(tables.devices.insert().values(**DEVICE)))
    with pytest.raises(sa.exc.IntegrityError) as e:
        database.write(lambda conn: conn.execute(table.insert().values(**row)))
    assert sqlstate(e.value) in (None, code)  # SQLite has no codes
    with database.read() as conn:
        assert list(conn.execute(sa.select(tables.devices.c.device_id)).scalars()) == ["a"]


def test_a_reader_sees_one_moment(database: Database) -> None:
    database.write(put("a"))
    with database.read() as conn:
        first = conn.execute(sa.select(sa.func.count()).select_from(settings_kv)).scalar_one()
        database.write(put("b"))
        assert conn.execute(sa.select(sa.func.count()).select_from(settings_kv)).scalar_one() == first
    assert keys(database) == {"a", "b"}


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises((sa.exc.DBAPIError, Unavailable)), database.read() as conn:
        conn.execute(settings_kv.insert().values(key="x", value=1))
    assert keys(database) == set()


def test_a_question_has_so_long_and_its_connection_serves_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def numbers(upto: int) -> sa.CTE:
        found = sa.select(sa.literal(1).label("n")).cte("numbers", recursive=True)
        return found.union_all(sa.select(found.c.n + 1).where(found.c.n < upto))

    monkeypatch.setattr("skylift.store.db.QUESTION_S", 0.3)
    endless = sa.select(sa.func.count()).select_from(numbers(10**9))
    for _ in range(2):
        with pytest.raises(Rejected, match=r"longer than 0\.3 seconds"), database.ask() as conn:
            conn.execute(endless)
    monkeypatch.undo()
    with database.ask() as conn:
        streamed = sa.select(numbers(50).c.n).execution_options(yield_per=7)
        assert [n for (n,) in conn.execute(streamed)] == list(range(1, 51))
    with database.read() as conn:
        unbounded = sa.select(sa.func.count()).select_from(numbers(50))
        assert conn.execute(unbounded).scalar_one() == 50


def test_a_caller_who_left_disturbs_nobody(database: Database) -> None:
    """The event loop cancels what a client no longer waits for; the writer goes on with the others."""
    held = Held(database)

    async def impatient() -> None:
        waiting = asyncio.wrap_future(database.submit(put("left")))
        waiting.cancel()
        await asyncio.sleep(0)

    asyncio.run(impatient())
    held.go.set()
    assert database.write(put("stayed")) == "stayed"
    assert "left" not in keys(database)


def test_a_caller_who_leaves_in_the_middle_disturbs_nobody(database: Database) -> None:
    held = Held(database)
    assert not held.future.cancel()  # too late: it runs
    held.go.set()
    assert database.write(put("next")) == "next"


def test_a_deed_must_not_wait_for_another(database: Database) -> None:
    with pytest.raises(RuntimeError, match="must not"):
        database.write(lambda conn: database.write(put("inner")))
    assert database.write(put("outer")) == "outer"


def test_closing_finishes_what_waits_and_refuses_what_comes(database: Database) -> None:
    held = Held(database)
    waiting = database.submit(put("waited"))
    closing = threading.Thread(target=database.close)
    closing.start()
    held.go.set()
    closing.join(60)
    assert waiting.result(0) == "waited"
    with pytest.raises(Unavailable):
        database.write(put("late"))
    database.close()  # again: nothing happens


def test_of_many_threads_nobody_is_lost_or_done_twice(database: Database) -> None:
    def count(conn: Connection) -> None:
        conn.execute(settings_kv.update().where(settings_kv.c.key == "n").values(value=read(conn) + 1))

    def read(conn: Connection) -> int:
        return int(conn.execute(sa.select(settings_kv.c.value).where(settings_kv.c.key == "n")).scalar_one())

    database.write(put("n", 0))
    threads = [threading.Thread(target=lambda: [database.write(count) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with database.read() as conn:
        assert read(conn) == 160


# --- SQLite ------------------------------------------------------------------------------------------


def test_sqlite_syncs_every_commit_and_keeps_its_promises(sqlite_database: Database) -> None:
    def asked(conn: Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint")
        return {name: conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names}

    assert sqlite_database.write(asked) == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "wal_autocheckpoint": 0,
    }


def test_the_log_of_sqlite_does_not_grow_for_ever(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skylift.store.db.WAL_CHECKPOINT_BYTES", 4 << 20)
    log = tmp_path / "skylift.db-wal"
    sqlite_database.write(put("big"))
    for n in range(40):
        text = f"{n}" * 400_000
        sqlite_database.write(lambda conn, text=text: conn.execute(settings_kv.update().values(value=text)))
    assert log.stat().st_size < 12 << 20
    sqlite_database.close()
    assert not log.exists() or log.stat().st_size == 0


def test_a_checkpoint_that_fails_ends_nothing(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("skylift.store.db.WAL_CHECKPOINT_BYTES", 0)
    monkeypatch.setattr("skylift.store.db._wal_checkpoint", full)
    for n in range(3):
        assert sqlite_database.write(put(f"k{n}")) == f"k{n}"
    assert keys(sqlite_database) == {"k0", "k1", "k2"}


def test_a_deed_that_breaks_its_connection_breaks_it_for_nobody_else(sqlite_database: Database) -> None:
    with pytest.raises(Unavailable):
        sqlite_database.write(lambda conn: conn.connection.driver_connection.close())
    assert sqlite_database.write(put("a")) == "a"


def test_a_database_locked_by_another_process_is_an_outage(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_database.write(lambda conn: conn.exec_driver_sql("PRAGMA busy_timeout=50"))
    other = sa.create_engine(f"sqlite:///{sqlite_database.url.removeprefix('sqlite:///')}")
    with other.connect() as conn:
        raw = conn.connection.driver_connection
        assert raw is not None
        raw.isolation_level = None
        raw.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("skylift.store.connect.BUSY_S", 0.05)
        with pytest.raises(Unavailable):
            sqlite_database.write(put("a"))
        raw.execute("ROLLBACK")
    other.dispose()
    assert sqlite_database.write(put("a")) == "a"


WRITER = """
import sys
from skylift.store.db import Database
from skylift.store.tables import settings_kv
from skylift.testkit.postgresql import Cluster
database = Database(sys.argv[1])
for n in range(100_000):
    database.write(lambda conn: conn.execute(settings_kv.insert().values(key=f"k{n}", value=n)))
    print(n, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_answered(database_url: str) -> None:
    command = [sys.executable, "-c", WRITER, database_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [process.stdout.readline() for _ in range(30)]
    process.kill()
    answered += process.stdout.readlines()
    process.wait(60)
    database = Database(database_url)
    found = keys(database)
    database.close()
    acknowledged = {f"k{line.strip()}" for line in answered if line.endswith("\n")}
    assert acknowledged <= found
    assert len(found - acknowledged) <= 1  # written, and killed before it was told
