"""From Kong's files to the model: entities, what they refer to, and which plugin runs where.

1. Every document is read into entities; children may be nested or stand at top level and name their parent.
2. References are looked up by name or id; one that leads nowhere is a problem, with the nearest name.
3. For each route and plugin name one configuration wins: the most particular of route, service, consumer and
   global. Where a consumer has one of its own, the policy is per consumer.
4. Plugins run by Kong's priority, whatever the file's order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from skylift.gateway.access import ApiKey, BasicAuth, Jwt, PerConsumer, Policy, logs
from skylift.gateway.conditions import All, Condition, Part, Test
from skylift.gateway.kong import answers, match
from skylift.gateway.kong.entities import (
    Attached,
    Entities,
    KongRoute,
    KongService,
    Scope,
)
from skylift.gateway.kong.parse import ABSENT_ENTITIES, ENTITIES, read_document
from skylift.gateway.kong.plugins import PLUGINS
from skylift.gateway.loading import Document
from skylift.gateway.model import (
    Destination,
    Dialect,
    Forwarding,
    Gateway,
    HostSent,
    Listener,
    Note,
    Route,
    Service,
    Step,
    Target,
    Upstream,
)
from skylift.gateway.policies import Answer, JoinBase, RateLimit, Respond, Retry
from skylift.gateway.reading import Problems
from skylift.gateway.text import Kind, Text

TOP_LEVEL = (*ENTITIES, *ABSENT_ENTITIES)


def read(documents: Iterable[Document]) -> Gateway:
    """One configuration from all documents; `Refused` with every problem there is."""
    problems = Problems()
    found = Entities(problems)
    for document in documents:
        read_document(document, found)
    made = _gateway(found)
    problems.check()
    return made


def _gateway(found: Entities) -> Gateway:
    found.look_up_all()
    services = {service.name: service for service in found.services if service.enabled}
    consumers = found.consumer_models()
    routes: list[Route] = []
    for route in found.routes:
        service = found.service_of(route)
        if service is not None and not service.enabled:
            found.problems.notes.append(
                Note("disabled", f"route {route.name} is off: its service is disabled", route.origin)
            )
            continue
        routes += _routes(found, route, service)
    return Gateway(
        Dialect.KONG,
        tuple(routes),
        services={name: _service(found, service) for name, service in services.items()},
        upstreams=_upstreams(found, services.values()),
        consumers=consumers,
        listeners=(Listener("http", 8000),),
        not_found=answers.NOT_FOUND,
        unrouted=_unrouted(found),
        answers=answers.OWN,
        forwarding=Forwarding(path=True, prefix=True, consumer_headers=True),
        notes=tuple(found.problems.notes),
    )


# --- services and upstreams ----------------------------------------------------------------------------


def _upstream_name(found: Entities, service: KongService) -> str:
    return service.host if service.host in found.upstreams else f"{service.host}:{service.port}"


def _service(found: Entities, service: KongService) -> Service:
    upstream = found.upstreams.get(service.host)
    return Service(
        service.name,
        _upstream_name(found, service),
        service.protocol,
        host=HostSent.TARGETS,
        host_header=upstream.host_header if upstream else "",
        retry=Retry(service.retries) if service.retries else None,
        timeouts=service.timeouts,
        tls=service.tls,
        origin=service.origin,
    )


def _upstreams(found: Entities, services: Iterable[KongService]) -> dict[str, Upstream]:
    known = {name: name for name in found.upstreams}
    for ref, target in found.targets:
        name = found.look_up(ref, "upstream", known)
        if name is not None:
            found.upstreams[name] = found.upstreams[name].with_target(target)
    made = {name: upstream.model for name, upstream in found.upstreams.items()}
    for service in services:
        name = _upstream_name(found, service)
        if name not in made:
            made[name] = Upstream(name, (Target(service.host, service.port),), origin=service.origin)
    return made


# --- routes --------------------------------------------------------------------------------------------


def _routes(found: Entities, route: KongRoute, service: KongService | None) -> Iterable[Route]:
    """A route, once per path."""
    others: list[Condition] = []
    if route.methods:
        others.append(Test(Part.METHOD, tuple(Text(Kind.EXACT, name) for name in route.methods)))
    host = match.host_condition(route.hosts)
    others += [host] if host else []
    others += route.headers
    if route.snis:
        others.append(Test(Part.SNI, tuple(Text(Kind.EXACT, name.lower()) for name in route.snis)))
    kinds = sum(map(bool, (route.methods, route.hosts, route.headers, route.snis, route.paths)))
    steps = _steps(found, route, service)
    if service is None and not any(isinstance(step.policy, Respond) for step in steps):
        found.problems.found.append(
            route.problem("it needs a service, or a plugin that answers (request-termination)")
        )
    join = Step("path", JoinBase(service.path if service else "/", route.strip_path), route.origin)
    for part, path in enumerate(route.paths or (None,)):
        tests = [Test(Part.PATH, (path,))] if path else []
        conditions: tuple[Condition, ...] = (*tests, *others)
        yield Route(
            route.name,
            conditions[0] if len(conditions) == 1 else All(conditions),
            (Destination(service.name),) if service else (),
            (join, *steps),
            match.rank(kinds, route.hosts, len(route.headers), path, route.regex_priority),
            part=part,
            path=path,
            schemes=route.schemes,
            wrong_scheme=_wrong_scheme(route),
            host=HostSent.CLIENTS if route.preserve_host else None,
            buffer_request=False,
            origin=route.origin,
        )


def _wrong_scheme(route: KongRoute) -> Answer | None:
    if "http" in route.schemes:
        return None
    return answers.USE_HTTPS if route.redirect_status == 426 else answers.to_https(route.redirect_status)


# --- plugins -------------------------------------------------------------------------------------------


def _winner(plugins: Mapping[Scope, Attached], scope: Scope) -> Attached | None:
    """Kong's order of particularity: a plugin names route, service and consumer, or some of them, or none."""
    route, service, consumer = scope
    for names in (
        (route, service, consumer),
        (route, None, consumer),
        (None, service, consumer),
        (route, service, None),
        (None, None, consumer),
        (route, None, None),
        (None, service, None),
        (None, None, None),
    ):
        if names in plugins:
            return plugins[names]
    return None


def _steps(found: Entities, route: KongRoute, service: KongService | None) -> tuple[Step, ...]:
    """The policies of a route, in the order Kong runs them."""
    steps = []
    service_name = service.name if service else None
    for name in sorted(found.attached, key=lambda name: -PLUGINS[name].priority):
        plugins = found.attached[name]
        general = _winner(plugins, (route.name, service_name, None))
        plans = []
        for consumer in sorted({scope[2] for scope in plugins if scope[2]}):
            own = _winner(plugins, (route.name, service_name, consumer))
            if own is not None and own is not general:
                plans.append((consumer, own))
        policy = _policy(found, general, route, service) if general else None
        own_policies = tuple((who, _policy(found, own, route, service)) for who, own in plans)
        if own_policies:
            steps.append(Step(name, PerConsumer(policy, own_policies), plans[0][1].origin))
        elif policy is not None and general is not None:
            steps.append(Step(name, policy, general.origin))
    return tuple(steps)


def _unrouted(found: Entities) -> tuple[Step, ...]:
    """Logs of everything, also of what no route takes."""
    everywhere = [plugins.get((None, None, None)) for plugins in found.attached.values()]
    each = [plugin for plugin in everywhere if plugin and logs(plugin.policy)]
    return tuple(Step(plugin.name, plugin.policy, plugin.origin) for plugin in each)


def _policy(found: Entities, plugin: Attached, route: KongRoute, service: KongService | None) -> Policy:
    """The plugin's policy, with what depends on the route and on consumers filled in."""
    match plugin.policy:
        case RateLimit() as limit:
            return replace(limit, bucket=f"{route.name}:{service.name if service else ''}")
        case Jwt() as jwt:
            anonymous = found.consumer_named(jwt.anonymous, plugin)
            return replace(jwt, keys=found.jwt_keys(plugin.base64_secrets), anonymous=anonymous)
        case ApiKey() as keys:
            return replace(keys, keys=found.api_keys, anonymous=found.consumer_named(keys.anonymous, plugin))
        case BasicAuth() as basic:
            return replace(
                basic, users=found.passwords, anonymous=found.consumer_named(basic.anonymous, plugin)
            )
        case policy:
            return policy
