"""`Idempotency-Key`: the same POST again gets the same answer; the key for another request is a conflict.

The answer is kept in the transaction of the deed: there is no moment in which one is there without the other.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skylift.api.context import Context
from skylift.core.errors import Kind, Rejected, invalid
from skylift.store import access
from skylift.store.access import Kept
from skylift.store.db import Connection

MAX_KEY = 128


def answer_once(
    request: Request,
    context: Context,
    actor: str,
    given: Any,
    status: int,
    deed: Callable[[Connection], Any],
) -> Response:
    """Do the deed, or repeat the answer it got under this key."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return JSONResponse(context.write(deed), status_code=status)
    if not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise invalid("Idempotency-Key", key, f"1 to {MAX_KEY} printable characters")
    digest = hashlib.sha256(json.dumps([request.url.path, given], sort_keys=True).encode()).hexdigest()

    def once(conn: Connection) -> Kept:
        found = access.kept(conn, actor, key)
        if found is None:
            found = Kept(digest, status, deed(conn))
            access.keep(conn, actor, key, found, context.clock())
        return found

    found = context.write(once)
    if found.request_sha256 != digest:
        raise Rejected(
            "idempotency_conflict",
            f"Idempotency-Key is {key!r}: it was used for another request",
            kind=Kind.CONFLICT,
            field="Idempotency-Key",
            value=key,
            rule="a new key for a new request",
        )
    return JSONResponse(found.body, status_code=found.status)
