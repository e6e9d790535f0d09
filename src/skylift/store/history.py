"""What the fleet did before: samples and counts for rehearsals. Every answer is small, whatever the fleet."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.lifecycle import COUNTED, UpdateState
from skylift.store.devices import ACTIVE
from skylift.store.tables import counters, deployments, devices, seen, updates

SAMPLE = 2_000  # contacts, and ended updates


def contacts(conn: Connection) -> list[datetime]:
    """When devices were last heard: about `SAMPLE` of those that ever were, evenly over the primary keys."""
    newest = conn.execute(sa.select(sa.func.max(seen.c.device_pk))).scalar()
    step = max(1, (newest or 0) // SAMPLE)
    question = sa.select(seen.c.at).join(devices, devices.c.pk == seen.c.device_pk)
    question = question.where(devices.c.status == ACTIVE, seen.c.device_pk % step == (newest or 0) % step)
    return [row.at for row in conn.execute(question)]


def past(conn: Connection, product: str, kind: str, limit: int = 5) -> list[str]:
    """The product's latest deployments with anything to learn from: updates that came to an end."""
    ended = sa.exists().where(
        counters.c.deployment_id == deployments.c.id,
        counters.c.state.in_([state.value for state in COUNTED]),
        counters.c.n > 0,
    )
    question = (
        sa.select(deployments.c.id)
        .where(deployments.c.product == product, deployments.c.kind == kind, ended)
        .order_by(deployments.c.id.desc())
        .limit(limit)
    )
    return [row.id for row in conn.execute(question)]


def ends(conn: Connection, ids: Sequence[str]) -> dict[str, dict[UpdateState, int]]:
    """By deployment: how many updates ended how."""
    question = sa.select(counters.c.deployment_id, counters.c.state, sa.func.sum(counters.c.n)).where(
        counters.c.deployment_id.in_(ids), counters.c.state.in_([state.value for state in COUNTED])
    )
    found: dict[str, dict[UpdateState, int]] = {}
    for deployment, state, n in conn.execute(question.group_by(counters.c.deployment_id, counters.c.state)):
        found.setdefault(deployment, {})[UpdateState(state)] = int(n)
    return found


def durations(conn: Connection, ids: Sequence[str]) -> list[float]:
    """Seconds from offer to end of first attempts, about `SAMPLE` in all, as many of each deployment."""
    found: list[float] = []
    for deployment in ids:
        question = (
            sa.select(updates.c.offered_at, updates.c.completed_at)
            .where(
                updates.c.deployment_id == deployment,
                updates.c.attempt == 1,
                updates.c.completed_at.is_not(None),
                updates.c.state.in_([state.value for state in COUNTED]),
            )
            .limit(SAMPLE // len(ids))
        )
        found += [(row.completed_at - row.offered_at).total_seconds() for row in conn.execute(question)]
    return found


def active(conn: Connection) -> int:
    """Active devices."""
    question = sa.select(sa.func.count()).select_from(devices).where(devices.c.status == ACTIVE)
    return int(conn.execute(question).scalar_one())
