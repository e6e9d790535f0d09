"""The transparency log, public: whoever cannot read it cannot hold the server to it."""

import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from skylift.api import views
from skylift.api.auth import Viewer
from skylift.api.context import context_of
from skylift.core.errors import invalid
from skylift.engine import log as engine
from skylift.engine import witness
from skylift.store import log

router = APIRouter(tags=["log"])
Size = Annotated[int, Query(ge=0, le=2**53)]
_LEAF = re.compile("[0-9a-f]{64}", re.ASCII)
Digest = Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")]


class CheckpointAnswer(BaseModel):
    """Size, root and time, signed by the director's online key; with the proof for `since`."""

    size: int
    root: str
    at: int
    keyid: str
    sig: str
    consistency: list[str]


@router.get("/api/log/checkpoint", response_model=CheckpointAnswer)
def checkpoint(request: Request, since: Size = 0) -> Any:
    """The log of now, and the proof that it begins with the first `since` entries."""
    context = context_of(request)
    with context.database.read() as conn:
        return engine.checkpoint(conn, context.online, since, context.clock())


@router.get("/api/log/proof")
def proof(
    request: Request,
    leaf: Digest = None,
    size: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    first: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    second: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> Any:
    """That an entry is in the log (`leaf`, `size`), or that one log extends another (`first`, `second`)."""
    with context_of(request).database.read() as conn:
        if leaf is not None and size is not None and first is None and second is None:
            return engine.inclusion(conn, leaf, size)
        if first is not None and second is not None and leaf is None and size is None:
            return engine.consistency(conn, first, second)
    raise invalid("leaf", leaf, "leaf and size, or first and second")


@router.get("/api/log/compact")
def compact(
    request: Request,
    leaf: Annotated[list[str], Query(min_length=1, max_length=8)],
    size: Annotated[int, Query(ge=1, le=2**53)],
    since: Size = 0,
) -> Response:
    """What a microcontroller asks: inclusion of these entries, and consistency, in one answer that is written
    as signed files are."""
    for number, each in enumerate(leaf):
        if not _LEAF.fullmatch(each):
            raise invalid(f"leaf[{number}]", each, "is the hash of an entry, 64 hexadecimal digits")
    with context_of(request).database.read() as conn:
        found = engine.compact(conn, leaf, since, size)
    body = json.dumps(found, sort_keys=True, separators=(",", ":"))
    return Response(body, media_type="application/json")


@router.get("/api/log/entries")
def entries(request: Request, start: Size = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 500) -> Any:
    """The log itself, from entry `start` on."""
    with context_of(request).database.read() as conn:
        found = log.page(conn, start, limit)
    items = [
        {"number": one.number, "leaf": one.leaf, "entry": one.entry, "at": views.instant(one.at)}
        for one in found
    ]
    return {"items": items, "next": found[-1].number + 1 if len(found) == limit else None}


@router.get("/api/log/witnessed")
def witnessed(request: Request, who: Viewer, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Any:
    """The checkpoints devices reported; those that are not of this log first."""
    with context_of(request).database.read() as conn:
        return {"items": witness.view(conn, limit), "next": None}
