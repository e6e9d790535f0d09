"""Rate limits in the words of our filter (`native/gateway/module.c`)."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from skylift.gateway.access import IpList, PerConsumer
from skylift.gateway.envoy import binary, helping
from skylift.gateway.envoy.formats import CONSUMER, header
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.envoy.transforms import mutation
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.helper.asked import HOP, KEY
from skylift.gateway.model import Gateway, Route
from skylift.gateway.policies import (
    PEER,
    Algorithm,
    Cache,
    CircuitBreaker,
    InFlight,
    Key,
    KeyKind,
    Limit,
    LimitHeaders,
    RateLimit,
    StaleOnError,
    Trips,
)
from skylift.gateway.template import Source, Template, Var
from skylift.gateway.text import over_subnets

FILTER = TYPE + "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"
MODULE = {"name": binary.MODULE, "do_not_close": True}
MAX_NAME, MAX_BODY = 95, 511  # limits.h, module.c
HOW = {
    Algorithm.FIXED_WINDOW: "calendar",
    Algorithm.SLIDING_WINDOW: "sliding",
    Algorithm.TOKEN_BUCKET: "gcra",
    Algorithm.LEAKY_BUCKET: "gcra",
}
TELLS = {LimitHeaders.KONG: "kong", LimitHeaders.IETF: "plain"}


def piece(name: str, text: str) -> Piece:
    """A filter of ours, with its text for one route."""
    if binary.module() is None:
        raise Refused(
            [Problem("", name, "needs the filter that no C compiler built here (python native/build.py)")]
        )
    own = {"@type": FILTER + "PerRoute", **_config(name, text)}
    return Piece(name, {"@type": FILTER, **_config(name, _NOTHING[name])}, own)


# What the listener says, and no route uses.
_NOTHING = {
    **dict.fromkeys(("limits", "answers", "breaker", "addresses", "reroute"), ""),
    "consumers": "from x-sl-none\n",
}


def together(pieces: Sequence[Piece]) -> list[Piece]:
    """Who is who and a limit right behind it are one filter's work: each filter costs every request."""
    found: list[Piece] = []
    for each in pieces:
        if found and (found[-1].kind, each.kind) == ("consumers", "limits"):
            each = piece("limits", _text(found.pop()) + _text(each))
        found.append(each)
    return found


def _text(made: Piece) -> str:
    return str(made.own["filter_config"]["value"])


def _config(name: str, text: str) -> Json:
    value = {"@type": TYPE + "google.protobuf.StringValue", "value": text}
    return {"dynamic_module_config": MODULE, "filter_name": name, "filter_config": value}


def rate_limit(policy: RateLimit, gateway: Gateway, book: Book) -> list[Piece]:
    if policy.redis is not None:
        return [*_hop(policy.key, book), *helping.shared_limit(policy, book)]
    return [*_told(policy.key, book), piece("limits", "".join(_lines(policy, book)))]


TOLD = (KeyKind.CLAIM, KeyKind.COOKIE)


def _told(key: Key, book: Book) -> list[Piece]:
    """A claim of the verified token, or a cookie, in a header where our filter can see it."""
    if key.address.excluded:
        return _hop(key, book)
    if key.kind not in TOLD:
        return []
    book.ours.add(KEY)
    said: list[Json] = [{"remove": KEY}, {"append": header(KEY, helping.key_format(key))}]
    return [*helping.noted(key), mutation(said)]


def _hop(key: Key, book: Book) -> list[Piece]:
    """An address of X-Forwarded-For, in a header where the filters behind can see it."""
    if key.kind is not KeyKind.CLIENT or not key.address.forwarded:
        return []
    book.ours.add(HOP)
    text = f"depth {key.address.depth}\n" if key.address.depth else ""
    text += "".join(f"excluded {network}\n" for network in key.address.excluded)
    return [mutation([{"remove": HOP}]), piece("addresses", f"{text}tell {HOP}\n")]


def in_flight(policy: InFlight, route: Route, book: Book) -> list[Piece]:
    """So many at a time, of all workers together."""
    name = f"in flight {policy.amount} {policy.key.kind} {policy.key.name} {route.id}"
    answer = policy.answer
    text = f"limit {_short(name)}\nhow in_flight\nperiod 1000 {policy.amount}\ntells silent\n"
    text += f"status {answer.status}\nbody {_body(answer.body)}\n"
    return [*_told(policy.key, book), piece("limits", text + "".join(_keys(policy.key, book)))]


TRIPS = {Trips.NETWORK_ERRORS: "network", Trips.STATUS_RATIO: "status", Trips.LATENCY: "latency"}


def breaker(policy: CircuitBreaker, route: Route, book: Book) -> list[Piece]:
    """A state for each route that has it, as in Traefik."""
    text = f"name {_short(f'breaker {route.id} {policy.expression}')}\ncheck_ms {_ms(policy.check_period)}\n"
    text += f"open_ms {_ms(policy.open_for)}\n"
    text += f"recovery_ms {_ms(policy.recovery)}\nstatus {policy.answer.status}\n"
    text += f"body {_body(policy.answer.body)}\n"
    for together in policy.when:
        for number, (what, numbers, limit) in enumerate(together):
            said = " ".join([TRIPS[what], *(f"{each:g}" for each in (*numbers, limit))])
            text += f"{'and' if number else 'trip'} {said}\n"
    return [piece("breaker", text)]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


MOST_LISTED = 15  # answers.c: MAX_WORDS


def stale_on_error(policy: StaleOnError, route: Route, book: Book) -> list[Piece]:
    """The last good answer; what is kept belongs to the route, and outlives a reload."""
    text = f"keep stale\nname stale {_short(route.id)[:55]}\nfor {policy.max_age:g}\n"
    text += f"entries {policy.entries}\n"
    text += f"max_bytes {policy.max_bytes}\nmethod GET\nplain_query\n"
    text += "".join(f"status {status} {status}\n" for status in _few(policy.statuses, "statuses"))
    return [piece("answers", text)]


def cache(policy: Cache, route: Route, book: Book) -> list[Piece]:
    text = f"keep cache\nname cache {_short(route.id)[:55]}\nfor {policy.ttl}\n"
    text += f"entries 2000\nmax_bytes {1 << 20}\n"
    lists = {
        "status": [f"{status} {status}" for status in policy.statuses],
        "method": policy.methods,
        "type": policy.content_types,
        "key": [name.lower() for name in policy.vary_headers],
        "query": policy.vary_query or (),
    }
    for word, values in lists.items():
        text += "".join(f"{word} {value}\n" for value in _few(values, word))
    text += "obey\n" * policy.obey_cache_control
    return [piece("answers", text + "tells\n")]


def _few(values: Sequence[Any], what: str) -> Sequence[Any]:
    if len(values) > MOST_LISTED:
        raise Refused([Problem("", what, f"at most {MOST_LISTED} can be listed here", len(values))])
    return values


def forwarded_addresses(policy: IpList) -> Piece:
    """By an address of X-Forwarded-For, which Envoy's own filter does not know."""
    bits = policy.address.ipv6_prefix
    text = f"depth {policy.address.depth}\n" if policy.address.depth else ""
    for word, listed in (
        ("excluded", policy.address.excluded),
        ("allow", over_subnets(policy.allow, bits)),
        ("deny", over_subnets(policy.deny, bits)),
    ):
        text += "".join(f"{word} {network}\n" for network in listed)
    return piece("addresses", text + f"status {policy.answer.status}\nbody {_body(policy.answer.body)}\n")


def per_consumer(policy: PerConsumer, gateway: Gateway, book: Book) -> list[Piece]:
    """Plans: of all these limits only the first that is meant for whoever asks."""
    plans = [(name, _limit(plan)) for name, plan in policy.plans]
    rest = None if policy.otherwise is None else _limit(policy.otherwise)
    limits = [*(plan for _, plan in plans), *([rest] if rest else [])]
    shared = {limit.redis is not None for limit in limits}
    if len(shared) > 1:
        raise Refused([Problem("", "plans", "all plans of a route are counted through Redis, or none", None)])
    if shared == {True}:
        return helping.shared_plans(plans, rest, book)
    told = {limit.key for limit in limits if limit.key.kind in TOLD}
    if len(told) > 1:
        raise Refused([Problem("", "plans", "plans of a route count by one claim or one cookie", None)])
    text = "".join("".join(_lines(plan, book, f"when {CONSUMER} {name}\nchoice 1\n")) for name, plan in plans)
    text += "".join(_lines(rest, book, "choice 1\n")) if rest else ""
    return [*(each for key in told for each in _told(key, book)), piece("limits", text)]


def _limit(policy: object) -> RateLimit:
    if not isinstance(policy, RateLimit):
        what = f"limits, addresses and answers differ by consumer here, not {type(policy).__name__}"
        raise Refused([Problem("", "plans", what)])
    return policy


def _lines(policy: RateLimit, book: Book, more: str = "") -> Iterator[str]:
    """One limit. Several limits of one bucket are several states, but for calendar windows."""
    together = policy.algorithm is Algorithm.FIXED_WINDOW
    groups = [policy.limits] if together else [(limit,) for limit in policy.limits]
    for group in groups:
        name = policy.bucket if len(groups) == 1 else f"{policy.bucket}/{group[0].name or group[0].seconds:g}"
        yield f"limit {_short(name)}\nhow {HOW[policy.algorithm]}\n{more}"
        for limit in group:
            yield f"period {max(1, round(limit.seconds * 1000))} {limit.count} {limit.name.lower()}\n"
        if HOW[policy.algorithm] == "gcra":
            yield f"burst {_burst(policy, group[0])}\nmax_delay_ms {round(policy.max_delay * 1000)}\n"
        yield f"refused {'count' if policy.counts_refused else 'vanish'}\n"
        yield f"tells {_tells(policy)}\nstatus {policy.answer.status}\nbody {_body(policy.answer.body)}\n"
        yield from _keys(policy.key, book)


def _burst(policy: RateLimit, limit: Limit) -> int:
    """How many may pass at once; of a queue one after the other."""
    queue = policy.algorithm is Algorithm.LEAKY_BUCKET and policy.max_delay
    return 1 if queue else limit.burst or limit.count


def _short(name: str) -> str:
    if len(name.encode()) <= MAX_NAME:
        return name
    return hashlib.sha256(name.encode()).hexdigest()


def _tells(policy: RateLimit) -> str:
    names = {name.lower() for name, _ in policy.answer.headers}
    return TELLS.get(policy.headers) or ("traefik" if "retry-after" in names else "silent")


def _body(body: Template) -> str:
    text = "".join("@ID@" if isinstance(part, Var) and _is_id(part) else str(part) for part in body)
    line = text.replace("\n", "\\n")
    if len(line) > MAX_BODY:
        raise Refused(
            [Problem("", "error_message", f"a refusal has at most {MAX_BODY} characters", len(line))]
        )
    return line


def _is_id(var: Var) -> bool:
    if var.source is not Source.REQUEST_ID:
        raise Refused(
            [Problem("", "error_message", "a refusal can tell the request's id, nothing else", str(var))]
        )
    return True


def _keys(key: Key, book: Book) -> Iterator[str]:
    """The headers that tell clients apart, the first that is there."""
    bits = f"/{key.address.ipv6_prefix}" if key.address.ipv6_prefix != PEER.ipv6_prefix else ""
    if key.kind is KeyKind.EVERYBODY:
        return
    if key.address.excluded:
        yield f"key {HOP}\n"
        return
    if key.kind is not KeyKind.CLIENT:
        yield f"key {_header(key, book)}\n"
    if key.kind is KeyKind.CLIENT and key.address.depth:
        yield f"key @forwarded {key.address.depth}{bits}\n"
    elif key.kind is KeyKind.CLIENT or key.else_client:
        yield f"key @client{bits}\n"


def _header(key: Key, book: Book) -> str:
    name = key.name.lower()
    match key.kind:
        case KeyKind.CONSUMER:
            return CONSUMER
        case KeyKind.CREDENTIAL:
            return "x-credential-identifier"
        case KeyKind.HEADER:
            return name
        case KeyKind.CLAIM | KeyKind.COOKIE:
            return KEY
        case KeyKind.HOST:
            return ":authority"
        case KeyKind.PATH:
            return book.stamp("x-sl-path", "%PATH(NQ)%")
        case KeyKind.QUERY:
            return book.stamp(f"x-sl-query-{name}", f"%QUERY_PARAM({key.name})%")
        case _:
            raise Refused(
                [Problem("", "limit_by", f"this gateway cannot count by {key.kind}", key.name or None)]
            )
