"""Security floors: what devices report of theirs, and the refusal of what they would refuse.

A floor rises on the device alone, after a confirmed boot. The server's knowledge of it spares a deployment
that could only fail; it protects nothing.
"""

from typing import Any

from skylift.core.errors import Kind, Rejected
from skylift.store import deployments, floors
from skylift.store.db import Connection
from skylift.store.members import Scope, Want


def check(conn: Connection, release: Any, scope: Scope) -> None:
    """Raises `Rejected` where devices of the scope would refuse the release: how many, and one of them."""
    want = Want(release.kind, release.version, deployments.device_types(conn, release.id))
    many, one, highest = floors.above(conn, scope, want, release.security_version)
    if many:
        raise Rejected(
            "below_security_floor",
            f"release is {release.product} {release.version}, security_version {release.security_version}: "
            f"{many} of the devices, such as {one}, have confirmed up to {highest} and refuse what is below",
            kind=Kind.CONFLICT,
            field="release",
            value=release.id,
            rule="at or above the security floor of every device it is for",
        )
