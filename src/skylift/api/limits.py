"""Bounds on what strangers send: bodies are counted as they stream, whatever Content-Length says.

Requests are timed here too, by route, for the metrics.
"""

from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skylift.api.metrics import Metrics
from skylift.api.problems import problem

UPLOADS = ("/api/artifacts",)  # have their own, larger limit, kept where the bytes are written


class TooLarge(Exception):
    """More than the limit has come in."""


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
        started = perf_counter()
        sent: dict[str, int] = {}

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
            await send(message)

        try:
            await self._bounded(scope, receive, watched)
        except TooLarge:
            if "status" in sent:
                raise
            await self._refuse(scope, receive, watched)
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(route, str(sent.get("status", 0))).observe(perf_counter() - started)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in UPLOADS:
            await self.app(scope, receive, send)
            return
        if _announced(scope) > self.max_body:
            raise TooLarge
        counted = 0

        async def counting() -> Message:
            nonlocal counted
            message = await receive()
            counted += len(message.get("body", b""))
            if counted > self.max_body:
                raise TooLarge
            return message

        await self.app(scope, counting, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = f"at most {self.max_body} bytes"
        answer: Any = problem(
            413, "too_large", f"body is too large: {rule}", {"Connection": "close"}, field="body", rule=rule
        )
        await answer(scope, receive, send)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
