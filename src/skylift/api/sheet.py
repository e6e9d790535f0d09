"""Tables as CSV for spreadsheets (RFC 4180), in which no cell is a formula.

A cell that begins with = + - @, a tab or a carriage return is what spreadsheets run; it gets an apostrophe in
front, which they take for "this is text". Device names and messages come from strangers.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

_RUNS = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: Any) -> str:
    """One value as text that stays text."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case datetime():
            return value.isoformat()
        case Mapping() | list():
            return json.dumps(value, sort_keys=True, default=str)
    text = str(value)
    return f"'{text}" if text.startswith(_RUNS) else text


def lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The header and the rows, one line each."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)

    def taken() -> str:
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text

    writer.writerow(columns)
    yield taken()
    for row in rows:
        writer.writerow([cell(row.get(column)) for column in columns])
        yield taken()
