"""Errors on the wire: RFC 9457 problem documents, one shape for everything that can go wrong.

`type` is a path into the documentation, `code` is stable; `field`, `value` and `rule` say what to change.
What is our own fault says nothing of the inside, and is logged.
"""

from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skylift.core.errors import Kind, Rejected, TrustError, Unavailable

LOG = structlog.get_logger("skylift.api")
STATUS = {
    Kind.INVALID: 422,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
}
TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    422: "Invalid input",
    500: "Internal error",
    503: "Unavailable",
}


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(
    status: int, code: str, detail: str, headers: dict[str, str] | None = None, **extra: Any
) -> Response:
    """A problem document."""
    body = {
        "type": f"/problems/{code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
    }
    body |= {name: value for name, value in extra.items() if value is not None}
    return ProblemResponse(body, status_code=status, headers=headers)


def rejected(error: Rejected) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.kind is Kind.UNAUTHENTICATED else None
    return problem(
        STATUS[error.kind],
        error.code,
        str(error),
        headers,
        field=error.field,
        value=_plain(error.value),
        rule=error.rule,
    )


def unavailable(error: Unavailable) -> Response:
    LOG.warning("unavailable", error=str(error))
    headers = {"Retry-After": str(max(1, round(error.retry_after)))}
    return problem(503, "unavailable", "the server cannot do this right now; come again", headers)


async def on_rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, Rejected)
    return rejected(error)


async def on_unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unavailable)
    return unavailable(error)


async def on_trust(request: Request, error: Exception) -> Response:
    assert isinstance(error, TrustError)
    return problem(409, error.code, str(error))


async def on_invalid(request: Request, error: Exception) -> Response:
    """pydantic's findings: the first one as the sentence, all of them in `errors`."""
    assert isinstance(error, RequestValidationError)
    found = [
        {"field": _field(e["loc"]), "value": _plain(e.get("input")), "rule": _text(e["msg"])}
        for e in error.errors()
    ]
    first = found[0]
    detail = f"{first['field']} is {_short(first['value'])}: {first['rule']}"
    return problem(422, "invalid_value", detail, errors=found, **first)


async def on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # a body that the JSON parser gave up on: not in UTF-8, or nested too deeply
        rule = "JSON in UTF-8, nested no deeper than the API's own"
        return problem(422, "invalid_value", f"body cannot be read: {rule}", field="body", rule=rule)
    code = TITLES.get(error.status_code, "error").lower().replace(" ", "_")
    return problem(error.status_code, code, str(error.detail), dict(error.headers or {}))


async def on_bug(request: Request, error: Exception) -> Response:
    return bug(request.url.path, error)


def bug(path: str, error: Exception) -> Response:
    """Our own mistake: logged, and nothing of it told."""
    LOG.error("bug", path=path, exc_info=error)
    return problem(500, "internal_error", "something inside went wrong; it has been logged")


HANDLERS: dict[int | type[Exception], Any] = {
    Rejected: on_rejected,
    Unavailable: on_unavailable,
    TrustError: on_trust,
    RequestValidationError: on_invalid,
    HTTPException: on_http,
    Exception: on_bug,
}


def _field(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    return ".".join(parts) or "body"


def _text(message: str) -> str:
    return message[0].lower() + message[1:]


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _plain(value: Any) -> Any:
    """A value as JSON may carry it, bounded: strangers send large things."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    text = value if isinstance(value, str) else repr(value)
    # Lone surrogates pass JSON but not UTF-8.
    return text[:200].encode("utf-8", "replace").decode()
