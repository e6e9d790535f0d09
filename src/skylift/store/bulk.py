"""One statement for many rows, as each database likes it best.

SQLite's driver runs a statement over a list of rows almost for free. PostgreSQL would answer every row with a
round trip; it takes all of them as one JSON document, which its driver writes much faster than arrays.
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
    """`sqlite` has a `?` per column; `postgresql` says `{rows}` where the rows come from, a table of the
    columns `a`, `b`, ... `kinds` are their types there."""

    sqlite: str
    postgresql: str
    kinds: tuple[str, ...]

    def run(self, conn: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """How many rows it changed."""
        if not rows:
            return 0
        if conn.dialect.name != "postgresql":
            return int(conn.exec_driver_sql(self.sqlite, list(rows)).rowcount)
        names = ascii_lowercase[: len(self.kinds)]
        columns = ", ".join(
            f"CAST(row->>{n} AS {kind}) AS {name}"
            for n, (name, kind) in enumerate(zip(names, self.kinds, strict=True))
        )
        table = f"(SELECT {columns} FROM json_array_elements(CAST(:rows AS json)) AS row) AS given"
        statement = sa.text(self.postgresql.format(rows=table))
        return int(conn.execute(statement, {"rows": json.dumps(rows)}).rowcount)


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
