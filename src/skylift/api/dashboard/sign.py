"""The way in and out: sign-in, the first admin, one's own account, the theme."""

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from skylift.api.context import context_of
from skylift.api.dashboard import render
from skylift.api.dashboard.visit import (
    SESSION,
    THEME,
    Visit,
    frame,
    go,
    is_ours,
    is_tls,
    server_of,
    visit_of,
)
from skylift.api.problems import STATUS
from skylift.core.errors import Kind, Rejected, invalid
from skylift.engine import entrances, passkeys
from skylift.engine import people as deeds
from skylift.engine.entrances import Browser
from skylift.store import passkeys as keys
from skylift.store import people

OIDC = "skylift_oidc"

DONE = {
    "password": "The new password counts; every other session has ended.",
    "code-on": "From now on a sign-in needs a code from your app.",
    "code-off": "The second factor is off.",
    "out": "Every other session has ended.",
    "key-on": "From now on a sign-in needs your passkey, or a code.",
    "key-off": "That passkey counts no more.",
}


def _next(request: Request, form: FormData) -> str:
    asked = str(form.get("next") or request.query_params.get("next") or "")
    return asked if is_ours(asked) else f"{render.PREFIX}/"


def sign_in_page(request: Request, form: FormData) -> Response:
    if visit_of(request) is not None:
        return RedirectResponse(_next(request, form), status_code=303)
    with context_of(request).database.read() as conn:
        if not people.everybody(conn):
            return go("/welcome")
    ended = request.query_params.get("ended") == "1"
    return _sign_in(request, form, "", 200, ended)


def _sign_in(request: Request, form: FormData, wrong: str, status: int, ended: bool = False) -> Response:
    values = {
        "wrong": wrong,
        "ended": ended,
        "next": _next(request, form),
        "name": str(form.get("name", ""))[:64],
        "elsewhere": oidc.provider.title if (oidc := context_of(request).oidc) is not None else "",
    }
    return render.html("sign-in.html", status, **frame(request), **values)


def sign_in(request: Request, form: FormData) -> Response:
    """A new session under a new secret, whatever the browser brought."""
    context = context_of(request)
    name, password, code = (str(form.get(field, "")) for field in ("name", "password", "code"))
    origin = server_of(request)
    try:
        token, _ = deeds.sign_in(
            context.database,
            context.seal,
            name,
            password,
            code,
            context.clock(),
            agent=request.headers.get("user-agent", ""),
            instead_of=request.cookies.get(SESSION, ""),
        )
    except Rejected as e:
        return _sign_in(request, form, str(e), STATUS[e.kind])
    except deeds.KeyNeeded as e:
        user = e.user
        asked = context.database.write(
            lambda conn: passkeys.ask(conn, context.seal, user, origin, context.clock())
        )
        values = {"asked": asked, "next": _next(request, form)}
        return render.html("sign-in-key.html", 200, **frame(request), **values)
    return _come_in(request, token, _next(request, form))


def _come_in(request: Request, token: str, path: str) -> Response:
    answer = RedirectResponse(path, status_code=303)
    _set(request, answer, token)
    return answer


def _browser(request: Request) -> Browser:
    return Browser(request.headers.get("user-agent", ""), request.cookies.get(SESSION, ""))


def sign_in_with_key(request: Request, form: FormData) -> Response:
    """The second step, where a passkey is the second factor."""
    context = context_of(request)
    half, answer = str(form.get("half", "")), str(form.get("answer", ""))
    try:
        token, _ = entrances.with_key(
            context.database,
            context.seal,
            half,
            answer,
            server_of(request),
            _browser(request),
            context.clock(),
        )
    except Rejected as e:
        return _sign_in(request, form, str(e), STATUS[e.kind])
    return _come_in(request, token, _next(request, form))


# --- signing in elsewhere ------------------------------------------------------------------------------


def leave_for_oidc(request: Request, form: FormData) -> Response:
    """To the provider; the way back is in a cookie that only `/ui/oidc` is sent."""
    context = context_of(request)
    if context.oidc is None:
        raise Rejected("not_found", "There is no such page.", kind=Kind.NOT_FOUND)
    address, kept = context.oidc.begin(_next(request, form), context.clock())
    answer = RedirectResponse(address, status_code=303)
    answer.set_cookie(
        OIDC,
        kept,
        max_age=600,
        path=f"{render.PREFIX}/oidc",
        secure=is_tls(request),
        httponly=True,
        samesite="lax",
    )
    return answer


def back_from_oidc(request: Request, form: FormData) -> Response:
    context = context_of(request)
    if context.oidc is None:
        raise Rejected("not_found", "There is no such page.", kind=Kind.NOT_FOUND)
    try:
        person, back = context.oidc.end(request.cookies.get(OIDC, ""), request.query_params, context.clock())
        browser = _browser(request)
        token, _ = entrances.from_elsewhere(context.database, person, browser, context.clock())
    except Rejected as e:
        return _sign_in(request, form, str(e), STATUS[e.kind])
    answer = _come_in(request, token, back if is_ours(back) else f"{render.PREFIX}/")
    answer.delete_cookie(OIDC, path=f"{render.PREFIX}/oidc")
    return answer


def _set(request: Request, answer: Response, token: str) -> None:
    """No script reads it, no other site's form brings it; over TLS it never travels without."""
    age, secure = int(deeds.WEEK.total_seconds()), is_tls(request)
    answer.set_cookie(
        SESSION, token, max_age=age, path=render.PREFIX, secure=secure, httponly=True, samesite="lax"
    )


def sign_out(visit: Visit) -> Response:
    visit.context.database.write(lambda conn: deeds.sign_out(conn, visit.token, visit.user, visit.now))
    answer = go("/sign-in")
    answer.delete_cookie(SESSION, path=render.PREFIX)
    return answer


# --- the first admin ---------------------------------------------------------------------------------


def welcome_page(request: Request, form: FormData) -> Response:
    with context_of(request).database.read() as conn:
        if people.everybody(conn):
            return go("/sign-in")
    return render.html("welcome.html", 200, wrong="", name="", **frame(request))


def welcome(request: Request, form: FormData) -> Response:
    """The first person comes in with the token that the first start wrote, and stays as an admin."""
    context = context_of(request)
    token, name, password, again = (str(form.get(f, "")) for f in ("token", "name", "password", "again"))
    try:
        if password != again:
            raise invalid("password", "two passwords", "must be the same twice")
        deeds.first_admin(context.database, token.strip(), name, password, context.clock())
    except Rejected as e:
        return render.html("welcome.html", STATUS[e.kind], wrong=str(e), name=name[:64], **frame(request))
    return sign_in(request, form)


# --- one's own account -------------------------------------------------------------------------------


def account(visit: Visit, wrong: str = "", status: int = 200) -> Response:
    with visit.context.database.read() as conn:
        user = deeds.find(conn, visit.user.id)
        sessions, held = people.sessions_of(conn, user.id), keys.of_user(conn, user.id)
    offered = deeds.offered_code(visit.context.seal, user)
    done = DONE.get(visit.query.get("done", ""), "")
    return visit.page(
        "account.html",
        status,
        user=user,
        sessions=sessions,
        passkeys=held,
        offered=offered,
        wrong=wrong,
        done=done,
        now=visit.now,
    )


def change_account(visit: Visit) -> Response:
    """One's password, second factor, other sessions. The password is asked for where a browser that was left
    open must not be enough."""
    try:
        return go("/account", done=_change(visit))
    except Rejected as e:
        return account(visit, str(e), STATUS[e.kind])


def _change(visit: Visit) -> str:
    user, form, write, now = visit.user, visit.form, visit.context.database.write, visit.now
    match form.get("what"):
        case "password":
            deeds.check_password(user, form.get("old", ""))
            if form.get("password") != form.get("again"):
                raise invalid("password", "two passwords", "must be the same twice")
            hashed = deeds.hash_password(form.get("password", ""))
            write(lambda conn: deeds.set_password(conn, user.id, hashed, user.name, now, keep=visit.token))
            return "password"
        case "offer-code":
            write(lambda conn: deeds.offer_code(conn, visit.context.seal, deeds.find(conn, user.id)))
            return "offered"
        case "prove-code":
            code, seal = form.get("code", ""), visit.context.seal
            write(lambda conn: deeds.prove_code(conn, seal, user.id, code, now))
            return "code-on"
        case "drop-code":
            deeds.check_password(user, form.get("old", ""))
            write(lambda conn: deeds.drop_code(conn, user.id, now))
            return "code-off"
        case "keep-passkey":
            seal, origin = visit.context.seal, server_of(visit.request)
            half, answer, name = (form.get(field, "") for field in ("half", "answer", "name"))
            write(lambda conn: passkeys.keep(conn, seal, user, half, answer, name, origin, now))
            return "key-on"
        case "drop-passkey":
            deeds.check_password(user, form.get("old", ""))
            write(lambda conn: passkeys.drop(conn, user, form.get("key", ""), now))
            return "key-off"
        case "sign-out-elsewhere":
            write(lambda conn: deeds.sign_out_elsewhere(conn, visit.token, user, now))
            return "out"
        case what:
            raise invalid("what", what, "is no change of an account")


def offer_passkey(visit: Visit) -> Response:
    """What the page's script needs to have the browser make a key. With the password: a browser that was left
    open must not be enough."""
    deeds.check_password(visit.user, visit.form.get("old", ""))
    context, origin = visit.context, server_of(visit.request)
    return JSONResponse(
        context.database.write(lambda conn: passkeys.offer(conn, context.seal, visit.user, origin, visit.now))
    )


def set_theme(request: Request, form: FormData) -> Response:
    """Light, dark, or as the system has it; a cookie, for a year."""
    theme, back = str(form.get("theme", "")), str(form.get("back", ""))
    if theme not in render.THEMES:
        raise invalid("theme", theme[:20], f"one of {', '.join(render.THEMES)}")
    answer = RedirectResponse(back if is_ours(back) else f"{render.PREFIX}/", status_code=303)
    answer.set_cookie(THEME, theme, max_age=31_536_000, path=render.PREFIX, httponly=True, samesite="lax")
    return answer
