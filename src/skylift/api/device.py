"""The plain device API: check, status, enroll. What the smallest client can speak.

The check lives in the event loop: on SQLite it is a handful of indexed reads, cheaper than the thread that
would carry them. A report is answered when it is durable, in the writer's next group; only progress within a
stage is written behind.
"""

import asyncio
import json
import re
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skylift.api.auth import device_named
from skylift.api.context import Context, context_of
from skylift.api.problems import rejected
from skylift.api.views import instant
from skylift.core.errors import Rejected, invalid
from skylift.core.health import MAX_METRICS, check_metrics
from skylift.core.ids import check_name, check_nonce, check_version
from skylift.core.lifecycle import FINAL, Reason, UpdateState
from skylift.core.ways import Means, Passed, Way
from skylift.engine import enroll as enrolling
from skylift.engine import identity
from skylift.engine.checkin import Answer, Ask, Needs
from skylift.engine.proofs import SEQUENCES, Proof, Said, Signed, Word, tell
from skylift.engine.reports import Recorded, Report
from skylift.store.db import Connection
from skylift.store.devices import Device
from skylift.store.identity import Certificate

router = APIRouter(tags=["devices' side"])
SIGNATURE = "skylift-signature"  # of the body, by the device's own key, base64
MAX_QUERY = 200
NAMES = "^[A-Za-z0-9._-]{1,64}$"  # of devices and deployments: nothing that a database chokes on
MAX_DIGITS = 15  # of a number of bytes
CODECS = re.compile("(?:[a-z0-9]{1,8}(?:,[a-z0-9]{1,8}){0,6})?", re.ASCII)
_HEX = frozenset("0123456789abcdef")


async def check(request: Request) -> Response:
    """`GET /api/updates/check`: is there something for me?"""
    context = context_of(request)
    try:
        if context.poll_in_loop:
            answer, deed = _look(request, context)
        else:
            answer, deed = await asyncio.to_thread(_look, request, context)
        if deed is not None:
            answer = await context.write_async(deed.deed)
    except Rejected as e:
        return rejected(e)
    context.metrics.offers.labels("update" if answer["update_available"] else "nothing").inc()
    return _conditional(request, answer)


def _conditional(request: Request, answer: Answer) -> Response:
    """304 where the device has this answer already. `retry_after` is no part of what it is an answer to."""
    said = {name: value for name, value in answer.items() if name != "retry_after"}
    tag = f'"{_digest_of(said)}"' if answer["update_available"] else nothing(answer)
    headers = {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers | {"Retry-After": str(answer["retry_after"])})
    return JSONResponse(answer, headers=headers)


def nothing(answer: Answer) -> str:
    """The entity tag of "there is nothing for you"."""
    return '"nothing-health"' if answer.get("report_health") else '"nothing"'


def _digest_of(said: Answer) -> str:
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def _look(request: Request, context: Context) -> tuple[Answer, Needs | None]:
    query = request.query_params
    device_id = _asked(query, "device_id", check_name)
    now = context.clock()
    ask = Ask(
        device_type=_asked(query, "device_type", check_name),
        current_version=_asked(query, "current_version", check_version),
        config_version=_asked(query, "config_version", check_version) if "config_version" in query else None,
        image_sha256=_asked(query, "image_sha256", _digest) if "image_sha256" in query else None,
        nonce=_asked(query, "nonce", check_nonce) if "nonce" in query else None,
        means=_means(query),
    )
    with context.database.read() as conn:
        device = device_named(conn, request, device_id)
        found = context.checkin.look(conn, device, ask, now)
    context.seen(device.pk, now)
    return ({}, found) if isinstance(found, Needs) else (found.answer, None)


def _asked(query: Any, field: str, rule: Any) -> Any:
    values = query.getlist(field)
    if len(values) != 1:
        raise invalid(field, values, "is needed, once")
    return rule(field, values[0][:MAX_QUERY])


def _means(query: Any) -> Means:
    """What the device gives for an update; both or nothing."""
    if "memory" not in query and "codecs" not in query:
        return Means()
    memory: int = _asked(query, "memory", _bytes)
    codecs = _asked(query, "codecs", _names)
    return Means(memory, frozenset(codecs.split(",")) if codecs else frozenset())


def _bytes(field: str, value: str) -> int:
    """Rounded down to a power of two, so that devices of one sort count as one."""
    if not value.isascii() or not value.isdecimal() or len(value) > MAX_DIGITS:
        raise invalid(field, value, f"bytes, in at most {MAX_DIGITS} digits")
    return 1 << (int(value).bit_length() - 1) if int(value) else 0


def _names(field: str, value: str) -> str:
    if not CODECS.fullmatch(value):
        raise invalid(
            field, value, "names of at most 8 small letters or digits, separated by commas; at most 7"
        )
    return value


def _digest(field: str, value: str) -> str:
    if len(value) != 64 or not set(value) <= _HEX:
        raise invalid(field, value, "64 lower-case hexadecimal digits")
    return value


Metrics = dict[str, Annotated[float, Field(allow_inf_nan=False)]]


class LogSeen(BaseModel):
    """The checkpoint of the transparency log that the device has pinned."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=0, lt=SEQUENCES)
    root: str = Field(pattern="^[0-9a-f]{64}$")


class Status(BaseModel):
    """A status report. `progress` in percent; `started_at` and `completed_at` are the device's own clock and
    are taken down, never believed."""

    model_config = ConfigDict(extra="forbid")

    device_id: str = Field(pattern=NAMES)
    deployment: str = Field(pattern=NAMES)
    state: UpdateState
    attempt: int | None = Field(default=None, ge=1, le=1_000_000)
    progress: int | None = Field(default=None, ge=0, le=100)
    reason: Reason | None = None
    error_message: str | None = Field(default=None, max_length=500)
    started_at: datetime | None = None
    completed_at: datetime | None = None
    version: str | None = Field(default=None, max_length=64)
    image_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    security_floor: int | None = Field(default=None, ge=0, lt=2**31)  # once an image is confirmed
    healthy: bool | None = None
    metrics: Metrics = Field(default_factory=dict, max_length=MAX_METRICS)
    # Of a signed report: grows with every one of this device.
    sequence: int | None = Field(default=None, ge=1, lt=SEQUENCES)

    log: LogSeen | None = None
    # How the image came, and which ways were of no use for it, each with its reason.
    way: Way | None = None
    passed: dict[Way, Passed] = Field(default_factory=dict, max_length=len(Way))


class StatusAnswer(BaseModel):
    """Whether the report changed anything, and where the update stands."""

    recorded: bool
    state: UpdateState
    retry_after: int


@router.post("/api/updates/status", summary="Report how an update goes", response_model=StatusAnswer)
async def status(request: Request, body: Status) -> Response:
    """Durable when answered, but for progress within a stage: that is written seconds later. A repeat or a
    late report is answered 200 with `recorded` false."""
    context = context_of(request)
    # Strangers are turned away by a read: they never stand in the writer's queue.
    device = await _known(request, context, body.device_id)
    signature = request.headers.get(SIGNATURE, "")
    said = said_by(context, device.token_hash, body, await request.body(), signature)
    return Response(answer_of(context, body, await context.reports.do(said)), media_type="application/json")


def said_by(context: Context, token: str, body: Status, raw: bytes, signature: str) -> Said:
    """What goes to the writer, from whoever has the token of this hash; `Rejected` where a metric's name will
    not do. `raw` is the body as it came, `signature` what stands beside it."""
    check_metrics(body.metrics)
    report = Report(
        deployment=body.deployment,
        state=body.state,
        attempt=body.attempt,
        progress=body.progress,
        reason=body.reason,
        message=_clean(body.error_message or ""),
        image_sha256=body.image_sha256,
        security_floor=body.security_floor,
    )
    seen = (body.log.size, body.log.root) if body.log else None
    given = signature or _bears_health(body) or seen
    proof = Proof(raw, signature, body.sequence, _bears_health(body), seen) if given else None
    return Said(body.device_id, token, report, context.clock(), proof)


def _bears_health(body: Status) -> bool:
    return body.healthy is not None or bool(body.metrics)


def answer_of(context: Context, body: Status, found: Recorded) -> bytes:
    """Once it is durable: what else follows from it, and what the device is told (`StatusAnswer`, JSON)."""
    now = context.clock()
    context.seen(found.device_pk, now)
    if _bears_health(body):
        context.health(found.device_pk, Word(now, body.healthy, body.metrics))
    if found.recorded and found.state in FINAL:  # a failure may have stopped the deployment
        (context.settled if found.state is UpdateState.COMPLETE else context.poke)()
    context.metrics.reported(body.state.value, found.recorded).inc()
    if found.moved and body.state is UpdateState.INSTALLING:
        _count_ways(context, body)
    recorded, again = b"true" if found.recorded else b"false", context.checkin.pace.busy()
    return b'{"recorded":%s,"state":"%s","retry_after":%d}' % (recorded, found.state.encode(), again)


def _count_ways(context: Context, body: Status) -> None:
    if body.way is not None:
        context.tally.note(body.deployment, body.way)
    for way, why in body.passed.items():
        context.tally.note(body.deployment, way, why)


async def _known(request: Request, context: Context, device_id: str) -> Device:
    """The device, if it is the one that asks."""
    if context.poll_in_loop:
        return _read(request, context, device_id)
    return await asyncio.to_thread(_read, request, context, device_id)


def _read(request: Request, context: Context, device_id: str) -> Device:
    with context.database.read() as conn:
        return device_named(conn, request, device_id)


class Health(BaseModel):
    """What a device thinks of itself: its own verdict, and up to eight named numbers."""

    model_config = ConfigDict(extra="forbid")

    healthy: bool | None = None
    metrics: Metrics = Field(default_factory=dict, max_length=MAX_METRICS)
    sequence: int | None = Field(default=None, ge=1, lt=SEQUENCES)


class HealthAnswer(BaseModel):
    retry_after: int


@router.post(
    "/api/devices/{device_id}/health", summary="Report how the device is", response_model=HealthAnswer
)
async def health(request: Request, device_id: Annotated[str, Path(pattern=NAMES)], body: Health) -> Response:
    """Any time, with or without an update; only the latest word counts. Written behind: a crash of the server
    may lose the last seconds of it."""
    context = context_of(request)
    check_metrics(body.metrics)
    now = context.clock()
    proof = Proof(await request.body(), request.headers.get(SIGNATURE, ""), body.sequence)
    if context.poll_in_loop:
        pk, found = _heard(request, context, device_id, proof)
    else:
        pk, found = await asyncio.to_thread(_heard, request, context, device_id, proof)
    context.seen(pk, now)
    if isinstance(found, Rejected):
        refusal = found
        await context.write_async(lambda conn: tell(conn, pk, refusal, {"about": "health"}, now))
        raise refusal
    context.health(pk, Word(now, body.healthy, body.metrics, found))
    return JSONResponse({"retry_after": context.checkin.pace.idle()})


def _heard(
    request: Request, context: Context, device_id: str, proof: Proof
) -> tuple[int, Signed | Rejected | None]:
    with context.database.read() as conn:
        pk = device_named(conn, request, device_id).pk
        return pk, context.proofs.check_health(conn, pk, proof)


def _clean(message: str) -> str:
    """Without what databases and terminals choke on."""
    return message if message.isprintable() else "".join(c if c.isprintable() else " " for c in message)


class Enroll(BaseModel):
    """A device with a claim token; `token` is made by the device and is its own from then on."""

    model_config = ConfigDict(extra="forbid")

    claim: str = Field(min_length=1, max_length=200)
    device_id: str = Field(min_length=1, max_length=64)
    device_type: str = Field(min_length=1, max_length=64)
    token: str = Field(min_length=1, max_length=256)
    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    # A certificate request (PEM) for the device's own key; without one it has a token only.
    csr: str | None = Field(default=None, min_length=1, max_length=identity.MAX_REQUEST)


class Enrolled(BaseModel):
    device_id: str
    device_type: str
    certificate: str | None = None
    issued_at: str | None = None
    expires_at: str | None = None


@router.post("/api/enroll", status_code=201, summary="Enroll with a claim token", response_model=Enrolled)
def enroll(request: Request, body: Annotated[Enroll, Body()]) -> Response:
    """201 for a new device; the same again is 200: an answer that got lost costs nothing."""
    context = context_of(request)
    now = context.clock()

    def deed(conn: Connection) -> tuple[bool, dict[str, Any]]:
        new = enrolling.enroll(
            conn, body.claim, body.device_id, body.device_type, body.token, body.labels, now
        )
        if body.csr is None:
            return new, {}
        device = enrolling.find(conn, body.device_id)
        return new, shown(identity.certify(conn, context.authorities, device, body.csr, "", now))

    new, certificate = context.write(deed)
    told = {"device_id": body.device_id, "device_type": body.device_type, **certificate}
    return JSONResponse(told, status_code=201 if new else 200)


def shown(made: Certificate) -> dict[str, Any]:
    """What the device is told of its certificate."""
    return {
        "certificate": made.pem,
        "issued_at": instant(made.issued_at),
        "expires_at": instant(made.expires_at),
    }
