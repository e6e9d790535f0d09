"""Roll back: the devices a deployment updated go back to the release they came from.

It is a deployment like any other (signed, health-checked, counted), of the older release, in one phase by
default: the devices ran that release before. Where they came from several releases, there is one deployment
for each. One cohort can go back by itself (`only`): nothing is aborted then. Devices whose former version
nobody can offer any more are named, not forgotten. Asked again it makes nothing twice: what is under way is
answered, and nothing left to roll back is an empty answer.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from skylift.core.deadlines import Deadlines
from skylift.core.errors import Rejected
from skylift.core.lifecycle import ENDED, DeploymentStatus
from skylift.engine import cohorts, select
from skylift.engine import deployments as deeds
from skylift.store import deployments, members, releases
from skylift.store.db import Connection


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The deployments that send devices back (made now, or under way already); how many devices each former
    version without a usable release leaves behind."""

    deployments: tuple[str, ...]
    left: dict[str, int]


def roll_back(
    conn: Connection,
    deployment_id: str,
    actor: str,
    now: datetime,
    deadlines: Deadlines,
    only: str | None = None,
) -> RolledBack:
    """Abort the deployment if it has not ended, then send its completed devices back. With `only`, nothing
    is aborted, and only the devices of this cohort go back."""
    row = deployments.find(conn, deployment_id)
    if row is None:
        raise deeds.unknown(deployment_id)
    cohort = None if only is None else cohorts.read(conn, "only", only)
    if cohort is None and DeploymentStatus(row.status) not in ENDED:
        deeds.abort(conn, deployment_id, actor, now, deadlines, reason=f"rolled back by {actor}")
    part = {} if cohort is None else {"only": cohort.dump()}
    under_way = deployments.live_rollbacks(conn, deployment_id, part.get("only"))
    made: list[str] = list(under_way.values())
    left: dict[str, int] = {}
    for version, n in sorted(_updated_from(conn, row, part).items(), key=str):
        if version in under_way:
            continue
        release = _former(conn, row, version)
        if release is None:
            left[version or "unknown"] = n
        elif sent := _send_back(conn, row, release, version, part, actor, now):
            made.append(sent)
    return RolledBack(tuple(made), left)


def _updated_from(conn: Connection, row: Any, part: dict[str, Any]) -> dict[str | None, int]:
    """The versions its completed devices came from, with how many; of a cohort, those that still run it."""
    counted = deployments.updated_from(conn, row.id)
    if not part:
        return counted
    found = {version: members.count(conn, _scope(conn, row, version, part)) for version in counted}
    return {version: n for version, n in found.items() if n}


def _selector(row: Any, version: str | None, part: dict[str, Any]) -> select.Selector:
    return {"updated_by": row.id, "from": version, "to": row.version, "kind": row.kind, **part}


def _scope(conn: Connection, row: Any, version: str | None, part: dict[str, Any]) -> members.Scope:
    return select.scope(conn, None, _selector(row, version, part))


def _former(conn: Connection, row: Any, version: str | None) -> Any:
    """The published release of that version, of the same product and kind."""
    found = releases.by_version(conn, version, row.product) if version else []
    return next((r for r in found if r.status == "published" and r.kind == row.kind), None)


def _send_back(
    conn: Connection,
    row: Any,
    release: Any,
    version: str | None,
    part: dict[str, Any],
    actor: str,
    now: datetime,
) -> str | None:
    """The deployment that does it; None where no device still runs what is to be rolled back."""
    body = {
        "release": release.id,
        "target_devices": "all",  # of the selector below
        "all_at_once": True,
        "mandatory": True,
        "failure_threshold_percent": row.threshold_percent,
        "priority": row.priority,
    }
    selector = _selector(row, version, part)
    try:
        return deeds.create(conn, body, actor, now, selector=selector, rollback_of=row.id)
    except Rejected as e:
        if e.code == "no_devices":
            return None
        raise
