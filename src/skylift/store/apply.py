"""Apply: the only place where a deployment changes its status or its phases.

Every change is conditional on the generation it was decided on, and makes the next one: a plan or a command
from a stale look changes nothing and is told so.
"""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.lifecycle import DEPLOYMENT_MOVES, ENDED, DeploymentStatus
from skylift.core.world import EndPhase, Finish, OpenPhase, Pause, PhaseState, Plan, Start, Stop, World
from skylift.store import events, notices, outbox
from skylift.store.tables import deployments, phases

# A deployment that waits is looked at this often, so that its notes keep counting; events wake it at once.
LOOK_AGAIN = timedelta(seconds=10)


def change(conn: Connection, world: World, now: datetime, **values: Any) -> bool:
    """Set columns of the deployment if the generation still is `world`'s. Status moves keep to the table."""
    status = values.get("status")
    if status is not None:
        to = DeploymentStatus(status)
        if (world.status, to) not in DEPLOYMENT_MOVES:
            raise AssertionError(f"no such move: {world.status} -> {to}")
        if to in ENDED:
            values.setdefault("finished_at", now)
        if to is DeploymentStatus.RUNNING:
            values.setdefault("running_since", now)
            values.setdefault("finished_at", None)
        if to is not DeploymentStatus.PAUSED:
            values.setdefault("paused_by", None)
    changed = conn.execute(
        sa.update(deployments)
        .where(deployments.c.id == world.deployment, deployments.c.generation == world.generation)
        .values(generation=world.generation + 1, **{"wake_at": None, **values})
    )
    notices.say(conn)
    return changed.rowcount == 1


def apply_plan(conn: Connection, world: World, plan: Plan, now: datetime) -> bool:
    """Carry the plan out if its generation is current; False, and nothing changed, if not.

    A plan without actions only writes down what it waits for, and does not make a new generation: waiting is
    no change that could overtake anybody.
    """
    look_again = now + LOOK_AGAIN
    waits = {"notes": list(plan.notes), "wake_at": min(plan.wake_at or look_again, look_again)}
    if not plan.actions:
        noted = conn.execute(
            sa.update(deployments)
            .where(deployments.c.id == world.deployment, deployments.c.generation == plan.based_on)
            .values(**waits)
        )
        return noted.rowcount == 1
    values: dict[str, Any] = {}
    for action in plan.actions:
        match action:
            case Start():
                values |= {"status": "running", "started_at": now}
            case Pause(by, sentence):
                values |= {"status": "paused", "paused_by": by.value, "status_reason": sentence}
            case Stop(sentence, _):
                values |= {"status": "failed", "status_reason": sentence}
            case Finish(sentence):
                values |= {"status": "complete", "status_reason": sentence}
            case _:
                pass  # phases: below, once the generation is ours
    if not change(conn, world, now, **(values | {"notes": waits["notes"]})):
        return False
    for action in plan.actions:
        _phase(conn, world, action, now)
        _say(conn, world, action, now)
    return True


def _phase(conn: Connection, world: World, action: object, now: datetime) -> None:
    match action:
        case OpenPhase(number):
            _set_phase(conn, world.deployment, number, state=PhaseState.OPEN.value, opened_at=now)
            outbox.put(conn, "doorbell", {"deployment": world.deployment, "phase": number}, now)
            if not outbox.is_waiting(conn, "recount", {"deployment": world.deployment}):
                outbox.put(conn, "recount", {"deployment": world.deployment}, now)
        case EndPhase(number):
            _set_phase(conn, world.deployment, number, state=PhaseState.THROUGH.value, finished_at=now)
        case Stop(_, True):
            outbox.put(conn, "rollback", {"deployment": world.deployment}, now)
        case _:
            pass


def _set_phase(conn: Connection, deployment_id: str, number: int, **values: Any) -> None:
    conn.execute(
        sa.update(phases)
        .where(phases.c.deployment_id == deployment_id, phases.c.number == number)
        .values(**values)
    )


def promote(conn: Connection, deployment_id: str, number: int) -> None:
    """Mark a phase as promoted by an operator; the planner does the rest."""
    _set_phase(conn, deployment_id, number, promoted=True)


def _say(conn: Connection, world: World, action: object, now: datetime) -> None:
    kind, data = _EVENT[type(action)]
    said: dict[str, Any] = dict(data)
    match action:
        case OpenPhase(number) | EndPhase(number):
            phase = world.phases[number]
            said |= {"phase": number, "name": phase.name, "size": phase.tally.size}
        case Pause(by, sentence):
            said |= {"paused_by": by.value, "status_reason": sentence}
        case Stop(sentence, _) | Finish(sentence):
            said |= {"status_reason": sentence}
        case _:
            pass
    events.say(conn, kind, said, now, deployment_id=world.deployment)


_EVENT: dict[type, tuple[str, dict[str, Any]]] = {
    Start: ("deployment", {"status": "running"}),
    Pause: ("deployment", {"status": "paused"}),
    Stop: ("deployment", {"status": "failed"}),
    Finish: ("deployment", {"status": "complete"}),
    OpenPhase: ("phase_opened", {}),
    EndPhase: ("phase_through", {}),
}


def wake(conn: Connection, deployment_id: str) -> None:
    """Something happened that may change the plan: the loop looks at the next tick."""
    conn.execute(sa.update(deployments).where(deployments.c.id == deployment_id).values(wake_at=None))
