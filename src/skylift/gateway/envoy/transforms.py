"""Headers and query parameters of requests and answers, by Envoy's header mutation; bodies by a script."""

import re
from collections.abc import Iterable, Iterator, Sequence

from skylift.gateway.envoy import scripts
from skylift.gateway.envoy.formats import (
    APPEND,
    CAPTURES,
    IF_ABSENT,
    IF_THERE,
    OVERWRITE,
    envoys,
    header,
    staged,
)
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.model import Gateway, Route
from skylift.gateway.policies import (
    Answer,
    CorrelationId,
    Edit,
    Generator,
    RequestTransform,
    ResponseTransform,
    Verb,
    Where,
)
from skylift.gateway.template import Source, Template, Var, shown
from skylift.gateway.text import REGEXES

MUTATION = TYPE + "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
ACTIONS = {Verb.REPLACE: IF_THERE, Verb.ADD: IF_ABSENT, Verb.APPEND: APPEND, Verb.SET: OVERWRITE}
IDS = {
    Generator.UUID: "%UNIQUE_ID%",
    Generator.UUID_COUNTER: "%UNIQUE_ID%#1",
    Generator.TRACKER: "%DOWNSTREAM_REMOTE_ADDRESS%-%CONNECTION_ID%-%START_TIME(%s.%3f)%",
}


def mutation(requests: list[Json] = [], answers: list[Json] = [], query: list[Json] = []) -> Piece:  # noqa: B006 - read only
    """One header mutation of one route."""
    mutations = {
        "request_mutations": requests,
        "response_mutations": answers,
        "query_parameter_mutations": query,
    }
    said = {name: what for name, what in mutations.items() if what}
    own = {"@type": MUTATION + "PerRoute", "mutations": said}
    return Piece("headers", {"@type": MUTATION}, own)


NOT_A_ROUTES = frozenset({"", "host", "x-forwarded-path", "x-forwarded-prefix", "x-replaced-path"})


def routes_own(pieces: Sequence[Piece]) -> tuple[list[Piece], Json]:
    """What filters are left, and what the route says of headers by itself. The router changes them on its way
    to the backend; a filter that comes last would do the same and cost every request a filter. The router
    removes first, adds then, and reads no value that it has just set: what needs another order stays."""
    last = pieces[-1] if pieces and pieces[-1].kind == "headers" else None
    changes = last.own["mutations"] if last else {}
    if set(changes) != {"request_mutations"} or not _in_any_order(changes["request_mutations"]):
        return list(pieces), {}
    added = [change["append"] for change in changes["request_mutations"] if "append" in change]
    removed = [change["remove"] for change in changes["request_mutations"] if "remove" in change]
    said = {"request_headers_to_add": added, "request_headers_to_remove": removed}
    return list(pieces[:-1]), {name: what for name, what in said.items() if what}


def _in_any_order(changes: Iterable[Json]) -> bool:
    """Each of another header, none that a route may not change or tells itself, none that reads a header."""
    added = [change["append"]["header"] for change in changes if "append" in change]
    names = [str(each["key"]) for each in added] + [
        change["remove"] for change in changes if "remove" in change
    ]
    free = not any(name.startswith(":") or name.lower() in NOT_A_ROUTES for name in names)
    reads = any("%REQ(" in each["value"] for each in added)
    return free and not reads and len({name.lower() for name in names}) == len(names)


def hop_by_hop(answer: Answer) -> list[Piece]:
    """An answer that names another protocol in Upgrade: Envoy takes that off unless the request has one too.
    A route that answers by itself has nobody who could be misled by what it puts there."""
    if not any(name.lower() == "upgrade" for name, _ in answer.headers):
        return []
    return [mutation([{"append": header("connection", "upgrade")}, {"append": header("upgrade", "tls")}])]


def request(policy: RequestTransform, route: Route, book: Book) -> tuple[list[Piece], Json]:
    """Kong's order: path, method, headers, body, parameters; inside, the edits' own. Besides the filters what
    the route itself says: where a path is replaced."""
    templates = [edit.value for edit in policy.edits] + ([policy.path] if policy.path else [])
    captured = _captures(templates, route)
    headers = [edit for edit in policy.edits if edit.where is Where.HEADER]
    bodies = [edit for edit in policy.edits if edit.where is Where.BODY]
    query = [edit for edit in policy.edits if edit.where is Where.QUERY]
    first: list[Json] = []
    action: Json = {}
    if policy.path is not None:
        prelude, text, names = staged(policy.path)
        book.ours.update(names)
        first += prelude
        action = {"path_rewrite": text}
    requests = [*first, *_headers(headers, book)]
    pieces = [mutation(requests, query=list(_query(query)))] if requests or query else []
    if policy.method is not None:
        pieces += scripts.method(policy.method)
    return captured + pieces + (scripts.edit_body(bodies, "request") if bodies else []), action


TO_METADATA = TYPE + "envoy.extensions.filters.http.header_to_metadata.v3.Config"


def _captures(templates: Iterable[Template], route: Route) -> list[Piece]:
    """The groups of the route's path regex that templates want, where formats can read them."""
    parts = [part for template in templates for part in template if isinstance(part, Var)]
    wanted = sorted({part.name for part in parts if part.source is Source.CAPTURE})
    if not wanted:
        return []
    if route.path is None or route.path.kind not in REGEXES:
        raise Refused([Problem("", "uri_captures", "the route's path has no groups", route.name)])
    body = route.path.value
    names = re.compile(re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", body)).groupindex
    rules = []
    for name in wanted:
        number = int(name) if name.isdecimal() else names.get(name, 0)
        if not number:
            raise Refused([Problem("", "uri_captures", "the route's path has no such group", name)])
        rewrite = {"pattern": {"regex": f"^(?:{body}).*$"}, "substitution": f"\\{number}"}
        told = {"metadata_namespace": CAPTURES, "key": name, "regex_value_rewrite": rewrite}
        rules.append({"header": ":path", "on_header_present": told})
    return [_noted(rules)]


def captured(name: str, namespace: str, key: str, regex: str, substitution: str) -> Piece:
    """What RE2 makes of a header's value, noted in the request's metadata."""
    rewrite = {"pattern": {"regex": regex}, "substitution": substitution}
    told = {"metadata_namespace": namespace, "key": key, "regex_value_rewrite": rewrite}
    return _noted([{"header": name, "on_header_present": told}])


ASKED, ASKED_PATH = "skylift.asked", "path"


def path_noted() -> Piece:
    """What was asked for, before anything is changed; for logs."""
    return _noted(
        [{"header": ":path", "on_header_present": {"metadata_namespace": ASKED, "key": ASKED_PATH}}]
    )


COOKIES = "skylift.cookies"


def cookie(name: str) -> Piece:
    """A cookie, noted in the request's metadata."""
    return _noted([{"cookie": name, "on_header_present": {"metadata_namespace": COOKIES, "key": name}}])


NOTHING_NOTED: Json = {
    "header": "x-sl-none",
    "on_header_present": {"metadata_namespace": CAPTURES, "key": "none"},
}


def _noted(rules: list[Json]) -> Piece:
    own = {"@type": TO_METADATA, "request_rules": rules}
    return Piece("captures", {"@type": TO_METADATA, "request_rules": [NOTHING_NOTED]}, own)


def response(policy: ResponseTransform, gateway: Gateway, book: Book) -> list[Piece]:
    headers = [edit for edit in policy.edits if edit.where is Where.HEADER]
    bodies = [edit for edit in policy.edits if edit.where is Where.BODY]
    pieces = [mutation(answers=list(_headers(headers, book, "RESP")))] if headers else []
    return pieces + (scripts.edit_body(bodies, "response") if bodies else [])


def correlation_id(policy: CorrelationId, gateway: Gateway, book: Book) -> list[Piece]:
    made = {"append": header(policy.header, IDS[policy.generator], IF_ABSENT)}
    echo = {"append": header(policy.header, f"%REQ({policy.header})%")}
    return [mutation([made], [echo] if policy.echo else [])]


def _headers(edits: Iterable[Edit], book: Book, side: str = "REQ") -> Iterator[Json]:
    for edit in edits:
        if edit.verb is Verb.REMOVE or (edit.verb is Verb.SET and not shown(edit.value)):
            yield {"remove": edit.name.lower()}
        elif edit.verb is Verb.RENAME:
            yield {"append": header(shown(edit.value), f"%{side}({edit.name})%")}
            yield {"remove": edit.name.lower()}
        else:
            prelude, text, names = staged(edit.value)
            book.ours.update(names)
            yield from prelude
            yield {"append": header(edit.name, text, ACTIONS[edit.verb])}


def _query(edits: Iterable[Edit]) -> Iterator[Json]:
    for edit in edits:
        if edit.verb is Verb.REMOVE:
            yield {"remove": edit.name}
        elif edit.verb is Verb.RENAME:
            yield _parameter(shown(edit.value), f"%QUERY_PARAM({edit.name})%", OVERWRITE)
            yield {"remove": edit.name}
        else:
            yield _parameter(edit.name, envoys(edit.value), ACTIONS[edit.verb])


def _parameter(name: str, value: str, action: str) -> Json:
    return {"append": {"record": {"key": name, "value": value}, "action": action}}
