"""Several servers on one PostgreSQL: they write in turns, and hear of each other's changes."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from conftest import START, wait_until
from skylift.engine import deployments, verbs
from skylift.engine.checkin import LiveCache
from skylift.store import devices, events, notices, releases, world
from skylift.store.connect import sqlstate
from skylift.store.db import Connection, Database, migrate
from skylift.store.notices import Listener
from skylift.store.tables import deployments as table
from skylift.store.tables import phases, settings_kv
from skylift.store.wire import Wire
from skylift.testkit.postgresql import Cluster

pytestmark = pytest.mark.postgresql
DEPLOYMENT = "dep_1"


@pytest.fixture
def shared(cluster: Cluster, postgresql_template: str) -> str:
    return cluster.url(cluster.fresh(postgresql_template))


@pytest.fixture
def two(shared: str) -> Iterator[tuple[Database, Database]]:
    """Two servers' databases, which are one."""
    both = Database(shared), Database(shared)
    yield both
    for database in both:
        database.close()


def say(conn: Connection, kind: str) -> None:
    events.say(conn, kind, {}, START, deployment_id=DEPLOYMENT)


def told(database: Database, after: int) -> list[tuple[int, str]]:
    with database.read() as conn:
        return [(one.pk, one.kind) for one in events.of_deployment(conn, DEPLOYMENT, after=after, limit=100)]


def test_a_stream_misses_nothing_of_two_servers_that_write_at_once(
    two: tuple[Database, Database],
) -> None:
    """The first transaction takes its number, and commits last if the second does not wait for it."""
    one, other = two
    taken, go = threading.Event(), threading.Event()

    def slowly(conn: Connection) -> None:
        say(conn, "early")
        taken.set()
        assert go.wait(60)

    first = one.submit(slowly)
    assert taken.wait(60)
    second = other.submit(lambda conn: say(conn, "late"))
    with pytest.raises(TimeoutError):
        second.result(0.5)
    seen = told(other, 0)  # a stream looks, and goes on behind what it saw
    go.set()
    first.result(60)
    second.result(60)
    seen += told(other, max((pk for pk, _ in seen), default=0))
    assert [kind for _, kind in seen] == ["early", "late"]


def test_of_many_writers_every_reader_sees_every_event_in_order(two: tuple[Database, Database]) -> None:
    """Streams on both servers, while both write."""
    done = threading.Event()
    streams: list[list[tuple[int, str]]] = [[], []]

    def follow(database: Database, seen: list[tuple[int, str]]) -> None:
        last = False
        while not last:
            last = done.is_set()
            seen += told(database, max((pk for pk, _ in seen), default=0))

    def write(database: Database, name: str) -> None:
        for n in range(60):
            database.write(lambda conn, n=n: say(conn, f"{name}{n}"))

    readers = [threading.Thread(target=follow, args=pair) for pair in zip(two, streams, strict=True)]
    writers = [threading.Thread(target=write, args=pair) for pair in zip(two, "ab", strict=True)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    done.set()
    for thread in readers:
        thread.join(60)
    assert streams[0] == streams[1]
    assert len(streams[0]) == 120
    assert streams[0] == sorted(streams[0])


def test_a_server_that_stops_in_its_turn_is_cut_off(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen in the middle of a transaction: the others go on, and it does its deed again when it thaws."""
    monkeypatch.setattr("skylift.store.connect.FROZEN_S", 1.0)
    one, other = Database(shared), Database(shared)
    begun, thaw, runs = threading.Event(), threading.Event(), []

    def freeze(conn: Connection) -> None:
        conn.execute(settings_kv.insert().values(key="frozen", value=len(runs)))
        runs.append(1)
        begun.set()
        assert thaw.wait(60)

    frozen = one.submit(freeze)
    assert begun.wait(60)
    monkeypatch.undo()  # whose turn comes after it is cut off as late as ever
    other.submit(lambda conn: say(conn, "goes on")).result(60)
    thaw.set()
    frozen.result(60)
    assert len(runs) == 2
    with other.read() as conn:
        assert conn.execute(sa.select(settings_kv.c.value)).scalars().all() == [1]
    one.close()
    other.close()


def test_a_word_is_heard_after_its_commit_and_not_of_what_was_undone(shared: str) -> None:
    heard = threading.Semaphore(0)
    listener, database = Listener(shared, heard.release), Database(shared)
    listener.start()
    assert heard.acquire(timeout=60)  # it listens
    assert not heard.acquire(timeout=0.2)

    def undone(conn: Connection) -> None:
        notices.say(conn)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        database.write(undone)
    assert not heard.acquire(timeout=0.5)
    database.write(notices.say)
    assert heard.acquire(timeout=60)
    listener.stop()
    database.close()


def test_the_live_deployments_are_read_again_at_once_when_another_server_changed_them(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cache that would keep for an hour what it has."""
    monkeypatch.setattr("skylift.engine.checkin.CACHE_S", 3600.0)
    one, other = Database(shared), Database(shared)
    lives = LiveCache(other)
    heard = threading.Event()

    def hear() -> None:
        lives.invalidate()
        heard.set()

    listener = Listener(shared, hear)
    listener.start()
    assert heard.wait(60)
    assert lives.get()[0] == {}
    made = make_deployment(one)
    wait_until(lambda: made in lives.get()[0], what="the other server offers it")
    listener.stop()
    one.close()
    other.close()


def test_whoever_locks_a_deployment_holds_its_phases_and_itself(two: tuple[Database, Database]) -> None:
    database, other = two
    name = make_deployment(database)

    def refused(question: sa.Select[Any]) -> None:
        # Outside of the turn, which the first has.
        with other._writers.connect() as conn, pytest.raises(ProgrammingError) as e:
            conn.execute(question.with_for_update(nowait=True))
        assert sqlstate(e.value) == "55P03"

    def deed(conn: Connection) -> None:
        world.lock(conn, name)
        refused(sa.select(phases).where(phases.c.deployment_id == name))
        refused(sa.select(table).where(table.c.id == name))

    database.write(deed)


def test_a_pause_waits_ten_times_for_the_server(
    two: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight statements, the transaction's name and its commit; its turn and its savepoint leave with them."""
    database, _ = two
    name = make_deployment(database)
    heard = []
    hear = Wire._hear

    def counted(wire: Wire, context: Any) -> Any:
        heard.append(context.statement)
        return hear(wire, context)

    monkeypatch.setattr(Wire, "_hear", counted)
    database.write(lambda conn: verbs.pause(conn, name, "ada", START + timedelta(seconds=2)))
    assert len(heard) == 10


def make_deployment(database: Database) -> str:
    def deed(conn: Connection) -> str:
        devices.insert(conn, device_id="dev-1", device_type="t", token_hash="0" * 64, labels={}, now=START)
        releases.insert(
            conn, id="rel_1", product="sensor", version="1.1.0", kind="image", status="published",
            created_at=START, created_by="ada", published_at=START,
        )  # fmt: skip
        releases.insert_artifact(
            conn, id="art_1", release_id="rel_1", device_type="t", kind="full", sha256="0" * 64, size=1,
            created_at=START,
        )  # fmt: skip
        body = {"firmware_version": "1.1.0", "target_devices": "all", "all_at_once": True}
        return deployments.create(conn, body, "ada", START + timedelta(seconds=1))

    return database.write(deed)


def test_a_listener_that_lost_its_database_listens_again(cluster: Cluster) -> None:
    own = Cluster.make()
    heard = threading.Semaphore(0)
    url = own.url(own.fresh())
    migrate(url)
    listener = Listener(url, heard.release)
    listener.start()
    assert heard.acquire(timeout=60)
    own.restart()
    assert heard.acquire(timeout=60)  # what was said meanwhile was missed: look again
    database = Database(url)
    database.write(notices.say)
    assert heard.acquire(timeout=60)
    listener.stop()
    database.close()
    own.stop()
