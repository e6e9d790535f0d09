"""The auditor of a deployment's numbers: whatever is kept as a number is counted again from the rows.

Counters per phase, who waits, open slots, phases and their sizes are kept up change by change, so that
nothing ever scans the fleet. This does scan it, on one snapshot, for whoever wants to know whether that is
still right; it reads only, and repairs nothing.

Who waits may be off for a moment, after a change of many devices, until it is counted again: as long as that
is due it is said and is no finding.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skylift.core.world import PhaseState
from skylift.engine import waiting
from skylift.store import counters, deployments, outbox, slots
from skylift.store.db import Connection

_SHOWN = 5  # devices named in one finding


@dataclass(frozen=True, slots=True)
class Books:
    """What was kept, and what a full count gives, of one snapshot."""

    row: Any  # of the deployment
    phases: list[Any]
    kept: Mapping[int, Mapping[str, int]]
    full: Mapping[int, Mapping[str, int]]
    waiting: Mapping[int, int] | None  # None: it has ended, nobody waits
    count_due: bool

    def rows(self, number: int) -> int:
        """Updates there are in this phase, in any state."""
        found = self.full.get(number, {})
        return sum(n for key, n in found.items() if not key.startswith(counters.REASON))


def audit(conn: Connection, row: Any) -> dict[str, Any]:
    """`row`: the deployment. `equal`, and a sentence for everything that is not."""
    books = _books(conn, row)
    findings = [
        *_counters(books),
        *_waiting(books),
        *_phases(books),
        *_parallel(conn, row),
        *_slots(conn, row.id),
    ]
    return {
        "deployment": row.id,
        "status": row.status,
        "equal": not findings,
        "updates": sum(books.rows(number) for number in books.full),
        "waiting_is_counted_soon": books.count_due,
        "phases": [_phase(books, phase) for phase in books.phases],
        "findings": findings,
    }


def _books(conn: Connection, row: Any) -> Books:
    counted = waiting.count(conn, row.id)
    return Books(
        row,
        deployments.phases_of(conn, row.id),
        counters.of_deployment(conn, row.id),
        counters.recount(conn, row.id),
        None if counted is None else counted.devices,
        outbox.is_waiting(conn, "recount", {"deployment": row.id}, begun=True),
    )


def _phase(books: Books, phase: Any) -> dict[str, Any]:
    number = phase.number
    return {
        "phase": number,
        "counters": dict(books.kept.get(number, {})),
        "full_count": dict(books.full.get(number, {})),
        "waiting": phase.waiting,
        "waiting_full_count": None if books.waiting is None else books.waiting.get(number, 0),
    }


def _counters(books: Books) -> Iterator[str]:
    for number in sorted(books.kept.keys() | books.full.keys()):
        kept, full = books.kept.get(number, {}), books.full.get(number, {})
        for key in sorted(kept.keys() | full.keys()):
            if kept.get(key, 0) != full.get(key, 0):
                where = "left out" if number == counters.OUTSIDE else _name(number)
                yield f"{where}: {key} is counted {kept.get(key, 0)}, there are {full.get(key, 0)}"


def _waiting(books: Books) -> Iterator[str]:
    if books.waiting is None or books.count_due:
        return
    for phase in books.phases:
        full = books.waiting.get(phase.number, 0)
        if phase.waiting != full:
            yield f"{_name(phase.number)}: waiting is counted {phase.waiting}, there are {full}"


def _phases(books: Books) -> Iterator[str]:
    for phase in books.phases:
        rows, most = books.rows(phase.number), phase._mapping["count"]
        if rows and phase.state == PhaseState.CLOSED.value:
            yield f"{_name(phase.number)}: it has not opened, and {rows} devices were offered something"
        if most is not None and rows > most:
            yield f"{_name(phase.number)}: it is of {most} devices, and {rows} were offered something"


def _parallel(conn: Connection, row: Any) -> Iterator[str]:
    """What an operator retried goes over the limit by right."""
    if row.max_parallel is not None:
        at_it = slots.open_first_attempts(conn, row.id)
        if at_it > row.max_parallel:
            yield f"max_parallel is {row.max_parallel}, and {at_it} devices are at it"


def _slots(conn: Connection, deployment_id: str) -> Iterator[str]:
    """Who is at it holds the deployment in its one slot, with the same attempt; nobody else does."""
    for sentence, devices in (
        ("are at it, and their slot says otherwise", slots.rows_without(conn, deployment_id, _SHOWN)),
        ("hold it in their slot, and are not at it", slots.without_rows(conn, deployment_id, _SHOWN)),
    ):
        if devices:
            more = ", ..." if len(devices) == _SHOWN else ""
            yield f"{', '.join(devices)}{more} {sentence}"


def _name(number: int) -> str:
    return f"phase {number + 1}"
