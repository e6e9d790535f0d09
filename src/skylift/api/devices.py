"""Devices and claims, for operators."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from skylift.api import views
from skylift.api.auth import Acting, Viewer
from skylift.api.context import context_of
from skylift.api.deployments import Cursor, Limit
from skylift.api.idempotency import answer_once
from skylift.engine import enroll as enrolling
from skylift.engine import groups as grouping
from skylift.engine import identity, select
from skylift.engine.access import token_hash
from skylift.store import devices, events, members, updates
from skylift.store.db import Connection

router = APIRouter(tags=["devices"])
DeviceId = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Name = Annotated[str | None, Query(max_length=64, pattern="^[A-Za-z0-9._+-]*$")]


class NewDevice(BaseModel):
    """A device let in by name; `token` is what it will use."""

    model_config = ConfigDict(extra="forbid")

    device_id: str = Field(min_length=1, max_length=64)
    device_type: str = Field(min_length=1, max_length=64)
    token: str = Field(min_length=1, max_length=256)
    labels: dict[str, str] = Field(default_factory=dict, max_length=64)


class NewClaim(BaseModel):
    """A token that lets `uses` devices in, of one type or of any."""

    model_config = ConfigDict(extra="forbid")

    device_type: str | None = Field(default=None, max_length=64)
    uses: int = Field(default=1, ge=1, le=1_000_000)
    expires_in_hours: float = Field(default=24.0, gt=0, le=8760, allow_inf_nan=False)


class Labels(BaseModel):
    """Merged into the device's: null removes."""

    model_config = ConfigDict(extra="forbid")

    labels: dict[str, str | None] = Field(max_length=64)


@router.post("/api/claims", status_code=201)
def claim(request: Request, body: NewClaim, who: Acting) -> Any:
    """A claim token; it is shown this once."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        made, token = enrolling.make_claim(
            conn, body.device_type, body.uses, body.expires_in_hours, who.name, context.clock()
        )
        return {
            "id": made.id,
            "claim": token,
            "device_type": made.device_type,
            "uses": made.uses_left,
            "expires_at": views.instant(made.expires_at),
        }

    return answer_once(request, context, who.name, body.model_dump(), 201, deed, withheld="claim")


@router.post("/api/devices", status_code=201)
def register(request: Request, body: NewDevice, who: Acting) -> Any:
    """Let one device in by name."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        enrolling.register(
            conn, body.device_id, body.device_type, body.token, body.labels, who.name, context.clock()
        )
        return _view(conn, body.device_id)

    given = body.model_dump() | {"token": token_hash(body.token)}
    return answer_once(request, context, who.name, given, 201, deed)


def _view(conn: Connection, device_id: str) -> dict[str, Any]:
    found = enrolling.find(conn, device_id)
    return views.device_list(conn, [found])[0]


@router.get("/api/devices")
def page(
    request: Request,
    who: Viewer,
    limit: Limit = 100,
    cursor: Cursor = None,
    device_type: Name = None,
    current_version: Name = None,
    status: Name = None,
    group: Name = None,
) -> Any:
    """By name, filtered. A group that is a query is evaluated over the fleet."""
    with context_of(request).database.read() as conn:
        found = _page(conn, limit, cursor or "", device_type, current_version, status, group)
        items = views.device_list(conn, found)
    return {"items": items, "next": items[-1]["device_id"] if len(items) == limit else None}


def _page(
    conn: Connection,
    limit: int,
    after: str,
    device_type: str | None,
    current_version: str | None,
    status: str | None,
    group: str | None,
) -> list[devices.Device]:
    named = grouping.find(conn, group) if group else None
    scope = select.scope(conn, None, {"groups": [named.id]}) if named is not None else None
    return devices.page(
        conn,
        limit=limit,
        after=after,
        device_type=device_type,
        current_version=current_version,
        status=status,
        within=members.inside(conn, scope) if scope is not None else None,
    )


@router.get("/api/devices/{device_id}")
def show(request: Request, device_id: DeviceId, who: Viewer) -> Any:
    """One device, with its updates and its last word of health."""
    with context_of(request).database.read() as conn:
        found = enrolling.find(conn, device_id)
        history = [
            {**views.update(row), "deployment": row.deployment_id, "version": row.version}
            for row in _named(updates.of_device(conn, found.pk), device_id)
        ]
        certificate = identity.view(conn, found.pk, context_of(request).clock())
        said = views.health(devices.health_of(conn, found.pk))
        return {**_view(conn, device_id), "health": said, "certificate": certificate, "updates": history}


def _named(rows: list[Any], device_id: str) -> list[Any]:
    """Rows of one device carry its name like the others."""
    return [_Named(row, device_id) for row in rows]


class _Named:
    def __init__(self, row: Any, device_id: str) -> None:
        self._row = row
        self.device_id = device_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


@router.get("/api/devices/{device_id}/timeline")
def timeline(
    request: Request,
    device_id: DeviceId,
    who: Viewer,
    limit: Limit = 100,
    cursor: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Any:
    """What happened to it, newest first."""
    with context_of(request).database.read() as conn:
        found = enrolling.find(conn, device_id)
        rows = events.of_device(conn, found.pk, before=cursor, limit=limit)
    items = [views.event(row) for row in rows]
    return {"items": items, "next": rows[-1].pk if len(rows) == limit else None}


@router.patch("/api/devices/{device_id}")
def labels(request: Request, device_id: DeviceId, body: Labels, who: Acting) -> Any:
    """Change its labels."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        enrolling.set_labels(conn, device_id, body.labels, who.name, context.clock())
        return _view(conn, device_id)

    return context.write(deed)


@router.post("/api/devices/{device_id}:decommission")
def decommission(request: Request, device_id: DeviceId, who: Acting) -> Any:
    """Its token and its certificate are refused from now on; its history stays."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        enrolling.decommission(conn, device_id, who.name, context.clock(), context.deadlines)
        return _view(conn, device_id)

    return answer_once(request, context, who.name, None, 200, deed)
