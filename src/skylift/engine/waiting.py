"""Who still waits in each phase: the devices a deployment wants and has not offered anything yet.

Every change of one device moves the numbers it touches, in its own transaction (`of` before and after, then
`moved`). A change of many (a group's members; whatever slipped in while a deployment was made) is counted
again, by one question to a reader's snapshot that never holds up the writer (`recount`); what is written is
one number per phase, less the offers made since the snapshot. Where something else moved the numbers
meanwhile, the count is old already: it is written all the same, and taken once more later.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from skylift.core.bucket import place
from skylift.core.lifecycle import ENDED, DeploymentStatus
from skylift.engine import select
from skylift.store import apply, counters, deployments, members, outbox, updates, world
from skylift.store.db import Connection, Database
from skylift.store.deployments import LiveRow
from skylift.store.devices import ACTIVE, Device
from skylift.store.members import Want

SOON = timedelta(seconds=2)  # many changes, one count
LATER = timedelta(seconds=30)  # in a fleet that is never quiet a count must not follow the other


Place = tuple[str, int]  # a deployment, and the number of its phase


def of(conn: Connection, device: Device | None, but: str = "") -> frozenset[Place]:
    """Where this device, saying what it says, is waited for. `but`: a deployment that has offered it
    something already, as far as that is known."""
    if device is None or device.status != ACTIVE or set(deployments.live_ids(conn)) <= {but}:
        return frozenset()
    return frozenset(
        (row.live.id, number)
        for row in deployments.live_deployments(conn)
        if (number := _phase_of(row, device)) is not None
        and select.selects(conn, row.live.id, row.selector, device)
        and not updates.exists(conn, row.live.id, device.pk)
    )


def _phase_of(row: LiveRow, device: Device) -> int | None:
    """The phase that waits for it, if there is something for it and a phase holds its place."""
    if not needs(device, row.live.kind, row.live.version, row.live.device_types):
        return None
    at = place(device.h, row.live.salt)
    return next((step.number for step in row.live.steps if at <= step.upto), None)


def moved(conn: Connection, was: frozenset[Place], now_is: frozenset[Place]) -> None:
    """One device changed, in this transaction, from waiting there to waiting here."""
    for (deployment_id, number), by in [(p, -1) for p in was - now_is] + [(p, +1) for p in now_is - was]:
        deployments.shift_waiting(conn, deployment_id, number, by)
        apply.wake(conn, deployment_id)


def needs(device: Device, kind: str, version: str, types: frozenset[str]) -> bool:
    """Whether there is something in the release for this device."""
    have = device.config_version if kind == "config" else device.current_version
    return device.device_type in types and have != version


def recount_live(conn: Connection, now: datetime) -> None:
    """Many devices changed at once: live deployments count their waiting devices again, soon and once."""
    for deployment_id in deployments.live_ids(conn):
        recount_soon(conn, deployment_id, now)


def recount_soon(conn: Connection, deployment_id: str, now: datetime) -> None:
    if not outbox.is_waiting(conn, "recount", {"deployment": deployment_id}):
        outbox.put(conn, "recount", {"deployment": deployment_id}, now, now + SOON)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Of one snapshot, per phase: eligible devices without a row, rows there are, and the number kept."""

    devices: dict[int, int]
    rows: dict[int, int]
    kept: dict[int, int]


def recount(database: Database, deployment_id: str, now: datetime) -> None:
    """Count on a snapshot, then set; does nothing for a deployment that is gone or has ended."""
    with database.read() as conn:
        counted = count(conn, deployment_id)
    if counted is not None:
        database.write(lambda conn: put(conn, deployment_id, counted, now))


def count(conn: Connection, deployment_id: str, selector: select.Selector | None = None) -> Waiting | None:
    """One question over the selected devices; reads only. `selector`: as if it were the deployment's."""
    row = deployments.find(conn, deployment_id)
    if row is None or DeploymentStatus(row.status) in ENDED:
        return None
    want = Want(row.kind, row.version, deployments.device_types(conn, row.release_id))
    phases = deployments.phases_of(conn, deployment_id)
    ends = [phase.upto for phase in phases]
    scope = select.scope(conn, deployment_id, row.selector if selector is None else selector)
    waiting, _ = members.by_phase(conn, scope, want, row.salt, ends, but=deployment_id)
    waiting.pop(members.OUTSIDE, None)
    kept = {phase.number: phase.waiting for phase in phases}
    return Waiting(waiting, counters.rows(conn, deployment_id), kept)


def put(conn: Connection, deployment_id: str, counted: Waiting, now: datetime) -> None:
    """Write the count down, less the devices that got their row since; count again if more has moved."""
    world.lock(conn, deployment_id)
    rows = counters.rows(conn, deployment_id)
    # Never fewer: where a cohort leaves meanwhile its rows are counted elsewhere; the recount notices.
    since = {number: max(0, rows.get(number, 0) - counted.rows.get(number, 0)) for number in counted.devices}
    kept = {phase.number: phase.waiting for phase in deployments.phases_of(conn, deployment_id)}
    now_is = {number: max(0, n - since[number]) for number, n in counted.devices.items()}
    deployments.set_waiting(conn, deployment_id, now_is)
    apply.wake(conn, deployment_id)
    moved_too = any(kept[number] != counted.kept[number] - since[number] for number in since)
    if moved_too and not outbox.is_waiting(conn, "recount", {"deployment": deployment_id}):
        outbox.put(conn, "recount", {"deployment": deployment_id}, now, now + LATER)
