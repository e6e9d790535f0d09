"""What the CLI prints: results on stdout (a table, or JSON), everything else on stderr."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

WIDE = 240


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

    def one(self, found: Any, lines: Iterable[tuple[str, Any]] | None = None) -> None:
        """One thing: its JSON, or lines of name and value."""
        if self.form is Format.JSON:
            print(json.dumps(found, indent=2))
            return
        pairs = list(lines) if lines is not None else list(found.items())
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self.out.print(f"[bold]{name:<{width}}[/bold]  {_plain(value)}", soft_wrap=True)

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
    def progress(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """A bar on stderr, where that is a terminal; the function moves it."""
        if not self.err.is_terminal:
            yield lambda n: None
            return
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=self.err,
        )
        with bar:
            task = bar.add_task(what, total=total)
            yield lambda n: bar.advance(task, n)


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
