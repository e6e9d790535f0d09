"""`Idempotency-Key`: the same POST again gets the same answer; the key for another request is a conflict.

What that means is `engine.access.once`; here are the header and the digest of the request.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skylift.api.context import Context
from skylift.core.errors import invalid
from skylift.engine import access
from skylift.store.db import Connection

MAX_KEY = 128


def answer_once(
    request: Request,
    context: Context,
    actor: str,
    given: Any,
    status: int,
    deed: Callable[[Connection], Any],
    withheld: str | None = None,
) -> Response:
    """Do the deed, or repeat the answer it got under this key; the member `withheld` is not kept."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return JSONResponse(context.write(deed), status_code=status)
    if not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise invalid("Idempotency-Key", key, f"1 to {MAX_KEY} printable characters")
    digest = hashlib.sha256(json.dumps([request.url.path, given], sort_keys=True).encode()).hexdigest()
    found = context.write(
        lambda conn: access.once(conn, actor, key, digest, status, deed, context.clock(), withheld)
    )
    return JSONResponse(found.body, status_code=found.status)
