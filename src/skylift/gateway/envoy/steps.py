"""A route's steps as Envoy's words: which filters they switch on, and what they say of the route itself.

One function a policy, in a table. What Envoy cannot do is refused by name (`Refused`), never dropped.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skylift.gateway.access import (
    Acl,
    ApiKey,
    BasicAuth,
    BotDetection,
    ForwardAuth,
    Introspection,
    IpList,
    Jwt,
    OAuth2Login,
    PerConsumer,
    Policy,
    RequireClaim,
)
from skylift.gateway.access import logs as tells
from skylift.gateway.envoy import (
    auth,
    helping,
    limiting,
    login,
    logs,
    redirects,
    rules,
    scripts,
    transforms,
    variants,
)
from skylift.gateway.envoy.edge import WEBSOCKET
from skylift.gateway.envoy.formats import direct
from skylift.gateway.envoy.logs import Told
from skylift.gateway.envoy.paths import PATHS
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.model import Gateway, Listener, Route, Step
from skylift.gateway.policies import (
    Aggregate,
    Cache,
    CircuitBreaker,
    Compress,
    ConvertBody,
    CorrelationId,
    Cors,
    ErrorPages,
    InFlight,
    RateLimit,
    Redirect,
    RequestTransform,
    Respond,
    ResponseTransform,
    Retry,
    SizeLimit,
    StaleOnError,
    Timeout,
)


@dataclass
class Words:
    """What a route's steps come to. `answer`: what the route says instead of asking a backend; `to_others`:
    what it says to other methods than GET, where that differs; `headers`: what it says of the request's
    headers by itself; `told`: who writes down what became of its
    requests."""

    pieces: list[Piece] = field(default_factory=list)
    headers: Json = field(default_factory=dict)
    action: Json = field(default_factory=dict)
    answer: Json | None = None
    to_others: Json | None = None
    told: list[Told] = field(default_factory=list)
    looked_again: bool = False  # for the route of a consumer who has words of his own


@dataclass(frozen=True, slots=True)
class Where:
    """Whose step is compiled, and for which listener."""

    gateway: Gateway
    listener: Listener
    route: Route
    book: Book
    who: str | None = None  # the consumer whose variant of the route it is


def words(where: Where) -> Words:
    """All steps of a route at one listener."""
    found = Words(told=[told for step in where.route.steps for told in logs.told(step.policy)])
    found.pieces += [transforms.path_noted()] if found.told else []
    for step in where.route.steps:
        _step(where, found, step)
        if found.answer is not None:
            break  # whatever comes later is never reached
    found.pieces = limiting.together(found.pieces)
    return found


def _step(where: Where, found: Words, step: Step) -> None:
    if isinstance(step.policy, PATHS) or tells(step.policy):
        return  # `paths` has them, or `logs`
    known = _TABLE.get(type(step.policy))
    if known is None:
        what = f"{type(step.policy).__name__} is not something this gateway can do yet"
        raise Refused([Problem(step.origin.file, step.origin.path or step.name, what)])
    try:
        known(where, found, step.policy)
    except Refused as e:
        raise Refused(_at(step, problem) for problem in e.problems) from None


def _at(step: Step, problem: Problem) -> Problem:
    path = f"{step.origin.path or step.name}.{problem.path}" if not problem.file else problem.path
    return Problem(problem.file or step.origin.file, path, problem.rule, problem.value)


# --- filters of their own module
# -----------------------------------------------------------------------------


def _add(make: Callable[..., list[Piece]]) -> Callable[[Where, Words, Any], None]:
    """For makers of pieces that need the book and the gateway, and say nothing of the route."""

    def into(where: Where, found: Words, policy: Any) -> None:
        found.pieces += make(policy, where.gateway, where.book)

    return into


def _of_route(make: Callable[..., list[Piece]]) -> Callable[[Where, Words, Any], None]:
    """For makers of pieces that keep something in the route's name."""

    def into(where: Where, found: Words, policy: Any) -> None:
        found.pieces += make(policy, where.route, where.book)

    return into


def _request(where: Where, found: Words, policy: RequestTransform) -> None:
    made, action = transforms.request(policy, where.route, where.book)
    found.pieces += made
    found.action |= action


def _per_consumer(where: Where, found: Words, policy: PerConsumer) -> None:
    if variants.is_own(policy):
        _own_words(where, found, policy)
        return
    plans = [plan for _, plan in policy.plans]
    make = rules.per_consumer if isinstance(plans[0], rules.BY_CONSUMER) else limiting.per_consumer
    found.pieces += make(policy, where.gateway, where.book)


def _own_words(where: Where, found: Words, policy: PerConsumer) -> None:
    if not found.looked_again:
        found.pieces += variants.looks_again(where.route, where.book)
        found.looked_again = True
    made = variants.chosen(policy, where.who, where.route, where.gateway, where.book)
    found.pieces += made.pieces
    found.action |= made.action


def _introspection(where: Where, found: Words, policy: Introspection) -> None:
    found.pieces += helping.introspection(policy, where.route, where.book)


def _aggregate(where: Where, found: Words, policy: Aggregate) -> None:
    stamp, action = helping.aggregate(policy, where.gateway, where.book)
    found.pieces += stamp
    found.answer = {"route": action}


# --- small ones
# --------------------------------------------------------------------------------------------------


def _retry(where: Where, found: Words, policy: Retry) -> None:
    found.action["retry_policy"] = retry(policy)


IDEMPOTENT = "GET|HEAD|PUT|DELETE|OPTIONS|TRACE"


def retry(policy: Retry) -> Json:
    """Envoy's retry policy. Methods that are not idempotent are sent again only where nothing went out."""
    statuses = sorted({status for low, high in policy.statuses for status in range(low, high + 1)})
    reasons = ["connect-failure", "refused-stream", "reset-before-request"] if policy.on_network_error else []
    said: Json = {"num_retries": policy.tries, "host_selection_retry_max_attempts": 5}
    said["retry_host_predicate"] = [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ]
    if policy.non_idempotent and policy.on_network_error:
        reasons.append("reset")
    if statuses:
        reasons.append("retriable-status-codes")
        said["retriable_status_codes"] = statuses
        if not policy.non_idempotent:
            methods = {"safe_regex": {"regex": IDEMPOTENT}}
            said["retriable_request_headers"] = [{"name": ":method", "string_match": methods}]
    if policy.per_try:
        said["per_try_timeout"] = seconds(policy.per_try)
    if policy.interval:
        said["retry_back_off"] = {
            "base_interval": seconds(policy.interval),
            "max_interval": seconds(2 * policy.interval),
        }
    return {**said, "retry_on": ",".join(reasons)}


def seconds(value: float) -> str:
    return f"{value:.3f}s"


def _timeout(where: Where, found: Words, policy: Timeout) -> None:
    found.action["timeout"] = seconds(policy.seconds)


def _respond(where: Where, found: Words, policy: Respond) -> None:
    found.answer = direct(policy.answer)


def _redirect(where: Where, found: Words, policy: Redirect) -> None:
    if policy.regex:
        found.pieces += redirects.by_regex(policy, where.listener, where.book)
    elif policy.scheme != ("https" if where.listener.tls else "http"):
        found.answer = redirects.to_scheme(policy, "GET")
        found.to_others = redirects.to_scheme(policy, "POST") if policy.keeps_method else None


def _cors(where: Where, found: Words, policy: Cors) -> None:
    exact = [
        {"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin} for origin in policy.origins
    ]
    regexes = [{"safe_regex": {"regex": regex}} for regex in policy.origin_regexes]
    own: Json = {
        "@type": TYPE + "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": exact + regexes,
        "allow_methods": ",".join(policy.methods) or "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS",
        "allow_headers": ",".join(policy.headers) or "*",
        "allow_credentials": policy.credentials,
    }
    if policy.exposed:
        own["expose_headers"] = ",".join(policy.exposed)
    if policy.max_age is not None:
        own["max_age"] = str(policy.max_age)
    found.pieces.append(Piece("cors", {"@type": TYPE + "envoy.extensions.filters.http.cors.v3.Cors"}, own))


BUFFER = TYPE + "envoy.extensions.filters.http.buffer.v3.Buffer"
MOST_BUFFERED = 0xFFFFFFFF


def _size_limit(where: Where, found: Words, policy: SizeLimit) -> None:
    if policy.length_required:
        found.pieces.append(rules.length_required(policy.length_required, where.book))
    where.book.reply("response.code_details == 'request_payload_too_large'", policy.answer)
    # A body of unknown length is held until it ends; a WebSocket's never does: 403, not a wait for nothing.
    found.action["upgrade_configs"] = [{"upgrade_type": WEBSOCKET, "enabled": False}]
    most = min(policy.request, MOST_BUFFERED)
    own = {"@type": BUFFER + "PerRoute", "buffer": {"max_request_bytes": most}}
    found.pieces.append(Piece("size", {"@type": BUFFER, "max_request_bytes": MOST_BUFFERED}, own))


COMPRESSOR = TYPE + "envoy.extensions.filters.http.compressor.v3.Compressor"
LIBRARIES = {
    "gzip": "gzip.compressor.v3.Gzip",
    "br": "brotli.compressor.v3.Brotli",
    "zstd": "zstd.compressor.v3.Zstd",
}


WORTH_IT = (  # Envoy compresses what is named; the rest is compressed already, or streams (text/event-stream)
    *("text/plain", "text/html", "text/css", "text/xml", "text/csv", "text/markdown", "text/javascript"),
    *("application/json", "application/problem+json", "application/ld+json", "application/manifest+json"),
    *("application/javascript", "application/xml", "application/xhtml+xml", "application/rss+xml"),
    *("application/wasm", "application/vnd.api+json", "image/svg+xml", "font/ttf", "font/otf"),
)


def _compress(where: Where, found: Words, policy: Compress) -> None:
    for encoding in policy.encodings:
        library = {"@type": TYPE + "envoy.extensions.compression." + LIBRARIES[encoding]}
        common: Json = {"min_content_length": policy.minimum}
        common["content_type"] = list(policy.included) or [
            kind for kind in WORTH_IT if kind not in policy.excluded
        ]
        shared = {
            "@type": COMPRESSOR,
            "response_direction_config": {"common_config": common},
            "compressor_library": {"name": encoding, "typed_config": library},
        }
        own = {"@type": COMPRESSOR + "PerRoute", "overrides": {"response_direction_config": {}}}
        found.pieces.append(Piece(f"{encoding}-{digest(shared)}", shared, own))


def digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:10]


_TABLE: Mapping[type[Policy], Callable[[Where, Words, Any], None]] = {
    Jwt: _add(auth.jwt),
    ApiKey: _add(auth.api_key),
    BasicAuth: _add(auth.basic_auth),
    Acl: _add(rules.acl),
    RequireClaim: _add(rules.require_claim),
    IpList: _add(rules.ip_list),
    BotDetection: _add(rules.bot_detection),
    ForwardAuth: _add(auth.forward_auth),
    OAuth2Login: _add(login.login),
    Introspection: _introspection,
    Aggregate: _aggregate,
    RateLimit: _add(limiting.rate_limit),
    PerConsumer: _per_consumer,
    RequestTransform: _request,
    ResponseTransform: _add(transforms.response),
    CorrelationId: _add(transforms.correlation_id),
    ConvertBody: _add(scripts.convert_body),
    StaleOnError: _of_route(limiting.stale_on_error),
    Cache: _of_route(limiting.cache),
    ErrorPages: _add(scripts.error_pages),
    InFlight: _of_route(limiting.in_flight),
    CircuitBreaker: _of_route(limiting.breaker),
    Retry: _retry,
    Timeout: _timeout,
    Respond: _respond,
    Redirect: _redirect,
    Cors: _cors,
    SizeLimit: _size_limit,
    Compress: _compress,
}
