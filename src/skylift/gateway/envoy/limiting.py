"""Rate limits in the words of our filter (`native/gateway/module.c`)."""

import hashlib
from collections.abc import Iterator

from skylift.gateway.access import PerConsumer
from skylift.gateway.envoy import binary, helping
from skylift.gateway.envoy.formats import CONSUMER
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.model import Gateway
from skylift.gateway.policies import PEER, Algorithm, Key, KeyKind, LimitHeaders, RateLimit
from skylift.gateway.template import Source, Template, Var

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


_NOTHING = {"limits": "", "consumers": "from x-sl-none\n"}  # what the listener says, and no route uses


def _config(name: str, text: str) -> Json:
    value = {"@type": TYPE + "google.protobuf.StringValue", "value": text}
    return {"dynamic_module_config": MODULE, "filter_name": name, "filter_config": value}


def rate_limit(policy: RateLimit, gateway: Gateway, book: Book) -> list[Piece]:
    if policy.redis is not None:
        return helping.shared_limit(policy, book)
    return [piece("limits", "".join(_lines(policy, book)))]


def per_consumer(policy: PerConsumer, gateway: Gateway, book: Book) -> list[Piece]:
    """Plans: of all these limits only the first that is meant for whoever asks."""
    text = ""
    for name, plan in policy.plans:
        text += "".join(_lines(_limit(plan), book, f"when {CONSUMER} {name}\nchoice 1\n"))
    if policy.otherwise is not None:
        text += "".join(_lines(_limit(policy.otherwise), book, "choice 1\n"))
    return [piece("limits", text)]


def _limit(policy: object) -> RateLimit:
    if not isinstance(policy, RateLimit):
        what = f"only rate limits differ by consumer here, not {type(policy).__name__}"
        raise Refused([Problem("", "plans", what)])
    return policy


def _lines(policy: RateLimit, book: Book, more: str = "") -> Iterator[str]:
    """One limit. Several limits of one bucket are several states, but for calendar windows."""
    if policy.redis is not None:
        raise Refused([Problem("", "plans", "a plan's limit is counted here, not through Redis", "redis")])
    together = policy.algorithm is Algorithm.FIXED_WINDOW
    groups = [policy.limits] if together else [(limit,) for limit in policy.limits]
    for group in groups:
        name = policy.bucket if len(groups) == 1 else f"{policy.bucket}/{group[0].name or group[0].seconds:g}"
        yield f"limit {_short(name)}\nhow {HOW[policy.algorithm]}\n{more}"
        for limit in group:
            yield f"period {max(1, round(limit.seconds * 1000))} {limit.count} {limit.name.lower()}\n"
        if HOW[policy.algorithm] == "gcra":
            yield f"burst {max(1, group[0].burst)}\nmax_delay_ms {round(policy.max_delay * 1000)}\n"
        yield f"refused {'count' if policy.counts_refused else 'vanish'}\n"
        yield f"tells {_tells(policy)}\nstatus {policy.answer.status}\nbody {_body(policy.answer.body)}\n"
        yield from _keys(policy.key, book)


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
    if key.address != PEER:
        raise Refused(
            [
                Problem(
                    "",
                    "ipStrategy",
                    "choose the client's address by the listener's trusted proxies",
                    key.address,
                )
            ]
        )
    if key.kind is KeyKind.EVERYBODY:
        return
    if key.kind is not KeyKind.CLIENT:
        yield f"key {_header(key, book)}\n"
    if key.kind is KeyKind.CLIENT or key.else_client:
        yield "key @client\n"


def _header(key: Key, book: Book) -> str:
    name = key.name.lower()
    match key.kind:
        case KeyKind.CONSUMER:
            return CONSUMER
        case KeyKind.CREDENTIAL:
            return "x-credential-identifier"
        case KeyKind.HEADER:
            return name
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
