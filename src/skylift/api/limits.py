"""Bounds on what strangers send: bodies are counted as they stream, whatever Content-Length says; an address
has no null in it.

Requests are timed here too, by route, for the metrics.
"""

from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skylift.api.metrics import Metrics
from skylift.api.problems import problem, rejected
from skylift.core.errors import Rejected, invalid

UPLOADS = ("/api/artifacts",)  # have their own, larger limit, kept where the bytes are written
# The same as a browser's form, and bills of materials: how the path begins and ends.
FORMS = (("/ui/releases/", "/images"), ("/api/releases/", "/sbom"))


class TooLarge(Exception):
    """More than the limit has come in."""


class _Counted:
    """A request's body, counted as it comes. `limit` 0: not here."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0
        self.too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._limit and self._seen > self._limit:
            self.too_large = True
            raise TooLarge
        return message


class Limits:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, max_body: int, metrics: Metrics) -> None:
        self.app = app
        self.max_body = max_body
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if (wrong := _null_in(scope)) is not None:
            answer: Any = rejected(wrong)
            await answer(scope, receive, send)
            return
        started = perf_counter()
        body = _Counted(receive, 0 if _takes_images(scope["path"]) else self.max_body)
        sent: dict[str, int] = {}

        async def watched(message: Message) -> None:
            if body.too_large:
                return  # whatever the application makes of a body that was cut off: the answer is ours
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
            await send(message)

        body.too_large = not _takes_images(scope["path"]) and _announced(scope) > self.max_body
        try:
            if not body.too_large:
                await self.app(scope, body.receive, watched)
        except TooLarge:
            pass  # answered below
        if body.too_large:
            sent["status"] = 413
            await self._refuse(scope, receive, send)
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(route, str(sent.get("status", 0))).observe(perf_counter() - started)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = f"at most {self.max_body} bytes"
        answer: Any = problem(
            413, "too_large", f"body is too large: {rule}", {"Connection": "close"}, field="body", rule=rule
        )
        await answer(scope, receive, send)


def _null_in(scope: Scope) -> Rejected | None:
    """No name has one, and PostgreSQL's text cannot hold it: refused here, no question has to think of it."""
    if "\0" in scope["path"]:
        return invalid("path", scope["path"], "has no null in it")
    if b"%00" in scope["query_string"]:
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            if "\0" in name or "\0" in value:
                return invalid(name, value, "has no null in it")
    return None


def _takes_images(path: str) -> bool:
    return path in UPLOADS or any(path.startswith(begin) and path.endswith(end) for begin, end in FORMS)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
