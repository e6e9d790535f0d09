"""Gather: one deployment as the planner sees it. Costs O(phases), whatever the fleet."""

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import DeploymentStatus, UpdateState
from skylift.core.world import (
    FailureAction,
    FailureGate,
    FailureRule,
    Gate,
    Matched,
    Phase,
    PhaseState,
    Tally,
    World,
)
from skylift.store import counters, deployments


def lock(conn: Connection, deployment_id: str) -> None:
    """Nobody else offers from, plans for or changes this deployment until the transaction ends.

    The phase rows come first: an offer holds one of them, then looks at the status. SQLite's writer holds
    the whole database already.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(_LOCK, {"deployment": deployment_id})


_LOCK = sa.text(
    """
    WITH held AS MATERIALIZED (
        SELECT number FROM phases WHERE deployment_id = :deployment ORDER BY number FOR UPDATE
    )
    SELECT id FROM deployments WHERE id = :deployment AND (SELECT count(*) FROM held) >= 0 FOR UPDATE
    """
)


def load_world(conn: Connection, deployment_id: str) -> World | None:
    """The world of this deployment, or None."""
    row = deployments.find(conn, deployment_id)
    if row is None:
        return None
    counts = counters.of_deployment(conn, deployment_id)
    return World(
        deployment=DeploymentId(row.id),
        version=row.version,
        generation=row.generation,
        status=DeploymentStatus(row.status),
        phases=tuple(
            phase_view(phase, counts.get(phase.number, {}))
            for phase in deployments.phases_of(conn, deployment_id)
        ),
        failure_rule=FailureRule(
            row.threshold_percent,
            row.min_devices,
            FailureAction(row.failure_action),
            FailureGate(row.gate),
            row.false_alarm_rate,
            row.expected_percent,
        ),
        matched=Matched(row.sets_updated, row.sets_control),
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        approval_above=row.approval_above if row.approved_by is None else None,
    )


def phase_view(row: "Row[Any]", counts: dict[str, int]) -> Phase:
    """A phase row and its counters as the planner's noun."""
    return Phase(
        number=row.number,
        name=row.name,
        tally=tally(row.waiting, counts, row._mapping["count"]),
        state=PhaseState(row.state),
        soak=timedelta(seconds=row.soak_s),
        wait=timedelta(seconds=row.wait_s),
        gate=Gate(row.gate),
        promoted=row.promoted,
        opened_at=row.opened_at,
        finished_at=row.finished_at,
    )


def tally(waiting: int, counts: dict[str, int], most: int | None = None) -> Tally:
    """Counters as a tally; the top reason is the most frequent one, first by name among equals. In a phase
    of at most `most` devices nobody beyond them is waited for."""
    reasons = {key: n for key, n in counts.items() if key.startswith(counters.REASON) and n > 0}
    top = min(reasons, key=lambda key: (-reasons[key], key), default="")
    states = {state.value: counts.get(state.value, 0) for state in UpdateState}
    if most is not None:
        waiting = min(waiting, most - sum(states.values()))
    return Tally(waiting=max(0, waiting), top_reason=top.removeprefix(counters.REASON), **states)
