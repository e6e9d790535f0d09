"""The one writer on PostgreSQL: lines that break, answers that get lost, deadlocks, other servers."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import sqlalchemy as sa

from conftest import START, wait_until
from skylift.core.errors import Unavailable
from skylift.store import devices
from skylift.store.db import Connection, Database, migrate
from skylift.store.tables import settings_kv
from skylift.testkit.postgresql import Cluster

from .test_db import keys, put


@pytest.fixture
def own(cluster: Cluster) -> Iterator[Cluster]:
    """A PostgreSQL of the test's own, that it may kill."""
    made = Cluster.make()
    yield made
    made.stop()


@pytest.fixture
def shared(cluster: Cluster, postgresql_template: str) -> str:
    return cluster.url(cluster.fresh(postgresql_template))


@pytest.mark.postgresql
def test_a_connection_that_was_cut_is_made_again(cluster: Cluster, shared: str) -> None:
    database = Database(shared)
    database.write(put("a"))
    with database.read() as conn:
        conn.exec_driver_sql("SELECT 1")
    name = shared.rsplit("/", 1)[1]
    others = f"pg_stat_activity WHERE datname = '{name}'"
    cluster.sql("SELECT pg_terminate_backend(pid) FROM " + others)  # noqa: S608 - our own name  # noqa: S608 - names of our own making
    assert database.write(put("b")) == "b"
    assert keys(database) == {"a", "b"}
    database.close()


@pytest.mark.postgresql
def test_a_line_that_breaks_before_the_first_question_is_an_outage(shared: str) -> None:
    """The driver speaks for itself then: nobody has wrapped its error."""
    database = Database(shared)
    broken: list[object] = []

    def cut(driver: Any, *_: object) -> None:
        if not broken:
            driver._usock.shutdown(socket.SHUT_RDWR)
        broken.append(driver)

    sa.event.listen(database._readers, "checkout", cut)
    with pytest.raises(Unavailable), database.read() as conn:
        conn.exec_driver_sql("SELECT 1")
    assert broken
    assert keys(database) == set()
    database.close()


@pytest.mark.postgresql
def test_a_commit_whose_answer_got_lost_is_not_repeated(shared: str) -> None:
    """The server commits and the answer never arrives: asked about, the transaction counts, once."""
    database = Database(shared)
    database.write(put("n", 0))
    runs = []
    cuts: list[str] = []

    def deed(conn: Connection) -> None:
        runs.append(1)
        conn.exec_driver_sql("UPDATE settings_kv SET value = (value::int + 1)::text WHERE key = 'n'")
        if len(runs) == 1:
            driver = conn.connection.driver_connection
            assert driver is not None
            socket = driver._usock
            whole = driver.execute_unnamed

            def cut(sql: str, *rest: object, **more: object) -> object:
                if str(sql).upper().startswith("COMMIT"):
                    whole(sql, *rest, **more)  # it is done ...
                    socket.close()  # ... and nobody hears of it
                    cuts.append(sql)
                    raise OSError("connection reset")
                return whole(sql, *rest, **more)

            driver.execute_unnamed = cut

    database.write(deed)
    assert cuts
    with database.read() as conn:
        assert conn.execute(sa.select(settings_kv.c.value)).scalar_one() == len(runs) == 1
    database.close()


@pytest.mark.postgresql
def test_a_deadlock_is_run_again(shared: str) -> None:
    """With somebody who does not write in turns, such as a person at psql."""
    database = Database(shared)
    for key in ("a", "b"):
        database.write(put(key, 0))
    touch = "UPDATE settings_kv SET value = (value::int + 1)::text WHERE key = '{}'"
    holds, go, runs = threading.Event(), threading.Event(), []

    def deed(conn: Connection) -> None:
        runs.append(1)
        conn.exec_driver_sql(touch.format("a"))
        holds.set()
        assert go.wait(60)
        conn.exec_driver_sql(touch.format("b"))

    engine = sa.create_engine(shared.replace("postgresql", "postgresql+pg8000"), poolclass=sa.NullPool)
    with engine.begin() as person:
        person.exec_driver_sql("SET deadlock_timeout = '1h'")  # the deed is who finds out
        person.exec_driver_sql(touch.format("b"))
        future: Future[None] = database.submit(deed)
        assert holds.wait(60)
        waiting = threading.Thread(target=lambda: person.exec_driver_sql(touch.format("a")))
        waiting.start()
        wait_until(lambda: waits_for_a_lock(shared), what="the person waits for the deed")
        go.set()
        waiting.join(60)
    future.result(60)
    assert len(runs) == 2
    with database.read() as conn:
        assert set(conn.execute(sa.select(settings_kv.c.value)).scalars()) == {2}
    database.close()


@pytest.mark.postgresql
def test_two_servers_that_insert_the_same_look_again(shared: str) -> None:
    one, two = Database(shared), Database(shared)
    inserted, go = threading.Event(), threading.Event()

    def enroll(conn: Connection, wait: bool) -> bool:
        if devices.find_device(conn, "dev-1") is not None:
            return False
        devices.insert(conn, device_id="dev-1", device_type="t", token_hash="0" * 64, labels={}, now=START)
        if wait:
            inserted.set()
            assert go.wait(60)
        return True

    first = one.submit(lambda conn: enroll(conn, True))
    assert inserted.wait(60)
    second = two.submit(lambda conn: enroll(conn, False))
    wait_until(lambda: waits_for_a_lock(shared), what="the second waits for the first")
    go.set()
    assert (first.result(60), second.result(60)) == (True, False)
    one.close()
    two.close()


def waits_for_a_lock(url: str) -> bool:
    engine = sa.create_engine(url.replace("postgresql", "postgresql+pg8000"), poolclass=sa.NullPool)
    with engine.connect() as conn:
        found = conn.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one()
    return bool(found)


@pytest.mark.postgresql
def test_an_outage_is_told_and_survived(own: Cluster) -> None:
    name = own.fresh()
    migrate(own.url(name))
    database = Database(own.url(name))
    database.write(put("before"))
    own.crash()
    held = [database.submit(put(f"k{n}")) for n in range(20)]
    for future in held:
        with pytest.raises(Unavailable):
            future.result(60)
    with pytest.raises(Unavailable), database.read() as conn:
        conn.exec_driver_sql("SELECT 1")
    own.start()
    assert database.write(put("after")) == "after"
    assert keys(database) == {"before", "after"}
    database.close()
