"""The judge of what a fleet lived through: the devices' memory beside the database and its durable events.

Nothing acknowledged may be lost, nothing done twice, no phase opened before its time, and the counters must
equal a full count; whatever was killed meanwhile, and however many servers took the reports.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from skylift.core.lifecycle import FINAL, OPEN, UpdateState
from skylift.engine.checkin import recount
from skylift.store import deployments, devices, events, updates
from skylift.store.db import Connection, Database
from skylift.testkit.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Phases:
    """How the deployments were configured: so many phases, each soaking so long."""

    number: int
    soak: timedelta


@dataclass
class History:
    """A deployment's durable events, and its rows, by device."""

    reached: dict[str, set[str]]  # device -> states it ever had
    entered: dict[tuple[str, str], int]  # (device, state) -> how often
    phases: list[tuple[str, int, Any]]  # (kind, phase, at), in their order
    story: list[tuple[str, str, int]]  # (device, state, phase) or ("", kind, phase), in their order
    rows: dict[str, Any]


def history(conn: Connection, deployment: str) -> History:
    rows: dict[str, Any] = {}
    while page := updates.page(conn, deployment, limit=500, after=max(rows, default=None)):
        rows |= {row.device_id: row for row in page}
    names = {row.device_pk: name for name, row in rows.items()}
    told = History(defaultdict(set), defaultdict(int), [], [], rows)
    after = 0
    while some := events.of_deployment(conn, deployment, after=after, limit=1000):
        after = some[-1].pk
        for event in some:
            _tell_event(told, names, event)
    return told


def _tell_event(told: History, names: dict[int, str], event: Any) -> None:
    if event.kind in ("phase_opened", "phase_through"):
        told.phases.append((event.kind, event.data["phase"], event.at))
        told.story.append(("", event.kind, event.data["phase"]))
    elif event.kind == "update":
        name, state = names[event.device_pk], event.data["state"]
        told.reached[name].add(state)
        told.entered[name, state] += 1
        told.story.append((name, state, event.data["phase"]))


def reports_lost(fleet: Fleet, told: dict[str, History]) -> int:
    """Acknowledged reports without their effect. A recorded one must be in the device's history; of one that
    was answered "known already" the state it was answered with must be there. And what the device said last
    is where its row stands."""
    lost = 0
    for device in fleet.devices:
        for report in device.reports:
            effect = report.said if report.recorded else report.state
            lost += effect.value not in told[report.deployment].reached[device.device_id]
        for deployment, furthest in _furthest(device).items():
            row = told[deployment].rows.get(device.device_id)
            lost += row is None or _rank(UpdateState(row.state)) < _rank(furthest)
    return lost


def _furthest(device: Any) -> dict[str, UpdateState]:
    found: dict[str, UpdateState] = {}
    for report in device.reports:
        known = found.get(report.deployment, UpdateState.PENDING)
        found[report.deployment] = max(known, report.state, key=_rank)
    return found


def _rank(state: UpdateState) -> int:
    return len(OPEN) if state in FINAL else OPEN.index(state)


def devices_doubled(fleet: Fleet, told: dict[str, History]) -> int:
    """Devices that were offered, moved or counted twice, or told to install what they had proved."""
    doubled = {device.device_id for device in fleet.devices if device.offered_again_after_done}
    for past in told.values():
        doubled |= {name for (name, _), times in past.entered.items() if times > 1}
        doubled |= {name for name, row in past.rows.items() if row.attempt > 1}
    return len(doubled)


def phases_wrong(told: History, phases: Phases) -> int:
    """Phases opened twice, out of order, before the one before had ended and soaked, or whose devices were
    offered something earlier than that; and phases that ended with devices on their way."""
    wrong = 0
    expected = [(kind, n) for n in range(phases.number) for kind in ("phase_opened", "phase_through")]
    wrong += [(kind, number) for kind, number, _ in told.phases] != expected
    through = {number: at for kind, number, at in told.phases if kind == "phase_through"}
    for kind, number, at in told.phases:
        early = number - 1 not in through or at < through[number - 1] + phases.soak
        wrong += kind == "phase_opened" and number > 0 and early
    opened: set[int] = set()
    on_their_way: dict[int, set[str]] = defaultdict(set)
    for name, what, phase in told.story:
        if what == "phase_opened":
            opened.add(phase)
        elif what == "phase_through":
            wrong += bool(on_their_way[phase])
        else:
            wrong += phase not in opened
            flying = on_their_way[phase]
            flying.discard(name) if UpdateState(what) in FINAL else flying.add(name)
    return wrong


def versions_wrong(conn: Connection, fleet: Fleet) -> int:
    """Devices that run something else than the server believes."""
    found = devices.by_ids(conn, [device.device_id for device in fleet.devices])
    return sum(found[device.device_id].current_version != device.version for device in fleet.devices)


def judge(url: str, fleet: Fleet, ids: list[str], phases: Phases) -> dict[str, Any]:
    """What is wrong, by name: zeros, and `counters_equal`, where nothing is."""
    database = Database(url)
    try:
        with database.read() as conn:
            told = {deployment: history(conn, deployment) for deployment in ids}
            uneven = [deployment for deployment in ids if recount(conn, deployment)]
            statuses = [deployments.find(conn, deployment) for deployment in ids]
            mistaken = versions_wrong(conn, fleet)
    finally:
        database.close()
    complete = [row for row in statuses if row is not None and row.status == "complete"]
    return {
        "reports_lost": reports_lost(fleet, told),
        "devices_doubled": devices_doubled(fleet, told),
        "phases_wrong": sum(phases_wrong(past, phases) for past in told.values()),
        "counters_equal": not uneven,
        "versions_wrong": mistaken,
        "refused": len(fleet.refused),
        "devices": len(fleet.devices),
        "deployments": len(ids),
        "deployments_complete": len(complete),
        "reports_acknowledged": sum(len(device.reports) for device in fleet.devices),
        "checks_answered": fleet.checks,
        "requests_unanswered": fleet.outages,
    }


def is_wrong(found: dict[str, Any]) -> bool:
    """Whether `judge` found anything."""
    nothing = ("reports_lost", "devices_doubled", "phases_wrong", "versions_wrong", "refused")
    return any(found[name] for name in nothing) or not found["counters_equal"]
