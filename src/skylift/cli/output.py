"""What the CLI prints: results on stdout (a table, or JSON), everything else on stderr."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

WIDE = 240


class Move(Protocol):
    """Moves a bar by so many; `of` tells how many there are, where that came to be known on the way."""

    def __call__(self, count: int, of: int | None = None) -> None: ...


class Format(StrEnum):
    """`-o`."""

    TABLE = "table"
    JSON = "json"


class Output:
    """One command's output."""

    def __init__(self, form: Format) -> None:
        self.form = form
        # What a pipe reads must not be cut to the width of a terminal that is not there.
        self.out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
        self.err = Console(stderr=True, highlight=False)
        self._last = ""

    def one(self, found: Any, lines: Iterable[tuple[str, Any]] | None = None) -> None:
        """One thing: its JSON, or lines of name and value."""
        if self.form is Format.JSON:
            print(json.dumps(found, indent=2))
            return
        pairs = list(lines) if lines is not None else list(found.items())
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self.out.print(f"[bold]{name:<{width}}[/bold]  {_plain(value)}", soft_wrap=True)

    def line(self, found: Any) -> None:
        """One JSON object on one line, unless it is the one before."""
        now = json.dumps(found)
        if now != self._last:
            print(now, flush=True)
        self._last = now

    def many(self, found: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """A list of things: its JSON, or a table of these columns."""
        if self.form is Format.JSON:
            print(json.dumps(list(found), indent=2))
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column)
        for row in found:
            table.add_row(*(_plain(row.get(column)) for column in columns))
        self.out.print(table)

    def say(self, sentence: str) -> None:
        """For people: progress and confirmations, on stderr."""
        self.err.print(sentence, soft_wrap=True)

    @contextmanager
    def progress(self, what: str, total: int | None, *, steps: bool = False) -> Iterator[Move]:
        """A bar on stderr, where that is a terminal; the function moves it, by bytes or by `steps`."""
        if not self.err.is_terminal:
            yield _nowhere
            return
        counted = MofNCompleteColumn() if steps else DownloadColumn()
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), counted, TimeRemainingColumn(), console=self.err
        )
        with bar:
            task = bar.add_task(what, total=total)

            def move(count: int, of: int | None = None) -> None:
                bar.update(task, advance=count, total=total if of is None else of)

            yield move


def _nowhere(count: int, of: int | None = None) -> None:
    """Where there is no terminal there is no bar."""


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | dict):
        return json.dumps(value)
    return str(value).replace("[", r"\[")


def confirm(question: str, yes: bool) -> bool:
    """Ask, unless `--yes`; without a terminal the answer is no."""
    if yes:
        return True
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
