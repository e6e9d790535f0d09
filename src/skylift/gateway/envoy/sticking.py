"""What keeps a client at its target: a cookie of the service's, or a hash over something of the request."""

import re
from collections.abc import Iterator
from dataclasses import replace

from skylift.gateway.envoy.formats import APPEND, header
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.model import Balance, Gateway, Route, Sticky, Upstream, label
from skylift.gateway.policies import Key, KeyKind

SESSION = TYPE + "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
COOKIE = TYPE + "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"


def _upstreams(gateway: Gateway, route: Route) -> Iterator[Upstream]:
    for to in route.to:
        yield gateway.upstream_of(to.service)


def sessions(gateway: Gateway, route: Route) -> list[Piece]:
    """The filter that reads and sets the cookie, where a route's service wants one."""
    wanted = {upstream.sticky for upstream in _upstreams(gateway, route) if upstream.sticky}
    if len(wanted) > 1:
        rule = "services of one route share one cookie here"
        raise Refused([Problem(route.origin.file, route.origin.path, rule, route.name)])
    return [_session(sticky) for sticky in wanted]


def _session(sticky: Sticky) -> Piece:
    cookie: Json = {"name": sticky.cookie, "path": sticky.path or "/"}
    if sticky.max_age:
        cookie["ttl"] = f"{sticky.max_age}s"
    domain = [{"name": "Domain", "value": sticky.domain}] if sticky.domain else []
    attributes = {"Secure": sticky.secure, "HttpOnly": sticky.http_only}
    said = [*domain, *({"name": name} for name, wanted in attributes.items() if wanted)]
    if sticky.same_site:
        said.append({"name": "SameSite", "value": sticky.same_site.capitalize()})
    if said:
        cookie["attributes"] = said
    state = {
        "name": "envoy.http.stateful_session.cookie",
        "typed_config": {"@type": COOKIE, "cookie": cookie},
    }
    own = {"@type": SESSION + "PerRoute", "stateful_session": {"session_state": state}}
    return Piece("session", {"@type": SESSION}, own)


def kept(route: Route) -> Iterator[tuple[Json, Route]]:
    """The route with each of its services alone, and the cookie header of a client that is kept at it."""
    if route.sticky is None:
        return
    for to in {to.service: to for to in route.to if to.weight}.values():
        regex = rf"(?:.*; ?)?{re.escape(route.sticky.cookie)}={label(to.service)}(?:;.*)?"
        said = {"name": "cookie", "string_match": {"safe_regex": {"regex": regex}}}
        yield said, replace(route, to=(to,), sticky=None)


def shares(route: Route) -> Json:
    """Several services by their weights; where clients are kept, each says so with its answer."""
    parts: list[Json] = []
    for to in route.to:
        part: Json = {"name": to.service, "weight": to.weight}
        if route.sticky is not None:
            value = route.sticky.header(to.service).replace("%", "%%")
            part["response_headers_to_add"] = [header("set-cookie", value, APPEND)]
        parts.append(part)
    return {"weighted_clusters": {"clusters": parts}}


def hashes(gateway: Gateway, route: Route, book: Book) -> Json:
    """What is hashed, in the order in which it is looked for."""
    for upstream in _upstreams(gateway, route):
        if upstream.balance is Balance.HASH:
            policies = [_hash(key, book) for key in upstream.hash_on or (Key(KeyKind.CLIENT),)]
            return {"hash_policy": [{**policy, "terminal": True} for policy in policies]}
    return {}


def _hash(key: Key, book: Book) -> Json:
    match key.kind:
        case KeyKind.CLIENT:
            return {"connection_properties": {"source_ip": True}}
        case KeyKind.CONSUMER:
            return {"header": {"header_name": "x-consumer-username"}}
        case KeyKind.HEADER:
            return {"header": {"header_name": key.name.lower()}}
        case KeyKind.COOKIE:
            return {"cookie": {"name": key.name, "ttl": "0s"}}
        case KeyKind.QUERY:
            return {"query_parameter": {"name": key.name}}
        case KeyKind.PATH:
            return {"header": {"header_name": ":path"}}
        case _:
            raise Refused([Problem("", "hash_on", f"a hash over {key.kind} is not possible here")])
