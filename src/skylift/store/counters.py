"""Counters per deployment, phase and state; changed in the transaction of the move they count.

Failure reasons are counted beside the states, as `reason:NAME`, so that the sentence of a stop costs one
indexed read. `recount` is the full count they are audited against. Updates of a cohort that was left out are
counted under the phase `OUTSIDE`, which no planner sees.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.lifecycle import FAILURES, UpdateState
from skylift.store.tables import counters, updates

REASON = "reason:"
OUTSIDE = -1

# The same words on both databases.
_BUMP = sa.text(
    "INSERT INTO counters (deployment_id, phase, state, n) VALUES (:deployment, :phase, :state, :by)"
    " ON CONFLICT (deployment_id, phase, state) DO UPDATE SET n = counters.n + excluded.n"
)


def bump(conn: Connection, deployment: str, phase: int, state: str, by: int) -> None:
    """Add `by` (may be negative) to one counter."""
    conn.execute(_BUMP, {"deployment": deployment, "phase": phase, "state": state, "by": by})


def keys(state: UpdateState, reason: str) -> list[str]:
    """Which counters an update in this state is counted in."""
    return [state.value, REASON + reason] if state in FAILURES and reason else [state.value]


def move(
    conn: Connection,
    deployment: str,
    phase: int,
    was: tuple[UpdateState, str] | None,
    now_is: tuple[UpdateState, str] | None,
) -> None:
    """One update went from (state, reason) to (state, reason); None is "no row"."""
    if was is not None:
        for key in keys(*was):
            bump(conn, deployment, phase, key, -1)
    if now_is is not None:
        for key in keys(*now_is):
            bump(conn, deployment, phase, key, +1)


def of_deployment(conn: Connection, deployment: str) -> dict[int, dict[str, int]]:
    """phase -> counter -> n; zeros left out."""
    rows = conn.execute(
        sa.select(counters.c.phase, counters.c.state, counters.c.n).where(
            counters.c.deployment_id == deployment, counters.c.n != 0
        )
    )
    found: dict[int, dict[str, int]] = {}
    for phase, state, n in rows:
        found.setdefault(phase, {})[state] = n
    return found


def rows(conn: Connection, deployment: str) -> dict[int, int]:
    """phase -> updates there are, in any state."""
    return {
        phase: sum(n for key, n in tally.items() if not key.startswith(REASON))
        for phase, tally in of_deployment(conn, deployment).items()
    }


def recount(conn: Connection, deployment: str) -> dict[int, dict[str, int]]:
    """The same from the rows themselves: reads every update of the deployment."""
    columns = (updates.c.left_out, updates.c.phase, updates.c.state, updates.c.reason)
    rows = conn.execute(
        sa.select(*columns, sa.func.count()).where(updates.c.deployment_id == deployment).group_by(*columns)
    )
    found: dict[int, dict[str, int]] = {}
    for left_out, number, state, reason, n in rows:
        phase = OUTSIDE if left_out else number
        for key in keys(UpdateState(state), reason):
            tally = found.setdefault(phase, {})
            tally[key] = tally.get(key, 0) + n
    return found


def rebuild(conn: Connection, deployment: str) -> None:
    """Set the counters to the full count: after a bulk change, in its transaction."""
    conn.execute(sa.delete(counters).where(counters.c.deployment_id == deployment))
    for phase, tally in recount(conn, deployment).items():
        for state, n in tally.items():
            bump(conn, deployment, phase, state, n)


def by_state(conn: Connection) -> dict[str, int]:
    """Updates by state over all deployments; for metrics."""
    rows = conn.execute(
        sa.select(counters.c.state, sa.func.sum(counters.c.n))
        .where(counters.c.state.not_like(REASON + "%"))
        .group_by(counters.c.state)
    )
    return {state: int(n) for state, n in rows}
