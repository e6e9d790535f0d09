"""Releases over HTTP: made, shown, sealed, taken back. Their bytes come and go by `api.artifacts`."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from skylift.api.auth import ActingOnRelease, ActingSomewhere, Viewer
from skylift.api.context import context_of
from skylift.api.deployments import Cursor, Limit
from skylift.api.idempotency import answer_once
from skylift.engine import publish, serving, signing
from skylift.engine import withdraw as taking_back
from skylift.engine.access import Role as Rank
from skylift.engine.publish import NewRelease
from skylift.store import releases
from skylift.store.db import Connection

router = APIRouter(tags=["releases and trust"])
ReleaseId = Annotated[str, Path(pattern="^rel_[0-9a-z]{1,40}$")]


class ReleaseBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    product: str = Field(min_length=1, max_length=64)
    version: str = Field(min_length=1, max_length=64)
    kind: str = Field(default="image", max_length=16)
    # PostgreSQL's text cannot hold a null.
    notes: str = Field(default="", max_length=publish.MAX_NOTES, pattern="^[^\\x00]*$")
    security_version: int = Field(default=0, ge=0, lt=2**31)


@router.post("/api/releases", status_code=201)
def create(request: Request, body: ReleaseBody, who: ActingSomewhere) -> Response:
    """A draft release."""
    who.must(Rank.OPERATOR, body.product)
    context = context_of(request)
    new = NewRelease(**body.model_dump())

    def deed(conn: Connection) -> Any:
        return known(conn, publish.create(conn, new, who.name, context.clock()))

    return answer_once(request, context, who.name, body.model_dump(), 201, deed)


def known(conn: Connection, release_id: str) -> dict[str, Any]:
    found = releases.find(conn, release_id)
    if found is None:
        raise signing.unknown_release(release_id)
    return publish.view(conn, found)


@router.get("/api/releases")
def page(
    request: Request,
    who: Viewer,
    limit: Limit = 50,
    cursor: Cursor = None,
    product: Annotated[str | None, Query(max_length=64, pattern="^[A-Za-z0-9._-]*$")] = None,
) -> Any:
    """Newest first."""
    with context_of(request).database.read() as conn:
        rows = releases.page(conn, limit=limit, before=cursor, product=product)
        items = [publish.view(conn, row) for row in rows]
    return {"items": items, "next": rows[-1].id if len(rows) == limit else None}


@router.get("/api/releases/{release_id}")
def show(request: Request, release_id: ReleaseId, who: Viewer) -> Any:
    """One release: images, signatures gathered, deltas."""
    with context_of(request).database.read() as conn:
        return known(conn, release_id)


@router.get("/api/releases/{release_id}/ways")
def ways(request: Request, release_id: ReleaseId, who: Viewer) -> Any:
    """How its bytes travel: `now`, for every image that devices run, what each would be offered and what that
    costs; `made`, its deltas and packed images, whatever became of them; and how devices got it, by way, with
    the reasons why not otherwise."""
    context = context_of(request)
    with context.database.read() as conn:
        known(conn, release_id)
        release = releases.find(conn, release_id)
        return {
            "release": release_id,
            "now": serving.table(conn, release, context.checkin.max_ratio),
            "made": serving.made(conn, release_id),
            **serving.travelled(conn, release_id),
        }


@router.post("/api/releases/{release_id}:seal")
def seal(request: Request, release_id: ReleaseId, who: ActingOnRelease) -> Any:
    """No more artifacts: it waits for its signatures."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        signing.seal(conn, release_id, who.name, context.clock(), context.max_trust_file)
        return known(conn, release_id)

    return context.write(deed)


@router.delete("/api/releases/{release_id}", status_code=204)
def delete(request: Request, release_id: ReleaseId, who: ActingOnRelease) -> Response:
    """Forget a draft: its version is free again. What was sealed can only be withdrawn."""
    context = context_of(request)
    context.write(lambda conn: publish.delete(conn, release_id, who.name, context.clock()))
    return Response(status_code=204)


class WithdrawBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=300)


@router.post("/api/releases/{release_id}:withdraw")
def withdraw(request: Request, release_id: ReleaseId, body: WithdrawBody, who: ActingOnRelease) -> Any:
    """Take it back: its deployments are aborted, none is made any more; devices refuse it when two release
    keys have signed the product's role without it."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        ended = taking_back.withdraw(
            conn, release_id, body.reason, who.name, context.clock(), context.deadlines
        )
        return {**known(conn, release_id), "aborted": ended}

    found = context.write(deed)
    context.poke()
    return found
