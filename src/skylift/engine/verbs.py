"""The operator's verbs: pause, resume, approve, promote, abort (more: `engine.retry`, `engine.rollback`).

Every verb is a conditional change of the generation it was decided on, leaves an audit row, and says in one
sentence why it cannot be done when it cannot. A verb that finds its work done answers as if it had done it.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from skylift.core.deadlines import Deadlines
from skylift.core.errors import Kind, Rejected
from skylift.core.gate import stops
from skylift.core.lifecycle import ENDED, DeploymentStatus, PausedBy
from skylift.core.world import FailureGate, FailureRule, PhaseState, World
from skylift.engine import moves
from skylift.store import apply, deployments, events, world
from skylift.store.db import Connection


def load(conn: Connection, deployment_id: str) -> World:
    """The world of this deployment, locked for a verb; `Rejected` where there is none."""
    world.lock(conn, deployment_id)
    found = world.load_world(conn, deployment_id)
    if found is None:
        raise unknown(deployment_id)
    return found


def unknown(deployment_id: str) -> Rejected:
    return Rejected(
        "unknown_deployment",
        f"deployment is {deployment_id!r}: there is no such deployment",
        kind=Kind.NOT_FOUND,
        field="deployment",
        value=deployment_id,
        rule="names a deployment",
    )


def conflict(code: str, found: World, sentence: str) -> Rejected:
    """This verb cannot be done to the deployment as it stands."""
    return Rejected(
        code, f"{found.deployment} is {found.status}: {sentence}", kind=Kind.CONFLICT,
        field="status", value=found.status.value, rule=sentence,
    )  # fmt: skip


def change(conn: Connection, found: World, actor: str, verb: str, now: datetime, **values: Any) -> None:
    if not apply.change(conn, found, now, **values):
        raise conflict("changed_meanwhile", found, "it changed at the same moment; look again")
    said = {"status": values.get("status", found.status.value), "by": actor, "verb": verb}
    if values.get("status_reason"):
        said["status_reason"] = values["status_reason"]
    events.say(conn, "deployment", said, now, deployment_id=found.deployment)
    rule = found.failure_rule
    before = {
        "status": found.status.value,
        "threshold_percent": rule.threshold_percent,
        "expected_percent": rule.expected_percent,
    }
    told = said | {name: value for name, value in values.items() if name in before}
    events.record(conn, actor, f"deployment.{verb}", found.deployment, told, now, before=before)


def pause(conn: Connection, deployment_id: str, actor: str, now: datetime, reason: str = "") -> None:
    """No more offers from the next moment on; devices that have begun go on."""
    found = load(conn, deployment_id)
    if found.status is DeploymentStatus.PAUSED:
        return
    if found.status not in (DeploymentStatus.RUNNING, DeploymentStatus.SCHEDULED):
        raise conflict("not_running", found, "only a scheduled or running deployment can be paused")
    sentence = reason or f"paused by {actor}"
    change(conn, found, actor, "pause", now,
            status="paused", paused_by=PausedBy.OPERATOR.value, status_reason=sentence)  # fmt: skip


def resume(
    conn: Connection,
    deployment_id: str,
    actor: str,
    now: datetime,
    *,
    threshold_percent: float | None = None,
    expected_percent: float | None = None,
) -> None:
    """Go on. While a breach stands this needs a higher threshold or expected rate, a retry first, or to have
    left out the cohorts it comes from (`engine.leaving`)."""
    found = load(conn, deployment_id)
    check_approved(conn, found)
    asks = threshold_percent is not None or expected_percent is not None
    if found.status in (DeploymentStatus.RUNNING, DeploymentStatus.SCHEDULED) and not asks:
        return
    if found.status is DeploymentStatus.DRAFT and not asks:
        change(conn, found, actor, "resume", now, status="scheduled", status_reason="")
        return
    if found.status is not DeploymentStatus.PAUSED:
        raise conflict("not_paused", found, "only a paused or draft deployment can be resumed")
    rule, values = asked(found.failure_rule, threshold_percent, expected_percent)
    must_not_breach(replace(found, failure_rule=rule))
    status = "running" if _has_begun(found) else "scheduled"
    change(conn, found, actor, "resume", now, status=status, status_reason="", **values)


def asked(
    rule: FailureRule, threshold_percent: float | None, expected_percent: float | None
) -> tuple[FailureRule, dict[str, Any]]:
    """The rule it is resumed with, and what changes of it."""
    given = {"threshold_percent": threshold_percent, "expected_percent": expected_percent}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(rule, **values), values


def must_not_breach(found: World) -> None:
    """`Rejected` where it would stop again at once."""
    if bad := stops(found):
        threshold = found.failure_rule.gate is FailureGate.THRESHOLD
        higher = "threshold" if threshold else "threshold or expected failure rate"
        raise conflict(
            "breach_stands",
            found,
            f"{bad.sentence}; retry its devices, go on without a cohort, or resume with a higher {higher}",
        )


def check_approved(conn: Connection, found: World) -> None:
    """`Rejected` while it waits for its second person."""
    row = deployments.find(conn, found.deployment)
    if row is not None and row.paused_by == PausedBy.APPROVAL.value:
        raise conflict("approval_needed", found, f"{row.status_reason}; another person than {row.created_by}")


def approve(conn: Connection, deployment_id: str, actor: str, now: datetime) -> None:
    """A second person says yes: it goes on, to however many devices."""
    found = load(conn, deployment_id)
    row = deployments.find(conn, deployment_id)
    if row is None:
        raise unknown(deployment_id)
    if row.approved_by is not None:
        return
    if row.paused_by != PausedBy.APPROVAL.value:
        raise conflict("no_approval_needed", found, "it waits for nobody's approval")
    if actor == row.created_by:
        raise Rejected(
            "second_person_needed",
            f"approved by {actor}: whoever created a deployment does not approve it",
            kind=Kind.FORBIDDEN,
            field="approved_by",
            value=actor,
            rule=f"another person than {row.created_by}",
        )
    status = "running" if _has_begun(found) else "scheduled"
    change(conn, found, actor, "approve", now,
            status=status, status_reason="", approved_by=actor, approved_at=now)  # fmt: skip


def _has_begun(found: World) -> bool:
    return any(phase.state is not PhaseState.CLOSED for phase in found.phases)


def promote(conn: Connection, deployment_id: str, actor: str, now: datetime) -> None:
    """Let the next phase open now: through its gate, without the rest of the soak."""
    found = load(conn, deployment_id)
    if found.status is not DeploymentStatus.RUNNING:
        raise conflict("not_running", found, "only a running deployment can be promoted")
    opened = [phase for phase in found.phases if phase.state is not PhaseState.CLOSED]
    if not opened:
        raise conflict("not_begun", found, "its first phase has not opened yet")
    if len(opened) == len(found.phases):
        raise conflict("last_phase", found, "its last phase is already open")
    if opened[-1].promoted:
        return
    apply.promote(conn, deployment_id, opened[-1].number)
    change(conn, found, actor, "promote", now)


def abort(
    conn: Connection, deployment_id: str, actor: str, now: datetime, deadlines: Deadlines, reason: str = ""
) -> None:
    """Stop for good: devices that have not written yet are canceled, the rest run to their end."""
    found = load(conn, deployment_id)
    if found.status is DeploymentStatus.ABORTED:
        return
    if found.status in ENDED:
        raise conflict("ended", found, "it has ended already")
    change(conn, found, actor, "abort", now,
            status="aborted", status_reason=reason or f"aborted by {actor}")  # fmt: skip
    moves.cancel_unbegun(conn, deployment_id, now, deadlines)
