"""People who sign in to the dashboard, and the audit trail, over HTTP."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from skylift.api import sheet, views
from skylift.api.auth import Admin, AdminOfProduct, Viewer
from skylift.api.context import Context, context_of
from skylift.api.deployments import Limit
from skylift.engine import people as deeds
from skylift.store import events, passkeys, people
from skylift.store.db import Connection
from skylift.store.events import Change
from skylift.store.people import User

router = APIRouter(tags=["people"])
UserName = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str | None, Query(max_length=64, pattern="^[A-Za-z0-9._:-]*$")]
CHANGE = ("id", "at", "actor", "action", "subject", "before", "after")
_BATCH = 1000


class NewUser(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    role: str = Field(min_length=1, max_length=16)
    password: str = Field(min_length=1, max_length=deeds.MAX_PASSWORD)


class UserChange(BaseModel):
    """What is to change; a new password also takes the second factor away."""

    model_config = ConfigDict(extra="forbid")

    role: str | None = Field(default=None, max_length=16)
    disabled: bool | None = None
    password: str | None = Field(default=None, max_length=deeds.MAX_PASSWORD)


def view(conn: Connection, user: User) -> dict[str, Any]:
    """A user as people see it: nothing of the password."""
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "products": user.products or {},
        "second_factor": user.totp_sealed is not None or bool(passkeys.of_user(conn, user.id)),
        "elsewhere": user.subject is not None,
        "disabled": user.disabled_at is not None,
        "created_at": views.instant(user.created_at),
        "created_by": user.created_by,
        "signed_in_at": views.instant(user.signed_in_at),
    }


@router.get("/api/users")
def users(request: Request, who: Admin) -> Any:
    """Everybody who may sign in to the dashboard, by name."""
    with context_of(request).database.read() as conn:
        return {"items": [view(conn, user) for user in people.everybody(conn)], "next": None}


@router.post("/api/users", status_code=201)
def add(request: Request, body: NewUser, who: Admin) -> Any:
    """Somebody new."""
    context = context_of(request)
    hashed = deeds.hash_password(body.password)

    def deed(conn: Connection) -> Any:
        return view(
            conn, deeds.find(conn, deeds.add(conn, body.name, body.role, hashed, who.name, context.clock()))
        )

    return context.write(deed)


@router.patch("/api/users/{name}")
def change(request: Request, name: UserName, body: UserChange, who: Admin) -> Any:
    """Another role, a new password, in or out. Their sessions end."""
    context = context_of(request)
    hashed = deeds.hash_password(body.password) if body.password is not None else None

    def deed(conn: Connection) -> Any:
        now = context.clock()
        if body.role is not None:
            deeds.set_role(conn, name, body.role, who.name, now)
        if body.disabled is not None:
            deeds.set_disabled(conn, name, body.disabled, who.name, now)
        if hashed is not None:
            deeds.set_password(conn, name, hashed, who.name, now)
        return view(conn, deeds.find(conn, name))

    return context.write(deed)


class ProductRole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: str = Field(min_length=1, max_length=16)


@router.put("/api/users/{name}/products/{product}")
def set_product_role(
    request: Request, name: UserName, product: UserName, body: ProductRole, who: AdminOfProduct
) -> Any:
    """What somebody may do to one product, beside what they may do to all. Also for the product's admins."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        deeds.set_product_role(conn, name, product, body.role, who.name, context.clock())
        return view(conn, deeds.find(conn, name))

    return context.write(deed)


@router.delete("/api/users/{name}/products/{product}")
def drop_product_role(request: Request, name: UserName, product: UserName, who: AdminOfProduct) -> Any:
    """Nothing more than what they may do to all."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        deeds.set_product_role(conn, name, product, None, who.name, context.clock())
        return view(conn, deeds.find(conn, name))

    return context.write(deed)


# --- the audit trail ---------------------------------------------------------------------------------


def change_view(found: Change) -> dict[str, Any]:
    return {
        "id": found.pk,
        "at": views.instant(found.at),
        "actor": found.actor,
        "action": found.action,
        "subject": found.subject,
        "before": found.before,
        "after": found.data,
    }


@router.get("/api/audit")
def audit(
    request: Request,
    who: Viewer,
    limit: Limit = 100,
    cursor: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    actor: Text = None,
    action: Text = None,
    subject: Text = None,
) -> Any:
    """Every change: who, what, before and after; newest first."""
    context = context_of(request)
    chosen = {"actor": actor or None, "action": action or None, "subject": subject or None}
    with context.database.read() as conn:
        found = events.changes(conn, limit=limit, under=cursor, **chosen)
    items = [change_view(one) for one in found]
    return {"items": items, "next": found[-1].pk if len(found) == limit else None}


@router.get(
    "/api/audit/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}, "application/json": {}}}},
)
def audit_file(
    request: Request,
    who: Viewer,
    actor: Text = None,
    action: Text = None,
    subject: Text = None,
    form: Annotated[Literal["csv", "json"], Query(alias="format")] = "csv",
) -> Response:
    """All of it as a file, streamed. No cell of the CSV is a formula."""
    chosen = {"actor": actor or None, "action": action or None, "subject": subject or None}
    return export(context_of(request), form, chosen)


def export(context: Context, form: str, chosen: dict[str, str | None]) -> Response:
    """The chosen changes as a file, streamed."""
    rows = _all(context, chosen)
    if form == "csv":
        parts, media = sheet.lines(CHANGE, rows), "text/csv; charset=utf-8"
    else:
        parts, media = _json(rows), "application/json"
    headers = {"Content-Disposition": f'attachment; filename="skylift-audit.{form}"'}
    return StreamingResponse(parts, media_type=media, headers=headers)


def _all(context: Context, chosen: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    under: int | None = None
    while True:
        with context.database.read() as conn:
            found = events.changes(conn, limit=_BATCH, under=under, **chosen)
        yield from (change_view(one) for one in found)
        if len(found) < _BATCH:
            return
        under = found[-1].pk


def _json(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield "["
    for number, row in enumerate(rows):
        yield (",\n" if number else "\n") + json.dumps(row, sort_keys=True)
    yield "\n]\n"
