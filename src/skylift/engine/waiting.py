"""Who still waits in each phase: counted again when the fleet or a group changed, or a phase opened.

The count streams the fleet, so it runs on a reader's snapshot and never holds up the writer; what is written
is one number per phase, less the offers made since the snapshot. A change that slips in between has put its
own recount into the outbox.
"""

from dataclasses import dataclass

from skylift.core.bucket import place
from skylift.core.lifecycle import ENDED, DeploymentStatus
from skylift.engine import select
from skylift.engine.deployments import needs
from skylift.store import apply, counters, deployments, world
from skylift.store.db import Connection, Database


@dataclass(frozen=True, slots=True)
class Waiting:
    """Of one snapshot, per phase: eligible devices without a row, and rows there are."""

    devices: dict[int, int]
    rows: dict[int, int]


def recount(database: Database, deployment_id: str) -> None:
    """Count on a snapshot, then set; does nothing for a deployment that is gone or has ended."""
    with database.read() as conn:
        counted = count(conn, deployment_id)
    if counted is not None:
        database.write(lambda conn: put(conn, deployment_id, counted))


def count(conn: Connection, deployment_id: str) -> Waiting | None:
    """One scan over the selected devices; reads only."""
    row = deployments.find(conn, deployment_id)
    if row is None or DeploymentStatus(row.status) in ENDED:
        return None
    types = deployments.device_types(conn, row.release_id)
    ends = [phase.upto for phase in deployments.phases_of(conn, deployment_id)]
    had = deployments.offered(conn, deployment_id)
    waiting = dict.fromkeys(range(len(ends)), 0)
    for device in select.candidates(conn, deployment_id, row.selector):
        if device.pk not in had and needs(device, row.kind, row.version, types):
            at = place(device.h, row.salt)
            number = next((n for n, end in enumerate(ends) if at <= end), None)
            if number is not None:
                waiting[number] += 1
    return Waiting(waiting, counters.rows(conn, deployment_id))


def put(conn: Connection, deployment_id: str, counted: Waiting) -> None:
    """Write the count down, less the devices that got their row since."""
    world.lock(conn, deployment_id)
    rows = counters.rows(conn, deployment_id)
    since = {number: rows.get(number, 0) - counted.rows.get(number, 0) for number in counted.devices}
    now_is = {number: max(0, n - since[number]) for number, n in counted.devices.items()}
    deployments.set_waiting(conn, deployment_id, now_is)
    apply.wake(conn, deployment_id)
