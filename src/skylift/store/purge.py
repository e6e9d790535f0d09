"""Removes a deleted deployment's rows, a bounded number per call."""

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.tables import deployment_devices, deployments, events, matches, updates

# The large ones; phases, counters and the like are a handful and go with the deployment's own row.
_LARGE = (
    (updates, updates.c.device_pk),
    (matches, matches.c.device_pk),
    (deployment_devices, deployment_devices.c.device_pk),
    (events, events.c.pk),
)


def purge_some(conn: Connection, deployment_id: str, most: int) -> int:
    """Remove up to `most` rows; 0 when nothing of it is left."""
    for table, key in _LARGE:
        mine = table.c.deployment_id == deployment_id
        some = sa.select(key).where(mine).limit(most)
        if gone := conn.execute(sa.delete(table).where(mine, key.in_(some))).rowcount:
            return gone
    return conn.execute(sa.delete(deployments).where(deployments.c.id == deployment_id)).rowcount
