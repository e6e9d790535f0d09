"""Security floors: what devices report of theirs, and the refusal of what they would refuse.

A floor rises on the device alone, after a confirmed boot. The server's knowledge of it spares a deployment
that could only fail; it protects nothing. A deployment is refused as a whole while one of its devices is
above it, unless it was told to go on without those: then whoever is above, now or later, is offered nothing.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from skylift.core.errors import Kind, Rejected
from skylift.engine import select, waiting
from skylift.store import deployments, floors, releases
from skylift.store.db import Connection
from skylift.store.floors import Above
from skylift.store.members import Scope, Want


def note(conn: Connection, said: Mapping[int, int], now: datetime) -> None:
    """device_pk -> the floor it reports. Deployments that go on without those above count anew who waits."""
    if said and floors.set_floors(conn, said):
        for row in deployments.live_deployments(conn):
            if select.FLOOR in row.selector:
                waiting.recount_soon(conn, row.live.id, now)


def above(conn: Connection, release: Any, scope: Scope) -> Above:
    """The devices of the scope that would refuse the release."""
    want = Want(release.kind, release.version, deployments.device_types(conn, release.id))
    return floors.above(conn, scope, want, release.security_version)


def refuse(release: Any, found: Above) -> None:
    """Raises `Rejected` where there are any: how many, and one of them."""
    if found.many:
        raise Rejected(
            "below_security_floor",
            f"release is {release.product} {release.version}, security_version {release.security_version}: "
            f"{found.many} of the devices, such as {found.names[0]}, have confirmed up to {found.highest} "
            "and refuse what is below",
            kind=Kind.CONFLICT,
            field="release",
            value=release.id,
            rule="at or above the security floor of every device it is for; or skip_above_floor, to go on "
            "without those devices",
        )


def skipped(conn: Connection, row: Any) -> Above | None:
    """The devices that this deployment goes on without; None where it is not told to."""
    if select.FLOOR not in row.selector:
        return None
    everyone = {name: value for name, value in row.selector.items() if name != select.FLOOR}
    release = releases.find(conn, row.release_id)
    if release is None:
        raise AssertionError("a deployment without its release")
    return above(conn, release, select.scope(conn, row.id, everyone))


def view(found: Above) -> dict[str, Any]:
    """For people: `device_ids` are the first by name."""
    return {"devices": found.many, "highest": found.highest, "device_ids": list(found.names)}
