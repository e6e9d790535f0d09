"""Server-sent events of one deployment: durable, numbered, resumable by Last-Event-ID."""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import StreamingResponse

from skylift.api import views
from skylift.api.auth import Viewer
from skylift.api.context import Context, context_of
from skylift.api.deployments import DeploymentId
from skylift.core.errors import Unavailable
from skylift.core.lifecycle import ENDED
from skylift.engine.verbs import unknown
from skylift.store import deployments, events

router = APIRouter(tags=["deployments"])
FRAME_S = 0.5  # at most two frames a second; a frame holds everything that is new
HEARTBEAT_S = 15.0  # keeps proxies from closing the line
BATCH = 1000  # events in a frame: about 200 KB


@router.get(
    "/api/deployments/{deployment_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
def stream(request: Request, deployment_id: DeploymentId, who: Viewer) -> StreamingResponse:
    """Everything that happened and happens to it, until it has ended and all is told."""
    context = context_of(request)
    with context.database.read() as conn:
        if deployments.find(conn, deployment_id) is None:
            raise unknown(deployment_id)
    told = request.headers.get("last-event-id", "")
    after = int(told) if told.isdecimal() and len(told) < 19 else 0
    return StreamingResponse(
        _frames(request, context, deployment_id, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _frames(request: Request, context: Context, deployment_id: str, after: int) -> AsyncIterator[str]:
    quiet = 0.0
    yield "retry: 2000\n\n"
    while not await request.is_disconnected():
        try:
            after, frame, over = await asyncio.to_thread(_next, context, deployment_id, after)
        except Unavailable:  # an outage of the database: the stream goes on behind it
            frame, over = "", False
        if frame:
            quiet = 0.0
            yield frame
        elif over:
            return
        else:
            quiet += FRAME_S
        if quiet >= HEARTBEAT_S:
            quiet = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(FRAME_S)


def _next(context: Context, deployment_id: str, after: int) -> tuple[int, str, bool]:
    """What is new behind number `after` as one frame, the number it ends with, and whether the deployment
    has ended."""
    with context.database.read() as conn:
        row = deployments.find(conn, deployment_id)
        rows = events.of_deployment(conn, deployment_id, after=after, limit=BATCH)
    frame = "".join(
        f"id: {one.pk}\nevent: {one.kind}\ndata: {json.dumps(views.event(one))}\n\n" for one in rows
    )
    return rows[-1].pk if rows else after, frame, row is None or row.status in ENDED
