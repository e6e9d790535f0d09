"""From Traefik's files to the model.

 1. Documents are read into routers, services and middlewares; a resource (IngressRoute, ...) and an entry of
    `http:` become the same things, under names with their namespace where one is given.
 2. What a router names is looked up: a middleware or a service that is not there is an error, where Traefik
    would answer 404 or 503.
 3. A router's rank is its priority, else the length of its rule as written.

Traefik listens where its static configuration says; of that, `entryPoints` may stand in a file here. Without,
`web` is port 80 and `websecure` port 443.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from skylift.gateway.access import Policy
from skylift.gateway.conditions import ALWAYS
from skylift.gateway.errors import nearest
from skylift.gateway.loading import Document
from skylift.gateway.model import (
    Destination,
    Dialect,
    Forwarding,
    Gateway,
    Listener,
    Mirror,
    Route,
    Step,
    Sticky,
)
from skylift.gateway.policies import Answer, Respond
from skylift.gateway.reading import Fields, Problems, texts
from skylift.gateway.template import plain
from skylift.gateway.traefik.backends import apply_transports, elsewhere, read_service, read_transport
from skylift.gateway.traefik.found import (
    MAX_PRIORITY,
    Chain,
    Found,
    Router,
    read_middleware,
    reads_tls,
    refuse_old_rules,
)
from skylift.gateway.traefik.headers import OverTls
from skylift.gateway.traefik.listening import read_entry_points
from skylift.gateway.traefik.resources import read_ports, read_resource
from skylift.gateway.traefik.rule import RuleFault, parse
from skylift.gateway.traefik.tls import read_tls, secured

TOP_LEVEL = ("apiVersion", "http", "tls", "tcp", "udp", "entryPoints")
NOT_FOUND = Answer(404, plain("404 page not found\n"))
OWN = tuple(
    (status, Answer(status, plain(text)))
    for status, text in (
        (413, "Request Entity Too Large"),
        (502, "Bad Gateway"),
        (503, "no available server"),
        (504, "Gateway Timeout"),
    )
)
DEFAULT_LISTENERS = {"web": Listener("web", 80), "websecure": Listener("websecure", 443, tls=True)}


def read(documents: Iterable[Document]) -> Gateway:
    """One configuration from all documents; `Refused` with every problem there is."""
    found = Found(Problems())
    tables = [Fields.of(document, found.problems) for document in documents]
    for at in tables:
        read_ports(at, found)
    for at in tables:
        _no_templates(at)
        if at.has("apiVersion") or at.has("kind"):
            read_resource(at, found)
        else:
            at.any_case = True
            _read_file(at, found)
    apply_transports(found.backends)
    made = _gateway(found)
    found.problems.check()
    return made


def _no_templates(at: Fields) -> None:
    """Go's templates of the file provider: what is left of them is no value."""
    for path, text in texts(at.value):
        if "{{" in text:
            at.wrong(path, text, 'of templates only {{ env "NAME" }} is filled', "not_supported")


def _read_file(at: Fields, found: Found) -> None:
    for name in ("tcp", "udp"):
        at.lacking(name, "only HTTP is routed here", (None, {}))
    read_entry_points(at, found)
    read_tls(at, found.tls)
    http = at.must_table("http")
    for name, table in http.named("services"):
        found.once("service", name, table)
        read_service(name, table, found.backends)
    for name, table in http.named("middlewares"):
        read_middleware(name, table, found)
    for name, table in http.named("serversTransports"):
        found.backends.transports[name] = read_transport(table)
    for name, table in http.named("routers"):
        _read_router(name, table, found)
    http.lacking("models", "models are the static configuration's", (None, {}))
    http.done()
    at.done()


def _read_router(name: str, at: Fields, found: Found) -> None:
    found.once("router", name, at)
    rule = at.text("rule", required=True)
    refuse_old_rules(at)
    at.ignored("observability")
    at.lacking("parentRefs", "routers stand on one level")
    middlewares = tuple((f"middlewares[{n}]", text) for n, text in enumerate(at.texts("middlewares")))
    tls, options = reads_tls(at)
    found.routers.append(
        Router(
            name,
            rule,
            at,
            at.text("service", required=True),
            middlewares,
            at.texts("entryPoints"),
            at.whole("priority", 0, low=-MAX_PRIORITY, high=MAX_PRIORITY),
            tls,
            options,
        )
    )
    at.done()


# --- looking up ----------------------------------------------------------------------------------------


def _gateway(found: Found) -> Gateway:
    listeners = _listeners(found)
    routes = [route for router in found.routers for route in _routes(found, router, listeners)]
    return Gateway(
        Dialect.TRAEFIK,
        (*_redirections(found, listeners), *routes),
        services=found.backends.services,
        upstreams=found.backends.upstreams,
        listeners=secured(listeners, found.routers, found.tls),
        not_found=NOT_FOUND,
        answers=OWN,
        forwarding=Forwarding(trusted=found.trusted),
        notes=tuple(found.problems.notes),
    )


def _redirections(found: Found, listeners: Mapping[str, Listener]) -> Iterator[Route]:
    for name, (at, to, redirect, priority) in found.redirections.items():
        port = to.removeprefix(":") if to.startswith(":") else ""
        if to in listeners:
            port = str(listeners[to].port)
        elif not port.isdecimal():
            rule = "it must be an entry point, or :port"
            at.wrong("to", to, rule, "unknown_entry_point", nearest(to, listeners))
        if listeners[name].tls == (redirect.scheme == "https"):
            at.wrong("scheme", redirect.scheme, f"{name} speaks it already")
        usual = {"http": "80", "https": "443"}[redirect.scheme]
        policy = replace(redirect, port="" if port == usual else port)
        step = Step("redirections", policy, at.origin)
        ranks = (priority,)
        yield Route(f"{name} to {to}", ALWAYS, (), (step,), ranks, listeners=(name,), origin=at.origin)


def _listeners(found: Found) -> Mapping[str, Listener]:
    """What is written, else the usual two, as far as routers name them."""
    if found.listeners:
        known = found.listeners
    else:
        named = {name for router in found.routers for name in router.entry_points}
        everywhere = any(not router.entry_points for router in found.routers)
        known = {
            name: listener
            for name, listener in DEFAULT_LISTENERS.items()
            if name in named or (everywhere and (name == "web" or found.tls.certificates))
        }
    for router in found.routers:
        for number, name in enumerate(router.entry_points):
            if name not in known and name not in DEFAULT_LISTENERS:
                hint = nearest(name, {**DEFAULT_LISTENERS, **known})
                rule = "there is no entry point of this name; entryPoints may stand in a file"
                router.at.wrong(f"entryPoints[{number}]", name, rule, "unknown_entry_point", hint)
    return known


def _routes(found: Found, router: Router, listeners: Mapping[str, Listener]) -> Iterator[Route]:
    """A router, once for each set of middlewares that its entry points put before its own."""
    names = router.entry_points or tuple(listeners)
    sets: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        sets.setdefault(found.entry_middlewares.get(name, ()), []).append(name)
    made = _route(found, router)
    for part, (before, of) in enumerate(sets.items() or [((), list(names))]):
        place = f"entryPoints.{of[0]}.http.middlewares" if of else ""
        first = tuple(step for name in before for step in _steps(found, name, router.at, place, router.tls))
        entry_points = router.entry_points if len(sets) < 2 else tuple(of)
        yield replace(made, steps=(*first, *made.steps), listeners=entry_points, part=part)


INTERNAL = {
    "noop@internal": Answer(418, plain("I'm a teapot")),
    "ping@internal": Answer(200, plain("OK")),
}


def _route(found: Found, router: Router) -> Route:
    try:
        when = parse(router.rule)
    except RuleFault as e:
        when = ALWAYS
        router.at.wrong("rule" if "rule" in router.at.value else "match", router.rule, str(e), "bad_rule")
    to: tuple[Destination, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    sticky: Sticky | None = None
    if router.service and router.service not in INTERNAL:
        place = "service" if "service" in router.at.value else "services"
        to, mirrors = found.backends.resolve(router.service, router.at, place)
        sticky = found.backends.sticky_of(router.service)
    steps: list[Step] = []
    for place, name in router.middlewares:
        steps += _steps(found, name, router.at, place, router.tls)
    if router.service in INTERNAL:
        steps.append(Step(router.service, Respond(INTERNAL[router.service]), router.at.origin))
    return Route(
        router.name,
        when,
        to,
        tuple(steps),
        rank=(router.priority or len(router.rule.encode()),),
        schemes=("https",) if router.tls else ("http",),
        listeners=router.entry_points,
        mirrors=mirrors,
        sticky=sticky,
        written=router.rule,
        origin=router.at.origin,
    )


def _steps(
    found: Found, name: str, at: Fields, place: str, tls: bool, above: tuple[str, ...] = ()
) -> list[Step]:
    """The policies behind a middleware's name, chains unfolded."""
    plain_name = name.removesuffix("@file").removesuffix("@kubernetescrd")
    if plain_name in above:
        rule = f"it leads to itself: {' -> '.join((*above, plain_name))}"
        at.wrong(place, name, rule, "cyclic_reference")
        return []
    if plain_name not in found.middlewares:
        hint = nearest(plain_name, found.middlewares)
        _, at_sign, provider = plain_name.partition("@")
        why = elsewhere(provider) if at_sign else "; Traefik would answer 404 for the whole route"
        rule = f"there is no middleware of this name{why}"
        at.wrong(place, name, rule, "unknown_middleware", hint)
        return []
    content, origin = found.middlewares[plain_name]
    if isinstance(content, Chain):
        steps: list[Step] = []
        for number, inner in enumerate(content.names):
            above_it = (*above, plain_name)
            steps += _steps(found, inner, content.at, f"middlewares[{number}]", tls, above_it)
        return steps
    policies = [each.policy if isinstance(each, OverTls) else each for each in content if _has(each, tls)]
    return [Step(plain_name, policy, origin.origin) for policy in policies]


def _has(policy: Policy | OverTls, tls: bool) -> bool:
    return tls or not isinstance(policy, OverTls)
