"""Groups and operators' tokens, over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from skylift.api import views
from skylift.api.auth import Acting, Admin, Viewer
from skylift.api.context import context_of
from skylift.api.deployments import Cursor, Limit
from skylift.api.idempotency import answer_once, look_then_answer_once
from skylift.engine import access as tokens
from skylift.engine import groups as deeds
from skylift.store import access, groups
from skylift.store.db import Connection
from skylift.store.groups import Group

router = APIRouter(tags=["groups and tokens"])
GroupName = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class NewGroup(BaseModel):
    """A list (`devices`) or a live query; exactly one."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    query: str | None = Field(default=None, max_length=2000)
    devices: list[str] | None = Field(default=None, max_length=100_000)


class Members(BaseModel):
    model_config = ConfigDict(extra="forbid")

    add: list[str] = Field(default_factory=list, max_length=100_000)
    remove: list[str] = Field(default_factory=list, max_length=100_000)


def _view(group: Group) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "kind": group.kind,
        "query": group.query,
        "created_at": views.instant(group.created_at),
    }


def _whole(conn: Connection, name: str) -> dict[str, Any]:
    group = deeds.find(conn, name)
    return {**_view(group), "size": deeds.size(conn, group)}


@router.post("/api/groups", status_code=201)
def create(request: Request, body: NewGroup, who: Acting) -> Any:
    """A new group."""
    context = context_of(request)

    def look(conn: Connection) -> int:
        return len(set(body.devices or ())) if body.query is None else deeds.size_of(conn, body.query)

    def deed(conn: Connection, size: int) -> Any:
        made = deeds.create(conn, body.name, body.query, body.devices, who.name, context.clock())
        return {**_view(deeds.find(conn, made)), "size": size}

    return look_then_answer_once(request, context, who.name, body.model_dump(), 201, look, deed)


@router.get("/api/groups")
def page(request: Request, who: Viewer, limit: Limit = 100, cursor: Cursor = None) -> Any:
    """All groups."""
    with context_of(request).database.read() as conn:
        found = groups.page(conn, limit=limit, after=cursor or "")
    items = [_view(group) for group in found]
    return {"items": items, "next": found[-1].id if len(found) == limit else None}


@router.get("/api/groups/{name}")
def show(request: Request, name: GroupName, who: Viewer) -> Any:
    """One group, by id or name, with how many devices it holds now."""
    with context_of(request).database.ask() as conn:
        return _whole(conn, name)


@router.put("/api/groups/{name}/devices")
def members(request: Request, name: GroupName, body: Members, who: Acting) -> Any:
    """Add to a list, take out of it."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        deeds.change_members(conn, name, body.add, body.remove, who.name, context.clock())
        return _whole(conn, name)

    return context.write(deed)


@router.delete("/api/groups/{name}", status_code=204)
def delete(request: Request, name: GroupName, who: Acting) -> Response:
    """Refused while a live deployment targets it."""
    context = context_of(request)
    context.write(lambda conn: deeds.delete(conn, name, who.name, context.clock()))
    return Response(status_code=204)


# --- operators' tokens -----------------------------------------------------------------------------


class NewToken(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    role: str = Field(min_length=1, max_length=16)
    expires_at: AwareDatetime | None = None
    scopes: list[str] | None = Field(default=None, max_length=16)
    products: dict[str, str] | None = Field(default=None, max_length=100)


def _token(found: access.OperatorToken) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "role": found.role,
        "scopes": found.scopes,
        "products": found.products or {},
        "created_at": views.instant(found.created_at),
        "expires_at": views.instant(found.expires_at),
        "revoked_at": views.instant(found.revoked_at),
    }


@router.post("/api/tokens", status_code=201)
def make_token(request: Request, body: NewToken, who: Admin) -> Any:
    """A token for an operator; it is shown this once."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        token_id, token = tokens.make_token(
            conn,
            body.name,
            body.role,
            who.name,
            context.clock(),
            body.expires_at,
            scopes=body.scopes,
            products=body.products,
        )
        return {"id": token_id, "name": body.name, "role": body.role, "token": token}

    given = body.model_dump(mode="json")
    return answer_once(request, context, who.name, given, 201, deed, withheld="token")


@router.get("/api/tokens")
def list_tokens(request: Request, who: Admin) -> Any:
    """Every token, without what it is."""
    with context_of(request).database.read() as conn:
        return {"items": [_token(found) for found in access.tokens(conn)], "next": None}


@router.delete("/api/tokens/{token_id}", status_code=204)
def revoke(request: Request, token_id: GroupName, who: Admin) -> Response:
    """It is refused from now on."""
    context = context_of(request)
    context.write(lambda conn: tokens.revoke(conn, token_id, who.name, context.clock()))
    return Response(status_code=204)
