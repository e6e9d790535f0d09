"""Tables of requests and what must become of them: run on paper, or against a gateway that runs.

    tests:
      - name: users without a token
        request: GET /api/users
        expect: {status: 401, body: Unauthorized}
      - request: GET /api/users/7 -H 'apikey: k1'
        repeat: 3
        expect: {route: user-route, service: user-service, path: /7, headers: {X-Consumer-Username: ada}}

`expect` may say `status` (the gateway's own, or 200 where the backend would be reached), `route`, `service`,
`path`, `host`, `method`, `query`, `headers` (what the backend sees), `answer` (headers the client gets),
`body` (a part of the gateway's own answer), `why` (a part of the reason). With `repeat` the last of so many
counts. Against a running gateway only what a client sees can be looked at: `status`, `answer`, `body`.
"""

import http.client
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from skylift.core.errors import Rejected, Unavailable
from skylift.gateway.decision import NO_COUNTERS, Decision, World
from skylift.gateway.loading import Document
from skylift.gateway.match import decide
from skylift.gateway.model import Gateway, Origin
from skylift.gateway.reading import Fields, Problems
from skylift.gateway.request import Request, parse

MAX_REPEAT = 100_000
TIMEOUT = 10.0
_ON_PAPER = ("route", "service", "path", "host", "method", "query", "headers", "why")


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be so; what is None or empty is not looked at. `route` "" means: none."""

    status: int | None = None
    route: str | None = None
    service: str | None = None
    path: str | None = None
    host: str | None = None
    method: str | None = None
    query: str | None = None
    headers: tuple[tuple[str, str | None], ...] = ()  # None: must be absent
    answer: tuple[tuple[str, str | None], ...] = ()
    body: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    request: Request
    expected: Expected
    repeat: int
    listener: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Result:
    """`failures`: one sentence each; none is a pass. `skipped`: what could not be looked at from outside."""

    case: Case
    failures: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def read_cases(documents: Iterable[Document]) -> list[Case]:
    """Every case of the files; `Refused` with every mistake."""
    problems = Problems()
    found: list[Case] = []
    for document in documents:
        at = Fields.of(document, problems)
        entries = at.tables("tests")
        if not entries:
            at.wrong("tests", None, "it must be a list with at least one test", "missing_field")
        found += [case for entry in entries if (case := _case(entry, len(found)))]
        at.done()
    problems.check()
    return found


def _case(at: Fields, number: int) -> Case | None:
    line, client = at.text("request", required=True), at.text("client", "192.0.2.1")
    name = at.text("name") or line
    repeat = at.whole("repeat", 1, low=1, high=MAX_REPEAT)
    expected = _expected(at.must_table("expect"))
    listener = at.text("listener")
    at.done()
    try:
        request = parse(line, client) if line else None
    except Rejected as e:
        at.wrong("request", line, str(e))
        request = None
    return Case(name, request, expected, repeat, listener, at.origin) if request else None


def _expected(at: Fields) -> Expected:
    texts = {
        name: at.block(name) if at.has(name) else None
        for name in ("route", "service", "path", "host", "method", "query", "body", "why")
    }
    status = at.whole("status", 0, high=599)
    made = Expected(status or None, headers=_headers(at, "headers"), answer=_headers(at, "answer"), **texts)
    at.done()
    if made == Expected():
        at.wrong("", None, "it must say what is expected", "missing_field")
    return made


def _headers(at: Fields, name: str) -> tuple[tuple[str, str | None], ...]:
    table = at.table(name)
    if table is None:
        return ()
    return tuple((key, table.text(key) if table.has(key) else None) for key in table.value)


# --- on paper ------------------------------------------------------------------------------------------


def run(gateway: Gateway, cases: Iterable[Case], world: World) -> Iterator[Result]:
    """Every case for itself: counters begin anew with each."""
    for case in cases:
        counters, found = NO_COUNTERS, None
        for _ in range(case.repeat):
            found = decide(gateway, case.request, world, counters, case.listener)
            counters = found.counters
        assert found is not None  # repeat is at least 1
        yield Result(case, tuple(_on_paper(found, case.expected)))


def _on_paper(found: Decision, expected: Expected) -> Iterator[str]:
    sent, reply = found.sent, found.reply
    status = reply.status if reply else 200
    why = f" ({reply.why})" if reply else ""
    if expected.status is not None and status != expected.status:
        yield f"status is {status}{why}, not {expected.status}"
    route = found.route.name if found.route else ""
    if expected.route is not None and route != expected.route:
        yield f"route is {route or 'none'}, not {expected.route or 'none'}"
    seen: dict[str, str | None] = {
        "service": sent.service if sent else None,
        "path": sent.path if sent else None,
        "host": sent.host if sent else None,
        "method": sent.method if sent else None,
        "query": urlencode(sent.query) if sent else None,
    }
    for name, have in seen.items():
        wanted = getattr(expected, name)
        if wanted is not None and have != wanted:
            yield f"{name} is {have if sent else f'not sent{why}'}, not {wanted}"
    yield from _differ("the backend's header", sent.headers if sent else (), expected.headers)
    yield from _differ(
        "the answer's header", reply.headers if reply else found.answer_headers, expected.answer
    )
    if expected.body is not None and expected.body not in (reply.body if reply else ""):
        have = repr(reply.body) if reply else "the backend's"
        yield f"body is {have}, without {expected.body!r}"
    if expected.why is not None and expected.why not in (reply.why if reply else ""):
        yield f"the reason is {reply.why if reply else 'none'!r}, without {expected.why!r}"


def _differ(
    what: str, have: Iterable[tuple[str, str]], wanted: Iterable[tuple[str, str | None]]
) -> Iterator[str]:
    given: dict[str, list[str]] = {}
    for name, value in have:
        given.setdefault(name.lower(), []).append(value)
    for name, right in wanted:
        found = given.get(name.lower(), [])
        if right is None and found:
            yield f"{what} {name} is {', '.join(found)}, not absent"
        elif right is not None and right not in found:
            yield f"{what} {name} is {', '.join(found) or 'absent'}, not {right}"


# --- against a running gateway -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """What a client saw."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str


def run_against(url: str, cases: Iterable[Case]) -> Iterator[Result]:
    """The same table, by real requests."""
    for case in cases:
        answered = [ask(url, case.request) for _ in range(case.repeat)][-1]
        skipped = tuple(name for name in _ON_PAPER if getattr(case.expected, name) not in (None, ()))
        yield Result(case, tuple(_seen(answered, case.expected)), skipped)


def _seen(answered: Answered, expected: Expected) -> Iterator[str]:
    if expected.status is not None and answered.status != expected.status:
        yield f"status is {answered.status}, not {expected.status}"
    yield from _differ("the answer's header", answered.headers, expected.answer)
    if expected.body is not None and expected.body not in answered.body:
        yield f"body is {answered.body[:200]!r}, without {expected.body!r}"


def _any_certificate() -> ssl.SSLContext:
    """The table is about routes: a gateway under test shows what certificate it has."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask(url: str, request: Request) -> Answered:
    """One real request: its own Host, to the gateway at this URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Rejected("invalid_value", f"against is {url!r}: it must be http:// or https:// and a host")
    connection = (
        http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT, context=_any_certificate())
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)
    )
    default = 443 if request.scheme == "https" else 80
    host = request.host if request.port == default else f"{request.host}:{request.port}"
    try:
        connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
        for name, value in (("Host", host), *request.headers):
            connection.putheader(name, value)
        if request.body and request.header("content-length") is None:
            connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body or None)
        answer = connection.getresponse()
        body = answer.read(1 << 20).decode(errors="replace")
        return Answered(answer.status, tuple(answer.getheaders()), body)
    except OSError as e:
        raise Unavailable(f"{url} does not answer: {e}") from None
    except http.client.HTTPException as e:
        raise Unavailable(f"{url} does not speak HTTP: {e!r}") from None
    finally:
        connection.close()
