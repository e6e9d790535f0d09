"""Go on without a cohort: its devices are offered nothing more, and count in nothing from now on.

What they did stays on record (`updates`, the time line); their counters move out of their phases, so that
size, rate and evidence are those of the devices that stay. Who has not written yet is canceled; who has goes
on to its end, uncounted. Reads the deployment's updates once, a few thousand at a time.
"""

from collections import Counter
from datetime import datetime
from typing import Any

from skylift.core.deadlines import Deadlines
from skylift.core.lifecycle import UpdateState
from skylift.engine import cohorts, moves, waiting
from skylift.engine.cohorts import Cohort
from skylift.store import counters, deployments, devices, matches, updates
from skylift.store.db import Connection
from skylift.store.updates import Update

PAGE = 2000
UNBEGUN = (UpdateState.PENDING, UpdateState.DOWNLOADING)


def leave_out(conn: Connection, row: Any, cohort: Cohort, now: datetime, deadlines: Deadlines) -> int:
    """How many devices with an update this concerned. The caller holds the deployment's lock."""
    without = [*row.selector.get("without", ()), cohort.dump()]
    if cohort.dump() not in row.selector.get("without", ()):
        deployments.set_selector(conn, row.id, {**row.selector, "without": without})
    belongs = cohorts.member_of(conn, cohort)
    gone, after = 0, -1
    while page := updates.counted(conn, row.id, after, PAGE):
        after = page[-1].device_pk
        fleet = devices.by_pks(conn, [update.device_pk for update in page])
        leaving = [u for u in page if belongs(fleet[u.device_pk], row.kind, u.from_version)]
        _uncount(conn, row.id, [_canceled(conn, update, now, deadlines) for update in leaving])
        gone += len(leaving)
    matches.forget(conn, row.id)
    if (counted := waiting.count(conn, row.id)) is not None:
        waiting.put(conn, row.id, counted, now)
    return gone


def _canceled(conn: Connection, update: Update, now: datetime, deadlines: Deadlines) -> Update:
    """The update as it stands when nothing more is begun."""
    if update.state not in UNBEGUN:
        return update
    why = moves.Why(message="the deployment goes on without its cohort")
    return moves.move(conn, update, UpdateState.CANCELED, now, deadlines, why=why) or update


def _uncount(conn: Connection, deployment_id: str, leaving: list[Update]) -> None:
    tallies = Counter(
        (update.phase, key) for update in leaving for key in counters.keys(update.state, update.reason)
    )
    for (phase, key), n in sorted(tallies.items()):
        counters.bump(conn, deployment_id, phase, key, -n)
        counters.bump(conn, deployment_id, counters.OUTSIDE, key, n)
    updates.leave_out(conn, deployment_id, [update.device_pk for update in leaving])
