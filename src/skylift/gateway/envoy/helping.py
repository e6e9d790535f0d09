"""What the helper beside Envoy is asked: whether a request may pass (Envoy's ext_authz), or for an answer.

Before it is asked a route stamps which rule it means, and whose request it is; no client can say that itself.
"""

import re
from collections.abc import Sequence
from typing import Any

from skylift.gateway.access import BasicAuth, Introspection, RequireClaim
from skylift.gateway.envoy.formats import CONSUMER
from skylift.gateway.envoy.formats import header as put
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import PLACE, TYPE, Json
from skylift.gateway.envoy.transforms import COOKIES, cookie, mutation
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.helper.asked import (
    ASK,
    CLAIM,
    CLIENT,
    CREDENTIAL,
    GATHER,
    HASHES,
    HOLES,
    HOP,
    KEY,
    SERVICE,
    SOCKET,
    WHO,
)
from skylift.gateway.helper.rules import Plans, Rule, name_of, written
from skylift.gateway.model import Gateway, Route
from skylift.gateway.policies import Aggregate, Key, KeyKind, RateLimit
from skylift.gateway.template import Source, Template, Var

AUTHZ = TYPE + "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
CLUSTER = "skylift:helper"
TIMEOUT_S = 5.0  # beyond what a store or an issuer may take by itself
CLIENTS = "(?i)content-type|retry-after|x-retry-in|www-authenticate|(x-)?ratelimit-.*"


def _cluster(book: Book) -> str:
    where = {"endpoint": {"address": {"pipe": {"path": PLACE + SOCKET}}}}
    book.clusters[CLUSTER] = {
        "name": CLUSTER,
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [where]}]},
        "circuit_breakers": {
            "thresholds": [dict.fromkeys(("max_connections", "max_requests", "max_pending_requests"), 10_000)]
        },
    }
    return CLUSTER


def _known(rule: Rule, book: Book, **more: Any) -> str:
    said = written(rule, **more)
    book.helper[name_of(said)] = said
    book.ours.update((ASK, KEY, CLIENT, WHO, CREDENTIAL))
    _cluster(book)
    return name_of(said)


def _asks(
    name: str, told: dict[str, str], *, back: tuple[str, ...] = (), open_: bool = False, seconds: float = 0.0
) -> list[Piece]:
    """`back`: headers that the helper's yes sets for what comes behind. `open_`: without the helper
    requests pass."""
    stamps: list[Json] = [{"remove": header} for header in dict.fromkeys((KEY, CLIENT, *told))]
    stamps += [{"append": put(header, value)} for header, value in {ASK: name, **told}.items()]
    response: Json = {
        "allowed_client_headers": {"patterns": [{"safe_regex": {"regex": CLIENTS}}]},
        "allowed_client_headers_on_success": {"patterns": [{"safe_regex": {"regex": CLIENTS}}]},
    }
    if back:
        response["allowed_upstream_headers"] = {"patterns": [{"exact": each.lower()} for each in back]}
    asked = [{"prefix": "x-sl-"}, {"exact": "authorization"}, {"exact": "x-request-id"}]
    shared: Json = {
        "@type": AUTHZ,
        "transport_api_version": "V3",
        "failure_mode_allow": open_,
        "status_on_error": {"code": 500},
        "clear_route_cache": False,
        "allowed_headers": {"patterns": asked},
        "http_service": {
            "path_override": "/",
            "server_uri": {"uri": "http://helper/", "cluster": CLUSTER, "timeout": f"{TIMEOUT_S + seconds}s"},
            "authorization_response": response,
        },
    }
    kind = f"helper-{name_of(shared)[:10]}"
    own = {"@type": AUTHZ + "PerRoute", "check_settings": {}}
    gone = [mutation([{"remove": each.lower()} for each in back])] if back else []
    return [*gone, mutation(stamps), Piece(kind, shared, own)]


# --- limits that are shared
# -------------------------------------------------------------------------------------------------------


def shared_limit(policy: RateLimit, book: Book) -> list[Piece]:
    _can_be_shared(policy)
    told = {CLIENT: CLIENTS_ADDRESS, **_told(policy.key)}
    asked = _asks(_known(policy, book), told, open_=policy.fault_tolerant, seconds=policy.max_delay)
    return [*noted(policy.key), *asked]


CLIENTS_ADDRESS = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"


def shared_plans(
    plans: Sequence[tuple[str, RateLimit]], otherwise: RateLimit | None, book: Book
) -> list[Piece]:
    """Every consumer its own limit, each counted in the store."""
    limits = list(dict.fromkeys([*(plan for _, plan in plans), *([otherwise] if otherwise else [])]))
    formats: dict[str, str] = {"": CLIENT}  # how a key is said -> the header that says it
    for limit in limits:
        _can_be_shared(limit)
        formats.setdefault(key_format(limit.key), f"{KEY}-{len(formats)}")
    told = {header: said or CLIENTS_ADDRESS for said, header in formats.items()}
    rule = Plans(
        tuple((limit, formats[key_format(limit.key)]) for limit in limits),
        {name: limits.index(plan) for name, plan in plans},
        limits.index(otherwise) if otherwise else None,
    )
    book.ours.update(told)
    tolerant, delay = all(each.fault_tolerant for each in limits), max(each.max_delay for each in limits)
    cookies = {limit.key for limit in limits if limit.key.kind is KeyKind.COOKIE}
    asked = _asks(_known(rule, book), {WHO: f"%REQ({CONSUMER})%", **told}, open_=tolerant, seconds=delay)
    return [*(piece for key in sorted(cookies, key=str) for piece in noted(key)), *asked]


def _can_be_shared(policy: RateLimit) -> None:
    if policy.answer.status >= 500:
        rule = "a shared limit refuses with a status below 500: above, it looks like a failure of the store"
        raise Refused([Problem("", "error_code", rule, policy.answer.status)])
    if policy.redis is not None and policy.redis.timeout > TIMEOUT_S:
        raise Refused([Problem("", "timeout", f"at most {TIMEOUT_S:g} s are waited for a store")])
    _holes(policy.answer.body, {Source.REQUEST_ID}, "error_message")


def _told(key: Key) -> dict[str, str]:
    value = key_format(key)
    return {KEY: value} if value else {}


def noted(key: Key) -> list[Piece]:
    """The cookie that a key is, where formats can read it."""
    if key.kind is not KeyKind.COOKIE:
        return []
    if not re.fullmatch(r"[\w.-]+", key.name):
        raise Refused([Problem("", "name", "a cookie's name is letters, digits, _, . and -", key.name)])
    return [cookie(key.name)]


def key_format(key: Key) -> str:
    """Whose count it is, in Envoy's words; empty where the client's address is."""
    formats = {
        KeyKind.CONSUMER: f"%REQ({CONSUMER})%",
        KeyKind.CREDENTIAL: "%REQ(x-credential-identifier)%",
        KeyKind.HEADER: f"%REQ({key.name})%",
        KeyKind.QUERY: f"%QUERY_PARAM({key.name})%",
        KeyKind.COOKIE: f"%DYNAMIC_METADATA({COOKIES}:{key.name})%",
        KeyKind.HOST: "%REQ(:authority)%",
        KeyKind.CLAIM: f"%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:{key.name})%",
        KeyKind.EVERYBODY: "*",
        KeyKind.CLIENT: "",
    }
    if key.kind is KeyKind.CLIENT and key.address.forwarded:
        return f"%REQ({HOP})%"
    if key.kind is KeyKind.PATH and not key.name:
        return "%PATH(NQ)%"
    if key.kind not in formats:
        raise Refused(
            [Problem("", "limit_by", f"a shared limit cannot count by {key.kind}", key.name or None)]
        )
    return formats[key.kind]


def _holes(text: Template, known: set[Source] | frozenset[Source], where: str) -> None:
    for part in text:
        if isinstance(part, Var) and part.source not in known:
            raise Refused([Problem("", where, "the helper has no word for this", str(part))])


# --- who may pass
# -------------------------------------------------------------------------------------------------------


def introspection(policy: Introspection, route: Route, book: Book) -> list[Piece]:
    """Claims that later steps require come with the yes."""
    wanted = sorted({step.policy.claim for step in route.steps if isinstance(step.policy, RequireClaim)})
    claims = tuple(CLAIM + claim.lower() for claim in wanted)
    book.ours.update(claims)
    back = (*claims, *(header for _, header in policy.claim_headers))
    return _asks(_known(policy, book, claims=wanted), {}, back=back, seconds=policy.timeout)


def passwords(policy: BasicAuth, book: Book) -> list[Piece]:
    """Those whose hashes Envoy cannot read."""
    bad = [user.name for user in policy.users if not user.value.startswith(HASHES)]
    if bad:
        rule = "a password's hash is bcrypt ($2y$), Apache's MD5 ($apr1$) or {SHA}"
        raise Refused([Problem("", "users", rule, ", ".join(bad))])
    optional = {"optional": True} if policy.anonymous is not None else {}
    return _asks(_known(policy, book, **optional), {}, back=(CREDENTIAL,))


# --- several backends, one answer
# -------------------------------------------------------------------------------------------------------


def aggregate(policy: Aggregate, gateway: Gateway, book: Book) -> tuple[list[Piece], Json]:
    """The stamp, and where the route leads: to the helper, who asks the backends through Envoy."""
    for source in policy.sources:
        _holes(source.path, HOLES, f"sources.{source.name}.path")
        book.inside.add(source.service)
    name = _known(policy, book)
    book.ours.update((SERVICE, GATHER))
    whole = f"{policy.timeout + 1.0:.3f}s"
    action = {"cluster": CLUSTER, "timeout": whole, "idle_timeout": whole}
    return [mutation([{"append": put(GATHER, name)}])], action
