"""Deployments and their phases as rows: questions about them, and the few writes creation needs.

What happens to a deployment afterwards is in `store.apply`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import ENDED, DeploymentStatus, UpdateState
from skylift.core.offer import Live, Step
from skylift.core.rollout import DeploymentConfig, PhaseConfig
from skylift.core.window import Window
from skylift.core.world import FailureGate, PhaseState
from skylift.store import notices
from skylift.store.tables import (
    artifacts,
    deployment_devices,
    deployments,
    group_members,
    phases,
    updates,
)

LIVE = (DeploymentStatus.SCHEDULED, DeploymentStatus.RUNNING, DeploymentStatus.PAUSED)
_THERE = deployments.c.deleted_at.is_(None)


@dataclass(frozen=True, slots=True)
class NewPhase:
    """A phase at creation: its configuration, the last place it holds, how many devices that is."""

    config: PhaseConfig
    upto: int
    waiting: int


def insert(
    conn: Connection,
    deployment_id: str,
    release: "Row[Any]",
    config: DeploymentConfig,
    given: dict[str, Any],
    selector: dict[str, Any],
    salt: int,
    new_phases: Sequence[NewPhase],
    *,
    actor: str,
    status: DeploymentStatus,
    ends_at: datetime | None,
    rollback_of: str | None,
    approval_above: int | None,
    now: datetime,
) -> None:
    """The deployment and its phases: O(phases) rows, whatever the size of the fleet."""
    rule = config.failure_rule
    conn.execute(
        sa.insert(deployments).values(
            id=deployment_id,
            release_id=release.id,
            product=release.product,
            version=release.version,
            kind=release.kind,
            config=given,
            selector=selector,
            salt=salt,
            mandatory=config.mandatory,
            priority=config.priority,
            max_parallel=config.max_parallel,
            window=config.window.dump() if config.window else None,
            threshold_percent=rule.threshold_percent,
            min_devices=rule.min_devices,
            failure_action=rule.action.value,
            gate=rule.gate.value,
            false_alarm_rate=rule.false_alarm_rate,
            expected_percent=rule.expected_percent,
            health_metrics=[bound.dump() for bound in config.health_metrics],
            status=status.value,
            generation=1,
            starts_at=config.starts_at,
            ends_at=ends_at,
            created_at=now,
            created_by=actor,
            rollback_of=rollback_of,
            approval_above=approval_above,
        )
    )
    conn.execute(
        sa.insert(phases),
        [
            {
                "deployment_id": deployment_id,
                "number": number,
                "name": new.config.name or f"phase {number + 1}",
                "percent": new.config.percent,
                "count": new.config.count,
                "upto": new.upto,
                "soak_s": new.config.soak.total_seconds(),
                "wait_s": new.config.wait.total_seconds(),
                "gate": new.config.gate.value,
                "state": PhaseState.CLOSED.value,
                "promoted": False,
                "waiting": new.waiting,
            }
            for number, new in enumerate(new_phases)
        ],
    )
    notices.say(conn)


def list_devices(conn: Connection, deployment_id: str, device_pks: Iterable[int]) -> None:
    """Keep the operator's own list of devices."""
    rows = [{"deployment_id": deployment_id, "device_pk": pk} for pk in device_pks]
    if rows:
        conn.execute(sa.insert(deployment_devices), rows)


def find(conn: Connection, deployment_id: str) -> "Row[Any] | None":
    """None also where it was deleted."""
    return conn.execute(sa.select(deployments).where(deployments.c.id == deployment_id, _THERE)).first()


def hide(conn: Connection, deployment_id: str, now: datetime) -> None:
    """Deleted, for everybody who asks."""
    conn.execute(sa.update(deployments).where(deployments.c.id == deployment_id).values(deleted_at=now))


def ended_before(conn: Connection, before: datetime, limit: int) -> list[str]:
    """Deployments that ended earlier than that, the oldest first."""
    question = sa.select(deployments.c.id).where(
        _THERE, deployments.c.finished_at < before, deployments.c.status.not_in([s.value for s in LIVE])
    )
    return list(conn.execute(question.order_by(deployments.c.id).limit(limit)).scalars())


def uses_updates_of(conn: Connection, deployment_id: str) -> str | None:
    """A live deployment whose targets are what that one updated."""
    question = sa.select(deployments.c.id, deployments.c.selector).where(
        deployments.c.status.in_([s.value for s in LIVE])
    )
    found = (row.id for row in conn.execute(question) if row.selector.get("updated_by") == deployment_id)
    return next(found, None)


def phases_of(conn: Connection, deployment_id: str) -> "list[Row[Any]]":
    return list(
        conn.execute(
            sa.select(phases).where(phases.c.deployment_id == deployment_id).order_by(phases.c.number)
        )
    )


def page(
    conn: Connection, *, limit: int, before: str | None = None, status: str | None = None
) -> "list[Row[Any]]":
    """Newest first, older than `before` (ids sort by birth)."""
    question = sa.select(deployments).where(_THERE).order_by(deployments.c.id.desc()).limit(limit)
    if before is not None:
        question = question.where(deployments.c.id < before)
    if status is not None:
        question = question.where(deployments.c.status == status)
    return list(conn.execute(question))


def count_by_status(conn: Connection) -> dict[str, int]:
    question = sa.select(deployments.c.status, sa.func.count()).where(_THERE).group_by(deployments.c.status)
    return {status: int(n) for status, n in conn.execute(question)}


def due(conn: Connection, now: datetime) -> list[DeploymentId]:
    """Deployments the loop must look at: scheduled or running, and woken by time or by a change."""
    question = sa.select(deployments.c.id).where(
        deployments.c.status.in_([DeploymentStatus.SCHEDULED.value, DeploymentStatus.RUNNING.value]),
        sa.or_(deployments.c.wake_at.is_(None), deployments.c.wake_at <= now),
    )
    return [DeploymentId(row.id) for row in conn.execute(question)]


# --- what offers need ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A live deployment for the poll path: what `core.offer` needs, and what the answer and selector need."""

    live: Live
    release_id: str
    selector: dict[str, Any]
    mandatory: bool
    max_parallel: int | None
    is_compared: bool  # by the statistical gate: with a control group


def live_mark(conn: Connection) -> tuple[Any, ...]:
    """Differs whenever a live deployment is new, gone, or of another generation: every change of one makes a
    new generation. One pass over the few that live."""
    columns = deployments.c
    question = sa.select(
        sa.func.count(), sa.func.max(columns.id), sa.func.sum(columns.generation), sa.func.min(columns.id)
    ).where(columns.status.in_([s.value for s in LIVE]))
    return tuple(conn.execute(question).one())


def live_deployments(conn: Connection) -> list[LiveRow]:
    """Every deployment that may still offer something. Three questions, however many there are."""
    is_live = deployments.c.status.in_([s.value for s in LIVE])
    rows = list(conn.execute(sa.select(deployments).where(is_live)))
    if not rows:
        return []
    of_live = sa.select(deployments.c.id).where(is_live)
    steps: dict[str, list[Step]] = {row.id: [] for row in rows}
    question = sa.select(phases.c.deployment_id, phases.c.number, phases.c.upto, phases.c.state)
    for found in conn.execute(question.where(phases.c.deployment_id.in_(of_live)).order_by(phases.c.number)):
        steps[found.deployment_id].append(Step(found.number, found.upto, PhaseState(found.state)))
    types = _types_of(conn, sa.select(deployments.c.release_id).where(is_live))
    return [_live_row(row, tuple(steps[row.id]), types.get(row.release_id, frozenset())) for row in rows]


def live_row(conn: Connection, row: "Row[Any]") -> LiveRow:
    """One deployment as offers see it, whether it is live or not."""
    steps = tuple(Step(p.number, p.upto, PhaseState(p.state)) for p in phases_of(conn, row.id))
    return _live_row(row, steps, device_types(conn, row.release_id))


def _live_row(row: "Row[Any]", steps: tuple[Step, ...], types: frozenset[str]) -> LiveRow:
    live = Live(
        id=DeploymentId(row.id),
        version=row.version,
        kind=row.kind,
        status=DeploymentStatus(row.status),
        salt=row.salt,
        device_types=types,
        steps=steps,
        priority=row.priority,
        window=Window.parse("window", row.window) if row.window else None,
    )
    is_compared = row.gate == FailureGate.STATISTICAL.value
    return LiveRow(live, row.release_id, row.selector, row.mandatory, row.max_parallel, is_compared)


def _types_of(conn: Connection, release_ids: "sa.Select[Any]") -> dict[str, frozenset[str]]:
    question = sa.select(artifacts.c.release_id, artifacts.c.device_type).where(
        artifacts.c.release_id.in_(release_ids), artifacts.c.kind == "full"
    )
    found: dict[str, set[str]] = {}
    for release_id, device_type in conn.execute(question):
        found.setdefault(release_id, set()).add(device_type)
    return {release_id: frozenset(types) for release_id, types in found.items()}


def device_types(conn: Connection, release_id: str) -> frozenset[str]:
    """The device types a release has a full image for."""
    question = sa.select(artifacts.c.device_type).where(
        artifacts.c.release_id == release_id, artifacts.c.kind == "full"
    )
    return frozenset(row.device_type for row in conn.execute(question))


def is_listed(conn: Connection, deployment_id: str, device_pk: int) -> bool:
    question = sa.select(sa.literal(1)).where(
        deployment_devices.c.deployment_id == deployment_id, deployment_devices.c.device_pk == device_pk
    )
    return conn.execute(question).first() is not None


def is_member(conn: Connection, group_ids: Sequence[str], device_pk: int) -> bool:
    question = sa.select(sa.literal(1)).where(
        group_members.c.device_pk == device_pk, group_members.c.group_id.in_(group_ids)
    )
    return conn.execute(question.limit(1)).first() is not None


def was_updated_by(conn: Connection, deployment_id: str, device_pk: int, from_version: str | None) -> bool:
    """Whether the device completed that deployment, coming from that version."""
    question = sa.select(sa.literal(1)).where(
        updates.c.deployment_id == deployment_id,
        updates.c.device_pk == device_pk,
        updates.c.state == UpdateState.COMPLETE.value,
        updates.c.from_version == from_version,
    )
    return conn.execute(question).first() is not None


def set_waiting(conn: Connection, deployment_id: str, waiting: dict[int, int]) -> None:
    for number, n in waiting.items():
        conn.execute(
            sa.update(phases)
            .where(phases.c.deployment_id == deployment_id, phases.c.number == number)
            .values(waiting=n)
        )


def shift_waiting(conn: Connection, deployment_id: str, number: int, by: int) -> None:
    """One device more or fewer waits in this phase; never below none."""
    now_is = phases.c.waiting + by
    conn.execute(
        sa.update(phases)
        .where(phases.c.deployment_id == deployment_id, phases.c.number == number, now_is >= 0)
        .values(waiting=now_is)
    )


def set_selector(conn: Connection, deployment_id: str, selector: dict[str, Any]) -> None:
    conn.execute(sa.update(deployments).where(deployments.c.id == deployment_id).values(selector=selector))


def updated_from(conn: Connection, deployment_id: str) -> dict[str | None, int]:
    """The versions its completed devices came from, with how many."""
    question = (
        sa.select(updates.c.from_version, sa.func.count())
        .where(updates.c.deployment_id == deployment_id, updates.c.state == UpdateState.COMPLETE.value)
        .group_by(updates.c.from_version)
    )
    return {version: int(n) for version, n in conn.execute(question)}


def live_rollbacks(conn: Connection, deployment_id: str, only: Any = None) -> dict[str | None, str]:
    """The deployments under way that send this one's devices (of this cohort only) back, by the version they
    came from."""
    question = sa.select(deployments.c.id, deployments.c.selector).where(
        deployments.c.rollback_of == deployment_id, deployments.c.status.in_([s.value for s in LIVE])
    )
    return {
        row.selector["from"]: row.id for row in conn.execute(question) if row.selector.get("only") == only
    }


def live_ids(conn: Connection) -> list[str]:
    question = sa.select(deployments.c.id).where(deployments.c.status.in_([s.value for s in LIVE]))
    return [row.id for row in conn.execute(question)]


def live_of_release(conn: Connection, release_id: str) -> list[str]:
    """The deployments of this release that have not ended."""
    ended = [status.value for status in ENDED]
    wanted = (deployments.c.release_id == release_id, deployments.c.status.not_in(ended))
    return list(conn.execute(sa.select(deployments.c.id).where(*wanted)).scalars())


def uses_group(conn: Connection, group_id: str) -> str | None:
    """A live deployment that targets this group or goes on without it, if there is one."""
    question = sa.select(deployments.c.id, deployments.c.selector).where(
        deployments.c.status.in_([s.value for s in LIVE])
    )
    return next((row.id for row in conn.execute(question) if group_id in _groups(row.selector)), None)


def _groups(selector: dict[str, Any]) -> set[str | None]:
    cohorts = [*selector.get("without", ()), selector.get("only", {})]
    return {*selector.get("groups", ()), *(cohort.get("group") for cohort in cohorts)}
