"""One request of a person: who they are, what they may do, what they sent; and what they see when it fails.

Every form carries a token that only this session's pages know, and a browser that says it comes from another
site is refused before that. Whoever is not signed in, or not any more, is sent to the sign-in and comes back
to where they were, with what they had filled in.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode, urlsplit

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from skylift.api.context import Context, context_of
from skylift.api.dashboard import render
from skylift.api.problems import STATUS, TITLES
from skylift.core.errors import Kind, Rejected, SkyliftError, TrustError, Unavailable, invalid
from skylift.engine import people as deeds
from skylift.engine.access import Role, role_anywhere, role_named, role_on
from skylift.store import deployments, releases
from skylift.store.people import Session, User

LOG = structlog.get_logger("skylift.dashboard")
SESSION, THEME = "skylift_session", "skylift_theme"
MAX_FIELDS = 200
MAX_NEXT = 3000  # characters of an address worth coming back to
_OURS = re.compile(r"/ui/[\x21-\x5b\x5d-\x7e]*", re.ASCII)  # no space, no backslash

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Visit:
    """A request of somebody who is signed in."""

    request: Request
    context: Context
    user: User
    session: Session
    token: str
    role: Role
    now: datetime
    form: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.user.name

    @property
    def body(self) -> bytes:
        """What was sent as bytes; empty where it was a form."""
        found: bytes = getattr(self.request, "_body", b"")
        return found

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    def may(self, role: str, product: str | None = None) -> bool:
        """For templates: which buttons there are."""
        return role_on(self.role, self.user.products, product) >= role_named(role)

    def may_somewhere(self, role: str) -> bool:
        """To any product."""
        return role_anywhere(self.role, self.user.products) >= role_named(role)

    def must(self, role: Role, product: str | None) -> None:
        """`Rejected` unless they may do that to this product."""
        held = role_on(self.role, self.user.products, product)
        if held < role:
            of = f" for {product}" if product else ""
            raise Rejected(
                "role_too_low",
                f"you are {held.name.lower()}{of}: {role.name.lower()} is needed for this",
                kind=Kind.FORBIDDEN,
            )

    def page(self, template: str, status: int = 200, /, **values: Any) -> Response:
        return render.html(template, status, **frame(self.request, self), **values)

    def go(self, path: str, **query: str) -> Response:
        """After a deed: a page of its own, so that a reload repeats nothing."""
        return go(path, **query)


def go(path: str, **query: str) -> Response:
    tail = f"?{urlencode(query)}" if query else ""
    return RedirectResponse(f"{render.PREFIX}{path}{tail}", status_code=303)


def frame(request: Request, visit: Visit | None = None) -> dict[str, Any]:
    """What every page needs."""
    theme = request.cookies.get(THEME, "auto")
    where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return {
        "visit": visit,
        "csrf": csrf_of(visit.token) if visit is not None else "",
        "theme": theme if theme in render.THEMES else "auto",
        "here": where if _OURS.fullmatch(where) else f"{render.PREFIX}/",
        "path": request.url.path,
    }


def csrf_of(token: str) -> str:
    """The forms' token: follows from the session's, tells nothing of it."""
    return hmac.new(token.encode(), b"form", sha256).hexdigest()


# Asks whether this person may do it; raises where not.
Of = Callable[[Visit, Role], None]


# --- endpoints ---------------------------------------------------------------------------------------


def signed(handler: Callable[[Visit], Response], role: Role = Role.VIEWER, of: Of | None = None) -> Endpoint:
    """For people of at least this role. The handler runs in a thread. `of`: to whose product it is done, for
    which some have a higher role than for the rest."""

    async def endpoint(request: Request) -> Response:
        try:
            form = await _form(request)
            return await run_in_threadpool(_serve, request, handler, role, of, form)
        except Exception as e:  # noqa: BLE001 - whatever it is, a person sees a page
            return failed(request, e)

    return endpoint


def anybody(handler: Callable[[Request, FormData], Response]) -> Endpoint:
    """For people who are not signed in: the way in."""

    async def endpoint(request: Request) -> Response:
        try:
            form = await _form(request)
            if request.method == "POST":
                check_origin(request)
            return await run_in_threadpool(handler, request, form)
        except Exception as e:  # noqa: BLE001 - the same
            return failed(request, e)

    return endpoint


async def _form(request: Request) -> FormData:
    kind = request.headers.get("content-type", "").partition(";")[0]
    if request.method == "POST" and kind == "application/octet-stream":
        await request.body()  # bounded by `api.limits`; handlers find it in `Visit.body`
    if request.method != "POST" or kind != "application/x-www-form-urlencoded":
        return FormData()
    form = await request.form(max_fields=MAX_FIELDS)
    for name, value in form.multi_items():
        if "\0" in f"{name}{value}":  # PostgreSQL's text cannot hold it
            raise invalid(name, value, "has no null in it")
    return form


def somewhere(visit: Visit, role: Role) -> None:
    """To anything: what to, the form says, and the handler asks."""
    if not visit.may_somewhere(role.name):
        visit.must(role, None)


def on_deployment(visit: Visit, role: Role) -> None:
    with visit.context.database.read() as conn:
        row = deployments.find(conn, visit.request.path_params["deployment"][:60])
    visit.must(role, row.product if row is not None else None)


def on_release(visit: Visit, role: Role) -> None:
    with visit.context.database.read() as conn:
        row = releases.find(conn, visit.request.path_params["release"][:60])
    visit.must(role, row.product if row is not None else None)


def _serve(
    request: Request, handler: Callable[[Visit], Response], role: Role, of: Of | None, form: FormData
) -> Response:
    if request.method not in ("GET", "HEAD"):
        check_origin(request)
    visit = visit_of(request, form)
    if visit is None:
        return _to_sign_in(request, form)
    if request.method not in ("GET", "HEAD"):
        check_csrf(visit)
    if of is not None:
        of(visit, role)
    else:
        visit.must(role, None)
    return handler(visit)


def visit_of(request: Request, form: FormData | None = None) -> Visit | None:
    """Who asks, or None. Notes, once a minute, that they were here."""
    context = context_of(request)
    token = request.cookies.get(SESSION, "")
    if not token:
        return None
    now = context.clock()
    with context.database.read() as conn:
        found = deeds.signed_in(conn, token, now)
    if found is None:
        return None
    session, user = found
    if now - session.seen_at >= deeds.TOUCH_EVERY:
        context.database.submit(lambda conn: deeds.touch(conn, session, now))
    items = [(name, value) for name, value in (form or FormData()).multi_items() if isinstance(value, str)]
    lists: dict[str, list[str]] = {}
    for name, value in items:
        lists.setdefault(name, []).append(value)
    return Visit(request, context, user, session, token, role_named(user.role), now, dict(items), lists)


def check_origin(request: Request) -> None:
    """A browser that says the form came from elsewhere is believed."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if site not in ("same-origin", "none") or foreign:
        raise Rejected(
            "foreign_form", "the form came from another site: nothing was changed", kind=Kind.FORBIDDEN
        )


def check_csrf(visit: Visit) -> None:
    given = visit.request.headers.get("x-csrf") or visit.form.get("csrf", "")
    if not hmac.compare_digest(given.encode(), csrf_of(visit.token).encode()):
        raise Rejected(
            "stale_form",
            "the form is not of this session: nothing was changed; load the page again",
            kind=Kind.FORBIDDEN,
        )


# --- the way in --------------------------------------------------------------------------------------


def _to_sign_in(request: Request, form: FormData) -> Response:
    """To the sign-in, and back. A form's values travel along where its page can show them again."""
    if request.headers.get("accept", "").startswith(("application/json", "text/event-stream")):
        return JSONResponse({"detail": "sign in again", "code": "signed_out"}, status_code=401)
    back = request.url.path
    ended = {"ended": "1"} if request.cookies.get(SESSION) else {}
    if request.method == "GET":
        back += f"?{request.url.query}" if request.url.query else ""
    else:
        back = str(form.get("back") or f"{render.PREFIX}/")
        kept = [(n, v) for n, v in form.multi_items() if n not in ("csrf", "back") and isinstance(v, str)]
        if form.get("keep"):
            back = f"{back}?{urlencode(kept)}"
    return go("/sign-in", next=back if is_ours(back) else f"{render.PREFIX}/", **ended)


def is_ours(path: str) -> bool:
    """A page of the dashboard: never another site, whatever the link said."""
    return len(path) <= MAX_NEXT and _OURS.fullmatch(path) is not None


def is_tls(request: Request) -> bool:
    """Whether the browser speaks TLS, to us or to the proxy in front. Whoever lies about it hurts nobody:
    a cookie that does not travel, an address that does not answer."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))


def server_of(request: Request) -> str:
    """The server's address as this browser reaches it; for lines to copy."""
    return f"{'https' if is_tls(request) else 'http'}://{request.url.netloc}"


# --- when it fails -----------------------------------------------------------------------------------


def failed(request: Request, error: Exception) -> Response:
    """The page for an error; JSON for the page's own script. Our own bugs are logged and say nothing."""
    status, title, sentence = _said(request, error)
    headers = {"Retry-After": str(round(error.retry_after))} if isinstance(error, Unavailable) else {}
    if request.headers.get("accept", "").startswith("application/json"):
        code = error.code if isinstance(error, SkyliftError) else "internal_error"
        return JSONResponse({"detail": sentence, "code": code}, status_code=status, headers=headers)
    page = render.html("failed.html", status, title=title, sentence=sentence, **frame(request))
    page.headers.update(headers)
    return page


def _said(request: Request, error: Exception) -> tuple[int, str, str]:
    match error:
        case Rejected():
            status = STATUS[error.kind]
            return status, TITLES.get(status, "Error"), str(error)
        case TrustError():
            return 409, "Not trusted", str(error)
        case Unavailable():
            LOG.warning("unavailable", error=str(error))
            return 503, "Unavailable", "The server cannot do this right now; try again in a moment."
        case _:
            LOG.error("bug", path=request.url.path, exc_info=error)
            return 500, "Internal error", "Something inside went wrong; it has been logged."
