"""The dashboard as an application of its own under `/ui`: its addresses, and what every answer carries."""

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skylift.api.context import Context
from skylift.api.dashboard import (
    audit,
    channels,
    deployments,
    devices,
    groups,
    live,
    overview,
    releases,
    render,
    settings,
    sign,
    uploads,
    wizard,
)
from skylift.api.dashboard.visit import anybody, failed, on_deployment, on_release, signed, somewhere
from skylift.core.errors import Kind, Rejected
from skylift.engine.access import Role

# Nothing from elsewhere, nothing inline, nobody around it. Pictures are part of the page.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


async def static(request: Request) -> Response:
    try:
        return render.static_file(request.path_params["digest"], request.path_params["name"])
    except Exception as e:  # noqa: BLE001 - a page says it
        return failed(request, e)


OPERATOR, ADMIN = Role.OPERATOR, Role.ADMIN
DEP, REL = "/deployments/{deployment}", "/releases/{release}"
ROUTES = [
    Route("/", signed(overview.page)),
    Route("/sample", signed(overview.sample_fleet, OPERATOR), methods=["POST"]),
    Route("/static/{digest}/{name}", static),
    Route("/sign-in", anybody(sign.sign_in_page)),
    Route("/sign-in", anybody(sign.sign_in), methods=["POST"]),
    Route("/sign-in/passkey", anybody(sign.sign_in_with_key), methods=["POST"]),
    Route("/oidc", anybody(sign.leave_for_oidc)),
    Route("/oidc/back", anybody(sign.back_from_oidc)),
    Route("/sign-out", signed(sign.sign_out), methods=["POST"]),
    Route("/welcome", anybody(sign.welcome_page)),
    Route("/welcome", anybody(sign.welcome), methods=["POST"]),
    Route("/theme", anybody(sign.set_theme), methods=["POST"]),
    Route("/account", signed(sign.account)),
    Route("/account", signed(sign.change_account), methods=["POST"]),
    Route("/account/passkey", signed(sign.offer_passkey), methods=["POST"]),
    Route("/releases", signed(releases.page)),
    Route("/releases", signed(releases.create, OPERATOR, somewhere), methods=["POST"]),
    Route("/releases/new", signed(releases.new, OPERATOR, somewhere)),
    Route("/releases/from-image", uploads.from_image, methods=["POST"]),
    Route(REL, signed(releases.show)),
    Route(f"{REL}/seal", signed(releases.seal, OPERATOR, on_release), methods=["POST"]),
    Route(f"{REL}/images", uploads.whole, methods=["POST"]),
    Route("/uploads", signed(uploads.begin, OPERATOR, somewhere), methods=["POST"]),
    Route("/uploads/{upload}", signed(uploads.piece, OPERATOR, somewhere), methods=["POST"]),
    Route("/uploads/{upload}/end", signed(uploads.end, OPERATOR, somewhere), methods=["POST"]),
    Route("/deployments", signed(deployments.page)),
    Route("/deployments/new", signed(wizard.page, OPERATOR, somewhere)),
    Route("/deployments/new", signed(wizard.create, OPERATOR, somewhere), methods=["POST"]),
    Route("/deployments/count", signed(wizard.count, OPERATOR, somewhere)),
    Route(DEP, signed(deployments.show)),
    Route(f"{DEP}/live", live.stream),
    Route(f"{DEP}/why", signed(deployments.why)),
    Route(f"{DEP}/devices", signed(deployments.devices)),
    Route(f"{DEP}/{{verb}}", signed(deployments.act, OPERATOR, on_deployment), methods=["POST"]),
    Route("/devices", signed(devices.page)),
    Route("/devices", signed(devices.columns), methods=["POST"]),
    Route("/devices.csv", signed(devices.export)),
    Route("/devices/complete", signed(devices.complete)),
    Route("/devices/enroll", signed(devices.enroll_page, OPERATOR)),
    Route("/devices/enroll", signed(devices.enroll, OPERATOR), methods=["POST"]),
    Route("/devices/{device}", signed(devices.show)),
    Route("/devices/{device}", signed(devices.change, OPERATOR), methods=["POST"]),
    Route("/groups", signed(groups.page)),
    Route("/groups", signed(groups.change, OPERATOR), methods=["POST"]),
    Route("/groups/{group}", signed(groups.show)),
    Route("/groups/{group}", signed(groups.change_one, OPERATOR), methods=["POST"]),
    Route("/trust", signed(overview.trust)),
    Route("/audit", signed(audit.page)),
    Route("/audit/{form}", signed(audit.export)),
    Route("/settings", signed(settings.page, ADMIN)),
    Route("/settings", signed(settings.change, ADMIN), methods=["POST"]),
    Route("/settings/channels", signed(channels.page, ADMIN)),
    Route("/settings/channels", signed(channels.change, ADMIN), methods=["POST"]),
]


class Headers:
    """ASGI: what every answer carries, whatever it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        await self._app(scope, receive, with_headers)


async def _on_http(request: Request, error: Exception) -> Response:
    if getattr(error, "status_code", 0) == 405:
        return Response("this address takes another method\n", 405, media_type="text/plain")
    gone = Rejected("not_found", "There is no such page.", kind=Kind.NOT_FOUND)
    return await run_in_threadpool(failed, request, gone)


def dashboard(context: Context) -> ASGIApp:
    """The application, to be mounted at `/ui`."""
    app = Starlette(routes=ROUTES, exception_handlers={404: _on_http, 405: _on_http})
    app.state.context = context
    app.state.hub = live.Hub(context)
    return Headers(app)
