"""In front of everything: the two requests that a fleet makes all day, in their plain form (`api.plain`).

`GET /api/updates/check` from a device for which there is nothing is answered from one read (`store.glance`),
with the same decision as everywhere (`core.offer`). A well-formed report of a known device goes straight to
the writer. Whatever is not that plain goes the long way (`api.app`), which knows every error: these shortcuts
never refuse anybody for their form or their token.

Bytes in, bytes out, by callbacks: a task and a framework's objects for each poll cost more than the poll.
"""

from collections.abc import Callable
from email.utils import formatdate
from hashlib import sha256
from http import HTTPStatus
from time import perf_counter, time

from pydantic import ValidationError
from starlette.responses import Response

from skylift.api.context import Context
from skylift.api.device import Status, answer_of, nothing, said_by
from skylift.api.plain import CHECK, STATUS, Plain, pairs
from skylift.api.problems import bug, rejected, unavailable
from skylift.core.errors import Rejected, SkyliftError, Unavailable
from skylift.core.ids import is_nonce
from skylift.engine.access import STRANGER
from skylift.engine.checkin import Answer, Ask
from skylift.engine.reports import Recorded
from skylift.store.glance import Glance, Glances

_NEEDED = frozenset({"device_id", "device_type", "current_version"})
_KNOWN = _NEEDED | {"config_version", "image_sha256", "nonce", "memory", "codecs"}
_SOME = "0" * 16  # a nonce
Reply = Callable[[bytes | None], None]  # the whole response; None: the long way


class Date:
    """The header, written once a second."""

    def __init__(self) -> None:
        self._second, self._header = 0, b""

    def __call__(self) -> bytes:
        second = int(time())
        if second != self._second:
            self._second, self._header = second, b"date: %s\r\n" % formatdate(second, usegmt=True).encode()
        return self._header


class Front:
    """Answers what it can. `Reply` is called later, in the event loop, once."""

    def __init__(self, context: Context, glances: Glances) -> None:
        self._context = context
        self._glances = glances
        self._date = Date()
        self._nothings = context.metrics.offers.labels("nothing")
        self._times = {status: context.metrics.requested(CHECK, status) for status in (200, 304)}
        self.max_body = context.max_body

    def take(self, plain: Plain, reply: Reply) -> bool:
        """Whether it will be answered; False: the long way, at once."""
        if self._context.certificates_required:
            return False  # who asks is no question of the token alone
        return (self._check if plain.is_check else self._report)(plain, reply)

    # --- checks -----------------------------------------------------------------------------------

    def _check(self, plain: Plain, reply: Reply) -> bool:
        started = perf_counter()
        asked = pairs(plain.query)
        if asked is None or not _NEEDED <= asked.keys() <= _KNOWN:
            return False
        if not is_nonce(asked.get("nonce", _SOME)):
            return False

        def seen(glance: Glance | None) -> None:
            if glance is None or glance.device_id != asked["device_id"]:
                reply(None)
                return
            answer = self._look(glance, asked)
            if answer is None:
                reply(None)
                return
            tag = nothing(answer).encode()
            same = plain.tag == tag
            reply(self._nothing(answer, plain.closes, tag, same))
            self._nothings.inc()
            self._times[304 if same else 200].observe(perf_counter() - started)

        self._glances.find(sha256(plain.token).hexdigest(), seen)
        return True

    def _look(self, seen: Glance, asked: dict[str, str]) -> Answer | None:
        """The answer where there is nothing; None where it takes a look."""
        context = self._context
        ask = Ask(
            asked["device_type"],
            asked["current_version"],
            asked.get("config_version"),
            asked.get("image_sha256"),
        )
        now = context.clock()
        try:
            found = context.checkin.glance(seen, ask, now)
        except SkyliftError:
            return None
        if found is None:
            return None
        context.seen(seen.pk, now)
        return found.answer

    def _nothing(self, answer: Answer, closes: bool, tag: bytes, same: bool) -> bytes:
        seconds = answer["retry_after"]
        if same:
            return b"HTTP/1.1 304 Not Modified\r\n%s%setag: %s\r\nretry-after: %d\r\n\r\n" % (
                self._date(),
                _CLOSE[closes],
                tag,
                seconds,
            )
        more = b',"report_health":true' if answer.get("report_health") else b""
        body = b'{"update_available":false,"retry_after":%d%s}' % (seconds, more)
        return self._json(body, closes, b"etag: %s\r\n" % tag)

    def _json(self, body: bytes, closes: bool, more: bytes = b"") -> bytes:
        return b"HTTP/1.1 200 OK\r\n%s%scontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s" % (
            self._date(),
            _CLOSE[closes],
            more,
            len(body),
            body,
        )

    # --- reports ----------------------------------------------------------------------------------

    def _report(self, plain: Plain, reply: Reply) -> bool:
        """Who it is finds out the writer, for many at a time. A stranger's takes the long way afterwards."""
        started, context = perf_counter(), self._context
        try:
            status = Status.model_validate_json(plain.body)
            digest = sha256(plain.token).hexdigest()
            said = said_by(context, digest, status, plain.body, plain.signature.decode())
        except (ValidationError, Rejected):
            return False

        def written(found: "Recorded | BaseException") -> None:
            if isinstance(found, Recorded):
                code, response = 200, self._json(answer_of(context, status, found), plain.closes)
            elif isinstance(found, Rejected) and found.code == STRANGER:
                reply(None)
                return
            else:
                refusal = _refusal(found)
                code, response = refusal.status_code, self._whole(refusal, plain.closes)
            reply(response)
            context.metrics.requested(STATUS, code).observe(perf_counter() - started)

        context.reports.take(said, written)
        return True

    def _whole(self, response: Response, closes: bool) -> bytes:
        phrase = HTTPStatus(response.status_code).phrase
        headers = b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
        head = f"HTTP/1.1 {response.status_code} {phrase}\r\n".encode()
        return b"%s%s%s%s\r\n%s" % (head, self._date(), _CLOSE[closes], headers, response.body)


_CLOSE = {True: b"connection: close\r\n", False: b""}


def _refusal(error: BaseException) -> Response:
    match error:
        case Rejected():
            return rejected(error)
        case Unavailable():
            return unavailable(error)
        case Exception():  # ours: it is logged
            return bug(STATUS, error)
        case _:
            raise error
