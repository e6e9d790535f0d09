"""Devices tell which log they were shown: where two were shown different ones, it comes out.

With the last word of an update a device reports the checkpoint it has pinned. It is held beside this server's
own log, kept for auditors, and a device that was shown something else is told of in its time line. A server
that lies will not say so; but the checkpoints of two of its devices, compared anywhere, do.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from skylift.core.errors import Rejected
from skylift.engine.log import root_at
from skylift.engine.proofs import Said, tell
from skylift.store import log
from skylift.store.db import Connection
from skylift.store.log import Witnessed

STRANGERS = 1000  # checkpoints that are not of this log are kept up to here: anybody can make them up


def hear(conn: Connection, said: Sequence[Said]) -> None:
    """Checkpoints that devices reported, held beside this log: whoever was shown another one is told of in
    its time line, and an auditor finds the checkpoint."""
    counted = Counter((one.proof.log, one.device_pk) for one in said if one.proof and one.proof.log)
    mine: dict[int, str | None] = {}
    for ((at, root), device_pk), reports in counted.items():
        if at not in mine:
            mine[at] = root_at(conn, at)
        agrees = mine[at] == root
        now = max(one.now for one in said if one.device_pk == device_pk)
        if not agrees:
            _warn(conn, device_pk, at, root, now)
        if agrees or log.strangers(conn) < STRANGERS:
            log.witness(conn, Witnessed(at, root, agrees, reports, device_pk, now, now))


def _warn(conn: Connection, device_pk: int, size: int, root: str, now: datetime) -> None:
    sentence = f"the device was shown a log of {size} entries with another root than this one's"
    tell(conn, device_pk, Rejected("split_view", sentence), {"size": size, "root": root}, now)


def view(conn: Connection, limit: int) -> list[dict[str, Any]]:
    """Checkpoints as devices saw them; those that are not of this log first."""
    return [
        {
            "size": one.size,
            "root": one.root,
            "agrees": one.agrees,
            "reports": one.reports,
            "device_id": device_id,
            "first_at": one.first_at.isoformat(),
            "last_at": one.last_at.isoformat(),
        }
        for one, device_id in log.witnessed(conn, limit)
    ]
