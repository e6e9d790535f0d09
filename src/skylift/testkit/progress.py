"""Progress of a simulation on stderr: bars on terminals, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from skylift.testkit.fleet import Fleet
from skylift.testkit.meter import Second

TELL_S = 10.0  # between two lines where stderr is no terminal


def tell(console: Console, sentence: str) -> None:
    console.print(f"[bold blue]▸[/bold blue] {sentence}", highlight=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def bar(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """One bar; the function says how far it is."""
    with _progress(console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


class Show:
    """The deployment's phases and the load, told again and again by calling it."""

    def __init__(self, console: Console, fleet: Fleet) -> None:
        self._console, self._fleet = console, fleet
        self._told = time.monotonic()
        self._progress = _progress(console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Show":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, seen: dict[str, Any] | None) -> None:
        if self._console.is_terminal:
            self._bars(seen)
        elif time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            tell(self._console, self._line(seen))

    def _bars(self, seen: dict[str, Any] | None) -> None:
        for phase in seen["phases"] if seen else ():
            tally = phase["tally"]
            done = tally["complete"] + tally["failed"] + tally["rolled_back"]
            self._bar(f"{phase['name']} ({phase['state']})", phase["name"], done, phase["size"])
        self._bar(self._load(), "load", len(self._fleet.flights), self._fleet.identity.count)

    def _bar(self, said: str, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(said, total=total)
        self._progress.update(self._tasks[name], description=said, completed=done, total=total)

    def _load(self) -> str:
        last = self._fleet.meter.seconds[-1] if self._fleet.meter.seconds else Second(0)
        return f"{last.polls:,} polls/s, {last.reports:,} reports/s, in flight"

    def _line(self, seen: dict[str, Any] | None) -> str:
        flying = f"{self._load()} {len(self._fleet.flights):,}"
        if not seen:
            return flying
        opened = sum(phase["state"] != "closed" for phase in seen["phases"])
        complete = seen["totals"]["complete"]
        phases = f"{opened} of {len(seen['phases'])} phases open"
        return f"{seen['status']}: {phases}, {complete:,} complete; {flying}"
