"""Explain a deployment: which cohort its failures come from, and what can be done about it.

The deployment's decided updates are streamed once and counted per attribute and value; memory is bounded
by the number of values, time by `MOST_ROWS`: of more, an even sample by the devices' hashes is read.
Cohorts are named by what a device was when it was offered the update.
"""

import shlex
from collections import Counter
from collections.abc import Iterator
from typing import Any

from skylift.core.blame import Findings, Share, Suspect, blame
from skylift.core.errors import Rejected
from skylift.core.lifecycle import COUNTED, FAILURES, DeploymentStatus, UpdateState
from skylift.core.query import Compare, matches, parse
from skylift.engine.cohorts import GROUP, facts_then
from skylift.store import counters, groups, updates
from skylift.store.db import Connection
from skylift.store.devices import Device

MOST_ROWS = 200_000
MOST_VALUES = 1000  # of one attribute: a label that differs on every device explains nothing
MOST_QUERIES = 50  # live groups evaluated per device


def explain(conn: Connection, row: Any) -> dict[str, Any]:
    """The findings and the offers for a deployment's row, as they go over the wire; reads only."""
    every = -(-_decided(conn, row.id) // MOST_ROWS) or 1
    tally = _Tally(conn, row)
    for device, state, version in updates.decided(conn, row.id, every):
        tally.add(device, UpdateState(state) in FAILURES, version)
    if every == 1:
        tally.add_lists(conn, row.id)
    found = blame(tally.shares(), Share(tally.failed, tally.total))
    return {
        "deployment": row.id,
        "status": row.status,
        "status_reason": row.status_reason,
        "sentence": found.sentence,
        "failed": tally.failed,
        "decided": tally.total,
        "sampled_one_in": every,
        "cohorts_looked_at": found.looked_at,
        "suspects": [_view(suspect) for suspect in found.suspects],
        "offers": list(_offers(row, found)),
    }


def _decided(conn: Connection, deployment_id: str) -> int:
    counts = counters.of_deployment(conn, deployment_id)
    return sum(
        tally.get(state.value, 0)
        for phase, tally in counts.items()
        if phase != counters.OUTSIDE
        for state in COUNTED
    )


class _Tally:
    """Counts while the rows pass by; lives for one question."""

    def __init__(self, conn: Connection, row: Any) -> None:
        self.kind = row.kind
        self.total = self.failed = 0
        self._all: dict[str, Counter[str]] = {}
        self._bad: dict[str, Counter[str]] = {}
        self._crowded: set[str] = set()
        found = [group for group in groups.page(conn, limit=1000) if group.kind == "query"]
        self._queries = [(group.name, parse(group.query or "")) for group in found[:MOST_QUERIES]]

    def add(self, device: Device, failed: bool, version: str | None) -> None:
        self.total += 1
        self.failed += failed
        for attribute, value in self._of(device, version):
            self._count(attribute, value, 1, int(failed))

    def add_lists(self, conn: Connection, deployment_id: str) -> None:
        """Groups by list, counted by the database."""
        for name, total, failed in updates.by_list(conn, deployment_id):
            self._count("group", name, total, failed)

    def _of(self, device: Device, version: str | None) -> Iterator[tuple[str, str]]:
        yield "device_type", device.device_type
        if version is not None:
            yield "config_version" if self.kind == "config" else "current_version", version
        for name, label in device.labels.items():
            yield f"label.{name}", label
        facts = facts_then(device, self.kind, version)
        yield from (("group", name) for name, query in self._queries if matches(query, facts))

    def _count(self, attribute: str, value: str, total: int, failed: int) -> None:
        if attribute in self._crowded:
            return
        values = self._all.setdefault(attribute, Counter())
        values[value] += total
        if failed:
            self._bad.setdefault(attribute, Counter())[value] += failed
        if len(values) > MOST_VALUES:
            self._crowded.add(attribute)
            del self._all[attribute]
            self._bad.pop(attribute, None)

    def shares(self) -> dict[tuple[str, str], Share]:
        return {
            (attribute, value): Share(self._bad.get(attribute, Counter())[value], total)
            for attribute, values in self._all.items()
            for value, total in values.items()
        }


def _view(suspect: Suspect) -> dict[str, Any]:
    return {
        "attribute": suspect.attribute,
        "value": suspect.value,
        "cohort": cohort_of(suspect),
        "failed": suspect.inside.failed,
        "decided": suspect.inside.total,
        "failed_elsewhere": suspect.outside.failed,
        "decided_elsewhere": suspect.outside.total,
        "lift": round(suspect.lift, 3),
        "lift_at_least": round(suspect.lift_at_least, 3),
        "chance": suspect.chance,
    }


def cohort_of(suspect: Suspect) -> str | None:
    """The words that name the cohort to a verb; None where no query can say them."""
    if suspect.attribute == "group":
        return GROUP + suspect.value
    for text in (f"{suspect.attribute}={suspect.value}", f'{suspect.attribute}="{suspect.value}"'):
        try:
            if parse(text) == Compare(suspect.attribute, "=", (suspect.value,)):
                return text
        except Rejected:
            continue
    return None


def _offers(row: Any, found: Findings) -> Iterator[dict[str, Any]]:
    """What the operator may do about the first suspect: commands to copy, and the same over HTTP."""
    cohort = cohort_of(found.suspects[0]) if found.suspects else None
    if cohort is None:
        return
    shown, path = shlex.quote(cohort), f"/api/deployments/{row.id}"
    if row.status == DeploymentStatus.PAUSED.value:
        yield {
            "what": f"go on without {cohort}",
            "command": f"skylift deploy resume {row.id} --without {shown}",
            "post": f"{path}:resume",
            "body": {"without": [cohort]},
        }
    yield {
        "what": f"roll only {cohort} back",
        "command": f"skylift deploy rollback {row.id} --only {shown}",
        "post": f"{path}:rollback",
        "body": {"only": cohort},
    }
