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
        column, table = _ROWS[conn.dialect.name]
        columns = ", ".join(
            column.format(n=n, kind=kind, name=name)
            for n, (name, kind) in enumerate(zip(ascii_lowercase, self.kinds, strict=False))
        )
        statement = sa.text(self.text.replace("{rows}", table.format(columns=columns)))
        return int(conn.execute(statement, {"rows": json.dumps(rows)}).rowcount)


_ROWS = {  # a column, and the table of them
    "sqlite": (
        "json_extract(value, '$[{n}]') AS {name}",
        "(SELECT {columns} FROM json_each(:rows)) AS given",
    ),
    "postgresql": (
        "CAST(row->>{n} AS {kind}) AS {name}",
        "(SELECT {columns} FROM json_array_elements(CAST(:rows AS json)) AS row) AS given",
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
