"""The model as a file of Traefik's file provider."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from skylift.gateway.access import BasicAuth, ForwardAuth, IpList, Policy, Trust
from skylift.gateway.conditions import All, AnyOf, Condition, Not, Part, Test
from skylift.gateway.model import Balance, Gateway, HostSent, Listener, Route, Service, Sticky, Upstream
from skylift.gateway.policies import (
    AddPrefix,
    Algorithm,
    CircuitBreaker,
    Compress,
    Edit,
    InFlight,
    JoinBase,
    Key,
    KeyKind,
    RateLimit,
    Redirect,
    ReplacePath,
    ReplacePathRegex,
    RequestTransform,
    ResponseTransform,
    Retry,
    SizeLimit,
    StripPrefix,
    StripPrefixRegex,
    Verb,
    Where,
)
from skylift.gateway.template import shown
from skylift.gateway.text import Kind, Text
from skylift.gateway.writing import Losses

Middleware = dict[str, Any]


def write(gateway: Gateway, losses: Losses) -> dict[str, Any]:
    """The whole file. Order is kept by explicit priorities."""
    middlewares: dict[str, Middleware] = {}
    routers: dict[str, Any] = {}
    services: dict[str, Any] = {}
    ordered = gateway.ordered
    secure = any(listener.tls for listener in gateway.listeners)
    for place, route in enumerate(ordered):
        name = route.id.replace("~", "-")
        used = _middlewares(gateway, route, middlewares, losses)
        router: dict[str, Any] = {
            "rule": _rule(route.when, route.name, losses),
            "priority": len(ordered) - place,
        }
        router["service"] = _destination(gateway, name, route, services, losses)
        if used:
            router["middlewares"] = used
        if route.listeners:
            router["entryPoints"] = list(route.listeners)
        for suffix, tls in _schemes(route, secure):
            routers[name + suffix] = {**router, **({"tls": {}} if tls else {})}
        if route.wrong_scheme:
            losses.say(f"route {route.name}", "its answer to http requests (426 or a redirect)")
    for service in gateway.services.values():
        upstream = gateway.upstreams[service.upstream]
        services[service.name] = {"loadBalancer": _load_balancer(service, upstream, losses)}
    if gateway.consumers:
        losses.say("consumers", "Traefik has none: credentials, groups and plans")
    http = {"routers": routers, "services": services}
    found: dict[str, Any] = {"http": {**http, **({"middlewares": middlewares} if middlewares else {})}}
    return {**_entry_points(gateway.listeners), **found}


def _entry_points(listeners: tuple[Listener, ...]) -> dict[str, Any]:
    points = {
        listener.name: {
            "address": f"{'' if listener.address == '0.0.0.0' else listener.address}:{listener.port}",  # noqa: S104 - what Traefik leaves out
            **({"http": {"tls": {}}} if listener.tls else {}),
        }
        for listener in listeners
    }
    return {"entryPoints": points} if points else {}


def _schemes(route: Route, secure: bool) -> list[tuple[str, bool]]:
    """Traefik's router speaks one of http and https: two routers where a route speaks both, and somebody
    listens for https."""
    found = [("", False)] if "http" in route.schemes else []
    if "https" in route.schemes and (secure or not found):
        found.append(("-https" if found else "", True))
    return found


# --- rules ---------------------------------------------------------------------------------------------


def _rule(condition: Condition, route: str, losses: Losses) -> str:
    match condition:
        case Test():
            return _tests(condition, route, losses)
        case All(of):
            return " && ".join(_braced(each, route, losses) for each in of) or "PathPrefix(`/`)"
        case AnyOf(of):
            return " || ".join(_braced(each, route, losses) for each in of) or "!PathPrefix(`/`)"
        case Not(of=inner):
            return f"!({_rule(inner, route, losses)})"


def _braced(condition: Condition, route: str, losses: Losses) -> str:
    text = _rule(condition, route, losses)
    return f"({text})" if "||" in text or isinstance(condition, All) else text


def _tests(test: Test, route: str, losses: Losses) -> str:
    found = [_one(test, text) for text in test.texts]
    if None in found:
        losses.say(f"route {route}", f"its condition on {test.part}: Traefik has no matcher for it")
        return "PathPrefix(`/`)"
    return " || ".join(str(each) for each in found)


def _quoted(*texts: str) -> str:
    return ", ".join(
        f"`{text}`" if "`" not in text else '"' + text.replace('"', '\\"') + '"' for text in texts
    )


def _one(test: Test, text: Text) -> str | None:
    named = (test.name,) if test.name else ()
    plain, regex = _MATCHERS.get(test.part, ("", ""))
    if not plain:
        return None
    if test.part is Part.CLIENT:
        return f"ClientIP({_quoted(text.value)})"
    if text.kind is Kind.EXACT and not text.ignore_case:
        return f"{plain}({_quoted(*named, text.value)})"
    if test.part is Part.PATH and text.kind is Kind.PREFIX:
        return f"PathPrefix({_quoted(text.value)})"
    if test.part is Part.PATH and text.kind is Kind.SEGMENT:
        return f"(Path({_quoted(text.value)}) || PathPrefix({_quoted(text.value.rstrip('/') + '/')}))"
    if test.part is Part.HOST and text.kind is Kind.ONE_LABEL:
        return f"Host({_quoted('*' + text.value)})"
    return f"{regex}({_quoted(*named, _as_regex(text))})" if regex else None


_MATCHERS = {
    Part.PATH: ("Path", "PathRegexp"),
    Part.HOST: ("Host", "HostRegexp"),
    Part.METHOD: ("Method", ""),
    Part.HEADER: ("Header", "HeaderRegexp"),
    Part.QUERY: ("Query", "QueryRegexp"),
    Part.CLIENT: ("ClientIP", ""),
}


def _as_regex(text: Text) -> str:
    """An unanchored regular expression that passes the same values."""
    literal = re.escape(text.value).replace(r"\-", "-").replace(r"\/", "/")
    body = {
        Kind.EXACT: f"^{literal}$",
        Kind.PREFIX: f"^{literal}",
        Kind.SUFFIX: f".{literal}$",
        Kind.REGEX_START: f"^(?:{text.value})",
        Kind.REGEX_FULL: f"^(?:{text.value})$",
        Kind.REGEX_SEARCH: text.value,
        Kind.PRESENT: "^.*$",
    }.get(text.kind, text.value)
    return f"(?i){body}" if text.ignore_case else body


# --- services ------------------------------------------------------------------------------------------


def _destination(gateway: Gateway, name: str, route: Route, services: dict[str, Any], losses: Losses) -> str:
    if not route.to:
        losses.say(f"route {route.name}", "it answers by itself: Traefik needs a service for every router")
        services.setdefault("nothing", {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:1"}]}})
        return "nothing"
    found = _with_host(gateway, route, route.to[0].service, services, losses)
    if len(route.to) > 1 or route.sticky:
        found = f"{name}-split"
        weights = [{"name": each.service, "weight": each.weight} for each in route.to]
        services[found] = {"weighted": {"services": weights, **_sticky(route.sticky)}}
    if route.mirrors:
        mirrors = [{"name": each.service, "percent": int(each.percent)} for each in route.mirrors]
        services[f"{name}-mirrored"] = {"mirroring": {"service": found, "mirrors": mirrors}}
        found = f"{name}-mirrored"
    return found


def _with_host(gateway: Gateway, route: Route, name: str, services: dict[str, Any], losses: Losses) -> str:
    """The service; where the route wants another Host than it, a second one that differs in this."""
    service = gateway.services[name]
    if route.host is None or route.host is service.host:
        return name
    made = f"{name}-{'client' if route.host is HostSent.CLIENTS else 'own'}-host"
    changed = replace(service, host=route.host)
    services[made] = {"loadBalancer": _load_balancer(changed, gateway.upstreams[service.upstream], losses)}
    return made


def _sticky(sticky: Sticky | None) -> dict[str, Any]:
    """The cookie with what it has beside a name."""
    if sticky is None:
        return {}
    fields = {
        "name": sticky.cookie,
        "secure": sticky.secure,
        "httpOnly": sticky.http_only,
        "sameSite": sticky.same_site,
        "maxAge": sticky.max_age,
        "domain": sticky.domain,
        "path": sticky.path if sticky.path != "/" else "",
    }
    return {"sticky": {"cookie": {name: value for name, value in fields.items() if value}}}


_STRATEGIES = {Balance.TWO_CHOICES: "p2c", Balance.HASH: "hrw", Balance.LATENCY: "leasttime"}


def _load_balancer(service: Service, upstream: Upstream, losses: Losses) -> dict[str, Any]:
    scheme = {"grpc": "h2c", "grpcs": "https"}.get(service.protocol, service.protocol)
    servers: list[dict[str, Any]] = [
        {
            "url": f"{scheme}://{target.host}:{target.port}",
            **({"weight": target.weight} if target.weight > 1 else {}),
        }
        for target in upstream.targets
        if target.weight
    ]
    found: dict[str, Any] = {"servers": servers}
    if service.host is HostSent.TARGETS:
        found["passHostHeader"] = False
    where = f"service {service.name}"
    if upstream.balance in _STRATEGIES:
        found["strategy"] = _STRATEGIES[upstream.balance]
    elif upstream.balance is not Balance.ROUND_ROBIN:
        losses.say(where, f"its balancing by {upstream.balance}: servers take turns")
    if upstream.active:
        check = upstream.active
        found["healthCheck"] = {
            "path": check.path,
            "interval": f"{check.interval:g}s",
            "timeout": f"{check.timeout:g}s",
        }
    found |= _sticky(upstream.sticky)
    if service.retry:
        losses.say(where, f"its {service.retry.tries} retries: in Traefik a middleware of routers")
    if service.host_header:
        losses.say(where, f"its own Host {service.host_header}")
    return found


# --- middlewares ---------------------------------------------------------------------------------------


def _middlewares(gateway: Gateway, route: Route, found: dict[str, Middleware], losses: Losses) -> list[str]:
    """The names of the route's middlewares, each written once."""
    used = []
    for step in route.steps:
        where = f"{step.name} of route {route.name}"
        for number, made in enumerate(_policy(step.policy, route, where, losses)):
            name = step.name.replace("/", "-") + (f"-{number}" if number else "")
            if name in found and found[name] != made:
                name = f"{route.id.replace('~', '-')}-{name}"
            found[name] = made
            used.append(name)
    return used


def _policy(policy: Policy, route: Route, where: str, losses: Losses) -> list[Middleware]:
    if isinstance(policy, JoinBase):
        return _join(policy, route, where, losses)
    write_one = _WRITERS.get(type(policy))
    if write_one is None:
        losses.say(where, f"{type(policy).__name__}: Traefik has no middleware for it")
        return []
    return write_one(policy, where, losses)


def _join(policy: JoinBase, route: Route, where: str, losses: Losses) -> list[Middleware]:
    made: list[Middleware] = []
    if policy.strip and route.path is not None and route.path.value != "/":
        prefix = route.path.kind is Kind.PREFIX
        cut = {"stripPrefix": {"prefixes": [route.path.value]}}
        made.append(cut if prefix else {"stripPrefixRegex": {"regex": [f"^{route.path.value}"]}})
    if policy.base.rstrip("/"):
        made.append({"addPrefix": {"prefix": policy.base.rstrip("/")}})
        losses.say(where, "a request for just the prefix reaches the backend with a slash at the end")
    return made


def _limit(policy: RateLimit, where: str, losses: Losses) -> list[Middleware]:
    if policy.algorithm is not Algorithm.TOKEN_BUCKET:
        losses.say(where, f"its {policy.algorithm}: a token bucket, near it")
    if policy.headers != "none":
        losses.say(where, "the headers that tell a client its limits")
    made = []
    for limit in policy.limits:
        entry: dict[str, Any] = {
            "average": limit.count,
            "period": f"{limit.seconds:g}s",
            "burst": limit.burst or limit.count,
        }
        source = _source(policy.key, where, losses)
        made.append({"rateLimit": {**entry, **({"sourceCriterion": source} if source else {})}})
    return made


def _source(key: Key, where: str, losses: Losses) -> dict[str, Any]:
    if key.kind is KeyKind.HEADER:
        return {"requestHeaderName": key.name}
    if key.kind is KeyKind.HOST:
        return {"requestHost": True}
    if key.address.depth:
        return {"ipStrategy": {"depth": key.address.depth}}
    if key.address.excluded:
        return {"ipStrategy": {"excludedIPs": list(key.address.excluded)}}
    if key.kind is not KeyKind.CLIENT:
        losses.say(where, f"per {key.kind}: counted per client address")
    return {}


def _headers(field: str) -> Callable[[Any, str, Losses], list[Middleware]]:
    def write_headers(policy: Any, where: str, losses: Losses) -> list[Middleware]:
        values: dict[str, str] = {}
        for edit in policy.edits:
            if _settable(edit):
                values[edit.name] = "" if edit.verb is Verb.REMOVE else shown(edit.value)
            else:
                losses.say(
                    where, f"{edit.verb} {edit.where} {edit.name}: headers are set or deleted, no more"
                )
        if getattr(policy, "path", None) is not None or getattr(policy, "method", None):
            losses.say(where, "the request's new path or method")
        return [{"headers": {field: values}}] if values else []

    return write_headers


def _settable(edit: Edit) -> bool:
    fixed = all(isinstance(part, str) for part in edit.value)
    return edit.where is Where.HEADER and edit.verb in (Verb.SET, Verb.REMOVE) and fixed


def _ip_list(policy: IpList, where: str, losses: Losses) -> list[Middleware]:
    if policy.deny:
        losses.say(where, f"its denied addresses {', '.join(policy.deny)}")
    return [{"ipAllowList": {"sourceRange": list(policy.allow)}}] if policy.allow else []


def _forward_auth(policy: ForwardAuth, where: str, losses: Losses) -> list[Middleware]:
    made: dict[str, Any] = {"address": policy.url}
    if policy.trust is not Trust.SOME:
        made["trustForwardHeader"] = policy.trust is Trust.ALL
    if policy.response_headers:
        made["authResponseHeaders"] = list(policy.response_headers)
    if policy.request_headers:
        made["authRequestHeaders"] = list(policy.request_headers)
    return [{"forwardAuth": made}]


def _basic(policy: BasicAuth, where: str, losses: Losses) -> list[Middleware]:
    users = [f"{user.name}:{user.value}" for user in policy.users]
    return [{"basicAuth": {"users": users, "realm": policy.realm, "removeHeader": policy.hide}}]


def _retry(policy: Retry, where: str, losses: Losses) -> list[Middleware]:
    made: dict[str, Any] = {"attempts": policy.tries + 1}
    if policy.statuses:
        made["status"] = [f"{low}-{high}" for low, high in policy.statuses]
    return [{"retry": made}]


def _redirect(policy: Redirect, where: str, losses: Losses) -> list[Middleware]:
    permanent = policy.status in (301, 308)
    if policy.status not in (301, 302):
        losses.say(where, f"status {policy.status}: {301 if permanent else 302} instead")
    if policy.regex:
        made = {"regex": policy.regex, "replacement": policy.replacement, "permanent": permanent}
        return [{"redirectRegex": made}]
    return [{"redirectScheme": {"scheme": policy.scheme, "permanent": permanent, "port": policy.port}}]


_WRITERS: Mapping[type, Callable[[Any, str, Losses], list[Middleware]]] = {
    RateLimit: _limit,
    RequestTransform: _headers("customRequestHeaders"),
    ResponseTransform: _headers("customResponseHeaders"),
    IpList: _ip_list,
    ForwardAuth: _forward_auth,
    BasicAuth: _basic,
    Retry: _retry,
    Redirect: _redirect,
    StripPrefix: lambda policy, where, losses: [{"stripPrefix": {"prefixes": list(policy.prefixes)}}],
    StripPrefixRegex: lambda policy, where, losses: [{"stripPrefixRegex": {"regex": list(policy.regexes)}}],
    AddPrefix: lambda policy, where, losses: [{"addPrefix": {"prefix": policy.prefix}}],
    ReplacePath: lambda policy, where, losses: [{"replacePath": {"path": policy.path}}],
    ReplacePathRegex: lambda policy, where, losses: [
        {"replacePathRegex": {"regex": policy.regex, "replacement": policy.replacement}}
    ],
    InFlight: lambda policy, where, losses: [{"inFlightReq": {"amount": policy.amount}}],
    SizeLimit: lambda policy, where, losses: [{"buffering": {"maxRequestBodyBytes": policy.request}}],
    CircuitBreaker: lambda policy, where, losses: [{"circuitBreaker": {"expression": policy.expression}}],
    Compress: lambda policy, where, losses: [{"compress": {"minResponseBodyBytes": policy.minimum}}],
}
