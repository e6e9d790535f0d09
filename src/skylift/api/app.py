"""The ASGI application: routes, limits, problems, OpenAPI. Everything it needs comes in as a `Context`."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from skylift import __version__
from skylift.api import (
    artifacts,
    channels,
    deployments,
    device,
    devices,
    events,
    fleet,
    groups,
    identity,
    log,
    people,
    releases,
    trust,
)
from skylift.api.auth import needs
from skylift.api.context import Context, context_of
from skylift.api.dashboard.app import dashboard
from skylift.api.limits import Limits
from skylift.api.openapi import by_hand, complete
from skylift.api.problems import HANDLERS
from skylift.engine.access import Role

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


async def healthz(request: Request) -> Response:
    """The process lives."""
    return JSONResponse({"status": "ok"})


def readyz(request: Request) -> Response:
    """The database answers."""
    context_of(request).database.ping()
    return JSONResponse({"status": "ok"})


def metrics(request: Request) -> Response:
    """Prometheus; for viewers unless settings make it public."""
    context = context_of(request)
    if not context.metrics_public:
        needs(Role.VIEWER)(request)
    return Response(context.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def home(request: Request) -> Response:
    """People who type the server's name mean the dashboard."""
    return RedirectResponse("/ui/", status_code=303)


PLAIN = [
    Route("/", home),
    Route("/ui", home),
    Route("/api/updates/check", device.check),
    Route("/api/artifacts", artifacts.upload, methods=["POST"]),
    Route("/api/blobs/{sha256}", artifacts.blob, methods=["GET", "HEAD"]),
    Route("/image/{filename}", trust.image_file),
    Route("/director/{device_id}/{filename}", trust.director_file),
    Route("/healthz", healthz),
    Route("/readyz", readyz),
    Route("/metrics", metrics),
]


def build(context: Context, lifespan: Lifespan | None = None) -> ASGIApp:
    """The application for this context."""
    app = FastAPI(
        title="Skylift",
        version=__version__,
        summary="Updates fleets of devices over the air.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        exception_handlers=HANDLERS,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.context = context
    app.router.routes.extend(PLAIN)
    for part in (
        device,
        events,
        deployments,
        devices,
        fleet,
        identity,
        log,
        groups,
        people,
        channels,
        releases,
        artifacts,
        trust,
    ):
        app.include_router(part.router)
    app.mount("/ui", dashboard(context))

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            made["paths"] |= by_hand()
            app.openapi_schema = complete(made)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the schema
    return Limits(app, context.max_body, context.metrics)
