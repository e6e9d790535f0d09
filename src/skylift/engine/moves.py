"""One move of one update: row, counters, slot, event and, where it can be a breach, the next plan.

Every change of an update's state anywhere goes through `move`, inside the caller's transaction, so that
counters equal rows at every commit and a breach stops the deployment in the very transaction that completes
it: there is no moment in which the next phase could still open.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from skylift.core.audit import audit
from skylift.core.deadlines import Deadlines
from skylift.core.lifecycle import (
    ENDED,
    FAILURES,
    FINAL,
    UPDATE_MOVES,
    DeploymentStatus,
    Mover,
    Reason,
    UpdateState,
)
from skylift.core.planner import plan
from skylift.core.world import Plan, Stop
from skylift.engine import director
from skylift.store import apply, counters, deployments, events, outbox, updates, world
from skylift.store.db import Connection, Database
from skylift.store.updates import Update

MAX_MESSAGE = 500
AT_ONCE = 50  # updates canceled in one transaction
UNBEGUN = (UpdateState.PENDING, UpdateState.DOWNLOADING)
NOTHING_TO_DO = (UpdateState.CANCELED, UpdateState.SKIPPED)  # the device's order is withdrawn


@dataclass(frozen=True, slots=True)
class Why:
    """What goes with a move: the reason of a failure, words for people, progress in percent, and the device's
    key where it has signed that."""

    reason: Reason | None = None
    message: str = ""
    progress: int | None = None
    signed_by: str = ""


def move(
    conn: Connection,
    update: Update,
    to: UpdateState,
    now: datetime,
    deadlines: Deadlines,
    *,
    mover: Mover = Mover.SERVER,
    why: Why | None = None,
) -> Update | None:
    """The update after the move, or None when somebody else moved it first."""
    if mover not in UPDATE_MOVES.get((update.state, to), frozenset()):
        raise AssertionError(f"no such move for the {mover}: {update.state} -> {to}")
    why = why or Why()
    if to in FAILURES:
        world.lock(conn, update.deployment_id)
    reason = why.reason.value if why.reason and to in FAILURES else ""
    attempt = update.attempt + 1 if to is UpdateState.PENDING else update.attempt
    values = _values(update, to, now, deadlines, why) | {"reason": reason, "attempt": attempt}
    if update.state is UpdateState.PENDING and mover is Mover.DEVICE:
        values["started_at"] = now
    if not updates.move(conn, update, to, **values):
        return None
    counters.move(conn, update.deployment_id, update.counted_in, (update.state, update.reason), (to, reason))
    if to in FINAL:
        updates.release_slot(conn, update.device_pk, update.deployment_id)
    if to in NOTHING_TO_DO:
        director.withdraw(conn, update.device_pk, now)
    moved = update._replace(
        state=to,
        reason=reason,
        attempt=attempt,
        progress=values["progress"],
        deadline_at=values["deadline_at"],
    )
    _say(conn, update, moved, why, now)
    if to in FAILURES:
        step(conn, update.deployment_id, now, deadlines)
    elif to in FINAL:
        apply.wake(conn, update.deployment_id)
    return moved


def _values(update: Update, to: UpdateState, now: datetime, deadlines: Deadlines, why: Why) -> dict[str, Any]:
    again = to is UpdateState.PENDING
    done = 100 if to is UpdateState.COMPLETE else update.progress
    values: dict[str, Any] = {
        "updated_at": now,
        "deadline_at": deadlines.at(to, now),
        "message": why.message[:MAX_MESSAGE],
        "progress": 0 if again else (done if why.progress is None else why.progress),
    }
    if again:
        values |= {"started_at": None, "completed_at": None, "offered_at": now}
    if to in FINAL:
        values["completed_at"] = now
    return values


def _say(conn: Connection, before: Update, after: Update, why: Why, now: datetime) -> None:
    data: dict[str, Any] = {
        "from": before.state.value,
        "state": after.state.value,
        "attempt": after.attempt,
        "phase": after.phase,
    }
    if after.reason:
        data["reason"] = after.reason
    if why.message:
        data["message"] = why.message[:MAX_MESSAGE]
    if why.signed_by:
        data["signed_by"] = why.signed_by
    events.say(conn, "update", data, now, deployment_id=before.deployment_id, device_pk=before.device_pk)


def cancel_unbegun(conn: Connection, deployment_id: str, now: datetime, deadlines: Deadlines) -> None:
    """Cancel the pending and downloading updates of a deployment that has ended: a few here, so that ending
    it costs the same however many are under way; the others some at a time (`Cancel`). Who asks before its
    turn is told by the check itself."""
    if cancel_some(conn, deployment_id, now, deadlines) == AT_ONCE:
        outbox.put(conn, "cancel", {"deployment": deployment_id}, now)


def cancel_some(conn: Connection, deployment_id: str, now: datetime, deadlines: Deadlines) -> int:
    """How many there were, of `AT_ONCE` at most."""
    why = Why(message="the deployment has ended")
    some = updates.in_states(conn, deployment_id, UNBEGUN, AT_ONCE)
    for update in some:
        move(conn, update, UpdateState.CANCELED, now, deadlines, why=why)
    return len(some)


@dataclass(frozen=True, slots=True)
class Cancel:
    """The outbox's effect `cancel`: the rest of them. Interrupted, it begins again."""

    database: Database
    clock: Callable[[], datetime]
    deadlines: Deadlines

    def __call__(self, payload: dict[str, Any]) -> None:
        while self.database.write(partial(self._some, payload["deployment"])) == AT_ONCE:
            pass

    def _some(self, deployment_id: str, conn: Connection) -> int:
        """0 where it is gone, or runs again."""
        row = deployments.find(conn, deployment_id)
        if row is None or DeploymentStatus(row.status) not in ENDED:
            return 0
        return cancel_some(conn, deployment_id, self.clock(), self.deadlines)


def step(conn: Connection, deployment_id: str, now: datetime, deadlines: Deadlines) -> Plan | None:
    """Load, plan, audit, apply: one step of a deployment, in the caller's transaction.

    The plan that was carried out, or None where the deployment is gone or its generation moved on. A plan
    that the auditor objects to is our bug, and is raised, never applied.
    """
    world.lock(conn, deployment_id)
    seen = world.load_world(conn, deployment_id)
    if seen is None:
        return None
    planned = plan(seen, now)
    if findings := audit(seen, planned, now):
        raise AssertionError(f"plan for {deployment_id} refused by the auditor: {'; '.join(findings)}")
    if not apply.apply_plan(conn, seen, planned, now):
        return None
    if any(isinstance(action, Stop) for action in planned.actions):
        cancel_unbegun(conn, deployment_id, now, deadlines)
    return planned
