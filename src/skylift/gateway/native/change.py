"""The native form's policies that change requests and answers."""

from collections.abc import Callable, Mapping

from skylift.gateway.access import Policy
from skylift.gateway.kong.templates import NotData, parse
from skylift.gateway.policies import (
    AddPrefix,
    Aggregate,
    ConvertBody,
    Edit,
    Media,
    ReplacePath,
    ReplacePathRegex,
    RequestTransform,
    ResponseTransform,
    Source,
    StripPrefix,
    Verb,
    Where,
)
from skylift.gateway.reading import Fields, duration, is_header
from skylift.gateway.template import Template, plain

_WHERE = {"headers": Where.HEADER, "query": Where.QUERY, "body": Where.BODY}
_VERBS = (Verb.REMOVE, Verb.RENAME, Verb.REPLACE, Verb.ADD, Verb.APPEND, Verb.SET)


def template(at: Fields, name: str, text: str) -> Template:
    """`$(uuid)`, `$(headers.x or 'y')`, ...: the templates of Kong's dialect that are data."""
    made = parse(text)
    if isinstance(made, NotData):
        known = "headers.x, query_params.x, uri_captures.x, uuid"
        at.wrong(name, text, f"$({made.expression}) is not known: there are {known}")
        return plain(text)
    return made


def _edits(at: Fields, places: tuple[str, ...]) -> tuple[Edit, ...]:
    """`headers: {remove: [a], set: {b: c}}`, and the same for query and body, in this order of verbs."""
    found: list[Edit] = []
    for place in places:
        inner = at.table(place)
        if inner is None:
            continue
        for verb in _VERBS:
            if verb is Verb.REMOVE:
                found += [Edit(verb, _WHERE[place], name) for name in inner.texts(verb)]
                continue
            pairs = inner.table(verb)
            for name in pairs.value if pairs else ():
                assert pairs is not None  # there is a name in it
                if _WHERE[place] is Where.HEADER and not is_header(name):
                    pairs.wrong(name, None, "it must be a header's name: letters, digits and -")
                found.append(Edit(verb, _WHERE[place], name, template(pairs, name, pairs.text(name))))
        inner.done()
    return tuple(found)


def request(at: Fields, name: str) -> Policy:
    """Headers, query, body and method of the request: remove, rename, replace, add, append, set."""
    edits = _edits(at, ("headers", "query", "body"))
    method = at.text("method").upper() or None
    return RequestTransform(edits, method)


def response(at: Fields, name: str) -> Policy:
    """Headers and JSON body of the answer."""
    return ResponseTransform(_edits(at, ("headers", "body")))


def rewrite(at: Fields, name: str) -> Policy:
    """Exactly one of `strip`, `add`, `path`, and `regex` with `to`."""
    given = [field for field in ("strip", "add", "path", "regex") if at.has(field)]
    if len(given) != 1:
        at.wrong("", None, "exactly one of strip, add, path, regex must be given")
    if "strip" in given:
        return StripPrefix(at.texts("strip", single=True))
    if "add" in given:
        return AddPrefix(at.path_text("add"))
    if "path" in given:
        return ReplacePath(at.path_text("path", "/"))
    regex = at.text("regex")
    at.regex("regex", regex)
    return ReplacePathRegex(regex, at.text("to"))


def convert(at: Fields, name: str) -> Policy:
    """JSON on one side, XML on the other."""
    client, backend = at.choice("client", Media, Media.JSON), at.choice("backend", Media, Media.XML)
    if client is backend:
        at.wrong("backend", str(backend), "client and backend speak the same: nothing to convert")
    return ConvertBody(
        client, backend, at.text("root", "root"), at.whole("limit", 1 << 20, low=1, high=16 << 20)
    )


def aggregate(at: Fields, name: str) -> Policy:
    """Several backends, one JSON object: `sources: {user: {service: users, path: /me}, ...}`."""
    sources = []
    for key, source in at.named("sources"):
        path = template(source, "path", source.path_text("path", "/"))
        service = source.text("service", required=True)
        sources.append(Source(key, service, path, source.flag("required", False)))
        source.done()
    if not sources:
        at.wrong("sources", None, "it must name at least one source", "missing_field")
    return Aggregate(tuple(sources), duration(at, "timeout", 5.0, over=True))


CHANGES: Mapping[str, Callable[[Fields, str], Policy]] = {
    "request": request,
    "response": response,
    "rewrite": rewrite,
    "convert": convert,
    "aggregate": aggregate,
}
