"""Who reports: the devices behind tokens, with their keys and their updates in the deployments they name.

One question for all reports that are taken down together, answered by one document (`store.bulk`).
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from skylift.core.ids import DeploymentId
from skylift.store.bulk import Inquiry
from skylift.store.identity import DeviceKey
from skylift.store.tables import Instant
from skylift.store.updates import STATES, Update


class Speaker(NamedTuple):
    """What a report must know of its device. `update` is None where it was never offered that deployment."""

    pk: int
    device_id: str
    status: str
    device_type: str
    current_version: str | None
    config_version: str | None
    image_sha256: str | None
    key: DeviceKey | None
    update: Update | None


_LOOK = Inquiry(
    """
    given.a, given.c,
    d.pk, d.device_id, d.status, d.device_type, d.current_version, d.config_version, d.image_sha256,
    k.public, k.previous, k.sequence,
    u.phase, u.state, u.attempt, u.reason, u.progress, u.from_version, u.deadline_at, u.left_out
    """,
    """
    {rows} JOIN devices AS d ON d.token_hash = given.b
        LEFT JOIN device_keys AS k ON k.device_pk = d.pk
        LEFT JOIN updates AS u ON u.deployment_id = given.c AND u.device_pk = d.pk
    """,
    ("integer", "text", "text"),
)


def look(conn: Connection, asked: Sequence[tuple[str, str]]) -> list[Speaker | None]:
    """For each (hash of a token, deployment) the device, None where nobody has that token."""
    at = Instant()
    found: list[Speaker | None] = [None] * len(asked)
    rows = [(number, *one) for number, one in enumerate(asked)]
    for n, name, pk, device, status, kind, version, config, image, *more in _LOOK.ask(conn, rows):
        public, previous, sequence, phase, state, attempt, reason, progress, base, deadline, out = more
        key = None if public is None else DeviceKey(pk, public, previous, sequence)
        update = None
        if state is not None:
            overdue = at.process_result_value(deadline, conn.dialect)
            deployment, where = DeploymentId(name), STATES[state]
            update = Update(deployment, pk, phase, where, attempt, reason, progress, base, overdue, bool(out))
        found[n] = Speaker(pk, device, status, kind, version, config, image, key, update)
    return found
