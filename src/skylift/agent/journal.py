"""The agent's memory: one small file, replaced atomically. What is not in it did not happen.

It holds the order in hand and how far it got, reports that the server has not acknowledged yet, and the
highest security_version ever confirmed (the floor).
"""

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from skylift.agent.disk import Disk, read_json
from skylift.core.ways import Way

MAX_REPORTS = 64  # an update makes at most six: ten updates without network


class Stage(StrEnum):
    """How far the order in hand got."""

    IDLE = "idle"
    FETCHING = "fetching"  # the idle slot is being written
    READY = "ready"  # the idle slot holds the whole verified image; boot control says the rest


@dataclass(frozen=True, slots=True)
class Order:
    """The verified order in hand. `slot` is where it goes; `url`, `delta`, `chain` and `packed` are hints
    from the check."""

    deployment: str
    attempt: int
    kind: str
    version: str
    sha256: str
    length: int
    security_version: int
    slot: str
    url: str
    delta: dict[str, Any] | None = None
    chain: list[dict[str, Any]] | None = None
    packed: dict[str, Any] | None = None
    began: float = 0.0  # when it was taken up, in seconds of the system clock
    product: str = ""

    @property
    def tag(self) -> str:
        """Names this run in boot control."""
        return f"{self.deployment}/{self.attempt}"


@dataclass(frozen=True, slots=True)
class Journal:
    """The whole of it. `offset`: bytes of the image that are durably in the slot. `taken`: bytes of the
    compressed image that they came from, or of the deltas that are durably in their file; else 0.
    `received`: bytes ever downloaded. `answered`: tags of orders that ended (or were refused): never begun
    again. `way`: how the image in hand comes (`core.ways`); `passed`: which ways were of no use for it, and
    why."""

    stage: Stage = Stage.IDLE
    order: Order | None = None
    offset: int = 0
    floor: int = 0
    received: int = 0
    reports: tuple[dict[str, Any], ...] = ()
    answered: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    taken: int = 0
    way: str = Way.FULL.value
    passed: dict[str, str] = field(default_factory=dict)

    def queue(self, report: dict[str, Any]) -> "Journal":
        """With one more report to deliver; the oldest give way when nobody listens for too long."""
        return replace(self, reports=(*self.reports, report)[-MAX_REPORTS:])

    def answer(self, tag: str) -> "Journal":
        kept = tuple(old for old in self.answered if old != tag)
        return replace(self, answered=(*kept, tag)[-16:])


class JournalFile:
    """Load and save."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path

    def load(self) -> Journal:
        """What was saved last. An unreadable file is a fresh start: the slots and boot control are untouched,
        and the server says again what is to do. (It is replaced atomically, so this takes a broken disk.)"""
        body = read_json(self._path)
        try:
            return _journal(body) if isinstance(body, dict) else Journal()
        except (KeyError, TypeError, ValueError, AttributeError):
            return Journal()

    def save(self, journal: Journal) -> None:
        self._disk.replace_json(self._path, asdict(journal))


class Floor:
    """The highest security_version ever confirmed; beside the journal: losing that one lowers nothing."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path

    def read(self) -> int:
        body = read_json(self._path)
        return body["floor"] if isinstance(body, dict) and isinstance(body.get("floor"), int) else 0

    def rise(self, to: int) -> int:
        """The floor from now on; it never sinks."""
        now = self.read()
        if to > now:
            self._disk.replace_json(self._path, {"floor": to})
        return max(to, now)


class Products:
    """The product of the first update that was confirmed, by kind: releases of another are not taken."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path

    def read(self) -> dict[str, str]:
        body = read_json(self._path)
        return {str(kind): str(name) for kind, name in body.items()} if isinstance(body, dict) else {}

    def learn(self, kind: str, product: str) -> None:
        known = self.read()
        if product and kind not in known:
            self._disk.replace_json(self._path, {**known, kind: product})


def _journal(body: dict[str, Any]) -> Journal:
    order = Order(**body["order"]) if body["order"] else None
    return Journal(
        stage=Stage(body["stage"]),
        order=order,
        offset=int(body["offset"]),
        floor=int(body["floor"]),
        received=int(body["received"]),
        reports=tuple(body["reports"]),
        answered=tuple(body["answered"]),
        notes=tuple(body["notes"]),
        taken=int(body.get("taken", 0)),  # a journal of an earlier version knows nothing of ways
        way=str(body.get("way", Way.FULL.value)),
        passed={str(way): str(why) for way, why in body.get("passed", {}).items()},
    )
