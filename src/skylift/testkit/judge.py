"""Was anything lost, done twice, or begun too early? The fleet's memory beside what the server has.

A deployment's durable events and rows are read once, in their order, in memory that does not grow with them:
a few bytes per device. Over HTTP (another server than our own) only rows can be judged, and the verdict says
so by what is absent.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from skylift.core.lifecycle import FINAL, UpdateState
from skylift.engine.checkin import recount
from skylift.store import deployments, devices, events, updates
from skylift.store.db import Connection, Database
from skylift.testkit.fleet import Fleet
from skylift.testkit.identity import Identity
from skylift.testkit.memory import BIT, DOUBT, Memory, rank, states

PAGE = 5_000
NOTHING = ("reports_lost", "devices_doubled", "phases_wrong", "versions_wrong", "refused")
_FINAL_BITS = sum(BIT[state] for state in FINAL)


@dataclass
class Story:
    """One deployment's events and rows, told in their order. `soaks`: of each phase."""

    count: int
    soaks: tuple[timedelta, ...]
    entered: "array[int]" = field(init=False)  # by device: states it ever had
    rows: "array[int]" = field(init=False)  # by device: rank of its row + 1; 0 where there is none
    doubled: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.entered = array("H", [0]) * self.count
        self.rows = array("B", [0]) * self.count
        self._told: list[tuple[str, int]] = []  # phase_opened, phase_through
        self._through: dict[int, tuple[datetime, bool]] = {}  # when, and whether anybody was in it
        self._flying: dict[int, int] = defaultdict(int)

    def phase(self, kind: str, number: int, at: datetime, size: int = 1) -> None:
        """`phase_opened` or `phase_through`."""
        self._told.append((kind, number))
        if kind == "phase_through":
            if self._flying[number]:
                self.wrong.append(f"phase {number} ended with {self._flying[number]} devices on their way")
            self._through[number] = (at, size > 0)
        elif number > 0:
            before = self._through.get(number - 1)
            # Nobody soaks in an empty phase: it ends at once, and the next one opens.
            if before is None or (before[1] and at < before[0] + self.soaks[number - 1]):
                self.wrong.append(f"phase {number} opened before phase {number - 1} had ended and soaked")

    def update(self, number: int, state: UpdateState, phase: int) -> None:
        """A device entered a state."""
        if ("phase_opened", phase) not in self._told:
            self.wrong.append(f"device {number} moved before phase {phase} opened")
        had = self.entered[number]
        if had & BIT[state]:
            self.doubled.add(number)
        flew = had != 0 and not had & _FINAL_BITS
        flies = state not in FINAL and not had & _FINAL_BITS
        self._flying[phase] += flies - flew
        self.entered[number] = had | BIT[state]

    def row(self, number: int, state: UpdateState, attempt: int) -> None:
        """Where the update stands in the end."""
        self.rows[number] = rank(state) + 1
        if attempt > 1:
            self.doubled.add(number)

    def phases_wrong(self, *, whole: bool) -> int:
        """Phases opened twice, out of order, too early, or whose devices were offered something earlier, and
        phases that ended with devices on their way. `whole`: the deployment is complete, so none may miss."""
        every = [(kind, n) for n in range(len(self.soaks)) for kind in ("phase_opened", "phase_through")]
        expected = every if whole else every[: len(self._told)]
        return len(self.wrong) + (self._told != expected)


def lost(memory: Memory, deployment: str, story: Story) -> list[str]:
    """Acknowledged reports without their effect: the state a report was answered with must be in the device's
    history, and its row must stand there or further."""
    found = []
    for number, bits in enumerate(memory.past[deployment].bits):
        if not bits:
            continue
        missing = [state for state in states(bits) if not story.entered[number] & BIT[state]]
        found += [f"device {number} was answered {state}, which it never had" for state in missing]
        found += _behind(memory, deployment, number, story.rows[number] - 1)
    return found


def _behind(memory: Memory, deployment: str, number: int, stands: int) -> Iterator[str]:
    furthest = memory.furthest(deployment, number)
    if furthest is not None and stands < rank(furthest):
        yield f"device {number} was answered {furthest}, its row stands before that"


def clean(verdict: dict[str, Any]) -> bool:
    """Whether nothing that was judged went wrong."""
    return not any(verdict.get(name) for name in NOTHING) and verdict.get("counters_equal", True)


# --- our own server: its database ----------------------------------------------------------------------


def judge_fleet(url: str, fleet: Fleet) -> dict[str, Any]:
    """The verdict over a fleet that has stopped, and what it lived through, by name."""
    database = Database(url)
    try:
        verdict = judge_store(database, fleet.identity, fleet.memory)
    finally:
        database.close()
    return {
        **verdict,
        "findings": verdict["findings"] + fleet.refused[:5],
        "refused": fleet.refusals,
        "devices": fleet.identity.count,
        "deployments": len(fleet.memory.past),
        "reports_acknowledged": fleet.memory.reports,
        "checks_answered": fleet.checks,
        "requests_unanswered": fleet.outages,
    }


def judge_store(database: Database, identity: Identity, memory: Memory) -> dict[str, Any]:
    """The verdict over every deployment the fleet met, on one snapshot."""
    with database.read() as conn:
        numbers, mistaken = _fleet(conn, identity, memory)
        verdict: dict[str, Any] = {
            "reports_lost": 0,
            "devices_doubled": 0,
            "phases_wrong": 0,
            "counters_equal": True,
            "versions_wrong": mistaken,
            "deployments_complete": 0,
            "findings": [],
        }
        for deployment in memory.past:
            _judge(conn, deployment, identity, memory, numbers, verdict)
    return verdict


def _judge(
    conn: Connection,
    deployment: str,
    identity: Identity,
    memory: Memory,
    numbers: "array[int]",
    verdict: dict[str, Any],
) -> None:
    row = deployments.find(conn, deployment)
    soaks = tuple(timedelta(seconds=p.soak_s) for p in deployments.phases_of(conn, deployment))
    story = Story(identity.count, soaks)
    _tell_events(conn, deployment, numbers, story)
    _tell_rows(conn, deployment, identity, story)
    past = memory.past[deployment]
    gone = lost(memory, deployment, story) + past.odd
    whole = row is not None and row.status == "complete"
    verdict["reports_lost"] += len(gone)
    verdict["devices_doubled"] += len(story.doubled | past.offered_again)
    verdict["phases_wrong"] += story.phases_wrong(whole=whole)
    verdict["deployments_complete"] += whole
    verdict["counters_equal"] &= not recount(conn, deployment)
    verdict["findings"] += (gone + story.wrong)[: 10 - len(verdict["findings"])]


def _fleet(conn: Connection, identity: Identity, memory: Memory) -> tuple["array[int]", int]:
    """Device numbers by primary key, and how many devices run something else than the server was told."""
    numbers = array("i")
    mistaken = 0
    versions = {version: index for index, version in enumerate(memory.versions)}
    after = ""
    while some := devices.page(conn, limit=PAGE, after=after):
        after = some[-1].device_id
        for device in some:
            number = identity.number(device.device_id)
            if number is None:
                continue
            if device.pk >= len(numbers):
                numbers.extend([-1] * (device.pk + 1 - len(numbers)))
            numbers[device.pk] = number
            believed = versions.get(device.current_version or "", memory.told[number])
            mistaken += believed != memory.told[number] and not memory.flags[number] & DOUBT
    return numbers, mistaken


def _tell_events(conn: Connection, deployment: str, numbers: "array[int]", story: Story) -> None:
    after = 0
    while some := events.of_deployment(conn, deployment, after=after, limit=PAGE):
        after = some[-1].pk
        for event in some:
            if event.kind in ("phase_opened", "phase_through"):
                story.phase(event.kind, event.data["phase"], event.at, event.data.get("size", 1))
            elif event.kind == "update" and event.device_pk is not None:
                number = numbers[event.device_pk] if event.device_pk < len(numbers) else -1
                if number >= 0:
                    story.update(number, UpdateState(event.data["state"]), event.data["phase"])


def _tell_rows(conn: Connection, deployment: str, identity: Identity, story: Story) -> None:
    after: str | None = None
    while some := updates.page(conn, deployment, limit=PAGE, after=after):
        after = some[-1].device_id
        for row in some:
            if (number := identity.number(row.device_id)) is not None:
                story.row(number, UpdateState(row.state), row.attempt)


# --- another server: what it says over HTTP --------------------------------------------------------------


def judge_http(
    pages: Callable[[str], Iterable[list[dict[str, Any]]]], identity: Identity, memory: Memory
) -> dict[str, Any]:
    """The verdict from `GET /api/deployments/{id}/devices`; `pages` gives its items, page by page."""
    verdict: dict[str, Any] = {"reports_lost": 0, "devices_doubled": 0, "findings": []}
    for deployment, past in memory.past.items():
        story = Story(identity.count, ())
        for items in pages(deployment):
            for item in items:
                if (number := identity.number(item["device_id"])) is not None:
                    story.row(number, UpdateState(item["state"]), item["attempt"])
        behind = [
            sentence
            for number, bits in enumerate(past.bits)
            if bits
            for sentence in _behind(memory, deployment, number, story.rows[number] - 1)
        ]
        verdict["reports_lost"] += len(behind) + len(past.odd)
        verdict["devices_doubled"] += len(story.doubled | past.offered_again)
        verdict["findings"] += (behind + past.odd)[: 10 - len(verdict["findings"])]
    return verdict
