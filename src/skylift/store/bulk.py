"""One statement for many rows, the same words on both databases: the rows come as one JSON document.

PostgreSQL would answer every row with a round trip, and its driver writes one document much faster than
arrays. SQLite's driver runs a statement over a list of rows well enough, but lets go of the interpreter and
takes it back at each of them: beside a busy event loop that cost more than the writing. One statement lets go
of it once, and the rows are written on the other core.

Questions name their keys as one value too: lists of bound parameters are compiled anew for every length.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Statement:
    """`text` says `{rows}` where the rows come from, a table `given` of the columns `a`, `b`, ...

    `kinds` are their types, by PostgreSQL's names: text, integer, bigint, boolean."""

    text: str
    kinds: tuple[str, ...]

    def run(self, conn: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """How many rows it changed."""
        if not rows:
            return 0
        statement = _statement(self.text, self.kinds, conn.dialect.name)
        return int(conn.execute(statement, {"rows": json.dumps(rows)}).rowcount)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question about many rows, answered by one document: drivers make an object of every value of every
    row, and SQLite's takes the interpreter back for each row.

    `columns` are those of an answer, `tables` where they come from, with `{rows}` as in `Statement`."""

    columns: str
    tables: str
    kinds: tuple[str, ...]

    def ask(self, conn: Connection, rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
        """An answer for each row it finds, in no order."""
        if not rows:
            return []
        dialect = conn.dialect.name
        text = f"SELECT {_DOCUMENT[dialect].format(columns=self.columns)} FROM {self.tables}"
        statement = _statement(text, self.kinds, dialect)
        found = conn.execute(statement, {"rows": json.dumps(rows)}).scalar_one()
        answers: list[list[Any]] = json.loads(found) if found else []
        return answers


@cache
def _statement(text: str, kinds: tuple[str, ...], dialect: str) -> sa.TextClause:
    column, table = _ROWS[dialect]
    columns = ", ".join(
        column.format(n=n, kind=kind, name=name)
        for n, (name, kind) in enumerate(zip(ascii_lowercase, kinds, strict=False))
    )
    return sa.text(text.replace("{rows}", table.format(columns=columns)))


_DOCUMENT = {  # text: a driver that knows JSON would read it by its own means
    "sqlite": "json_group_array(json_array({columns}))",
    "postgresql": "CAST(json_agg(json_build_array({columns})) AS text)",
}
# A column, and the table of them. What PostgreSQL's says of its rows is true of all, and lets the planner
# expect one where it would expect a hundred: for a hundred it read all updates there are, and hashed them, at
# each batch, where that looked cheaper (15,000 of them) than the index.
_ROWS = {
    "sqlite": (
        "json_extract(value, '$[{n}]') AS {name}",
        "(SELECT {columns} FROM json_each(:rows)) AS given",
    ),
    "postgresql": (
        "CAST(row->>{n} AS {kind}) AS {name}",
        "(SELECT {columns} FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS row"
        " WHERE jsonb_typeof(row) = 'array') AS given",
    ),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A SELECT with `{keys}` where it says `IN {keys}`, for whole numbers; other values as `:name`."""

    text: str

    def ask(self, conn: Connection, keys: Sequence[int], **values: Any) -> Sequence[Any]:
        """Its rows, as the driver gives them: no type of ours is applied."""
        statement = sa.text(self.text.replace("{keys}", _KEYS[conn.dialect.name]))
        return conn.execute(statement, {"keys": json.dumps(list(keys)), **values}).fetchall()


_KEYS = {
    "sqlite": "(SELECT value FROM json_each(:keys))",
    "postgresql": "(SELECT CAST(key AS bigint) FROM json_array_elements_text(CAST(:keys AS json)) AS key)",
}
