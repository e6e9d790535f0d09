"""The model as one of Kong's declarative files."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from skylift.gateway.access import Acl, ApiKey, BotDetection, IpList, Policy
from skylift.gateway.conditions import Part, Test
from skylift.gateway.kong.plugins import PERIODS
from skylift.gateway.model import Balance, Gateway, HostSent, Route, Service, Upstream
from skylift.gateway.policies import (
    AddPrefix,
    Algorithm,
    CorrelationId,
    Edit,
    FileLog,
    JoinBase,
    KeyKind,
    RateLimit,
    RequestTransform,
    Respond,
    ResponseTransform,
    SizeLimit,
    StripPrefix,
    Verb,
    Where,
)
from skylift.gateway.template import shown
from skylift.gateway.text import REGEXES, Kind, Text
from skylift.gateway.writing import Losses, alternatives


def write(gateway: Gateway, losses: Losses) -> dict[str, Any]:
    """The whole file. Routes stand under their first service; their order is Kong's own."""
    services: dict[str, dict[str, Any]] = {}
    for service in gateway.services.values():
        services[service.name] = _service(service, gateway.upstreams[service.upstream])
    for route in gateway.ordered:
        _route(gateway, route, services, losses)
    upstreams = [
        _upstream(upstream, losses)
        for upstream in gateway.upstreams.values()
        if not _single(upstream) or upstream.active or upstream.passive
    ]
    found: dict[str, Any] = {"_format_version": "3.0", "services": list(services.values())}
    if upstreams:
        found["upstreams"] = upstreams
    if gateway.consumers:
        found["consumers"] = _consumers(gateway, losses)
    return found


def _single(upstream: Upstream) -> bool:
    return len(upstream.targets) == 1


def _host_name(name: str) -> str:
    """An upstream's name in Kong is a host name."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)


def _service(service: Service, upstream: Upstream) -> dict[str, Any]:
    protocol = "http" if service.protocol == "h2c" else service.protocol
    found: dict[str, Any] = {"name": _host_name(service.name), "protocol": protocol}
    if _single(upstream) and not upstream.active and not upstream.passive:
        found |= {"host": upstream.targets[0].host, "port": upstream.targets[0].port}
    else:
        found |= {"host": _host_name(upstream.name)}
    if service.retry is None:
        found["retries"] = 0
    else:
        found["retries"] = service.retry.tries
    found["connect_timeout"] = max(1, int(service.timeouts.connect * 1000))
    if service.timeouts.idle:
        found["read_timeout"] = found["write_timeout"] = max(1, int(service.timeouts.idle * 1000))
    return {**found, "routes": []}


_ALGORITHMS = {
    Balance.ROUND_ROBIN: "round-robin",
    Balance.LEAST_REQUESTS: "least-connections",
    Balance.TWO_CHOICES: "least-connections",
    Balance.HASH: "consistent-hashing",
    Balance.LATENCY: "latency",
}


def _upstream(upstream: Upstream, losses: Losses) -> dict[str, Any]:
    where = f"upstream {upstream.name}"
    if upstream.balance not in _ALGORITHMS:
        losses.say(where, f"its balancing by {upstream.balance}: targets take turns")
    if upstream.sticky:
        losses.say(where, "its sticky cookie")
    if upstream.fallback:
        losses.say(where, f"its fallback {upstream.fallback}")
    targets = [{"target": f"{each.host}:{each.port}", "weight": each.weight} for each in upstream.targets]
    found: dict[str, Any] = {
        "name": _host_name(upstream.name),
        "algorithm": _ALGORITHMS.get(upstream.balance, "round-robin"),
        "targets": targets,
    }
    if found["algorithm"] == "consistent-hashing":
        found["hash_on"] = "ip"
    if upstream.active:
        check = upstream.active
        healthy = {"interval": check.interval, "successes": check.healthy}
        unhealthy = {"interval": check.unhealthy_interval, "http_failures": check.unhealthy}
        active = {
            "http_path": check.path,
            "timeout": check.timeout,
            "healthy": healthy,
            "unhealthy": unhealthy,
        }
        found["healthchecks"] = {"active": active}
    return found


# --- routes --------------------------------------------------------------------------------------------


def _route(gateway: Gateway, route: Route, services: dict[str, dict[str, Any]], losses: Losses) -> None:
    where = f"route {route.name}"
    if len(route.to) > 1:
        losses.say(where, f"its weights: all requests go to {route.to[0].service}")
    if route.sticky:
        losses.say(where, "its sticky cookie")
    if route.mirrors:
        losses.say(where, "its mirrors")
    if not route.to:
        losses.say(where, "it has no service: not written")
        return
    choices = alternatives(route.when)
    if choices is None:
        losses.say(where, f"its condition ({route.written or route.when}): Kong has no not; not written")
        return
    service = gateway.services[route.to[0].service]
    target = services[route.to[0].service]
    for number, tests in enumerate(choices):
        fields = _fields(tests, where, losses)
        if fields is None:
            continue
        name = route.id.replace("~", "-").replace("/", "-")
        made: dict[str, Any] = {"name": name + (f"-{number}" if number else ""), **fields}
        made["strip_path"] = _strips(route)
        client_host = (route.host or service.host) is HostSent.CLIENTS
        made["preserve_host"] = client_host
        if set(route.schemes) != {"http", "https"}:
            made["protocols"] = list(route.schemes)
            if route.schemes == ("http",):
                del made["protocols"]
        plugins = _plugins(route, where, losses, target)
        if plugins:
            made["plugins"] = plugins
        target["routes"].append(made)


def _strips(route: Route) -> bool:
    return any(
        (isinstance(step.policy, JoinBase) and step.policy.strip) or isinstance(step.policy, StripPrefix)
        for step in route.steps
    )


def _fields(tests: tuple[Test, ...], where: str, losses: Losses) -> dict[str, Any] | None:
    """The tests as a route's fields; None, and said, where one has no field."""
    found: dict[str, Any] = {}
    for test in tests:
        values = [_value(test, text) for text in test.texts]
        name = {Part.PATH: "paths", Part.HOST: "hosts", Part.METHOD: "methods", Part.HEADER: "headers"}.get(
            test.part
        )
        taken = name in found and (name != "headers" or test.name in found["headers"])
        if name is None or None in values or taken:
            losses.say(where, f"its condition on {test}: Kong has no field for it; not written")
            return None
        if name == "headers":
            found.setdefault("headers", {})[test.name] = values
        else:
            found[name] = values
    return found or {"paths": ["/"]}


def _value(test: Test, text: Text) -> str | None:
    if test.part is Part.PATH:
        return _path(text)
    if test.part is Part.HOST:
        return {Kind.EXACT: text.value, Kind.SUFFIX: f"*{text.value}", Kind.PREFIX: f"{text.value}*"}.get(
            text.kind
        )
    if test.part is Part.HEADER and text.kind in REGEXES and len(test.texts) == 1:
        anchored = {Kind.REGEX_FULL: f"^(?:{text.value})$", Kind.REGEX_START: f"^(?:{text.value})"}
        return f"~*{anchored.get(text.kind, text.value)}"
    return text.value if text.kind is Kind.EXACT else None


def _path(text: Text) -> str | None:
    literal = re.escape(text.value).replace(r"\-", "-").replace(r"\/", "/")
    made = {
        Kind.PREFIX: text.value,
        Kind.EXACT: f"~{literal}$",
        Kind.SEGMENT: f"~{literal.rstrip('/')}(?:/|$)",
        Kind.REGEX_START: f"~{text.value}",
        Kind.REGEX_FULL: f"~{text.value}$",
    }.get(text.kind)
    return made if made is None or made.startswith(("/", "~/")) else None


# --- plugins -------------------------------------------------------------------------------------------


def _plugins(route: Route, where: str, losses: Losses, service: dict[str, Any]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for step in route.steps:
        policy = step.policy
        said = f"{step.name} of {where}"
        if isinstance(policy, JoinBase):
            if policy.base != "/":
                service["path"] = policy.base
            continue
        if isinstance(policy, StripPrefix):
            losses.say(said, "cut is what the route's path matched, and X-Forwarded-Prefix says it")
            continue
        if isinstance(policy, AddPrefix):
            service["path"] = policy.prefix
            losses.say(said, "the prefix becomes the service's path, for all its routes")
            continue
        made = _plugin(policy, said, losses)
        if made is None:
            continue
        name, config = made
        if name in found:
            losses.say(said, f"a second {name}: Kong runs one of a name")
            continue
        found[name] = {"name": name, "config": config}
    return list(found.values())


def _plugin(policy: Policy, where: str, losses: Losses) -> tuple[str, dict[str, Any]] | None:
    write_one = _WRITERS.get(type(policy))
    if write_one is None:
        losses.say(where, f"{type(policy).__name__}: no plugin of Kong is written for it")
        return None
    return write_one(policy, where, losses)


_LIMIT_BY = {
    KeyKind.CONSUMER: "consumer",
    KeyKind.CREDENTIAL: "credential",
    KeyKind.CLIENT: "ip",
    KeyKind.HEADER: "header",
    KeyKind.EVERYBODY: "service",
}


def _limit(policy: RateLimit, where: str, losses: Losses) -> tuple[str, dict[str, Any]] | None:
    config: dict[str, Any] = {}
    for limit in policy.limits:
        period = next((name for name, seconds in PERIODS if seconds == limit.seconds), None)
        if period is None:
            losses.say(where, f"{limit.count} per {limit.seconds:g} s: Kong has seconds, minutes, hours, ...")
        else:
            config[period] = limit.count
    if not config:
        return None
    if policy.algorithm is not Algorithm.FIXED_WINDOW:
        losses.say(where, f"its {policy.algorithm} and its burst: windows of the calendar instead")
    if policy.key.kind not in _LIMIT_BY:
        losses.say(where, f"per {policy.key.kind}: counted per client address")
    config["limit_by"] = _LIMIT_BY.get(policy.key.kind, "ip")
    if policy.key.kind is KeyKind.HEADER:
        config["header_name"] = policy.key.name
    config |= {"policy": "local", "fault_tolerant": policy.fault_tolerant}
    config["hide_client_headers"] = policy.headers == "none"
    if policy.redis:
        table = {"host": policy.redis.host, "port": policy.redis.port, "database": policy.redis.database}
        config |= {"policy": "redis", "redis": table}
    return "rate-limiting", config


_FIELDS = {Where.HEADER: "headers", Where.QUERY: "querystring", Where.BODY: "body"}


def _edits(edits: tuple[Edit, ...], fields: Mapping[Where, str]) -> dict[str, Any]:
    """Set is replace and add: whichever applies."""
    config: dict[str, Any] = {}
    for edit in edits:
        verbs = (Verb.REPLACE, Verb.ADD) if edit.verb is Verb.SET else (edit.verb,)
        for verb in verbs:
            entry = edit.name if verb is Verb.REMOVE else f"{edit.name}:{shown(edit.value)}"
            config.setdefault(str(verb), {}).setdefault(fields[edit.where], []).append(entry)
    return config


def _request(policy: RequestTransform, where: str, losses: Losses) -> tuple[str, dict[str, Any]]:
    edits = []
    for edit in policy.edits:
        if edit.name.lower() == "host" and edit.verb is Verb.SET:
            edit = Edit(Verb.REPLACE, edit.where, edit.name, edit.value)
        edits.append(edit)
    config = _edits(tuple(edits), _FIELDS)
    if policy.method:
        config["http_method"] = policy.method
    if policy.path is not None:
        config.setdefault("replace", {})["uri"] = shown(policy.path)
    return "request-transformer", config


def _response(policy: ResponseTransform, where: str, losses: Losses) -> tuple[str, dict[str, Any]]:
    return "response-transformer", _edits(policy.edits, {**_FIELDS, Where.BODY: "json"})


def _ip_list(policy: IpList, where: str, losses: Losses) -> tuple[str, dict[str, Any]]:
    if policy.address.depth or policy.address.excluded:
        losses.say(where, "which address of X-Forwarded-For counts")
    lists = {"allow": list(policy.allow), "deny": list(policy.deny)}
    return "ip-restriction", {name: nets for name, nets in lists.items() if nets} | {
        "status": policy.answer.status
    }


def _api_key(policy: ApiKey, where: str, losses: Losses) -> tuple[str, dict[str, Any]]:
    names = list(dict.fromkeys(place.name for place in policy.places))
    return "key-auth", {"key_names": names, "hide_credentials": policy.hide}


def _acl(policy: Acl, where: str, losses: Losses) -> tuple[str, dict[str, Any]]:
    if policy.allow and policy.deny:
        losses.say(where, f"its denied groups {', '.join(policy.deny)}: Kong has allow or deny")
    return "acl", {"allow": list(policy.allow)} if policy.allow else {"deny": list(policy.deny)}


def _respond(policy: Respond, where: str, losses: Losses) -> tuple[str, dict[str, Any]]:
    body = {"body": shown(policy.answer.body), "content_type": policy.answer.content_type}
    return "request-termination", {"status_code": policy.answer.status, **(body if body["body"] else {})}


_WRITERS: Mapping[type, Callable[[Any, str, Losses], tuple[str, dict[str, Any]] | None]] = {
    RateLimit: _limit,
    RequestTransform: _request,
    ResponseTransform: _response,
    IpList: _ip_list,
    ApiKey: _api_key,
    BotDetection: lambda policy, where, losses: (
        "bot-detection",
        {"allow": list(policy.allow), "deny": list(policy.deny)},
    ),
    Acl: _acl,
    Respond: _respond,
    FileLog: lambda policy, where, losses: ("file-log", {"path": policy.path}),
    CorrelationId: lambda policy, where, losses: (
        "correlation-id",
        {"header_name": policy.header, "generator": "uuid", "echo_downstream": policy.echo},
    ),
    SizeLimit: lambda policy, where, losses: (
        "request-size-limiting",
        {"allowed_payload_size": policy.request, "size_unit": "bytes"},
    ),
}


def _consumers(gateway: Gateway, losses: Losses) -> list[dict[str, Any]]:
    keys: dict[str, list[str]] = {}
    for route in gateway.routes:
        for step in route.steps:
            if isinstance(step.policy, ApiKey):
                for key in step.policy.keys:
                    if key.consumer and key.value not in keys.setdefault(key.consumer, []):
                        keys[key.consumer].append(key.value)
    found = []
    for consumer in gateway.consumers.values():
        made: dict[str, Any] = {"username": consumer.name}
        if consumer.groups:
            made["acls"] = [{"group": group} for group in consumer.groups]
        if keys.get(consumer.name):
            made["keyauth_credentials"] = [{"key": key} for key in keys[consumer.name]]
        if consumer.plan:
            losses.say(f"consumer {consumer.name}", f"its plan {consumer.plan}")
        found.append(made)
    return found
