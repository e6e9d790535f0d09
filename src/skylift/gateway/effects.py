"""Running a route's steps on paper: a table from policy to what it does, and what the backend sees."""

import re
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from skylift.gateway import admit, change
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
    logs,
)
from skylift.gateway.admit import Said
from skylift.gateway.conditions import ALWAYS
from skylift.gateway.decision import NO_COUNTERS, Counters, Decision, Miss, Ran, Reply, Sent, World
from skylift.gateway.flow import Flow, cookies
from skylift.gateway.limits import Outcome, Rules, State, take_all
from skylift.gateway.model import Destination, Gateway, HostSent, Route, Service, label
from skylift.gateway.policies import (
    PEER,
    AddPrefix,
    Aggregate,
    Answer,
    Cache,
    CircuitBreaker,
    Compress,
    ConvertBody,
    CorrelationId,
    Cors,
    ErrorPages,
    FileLog,
    InFlight,
    JoinBase,
    LimitHeaders,
    RateLimit,
    Redirect,
    ReplacePath,
    ReplacePathRegex,
    RequestTransform,
    Respond,
    ResponseTransform,
    Retry,
    SizeLimit,
    StaleOnError,
    StripPrefix,
    StripPrefixRegex,
    Timeout,
)
from skylift.gateway.request import Request
from skylift.gateway.template import plain
from skylift.gateway.text import in_network


def rate_limit(flow: Flow, policy: RateLimit) -> Said:
    key = flow.key(policy.key)
    places = [(policy.bucket, limit.name or f"{limit.seconds:g}s", key) for limit in policy.limits]
    states = tuple(flow.counters.get(place) for place in places)
    outcome, after = take_all(
        policy.algorithm,
        policy.limits,
        states,
        flow.world.now,
        Rules(policy.counts_refused, policy.max_delay),
    )
    kept: dict[tuple[str, str, str], State] = {
        place: state for place, state in zip(places, after, strict=True) if state is not None
    }
    flow.counters.update(kept)
    flow.answer_headers += limit_headers(policy, outcome)
    shown = "; ".join(
        f"{v.limit.count} per {v.limit.seconds:g} s, {v.remaining} left" for v in outcome.verdicts
    )
    said = f"{policy.algorithm} per {policy.key.kind} ({key or 'no value: all share one bucket'}): {shown}"
    held = max(verdict.delay for verdict in outcome.verdicts)
    if outcome.passed:
        return f"{said}; held for {held:.3g} s" if held else said
    flow.last_reset = outcome.retry_after
    return f"{said}: over the limit", policy.answer


def limit_headers(policy: RateLimit, outcome: Outcome) -> list[tuple[str, str]]:
    """What a client is told about its limits, in the policy's style."""
    tightest = outcome.tightest
    own = [
        ("RateLimit-Limit", str(tightest.limit.count)),
        ("RateLimit-Remaining", str(tightest.remaining)),
        ("RateLimit-Reset", str(max(1, ceil(tightest.reset)))),
    ]
    each = [
        (f"X-RateLimit-{word}-{verdict.limit.name}", str(number))
        for verdict in outcome.verdicts
        for word, number in (("Limit", verdict.limit.count), ("Remaining", verdict.remaining))
    ]
    return {LimitHeaders.NONE: [], LimitHeaders.IETF: own, LimitHeaders.KONG: each + own}[policy.headers]


def per_consumer(flow: Flow, policy: PerConsumer) -> Said:
    name = flow.consumer.name if flow.consumer else ""
    chosen = dict(policy.plans).get(name, policy.otherwise)
    if chosen is None:
        return f"nothing for {name or 'nobody in particular'}"
    said = _EFFECTS[type(chosen)](flow, chosen)
    prefix = f"for {name}: " if name in dict(policy.plans) else ""
    return prefix + said if isinstance(said, str) else (prefix + said[0], said[1])


def cors(flow: Flow, policy: Cors) -> Said:
    origin = flow.request.header("origin")
    if origin is None:
        return "no Origin: nothing to do"
    by_regex = any(re.fullmatch(regex, origin) for regex in policy.origin_regexes)
    allowed = "*" in policy.origins or origin in policy.origins or by_regex
    preflight = flow.method == "OPTIONS" and flow.request.header("access-control-request-method")
    if preflight and not policy.pass_preflight:
        return f"a preflight from {origin}, {'allowed' if allowed else 'not allowed'}", Answer(
            policy.preflight_status
        )
    return f"origin {origin} is {'allowed' if allowed else 'not allowed: the browser will refuse the answer'}"


def redirect(flow: Flow, policy: Redirect) -> Said:
    request = flow.request
    port = "" if request.port in (80, 443) else f":{request.port}"
    url = f"{request.scheme}://{request.host}{port}{request.target}"
    if policy.regex:
        to = change.expanded(policy.regex, policy.replacement, url)
    else:
        there = f":{policy.port}" if policy.port not in ("", "80", "443") else ""
        to = f"{policy.scheme}://{request.host}{there}{request.target}"
    if to == url:
        return "the address is right already"
    return f"sent to {to}", Answer(policy.status_for(flow.method), headers=(("Location", plain(to)),))


def respond(flow: Flow, policy: Respond) -> Said:
    return f"always {policy.answer.status}", policy.answer


def on_the_way_back(sentence: Callable[[Any], str]) -> Callable[[Flow, Any], Said]:
    """A policy that does nothing to the request itself, and what it will do."""
    return lambda flow, policy: sentence(policy)


_EFFECTS: Mapping[type, Callable[[Flow, Any], Said]] = {
    Jwt: admit.jwt,
    ApiKey: admit.api_key,
    BasicAuth: admit.basic_auth,
    OAuth2Login: admit.oauth2_login,
    Introspection: admit.introspection,
    ForwardAuth: admit.forward_auth,
    Acl: admit.acl,
    RequireClaim: admit.require_claim,
    IpList: admit.ip_list,
    BotDetection: admit.bot_detection,
    SizeLimit: admit.size_limit,
    InFlight: admit.in_flight,
    RateLimit: rate_limit,
    PerConsumer: per_consumer,
    JoinBase: change.join_base,
    StripPrefix: change.strip_prefix,
    StripPrefixRegex: change.strip_prefix_regex,
    AddPrefix: change.add_prefix,
    ReplacePath: change.replace_path,
    ReplacePathRegex: change.replace_path_regex,
    RequestTransform: change.transform_request,
    CorrelationId: change.correlation_id,
    Cors: cors,
    Redirect: redirect,
    Respond: respond,
    ResponseTransform: on_the_way_back(lambda p: f"the answer: {len(p.edits)} edits"),
    ConvertBody: on_the_way_back(
        lambda p: f"the body: {p.client} from and to the client, {p.backend} for the backend"
    ),
    Aggregate: on_the_way_back(lambda p: f"asks {', '.join(s.service for s in p.sources)} at once"),
    ErrorPages: on_the_way_back(lambda p: f"a failed answer is replaced by one of {p.service}"),
    StaleOnError: on_the_way_back(lambda p: f"the last good answer if the backend fails ({p.max_age:g} s)"),
    Cache: on_the_way_back(lambda p: f"answers are kept for {p.ttl} s"),
    Retry: on_the_way_back(lambda p: f"up to {p.tries} more tries"),
    Timeout: on_the_way_back(lambda p: f"at most {p.seconds:g} s"),
    CircuitBreaker: on_the_way_back(lambda p: f"opens when {p.expression or 'the backend fails'}"),
    FileLog: on_the_way_back(lambda p: f"told in a line of {p.path}"),
    Compress: on_the_way_back(lambda p: f"answers of {p.minimum} bytes and more are compressed"),
}


def effect(policy: Policy) -> Callable[[Flow, Any], Said]:
    """What a policy does."""
    return _EFFECTS[type(policy)]


def run(
    gateway: Gateway,
    route: Route,
    request: Request,
    world: World,
    counters: Counters,
    misses: tuple[Miss, ...],
) -> Decision:
    """The route's steps in their order, until one answers or the backend is reached."""
    flow = Flow(gateway, route, request, world, counters)
    ran: list[Ran] = []
    reply: Reply | None = None
    if route.wrong_scheme and request.scheme not in route.schemes:
        reply = flow.reply(route.wrong_scheme, f"it speaks {' and '.join(route.schemes)} only")
    for step in route.steps:
        if reply is not None and not logs(step.policy):
            continue
        said = effect(step.policy)(flow, step.policy)
        if isinstance(said, str):
            ran.append(Ran(step, said))
            continue
        ran.append(Ran(step, *said))
        reply = flow.reply(said[1], f"{step.name}: {said[0]}")
    return Decision(
        request,
        route,
        misses,
        tuple(ran),
        reply=reply,
        sent=_sent(flow) if reply is None else None,
        consumer=flow.consumer.name if flow.consumer else None,
        answer_headers=tuple(flow.answer_headers),
        counters=flow.counters,
    )


def unrouted(gateway: Gateway, request: Request, world: World) -> Reply:
    """The answer where no route takes the request."""
    return Flow(gateway, Route("", ALWAYS, ()), request, world, NO_COUNTERS).reply(
        gateway.not_found, "no route takes it"
    )


def chosen(to: tuple[Destination, ...], choose: float) -> Destination:
    """One of several services by weight; `choose` is in [0, 1)."""
    total = sum(each.weight for each in to)
    left = choose * total
    for each in to:
        left -= each.weight
        if left < 0:
            return each
    return to[-1]


def _service(flow: Flow) -> str:
    """Which of several services is asked: the one that the client's cookie keeps it at, else by weight."""
    sticky, to = flow.route.sticky, flow.route.to
    if sticky is None:
        return chosen(to, flow.world.choose).service
    kept = cookies(flow.request).get(sticky.cookie)
    for each in to:
        if each.weight and label(each.service) == kept:
            return each.service
    name = chosen(to, flow.world.choose).service
    flow.answer_headers.append(("Set-Cookie", sticky.header(name)))
    return name


def _sent(flow: Flow) -> Sent:
    name = _service(flow)
    service = flow.gateway.services[name]
    for header, value in forwarded(flow):
        flow.put(header, value)
    return Sent(
        name,
        service.upstream,
        flow.method,
        flow.path,
        tuple(flow.query),
        flow.host or _host(flow, service),
        tuple(flow.headers),
        flow.body,
    )


def _host(flow: Flow, service: Service) -> str:
    request = flow.request
    if (flow.route.host or service.host) is HostSent.CLIENTS:
        return request.host if request.port in (80, 443) else f"{request.host}:{request.port}"
    if service.host_header:
        return service.host_header
    targets = flow.gateway.upstreams[service.upstream].targets
    if not targets:
        return request.host
    first = targets[0]
    return first.host if first.port in (80, 443) else f"{first.host}:{first.port}"


def forwarded(flow: Flow) -> list[tuple[str, str]]:
    """The X-Forwarded-* headers of every backend; a client's own are believed from trusted networks. Where
    nobody is named as such, X-Forwarded-For is told on as it came, and the peer behind it."""
    request, how = flow.request, flow.gateway.forwarding
    from_proxy = any(in_network(request.client, network) for network in how.trusted)

    def told(name: str, own: str) -> tuple[str, str]:
        return name, (request.header(name) or own) if from_proxy else own

    before = request.header("x-forwarded-for") if from_proxy or not how.trusted else None
    found = [
        ("X-Forwarded-For", f"{before}, {request.client}" if before else request.client),
        told("X-Forwarded-Proto", request.scheme),
        told("X-Forwarded-Host", request.host),
        told("X-Forwarded-Port", str(request.port)),
    ]
    if how.real_ip:
        found.append(("X-Real-IP", flow.address(PEER)))
    if how.server:
        found.append(("X-Forwarded-Server", how.server))
    return found
