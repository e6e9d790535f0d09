"""Headers and query parameters of requests and answers, by Envoy's header mutation; bodies by a script."""

from collections.abc import Iterable, Iterator

from skylift.gateway.envoy import scripts
from skylift.gateway.envoy.formats import APPEND, IF_ABSENT, IF_THERE, OVERWRITE, envoys, header
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.model import Gateway
from skylift.gateway.policies import (
    CorrelationId,
    Edit,
    Generator,
    RequestTransform,
    ResponseTransform,
    Verb,
    Where,
)
from skylift.gateway.template import shown

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


def request(policy: RequestTransform, gateway: Gateway, book: Book) -> list[Piece]:
    """Kong's order: path, method, headers, body, parameters; inside, the edits' own."""
    headers = [edit for edit in policy.edits if edit.where is Where.HEADER]
    bodies = [edit for edit in policy.edits if edit.where is Where.BODY]
    query = [edit for edit in policy.edits if edit.where is Where.QUERY]
    first: list[Json] = []
    if policy.path is not None:
        first.append({"append": header(":path", envoys(policy.path))})
    if policy.method is not None:
        first.append({"append": header(":method", policy.method)})
    requests = [*first, *_headers(headers)]
    pieces = [mutation(requests, query=list(_query(query)))] if requests or query else []
    return pieces + (scripts.edit_body(bodies, "request") if bodies else [])


def response(policy: ResponseTransform, gateway: Gateway, book: Book) -> list[Piece]:
    headers = [edit for edit in policy.edits if edit.where is Where.HEADER]
    bodies = [edit for edit in policy.edits if edit.where is Where.BODY]
    pieces = [mutation(answers=list(_headers(headers, "RESP")))] if headers else []
    return pieces + (scripts.edit_body(bodies, "response") if bodies else [])


def correlation_id(policy: CorrelationId, gateway: Gateway, book: Book) -> list[Piece]:
    made = {"append": header(policy.header, IDS[policy.generator], IF_ABSENT)}
    echo = {"append": header(policy.header, f"%REQ({policy.header})%")}
    return [mutation([made], [echo] if policy.echo else [])]


def _headers(edits: Iterable[Edit], side: str = "REQ") -> Iterator[Json]:
    for edit in edits:
        if edit.verb is Verb.REMOVE or (edit.verb is Verb.SET and not shown(edit.value)):
            yield {"remove": edit.name.lower()}
        elif edit.verb is Verb.RENAME:
            yield {"append": header(shown(edit.value), f"%{side}({edit.name})%")}
            yield {"remove": edit.name.lower()}
        else:
            yield {"append": header(edit.name, envoys(edit.value), ACTIONS[edit.verb])}


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
