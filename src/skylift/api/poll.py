"""The poll, in front of everything: `GET /api/updates/check` from a device for which there is nothing.

That is what a server does all day, so it is answered on bare ASGI from one read (`store.glance`), with the
same decision as everywhere (`core.offer`). Whatever is not that plain goes the long way (`api.device.check`),
which knows every error: this shortcut never refuses anybody.
"""

from hashlib import sha256
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from skylift.api.context import Context
from skylift.core.errors import SkyliftError
from skylift.engine.checkin import Ask
from skylift.store.glance import Glance, Glances, Missed

PATH = "/api/updates/check"
_NEEDED = frozenset({"device_id", "device_type", "current_version"})
_KNOWN = _NEEDED | {"config_version", "image_sha256"}
_JSON = (b"content-type", b"application/json")
_NOTHING = b'"nothing"'  # the entity tag of "there is nothing for you"


class Poll:
    """ASGI: answers what it can, hands on the rest."""

    def __init__(self, app: ASGIApp, context: Context, glances: Glances) -> None:
        self._app = app
        self._context = context
        self._glances = glances
        self._answers = context.metrics.offers.labels("nothing")
        self._times = {status: context.metrics.requests.labels(PATH, str(status)) for status in (200, 304)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "GET":
            started = perf_counter()
            seconds = await self._glance(scope)
            if seconds is not None:
                same = _header(scope, b"if-none-match") == _NOTHING
                await (_not_modified(send, seconds) if same else _nothing(send, seconds))
                self._answers.inc()
                self._times[304 if same else 200].observe(perf_counter() - started)
                return
        await self._app(scope, receive, send)

    async def _glance(self, scope: Scope) -> int | None:
        """Seconds until the next check, where there is nothing; None where it takes a look."""
        asked = _plain_query(scope["query_string"])
        kind, _, token = _header(scope, b"authorization").partition(b" ")
        if asked is None or kind != b"Bearer":
            return None
        context, digest = self._context, sha256(token).hexdigest()
        try:
            seen = await self._glances.find(digest)
            if seen is None or seen.device_id != asked["device_id"]:
                return None
            return self._decide(context, seen, asked)
        except (Missed, SkyliftError):
            return None

    def _decide(self, context: Context, seen: Glance, asked: dict[str, str]) -> int | None:
        ask = Ask(
            asked["device_type"],
            asked["current_version"],
            asked.get("config_version"),
            asked.get("image_sha256"),
        )
        now = context.clock()
        found = context.checkin.glance(seen, ask, now)
        if found is None:
            return None
        context.seen(seen.pk, now)
        seconds: int = found.answer["retry_after"]
        return seconds


def _plain_query(raw: bytes) -> dict[str, str] | None:
    """The parameters, where they are the known ones, once each, and nothing is escaped."""
    if b"%" in raw or b"+" in raw:
        return None
    try:
        found = dict([pair.split("=", 1) for pair in raw.decode("ascii").split("&")])
    except ValueError:  # not ASCII, or a parameter without a value
        return None
    plain = len(found) == raw.count(b"&") + 1 and _NEEDED <= found.keys() <= _KNOWN
    return found if plain else None


def _header(scope: Scope, wanted: bytes) -> bytes:
    """The header's value where it comes once; empty otherwise."""
    found = b""
    for name, value in scope["headers"]:
        if name == wanted:
            if found:
                return b""
            found = value
    return found


async def _nothing(send: Send, seconds: int) -> None:
    body = b'{"update_available":false,"retry_after":%d}' % seconds
    length = (b"content-length", b"%d" % len(body))
    await _start(send, 200, [_JSON, length, (b"etag", _NOTHING)])
    await send({"type": "http.response.body", "body": body})


async def _not_modified(send: Send, seconds: int) -> None:
    await _start(send, 304, [(b"etag", _NOTHING), (b"retry-after", b"%d" % seconds)])
    await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, status: int, headers: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
