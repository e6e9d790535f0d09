"""The live page of a deployment: drawn once, sent to everybody who watches.

Two times a second, at most, one task per watched deployment asks whether anything changed (two indexed
reads); if so it draws the page's parts once, and every viewer is sent those that are different from before.
Who begins, or fell behind, is sent all of them as they are now: a browser that slept for an hour is up to
date with its first frame, and who just changed something is never shown what was before (the first frame
waits for a look that began after the viewer came). Nothing is drawn where nobody watches.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from skylift.api import views
from skylift.api.context import Context, context_of
from skylift.api.dashboard import draw, render
from skylift.api.dashboard.visit import visit_of
from skylift.core.errors import SkyliftError, Unavailable
from skylift.core.lifecycle import ENDED, PausedBy
from skylift.store import deployments, looks
from skylift.store.db import Connection

LOG = structlog.get_logger("skylift.dashboard")
PARTS = ("status", "cards", "waits", "phases", "failures", "chart", "common")
FRAME_S = 0.5  # at most two frames a second
HEARTBEAT_S = 15.0  # keeps proxies from closing the line
CHECK_S = 60.0  # a stream does not outlive its session by more
CHART_COST = 20  # the chart is drawn anew at most in one of so many parts of the time
LINGER_S = 5.0  # a watched deployment is kept so long behind its last viewer: pages are reloaded


def look(conn: Connection, deployment_id: str) -> dict[str, Any] | None:
    """The deployment as its page shows it, or None."""
    row = deployments.find(conn, deployment_id)
    return None if row is None else views.deployment(conn, row)


def course(conn: Connection, seen: Mapping[str, Any], now: datetime) -> draw.Progress | None:
    """Its progress from its start until now, or its end."""
    if seen["started_at"] is None:
        return None
    began = datetime.fromisoformat(seen["started_at"])
    until = datetime.fromisoformat(seen["finished_at"]) if seen["finished_at"] else now
    span = max(timedelta(seconds=1), until - began).total_seconds()
    slot = draw.slots_for(span)
    ended = looks.endings(conn, seen["id"], began, slot)
    complete, failed, done, bad = [0], [0], 0, 0
    for number in range(int(span // slot) + 1):
        done += ended.get((number, False), 0)
        bad += ended.get((number, True), 0)
        complete.append(done)
        failed.append(bad)
    return draw.Progress(slot, complete, failed)


def state_of(seen: Mapping[str, Any]) -> str:
    """Its status, as far as what can be done about it depends on that."""
    return "approval" if seen["paused_by"] == PausedBy.APPROVAL else str(seen["status"])


def parts(seen: Mapping[str, Any], chart: draw.Progress | None) -> dict[str, str]:
    """The parts of the page that change, by name."""
    return {name: render.text(f"live/{name}.html", d=seen, chart=chart).strip() for name in PARTS}


@dataclass(frozen=True, slots=True)
class _Frame:
    """Number, what changed since the one before, and everything; as they are sent."""

    number: int
    changed: bytes
    whole: bytes


def _event(number: int, status: str, told: Mapping[str, str]) -> bytes:
    body = json.dumps({"status": status, "parts": told}, separators=(",", ":"))
    return f"id: {number}\ndata: {body}\n\n".encode()


@dataclass
class _Topic:
    """One watched deployment."""

    deployment: str
    viewers: int = 0
    frame: _Frame | None = None
    over: bool = False  # ended, deleted, or nobody watches: no more frames come
    turn: "asyncio.Future[None] | None" = None  # resolved when there is another frame
    mark: tuple[int, int] | None = None
    drawn: dict[str, str] = field(default_factory=dict)
    chart: draw.Progress | None = None
    chart_due: float = 0.0
    task: "asyncio.Task[None] | None" = None
    arrived: "list[asyncio.Future[None]]" = field(default_factory=list)  # each done behind the next look


class Hub:
    """Every watched deployment of this server; lives in its event loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._topics: dict[str, _Topic] = {}

    def enter(self, deployment: str) -> "tuple[_Topic, asyncio.Future[None]]":
        """The topic, and what is done once it was looked at behind this moment."""
        topic = self._topics.get(deployment)
        if topic is None or topic.over:
            topic = self._topics[deployment] = _Topic(deployment)
            topic.turn = asyncio.get_running_loop().create_future()
            topic.task = asyncio.create_task(self._watch(topic))
        topic.viewers += 1
        looked = asyncio.get_running_loop().create_future()
        topic.arrived.append(looked)
        return topic, looked

    def leave(self, topic: _Topic) -> None:
        topic.viewers -= 1

    async def _watch(self, topic: _Topic) -> None:
        alone = 0.0
        try:
            while not topic.over and alone < LINGER_S:
                arrived = len(topic.arrived)
                await self._step(topic)
                _done(topic.arrived[:arrived])
                del topic.arrived[:arrived]
                await asyncio.sleep(FRAME_S)
                alone = 0.0 if topic.viewers else alone + FRAME_S
        finally:
            topic.over = True
            if self._topics.get(topic.deployment) is topic:
                del self._topics[topic.deployment]
            _done(topic.arrived)
            _tell(topic)

    async def _step(self, topic: _Topic) -> None:
        try:
            found = await run_in_threadpool(self._draw, topic)
        except Unavailable:  # an outage of the database: it goes on behind it
            return
        except Exception as e:  # a bug in a picture must not end the stream for everybody
            LOG.error("live page", deployment=topic.deployment, exc_info=e)
            return
        if found is None:
            return
        status, drawn = found
        changed = {name: html for name, html in drawn.items() if topic.drawn.get(name) != html}
        if changed:
            number = topic.frame.number + 1 if topic.frame else 1
            topic.frame = _Frame(number, _event(number, status, changed), _event(number, status, drawn))
            topic.drawn = drawn
            _tell(topic)
        topic.over = status in ENDED or status == "gone"
        if topic.over:
            _tell(topic)

    def _draw(self, topic: _Topic) -> tuple[str, dict[str, str]] | None:
        """In a thread: the parts, if anything changed."""
        now, clock = self._context.clock(), perf_counter()
        with self._context.database.read() as conn:
            mark = looks.mark(conn, topic.deployment)
            if mark is None:
                return "gone", topic.drawn
            if mark == topic.mark and not (topic.chart_due and clock >= topic.chart_due):
                return None
            seen = look(conn, topic.deployment)
            if seen is None:
                return "gone", topic.drawn
            if clock >= topic.chart_due or seen["status"] in ENDED:
                topic.chart = course(conn, seen, now)
                cost = perf_counter() - clock
                # Due again even where nothing changes: the line goes on to "now".
                topic.chart_due = perf_counter() + max(4 * FRAME_S, CHART_COST * cost)
        topic.mark = mark
        return state_of(seen), parts(seen, topic.chart)


def _done(futures: "list[asyncio.Future[None]]") -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _tell(topic: _Topic) -> None:
    turn, topic.turn = topic.turn, asyncio.get_running_loop().create_future()
    _done([turn] if turn else [])


class Stream(Response):
    """One viewer's line: bare ASGI, a send per frame."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, request: Request, deployment: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hub, self._request, self._deployment = hub, request, deployment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"retry: 2000\n\n", "more_body": True})
        gone = asyncio.ensure_future(_gone(receive))
        topic, looked = self._hub.enter(self._deployment)
        try:
            await asyncio.wait({looked, gone}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            await self._follow(topic, gone, send)
        finally:
            self._hub.leave(topic)
            gone.cancel()
        await send({"type": "http.response.body", "body": b"event: over\ndata: {}\n\n"})

    async def _follow(self, topic: _Topic, gone: "asyncio.Future[None]", send: Send) -> None:
        loop = asyncio.get_running_loop()
        had, checked, quiet = 0, loop.time(), loop.time()
        while not gone.done():
            frame, turn = topic.frame, topic.turn
            if frame is not None and frame.number != had:
                body = frame.changed if had and frame.number == had + 1 else frame.whole
                await send({"type": "http.response.body", "body": body, "more_body": True})
                had, quiet = frame.number, loop.time()
                continue
            if topic.over or turn is None:
                return
            await asyncio.wait({turn, gone}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if loop.time() - quiet >= HEARTBEAT_S:
                await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
                quiet = loop.time()
            if loop.time() - checked >= CHECK_S:
                checked = loop.time()
                if await run_in_threadpool(_still_signed_in, self._request) is False:
                    return


def _still_signed_in(request: Request) -> bool:
    try:
        return visit_of(request) is not None
    except SkyliftError:  # an outage ends nobody's session
        return True


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def stream(request: Request) -> Response:
    """`GET /ui/deployments/{id}/live`: 401 tells the page's script that the session is over."""
    if await run_in_threadpool(visit_of, request) is None:
        return JSONResponse({"code": "signed_out", "detail": "sign in again"}, status_code=401)
    hub: Hub = request.app.state.hub
    found = await run_in_threadpool(_exists, context_of(request), request.path_params["deployment"])
    if not found:
        return JSONResponse(
            {"code": "unknown_deployment", "detail": "there is no such deployment"}, status_code=404
        )
    return Stream(hub, request, request.path_params["deployment"])


def _exists(context: Context, deployment: str) -> bool:
    with context.database.read() as conn:
        return deployments.find(conn, deployment) is not None
