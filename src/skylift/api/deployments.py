"""Deployments over HTTP. The rules are the engine's; here they get their paths."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skylift.api import views
from skylift.api.auth import ActingOn, ActingSomewhere, Viewer
from skylift.api.context import Context, context_of
from skylift.api.idempotency import answer_once, look_then_answer_once
from skylift.engine import auditor, retention, verbs
from skylift.engine import deployments as deeds
from skylift.engine.access import Role
from skylift.engine.checkin import order_again
from skylift.engine.explain import explain
from skylift.engine.leaving import leave_out
from skylift.engine.rehearse import rehearsed
from skylift.engine.retry import retry as retry_failed
from skylift.engine.rollback import RolledBack, roll_back
from skylift.store import deployments, updates
from skylift.store.db import Connection

router = APIRouter(prefix="/api/deployments", tags=["deployments"])
DeploymentId = Annotated[str, Path(pattern="^dep_[0-9a-z]{1,40}$")]
Limit = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[str | None, Query(max_length=100, pattern="^[A-Za-z0-9._-]*$")]
CohortText = Annotated[str, Field(min_length=1, max_length=2000, pattern="^[^\\x00]*$")]
Word = Annotated[str | None, Query(max_length=20, pattern="^[a-z_]*$")]


class PhaseBody(BaseModel):
    """One phase: `percent` cumulative, or `count` devices of its own; minutes."""

    model_config = ConfigDict(extra="allow")  # the engine refuses what it does not know, by name

    percent: float | None = None
    count: int | None = None
    min_minutes: float | None = None
    wait_minutes: float | None = None
    gate: str | None = None
    name: str | None = None


class MetricBody(BaseModel):
    """A metric that devices report, and what is still healthy."""

    model_config = ConfigDict(extra="allow")  # the engine refuses what it does not know, by name

    name: str | None = None
    max: float | None = None
    min: float | None = None


class DeploymentBody(BaseModel):
    """The user's `DeploymentConfig`, and what Skylift adds. Bounds and contradictions are the engine's."""

    model_config = ConfigDict(extra="allow")  # the engine refuses what it does not know, by name

    release: str | None = None
    firmware_version: str | None = None
    product: str | None = None
    target_devices: list[str] | Literal["all"] | None = None
    target_groups: list[str] | None = None
    rollout_percentage: float | None = None
    rollout_interval_minutes: float | None = None
    failure_threshold_percent: float | None = None
    mandatory: bool | None = None
    failure_min_devices: int | None = None
    failure_action: str | None = None
    gate: str | None = None
    false_alarm_rate: float | None = None
    expected_failure_percent: float | None = None
    health_metrics: list[MetricBody] | None = None
    phases: list[PhaseBody] | None = None
    all_at_once: bool | None = None
    max_parallel: int | None = None
    window: dict[str, Any] | None = None
    starts_at: str | None = None
    lifetime_minutes: float | None = None
    wait_minutes: float | None = None
    priority: int | None = None
    draft: bool | None = None
    skip_above_floor: bool | None = None

    def given(self) -> dict[str, Any]:
        """What was said, nulls left out: null means "as by default"."""
        return self.model_dump(exclude_none=True)


class Verb(BaseModel):
    """What a verb may be told."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=300, pattern="^[^\\x00]*$")


class Resume(BaseModel):
    model_config = ConfigDict(extra="forbid")

    failure_threshold_percent: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    expected_failure_percent: float | None = Field(default=None, ge=0.01, le=50, allow_inf_nan=False)
    without: list[CohortText] = Field(default_factory=list, max_length=20)


class Rollback(BaseModel):
    model_config = ConfigDict(extra="forbid")

    only: CohortText | None = None
    skip_above_floor: bool = False


class Retry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    devices: list[str] | None = Field(default=None, max_length=100_000)


@router.post("", status_code=201)
def create(
    request: Request,
    body: Annotated[DeploymentBody, Body()],
    who: ActingSomewhere,
    dry_run: Annotated[bool, Query()] = False,
    rehearse: Annotated[bool, Query()] = False,
    defect: Annotated[list[float] | None, Query()] = None,
) -> Response:
    """Create a deployment. `dry_run` answers 200 with the devices per phase and writes nothing; `rehearse`
    does too, and says how long it would take, what it would cost, and where releases that fail on `defect`
    percent of the devices (repeatable) would be stopped."""
    context = context_of(request)
    given = body.given()
    if dry_run and not rehearse:
        with context.database.ask() as conn:
            counted = deeds.preview(conn, given)
        return JSONResponse({**counted, "needs_approval": _needs_second(context, counted["devices"])})
    if rehearse:
        pace = context.checkin.pace
        with context.database.ask() as conn:
            ratio = context.checkin.max_ratio
            found = rehearsed(conn, given, pace, context.clock(), defects=defect or (), max_ratio=ratio)
            return JSONResponse(found)

    def look(conn: Connection) -> deeds.Prepared:
        prepared = deeds.prepare(conn, given)
        who.must(Role.OPERATOR, prepared.release.product)
        return prepared

    def deed(conn: Connection, prepared: deeds.Prepared) -> Any:
        return _view(
            conn,
            deeds.insert(conn, prepared, who.name, context.clock(), approval_above=context.approval_above),
        )

    return look_then_answer_once(request, context, who.name, given, 201, look, deed)


def _needs_second(context: Context, devices: int) -> bool:
    return context.approval_above is not None and devices > context.approval_above


@router.get("")
def page(
    request: Request,
    who: Viewer,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Word = None,
) -> Any:
    """Newest first. `next` is the cursor of the next page, null at the end."""
    with context_of(request).database.read() as conn:
        rows = deployments.page(conn, limit=limit, before=cursor, status=status)
        items = [views.deployment(conn, row, whole=False) for row in rows]
    return {"items": items, "next": rows[-1].id if len(rows) == limit else None}


@router.get("/{deployment_id}")
def show(request: Request, deployment_id: DeploymentId, who: Viewer) -> Any:
    """Where it stands, why, and what it waits for."""
    with context_of(request).database.read() as conn:
        return _view(conn, deployment_id)


@router.get("/{deployment_id}/devices")
def list_devices(
    request: Request,
    deployment_id: DeploymentId,
    who: Viewer,
    limit: Limit = 100,
    cursor: Cursor = None,
    state: Word = None,
) -> Any:
    """Every device that was offered something, by name."""
    with context_of(request).database.read() as conn:
        _row(conn, deployment_id)
        rows = updates.page(conn, deployment_id, limit=limit, after=cursor, state=state)
    items = [views.update(row) for row in rows]
    return {"items": items, "next": rows[-1].device_id if len(rows) == limit else None}


@router.get("/{deployment_id}/explain")
def why(request: Request, deployment_id: DeploymentId, who: Viewer) -> Any:
    """Which cohort its failures come from (lift, sample, chance), or that nothing separates them; what can be
    done about it, as commands and requests."""
    with context_of(request).database.ask() as conn:
        return explain(conn, _row(conn, deployment_id))


@router.get("/{deployment_id}/audit")
def recount(request: Request, deployment_id: DeploymentId, who: Viewer) -> Any:
    """Everything that is kept as a number, counted again from the rows on one snapshot: what differs."""
    with context_of(request).database.ask() as conn:
        return auditor.audit(conn, _row(conn, deployment_id))


def _row(conn: Connection, deployment_id: str) -> Any:
    row = deployments.find(conn, deployment_id)
    if row is None:
        raise verbs.unknown(deployment_id)
    return row


def _view(conn: Connection, deployment_id: str) -> dict[str, Any]:
    return views.deployment(conn, _row(conn, deployment_id))


@router.delete("/{deployment_id}", status_code=204)
def delete(request: Request, deployment_id: DeploymentId, who: ActingOn) -> Response:
    """Forget an ended deployment, its devices' updates and their events. Refused while it is live, while a
    device is at it, and while a rollback of it runs."""
    context = context_of(request)
    context.write(lambda conn: retention.delete(conn, deployment_id, who.name, context.clock()))
    context.poke()
    return Response(status_code=204)


@router.post("/{deployment_id}:pause")
def pause(request: Request, deployment_id: DeploymentId, who: ActingOn, body: Verb | None = None) -> Any:
    """No more offers from now on; devices that have begun go on."""
    context = context_of(request)
    reason = body.reason if body else ""

    def deed(conn: Connection) -> Any:
        verbs.pause(conn, deployment_id, who.name, context.clock(), reason)
        return _view(conn, deployment_id)

    return answer_once(request, context, who.name, body and body.model_dump(), 200, deed)


@router.post("/{deployment_id}:resume")
def resume(request: Request, deployment_id: DeploymentId, who: ActingOn, body: Resume | None = None) -> Any:
    """Go on. While a breach stands it needs a higher threshold or expected rate, or to go on `without` the
    cohorts it comes from, such as `label.hw=rev-b`, `current_version=1.0.0`, `group=eu`."""
    context = context_of(request)
    asked = body or Resume()
    rates = {
        "threshold_percent": asked.failure_threshold_percent,
        "expected_percent": asked.expected_failure_percent,
    }

    def leave() -> None:
        names, now = tuple(asked.without), context.clock()
        leave_out(context.database, deployment_id, names, now, context.deadlines, **rates)

    def deed(conn: Connection) -> Any:
        verbs.resume(conn, deployment_id, who.name, context.clock(), **rates)
        return _view(conn, deployment_id)

    given = body and body.model_dump()
    return answer_once(request, context, who.name, given, 200, deed, first=leave if asked.without else None)


@router.post("/{deployment_id}:approve")
def approve(request: Request, deployment_id: DeploymentId, who: ActingOn) -> Any:
    """Say yes as a second person: whoever created it cannot."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        verbs.approve(conn, deployment_id, who.name, context.clock())
        return _view(conn, deployment_id)

    return answer_once(request, context, who.name, None, 200, deed)


@router.post("/{deployment_id}:promote")
def promote(request: Request, deployment_id: DeploymentId, who: ActingOn) -> Any:
    """Open the next phase now."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        verbs.promote(conn, deployment_id, who.name, context.clock())
        return _view(conn, deployment_id)

    return answer_once(request, context, who.name, None, 200, deed)


@router.post("/{deployment_id}:abort")
def abort(request: Request, deployment_id: DeploymentId, who: ActingOn, body: Verb | None = None) -> Any:
    """Stop for good."""
    context = context_of(request)
    reason = body.reason if body else ""

    def deed(conn: Connection) -> Any:
        verbs.abort(conn, deployment_id, who.name, context.clock(), context.deadlines, reason)
        return _view(conn, deployment_id)

    return answer_once(request, context, who.name, body and body.model_dump(), 200, deed)


@router.post("/{deployment_id}:retry")
def retry(request: Request, deployment_id: DeploymentId, who: ActingOn, body: Retry | None = None) -> Any:
    """Another attempt for failed and rolled-back devices, all or the named ones."""
    context = context_of(request)
    named = tuple(body.devices) if body and body.devices is not None else None
    again: list[int] = []

    def first() -> None:
        now = context.clock()
        orders = partial(_order_again, now)
        deadlines, database = context.deadlines, context.database
        again.append(retry_failed(database, deployment_id, who.name, now, deadlines, orders, named))

    def deed(conn: Connection) -> Any:
        return {**_view(conn, deployment_id), "retried": sum(again)}

    given = body and body.model_dump()
    return answer_once(request, context, who.name, given, 200, deed, first=first)


def _order_again(now: datetime, conn: Connection, pk: int, deployment: str, attempt: int) -> None:
    order_again(conn, pk, deployment, attempt, now)


@router.post("/{deployment_id}:rollback")
def rollback(
    request: Request, deployment_id: DeploymentId, who: ActingOn, body: Rollback | None = None
) -> Any:
    """Send the devices it updated back to the release they came from: the deployments that do it, and the
    former versions nobody can offer any more. With `only` a cohort goes back, and nothing is aborted; with
    `skip_above_floor` those stay whose security floor is above the older release."""
    context = context_of(request)
    asked = body or Rollback()
    skip = asked.skip_above_floor
    done: list[RolledBack] = []

    def first() -> None:
        now, database = context.clock(), context.database
        done.append(roll_back(database, deployment_id, who.name, now, context.deadlines, asked.only, skip))

    def deed(conn: Connection) -> Any:
        return {
            "rolled_back": deployment_id,
            "deployments": [_view(conn, made) for one in done for made in one.deployments],
            "left": {version: n for one in done for version, n in one.left.items()},
        }

    return answer_once(request, context, who.name, body and body.model_dump(), 200, deed, first=first)
