"""In front of everything: the two requests that a fleet makes all day, in their plain form.

`GET /api/updates/check` from a device for which there is nothing is answered on bare ASGI from one read
(`store.glance`), with the same decision as everywhere (`core.offer`). A well-formed report of a known device
goes straight to the writer. Whatever is not that plain goes the long way (`api.device`), which knows every
error: these shortcuts never refuse anybody for their form or their token.
"""

from hashlib import sha256
from time import perf_counter
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skylift.api.context import Context
from skylift.api.device import SIGNATURE as SIGNED
from skylift.api.device import Status, take_down
from skylift.api.hop import CERTIFICATE
from skylift.api.problems import bug, rejected, unavailable
from skylift.core.errors import Rejected, SkyliftError, Unavailable
from skylift.core.ids import is_nonce
from skylift.engine.checkin import Ask
from skylift.store.devices import ACTIVE
from skylift.store.glance import Glance, Glances, Missed

PATH, STATUS = "/api/updates/check", "/api/updates/status"
_NEEDED = frozenset({"device_id", "device_type", "current_version"})
_KNOWN = _NEEDED | {"config_version", "image_sha256", "nonce"}
_SOME = "0" * 16
SIGNATURE = SIGNED.encode()
_JSON = (b"content-type", b"application/json")
_NOTHING = b'"nothing"'  # the entity tag of "there is nothing for you"


class Front:
    """ASGI: answers what it can, hands on the rest."""

    def __init__(self, app: ASGIApp, context: Context, glances: Glances) -> None:
        self._app = app
        self._context = context
        self._glances = glances
        self._answers = context.metrics.offers.labels("nothing")
        self._times = {status: context.metrics.requests.labels(PATH, str(status)) for status in (200, 304)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if CERTIFICATE in scope or self._context.certificates_required:
            await self._app(scope, receive, send)  # who asks is no question of the token alone
            return
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "GET":
            started = perf_counter()
            seconds = await self._glance(scope)
            if seconds is not None:
                same = _header(scope, b"if-none-match") == _NOTHING
                await (_not_modified(send, seconds) if same else _nothing(send, seconds))
                self._answers.inc()
                self._times[304 if same else 200].observe(perf_counter() - started)
                return
        elif scope["type"] == "http" and scope["path"] == STATUS and scope["method"] == "POST":
            again = await self._report(scope, receive, send)
            if again is None:
                return
            receive = again
        await self._app(scope, receive, send)

    async def _report(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """None when it is answered, else the request's body for the long way."""
        started = perf_counter()
        messages, body = await _body(receive, self._context.max_body)
        again = _again(messages, receive)
        kind, _, token = _header(scope, b"authorization").partition(b" ")
        if body is None or kind != b"Bearer" or _header(scope, b"content-type") != b"application/json":
            return again
        digest = sha256(token).hexdigest()
        try:
            status = Status.model_validate_json(body)
            seen = await self._glances.find(digest)
        except (ValidationError, Missed):
            return again
        if seen is None or seen.status != ACTIVE or seen.device_id != status.device_id:
            return again
        code = 200
        try:
            signature = _header(scope, SIGNATURE).decode("latin-1")
            told = await take_down(self._context, seen.pk, digest, status, body, signature)
        except Exception as e:  # noqa: BLE001 - the device is told as everywhere
            answer = _refusal(e)
            code = answer.status_code
            await answer(scope, receive, send)
        else:
            await _json(send, told)
        self._context.metrics.requests.labels(STATUS, str(code)).observe(perf_counter() - started)
        return None

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


def _refusal(error: Exception) -> Response:
    match error:
        case Rejected():
            return rejected(error)
        case Unavailable():
            return unavailable(error)
        case _:  # ours: it is logged
            return bug(STATUS, error)


async def _body(receive: Receive, limit: int) -> tuple[list[Message], bytes | None]:
    """What has come in, and the whole body; None where it is too long, or the client has gone."""
    messages, parts, size = [], [], 0
    while True:
        message = await receive()
        messages.append(message)
        part = message.get("body", b"")
        size += len(part)
        if message["type"] != "http.request" or size > limit:
            return messages, None
        parts.append(part)
        if not message.get("more_body"):
            return messages, b"".join(parts)


def _again(messages: list[Message], receive: Receive) -> Receive:
    """The same messages once more, then whatever comes."""

    async def replay() -> Message:
        return messages.pop(0) if messages else await receive()

    return replay


def _plain_query(raw: bytes) -> dict[str, str] | None:
    """The parameters, where they are the known ones, once each, and nothing is escaped."""
    if b"%" in raw or b"+" in raw:
        return None
    try:
        found = dict([pair.split("=", 1) for pair in raw.decode("ascii").split("&")])
    except ValueError:  # not ASCII, or a parameter without a value
        return None
    plain = len(found) == raw.count(b"&") + 1 and _NEEDED <= found.keys() <= _KNOWN
    return found if plain and is_nonce(found.get("nonce", _SOME)) else None


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
    await _json(send, b'{"update_available":false,"retry_after":%d}' % seconds, (b"etag", _NOTHING))


async def _json(send: Send, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await _start(send, 200, [_JSON, (b"content-length", b"%d" % len(body)), *headers])
    await send({"type": "http.response.body", "body": body})


async def _not_modified(send: Send, seconds: int) -> None:
    await _start(send, 304, [(b"etag", _NOTHING), (b"retry-after", b"%d" % seconds)])
    await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, status: int, headers: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
