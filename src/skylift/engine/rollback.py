"""Roll back: the devices a deployment updated go back to the release they came from.

It is a deployment like any other (signed, health-checked, counted), of the older release, in one phase by
default: the devices ran that release before. Where they came from several releases, there is one deployment
for each. One cohort can go back by itself (`only`): nothing is aborted then. Devices whose former version
nobody can offer any more are named, not forgotten. Asked again it makes nothing twice: what is under way is
answered, and nothing left to roll back is an empty answer.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from skylift.core.deadlines import Deadlines
from skylift.core.lifecycle import ENDED, DeploymentStatus
from skylift.engine import cohorts, select, verbs
from skylift.engine import deployments as deeds
from skylift.engine.deployments import Prepared
from skylift.store import deployments, members, releases
from skylift.store.db import Connection, Database


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The deployments that send devices back (made now, or under way already); how many devices each former
    version without a usable release leaves behind."""

    deployments: tuple[str, ...]
    left: dict[str, int]


def roll_back(
    database: Database,
    deployment_id: str,
    actor: str,
    now: datetime,
    deadlines: Deadlines,
    only: str | None = None,
    skip_above_floor: bool = False,
) -> RolledBack:
    """Abort the deployment if it has not ended, then send its completed devices back. With `only`, nothing
    is aborted, and only the devices of this cohort go back; with `skip_above_floor` those stay that would
    refuse the older release.

    Who goes back is counted on a reader's snapshot, so that no report waits for it; who completes later goes
    too, by the selector."""
    with database.ask() as conn:
        row = deployments.find(conn, deployment_id)
        if row is None:
            raise verbs.unknown(deployment_id)
        part = {} if only is None else {"only": cohorts.read(conn, "only", only).dump()}
        way = _look(conn, row, part, skip_above_floor)
    return database.write(partial(_send_back, deployment_id, way, part, actor, now, deadlines))


@dataclass(frozen=True, slots=True)
class _Way:
    """Back: a deployment ready to be made for each former version, and what nobody can offer any more."""

    ready: dict[str | None, Prepared]
    left: dict[str, int]


def _look(conn: Connection, row: Any, part: dict[str, Any], skip_above_floor: bool) -> _Way:
    """Reads only; a question or two over the fleet for each former version."""
    under_way = deployments.live_rollbacks(conn, row.id, part.get("only"))
    ready: dict[str | None, Prepared] = {}
    left: dict[str, int] = {}
    for version, n in sorted(_updated_from(conn, row, part).items(), key=str):
        if version in under_way:
            continue
        release = _former(conn, row, version)
        if release is None:
            left[version or "unknown"] = n
        else:
            body = {
                "release": release.id,
                "target_devices": "all",  # of the selector
                "all_at_once": True,
                "mandatory": True,
                "failure_threshold_percent": row.threshold_percent,
                "priority": row.priority,
                "skip_above_floor": skip_above_floor,
            }
            ready[version] = deeds.prepare(conn, body, selector=_selector(row, version, part))
    return _Way(ready, left)


def _send_back(
    deployment_id: str,
    way: _Way,
    part: dict[str, Any],
    actor: str,
    now: datetime,
    deadlines: Deadlines,
    conn: Connection,
) -> RolledBack:
    """Make what another has not made meanwhile. Where no device still runs what is to be rolled back, there
    is nothing to make."""
    row = deployments.find(conn, deployment_id)
    if row is None:
        raise verbs.unknown(deployment_id)
    if not part and DeploymentStatus(row.status) not in ENDED:
        verbs.abort(conn, deployment_id, actor, now, deadlines, reason=f"rolled back by {actor}")
    under_way = deployments.live_rollbacks(conn, deployment_id, part.get("only"))
    made = list(under_way.values())
    for version, prepared in way.ready.items():
        if version not in under_way and prepared.count.total:
            made.append(deeds.insert(conn, prepared, actor, now, rollback_of=deployment_id))
    return RolledBack(tuple(made), way.left)


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
