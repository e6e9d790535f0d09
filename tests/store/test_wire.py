"""PostgreSQL's wire: few round trips, and every answer to the statement it belongs to."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, ProgrammingError

from conftest import wait_until
from skylift.store.connect import sqlstate
from skylift.store.db import Connection, Database
from skylift.store.tables import settings_kv
from skylift.store.wire import Wire
from skylift.testkit.postgresql import Cluster

pytestmark = pytest.mark.postgresql


@pytest.fixture
def shared(cluster: Cluster, postgresql_template: str) -> str:
    return cluster.url(cluster.fresh(postgresql_template))


@pytest.fixture
def database(shared: str) -> Iterator[Database]:
    found = Database(shared)
    yield found
    found.close()


class Heard:
    """Counts the times that somebody waits for the server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        hear = Wire._hear

        def counted(wire: Wire, context: object) -> object:
            self.times += 1
            return hear(wire, context)

        monkeypatch.setattr(Wire, "_hear", counted)


def test_a_write_waits_for_its_statements_its_name_and_its_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write(lambda conn: conn.execute(sa.insert(settings_kv).values(key="a", value=1)))
    heard = Heard(monkeypatch)
    database.write(lambda conn: conn.execute(sa.insert(settings_kv).values(key="b", value=1)))
    assert heard.times == 3  # the statement, the transaction's name, the commit


def test_a_read_waits_for_its_question_and_its_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.ping()
    heard = Heard(monkeypatch)
    with database.read() as conn:
        assert conn.execute(sa.select(sa.literal(7))).scalar_one() == 7
    assert heard.times == 2


def test_values_of_every_length_come_back_as_they_went(database: Database) -> None:
    said = ["", "x", "a ' \" \\ : % $1 %s", "größer \N{ROCKET}", "y" * 300_000, None]
    with database.read() as conn:
        for one in said:
            question = sa.text("SELECT CAST(:said AS text), CAST(:number AS bigint)")
            assert tuple(conn.execute(question, {"said": one, "number": 2**62}).one()) == (one, 2**62)


def test_many_rows_come_back_in_their_order(database: Database) -> None:
    with database.read() as conn:
        rows = conn.execute(sa.text("SELECT n FROM generate_series(1, :most) AS n"), {"most": 5000})
        assert list(rows.scalars()) == list(range(1, 5001))
        streamed = conn.execution_options(yield_per=100).execute(
            sa.text("SELECT n FROM generate_series(1, CAST(:most AS integer)) AS n"), {"most": 1000}
        )
        assert list(streamed.scalars()) == list(range(1, 1001))


def test_what_goes_wrong_unheard_is_raised_at_the_next_statement(database: Database) -> None:
    def deed(conn: Connection) -> None:
        conn.exec_driver_sql("RELEASE SAVEPOINT nobody_made")  # leaves later, and is wrong
        conn.exec_driver_sql("SELECT 1")

    with pytest.raises(ProgrammingError) as e:
        database.write(deed)
    assert sqlstate(e.value) == "3B001"
    assert database.write(lambda conn: conn.exec_driver_sql("SELECT 2").scalar_one()) == 2


def test_what_goes_wrong_is_raised_at_its_own_statement_and_the_line_goes_on(database: Database) -> None:
    def deed(conn: Connection) -> int:
        with pytest.raises(ProgrammingError) as e, conn.begin_nested():
            conn.execute(sa.text("SELECT 1 / CAST(:nothing AS integer)"), {"nothing": 0})
        assert sqlstate(e.value) == "22012"
        conn.execute(sa.insert(settings_kv).values(key="a", value=1))
        with pytest.raises(IntegrityError), conn.begin_nested():
            conn.execute(sa.insert(settings_kv).values(key="a", value=2))
        return int(conn.execute(sa.select(sa.func.count()).select_from(settings_kv)).scalar_one())

    assert database.write(deed) == 1


def test_a_reader_whose_line_was_cut_is_made_anew(database: Database, shared: str) -> None:
    with database.read() as conn:
        pid = conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        line = conn.connection.driver_connection
    assert isinstance(line, Wire)
    assert not line.is_lost()
    other = Database(shared)
    other.write(lambda conn: conn.exec_driver_sql(f"SELECT pg_terminate_backend({int(pid)})"))
    other.close()
    wait_until(line.is_lost, what="the server's last words are here")
    with database.read() as conn:
        assert conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() != pid
