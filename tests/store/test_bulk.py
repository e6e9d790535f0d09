"""One statement for many rows."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from skylift.store.bulk import Inquiry, Statement, _statement
from skylift.store.db import Connection, Database
from skylift.store.tables import settings_kv

WRITE = Statement("UPDATE settings_kv SET value = b FROM {rows} WHERE key = a", ("text", "text"))
LOOK = Inquiry(
    "given.b, s.key, s.value", "{rows} LEFT JOIN settings_kv AS s ON s.key = given.a", ("text", "bigint")
)


def filled(conn: Connection, count: int) -> None:
    conn.execute(sa.insert(settings_kv), [{"key": f"k{n}", "value": n} for n in range(count)])


def test_each_row_changes_its_own_and_they_are_counted(database: Database) -> None:
    said = ["", "it's", "größer", 'with "quotes" and \\']

    def deed(conn: Connection) -> tuple[int, int, list[Any]]:
        filled(conn, 10)
        rows = [(f"k{n}", text) for n, text in enumerate(said)]
        changed = WRITE.run(conn, [*rows, ("nobody", "x")])
        found = conn.exec_driver_sql("SELECT key, value FROM settings_kv WHERE key < 'k4' ORDER BY key")
        return changed, WRITE.run(conn, []), [tuple(row) for row in found]

    changed, none, found = database.write(deed)
    assert (changed, none) == (len(said), 0)
    assert found == [(f"k{n}", text) for n, text in enumerate(said)]


def test_a_document_answers_for_each_row_it_was_asked(database: Database) -> None:
    def deed(conn: Connection) -> list[list[Any]]:
        filled(conn, 10)
        return LOOK.ask(conn, [("k3", 0), ("nobody", 2**60), ("k7", 2), ("k3", 3)])

    answers = sorted(database.write(deed))
    assert answers == [[0, "k3", "3"], [2, "k7", "7"], [3, "k3", "3"], [2**60, None, None]]
    assert database.write(lambda conn: LOOK.ask(conn, [])) == []


@pytest.mark.postgresql
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_rows_are_found_by_their_index_however_few_there_are(database: Database) -> None:
    """A table that nobody has analysed, small enough for a scan to look cheap to who expects many rows."""

    def deed(conn: Connection) -> list[str]:
        filled(conn, 5_000)
        statement = _statement(WRITE.text, WRITE.kinds, "postgresql").text
        rows = json.dumps([[f"k{n}", "1"] for n in range(500)])
        return list(conn.execute(sa.text(f"EXPLAIN {statement}"), {"rows": rows}).scalars())

    plan = "\n".join(database.write(deed))
    assert "Index Scan" in plan, plan
    assert "Seq Scan" not in plan, plan
