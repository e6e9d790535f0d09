"""`Idempotency-Key`: the same POST again gets the same answer; the key for another request is a conflict.

What that means is `engine.access.once`; here are the header and the digest of the request.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skylift.api.context import Context
from skylift.core.errors import invalid
from skylift.engine import access
from skylift.store.db import Connection

MAX_KEY = 128
T = TypeVar("T")


def answer_once(
    request: Request,
    context: Context,
    actor: str,
    given: Any,
    status: int,
    deed: Callable[[Connection], Any],
    withheld: str | None = None,
    first: Callable[[], object] | None = None,
) -> Response:
    """Do the deed, or repeat the answer it got under this key; the member `withheld` is not kept. `first` is
    done before it, outside of its transaction, unless the answer is known; it may happen twice."""
    key = request.headers.get("idempotency-key")
    if first is not None and not _is_kept(context, actor, key):
        first()
    if key is None:
        return JSONResponse(context.write(deed), status_code=status)
    if not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise invalid("Idempotency-Key", key, f"1 to {MAX_KEY} printable characters")
    digest = hashlib.sha256(json.dumps([request.url.path, given], sort_keys=True).encode()).hexdigest()
    found = context.write(
        lambda conn: access.once(conn, actor, key, digest, status, deed, context.clock(), withheld)
    )
    return JSONResponse(found.body, status_code=found.status)


def _is_kept(context: Context, actor: str, key: str | None) -> bool:
    with context.database.read() as conn:
        return key is not None and access.is_kept(conn, actor, key)


def look_then_answer_once(
    request: Request,
    context: Context,
    actor: str,
    given: Any,
    status: int,
    look: Callable[[Connection], T],
    deed: Callable[[Connection, T], Any],
) -> Response:
    """The same for a deed that must look over the fleet first: the look holds up no writer, and is left out
    where the answer is known already."""
    key = request.headers.get("idempotency-key")
    with context.database.ask() as conn:
        known = key is not None and access.is_kept(conn, actor, key)
        found = None if known else look(conn)

    def whole(conn: Connection) -> Any:
        return deed(conn, look(conn) if found is None else found)

    return answer_once(request, context, actor, given, status, whole)
