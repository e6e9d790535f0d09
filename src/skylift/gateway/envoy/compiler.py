"""The model, compiled: one `Gateway` becomes one `Snapshot`.

Each listener has a table of its own, because ports, schemes and redirects are settled by it. Everything that
cannot be compiled is found in one go and refused by name; nothing is left out in silence.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from skylift.gateway.conditions import ALWAYS, All, Part, Test
from skylift.gateway.envoy import (
    clusters,
    login,
    logs,
    matching,
    pieces,
    steps,
    sticking,
    transforms,
    variants,
)
from skylift.gateway.envoy.edge import NOTHING_MORE, Extras, edge, observed, ranges, replies, shown, tls
from skylift.gateway.envoy.formats import IF_ABSENT, OVERWRITE, direct, header
from skylift.gateway.envoy.matching import Place
from skylift.gateway.envoy.paths import Case, cases
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import HCM, PLACE, TYPE, Json, Snapshot
from skylift.gateway.envoy.steps import Where, Words
from skylift.gateway.envoy.tables import Entry, virtual_hosts
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.helper.asked import INSIDE, SERVICE
from skylift.gateway.model import Destination, Forwarding, Gateway, HostSent, Listener, Route, Service
from skylift.gateway.policies import Answer, JoinBase, Retry
from skylift.gateway.template import plain
from skylift.gateway.text import Kind, Text

ANYWHERE = Listener("web", 8000)  # for a configuration that names none
NO_ROUTE = "not found"  # the name of what takes the rest
TWO_HOSTS = Answer(400, plain("bad request\n"))  # RFC 9112, 3.2: whoever says two may mean either


@dataclass
class _Compiled:
    """A route at a listener, before the listener's chain is known."""

    route: Route
    words: Words
    entries: list[tuple[matching.Match, Json]] = field(default_factory=list)


def compiled(gateway: Gateway, extras: Extras = NOTHING_MORE) -> Snapshot:
    """Everything that Envoy is to have. Raises Refused with all that it cannot be told."""
    book = Book(gateway.endpoints)
    problems: list[Problem] = []
    listeners: list[Json] = []
    tables: list[Json] = []
    for listener in gateway.listeners or (ANYWHERE,):
        routes = list(_routes(gateway, listener, book, problems))
        tables.append(_table(gateway, listener, routes, book))
        listeners.append(_listener(gateway, listener, routes, book, extras))
    if book.inside:
        tables.append(_inner_table(gateway, book))
        listeners.append(_inner_listener(extras))
    backends = [_cluster(gateway, service, problems) for service in gateway.services.values()]
    if problems:
        raise Refused(problems)
    found = {cluster["name"]: cluster for cluster in (*backends, *book.clusters.values())}
    return Snapshot(
        tuple(listeners), tuple(tables), tuple(found.values()), tuple(book.secrets.values()), book.helper
    )


def _cluster(gateway: Gateway, service: Service, problems: list[Problem]) -> Json:
    try:
        return clusters.cluster(service, gateway)
    except Refused as e:
        problems += e.problems
        return {"name": service.name}


# --- routes
# ---------------------------------------------------------------------------------------------------


def _routes(gateway: Gateway, listener: Listener, book: Book, problems: list[Problem]) -> Iterator[_Compiled]:
    late: list[_Compiled] = []
    plain: list[_Compiled] = []
    place = Place(listener.port, "https" if listener.tls else "http")
    for route in (each for written in gateway.ordered for each in _preflights(written)):
        if route.listeners and listener.name not in route.listeners:
            continue
        try:
            if place.scheme in route.schemes:
                where = Where(gateway, listener, route, book)
                plain.append(_route(where, place))
                yield from (_route(replace(where, who=who), place) for who in variants.consumers(route))
            elif route.wrong_scheme:
                answer = {"name": route.id, **direct(route.wrong_scheme)}
                entries = [(match, answer) for match in matching.matches(route.when, place)]
                words = Words(transforms.hop_by_hop(route.wrong_scheme))
                late.append(_Compiled(route, words, entries))  # only where no other route takes it
        except Refused as e:
            problems += e.problems
    yield from (*plain, *late)  # variants are found by what no client can send: before what he can


def _preflights(route: Route) -> Iterator[Route]:
    """A route whose way in lets browsers ask beforehand (OPTIONS) is two, the first without it."""
    left = tuple(step for step in route.steps if getattr(step.policy, "on_preflight", True))
    if len(left) < len(route.steps):
        asks = Test(Part.METHOD, (Text(Kind.EXACT, "OPTIONS"),))
        yield replace(route, when=All((route.when, asks)), steps=left)
    yield route


def _route(where: Where, place: Place) -> _Compiled:
    route = where.route
    words = steps.words(where)
    words.pieces += sticking.sessions(where.gateway, route)
    reads = "path_rewrite" in words.action or words.looked_again  # what filters have changed
    if words.answer is None and not reads:
        words.pieces, words.headers = transforms.routes_own(words.pieces)
    made = _Compiled(route, words)
    for path in login.paths(route) if where.who is None else ():
        at = Test(Part.PATH, (Text(Kind.EXACT, path),))
        made.entries += [(match, _says(where, words, Case())) for match in matching.matches(at, place)]
    for case in cases((step.policy for step in route.steps), route.path):
        for way, answer in _answers(words):
            found = matching.matches(route.when, place, (*case.way, *way))
            for name, words_of in matching.stamps_used(found).items():
                where.book.stamp(name, words_of)
            if where.who is not None:
                found = list(variants.matches(found, route, where.who))
            mine = replace(words, answer=answer)
            for cookie, alone in sticking.kept(route) if answer is None else ():
                stays = _says(replace(where, route=alone), mine, case)
                made.entries += [(match.with_header(cookie), stays) for match in found]
            said = _says(where, mine, case)
            made.entries += [(match, said) for match in found]
    return made


def _answers(words: Words) -> Iterator[tuple[matching.Way, Json | None]]:
    """What a route says instead of asking a backend, and to which methods."""
    if words.to_others is not None:
        get = Test(Part.METHOD, (Text(Kind.EXACT, "GET"),))
        yield (matching.Literal(get, wanted=False),), words.to_others
    yield (), words.answer


def _says(where: Where, words: Words, case: Case) -> Json:
    """All of a route but its match and its filters."""
    told = [*_forwarded(where.gateway.forwarding, where.route), *case.tells]
    said: Json = {"name": where.route.id, **words.headers}
    if told:
        said["request_headers_to_add"] = [
            *words.headers.get("request_headers_to_add", ()),
            *(header(name, value) for name, value in told),
        ]
    if words.answer is not None:
        return {**said, **words.answer}
    rewrite = {} if "path_rewrite" in words.action else _rewrite(case)  # replaced: nothing is left to cut
    return {**said, "route": {**_to(where), **rewrite, **words.action}}


def _forwarded(how: Forwarding, route: Route) -> Iterator[tuple[str, str]]:
    cuts = any(isinstance(step.policy, JoinBase) and step.policy.strip for step in route.steps)
    plain = route.path is not None and route.path.kind in (Kind.EXACT, Kind.PREFIX)
    if how.prefix and cuts and plain and route.path and route.path.value != "/":
        yield "X-Forwarded-Prefix", route.path.value.rstrip("/").replace("%", "%%")


def _rewrite(case: Case) -> Json:
    if not case.rewrites:
        return {}
    return {"regex_rewrite": {"pattern": {"regex": case.pattern}, "substitution": case.substitution}}


def _to(where: Where) -> Json:
    """Where a route leads, and how long it may take. Several services of one route share its first one's
    ways."""
    gateway, route = where.gateway, where.route
    service = gateway.services[route.to[0].service]
    said: Json = {
        "timeout": steps.seconds(service.timeouts.answer),  # 0: a download may take as long as it moves
        "idle_timeout": steps.seconds(service.timeouts.idle),
        **_host(route, service, gateway),
        **sticking.hashes(gateway, route, where.book),
    }
    retry = service.retry or Retry(0)
    if retry.tries:
        said["retry_policy"] = steps.retry(retry)
    if len(route.to) == 1 and route.sticky is None:
        said["cluster"] = service.name
    else:
        said |= sticking.shares(route)
    if route.mirrors:
        said["request_mirror_policies"] = [
            {
                "cluster": mirror.service,
                "runtime_fraction": {
                    "default_value": {
                        "numerator": round(mirror.percent * 10_000),
                        "denominator": "MILLION",
                    }
                },
            }
            for mirror in route.mirrors
        ]
    return said


DEFAULT_PORTS = {"http": 80, "grpc": 80, "h2c": 80, "https": 443, "grpcs": 443}


def _host(route: Route, service: Service, gateway: Gateway) -> Json:
    if (route.host or service.host) is HostSent.CLIENTS:
        return {}
    if service.host_header:
        return {"host_rewrite_literal": service.host_header}
    names = {(target.host, target.port) for target in gateway.upstreams[service.upstream].targets}
    if len(names) != 1:
        return {"auto_host_rewrite": True}
    host, port = names.pop()
    shown = host if port == DEFAULT_PORTS.get(service.protocol) else f"{host}:{port}"
    return {"host_rewrite_literal": shown}


# --- what the helper asks through Envoy
# ---------------------------------------------------------------------------------------------------------

INNER = "skylift:inside"


def _inner_table(gateway: Gateway, book: Book) -> Json:
    """Every service by its name in a header."""
    routes = []
    for name in sorted(book.inside):
        where = Where(gateway, ANYWHERE, Route(name, ALWAYS, (Destination(name),)), book)
        named = {"name": SERVICE, "string_match": {"exact": name}}
        routes.append({"match": {"prefix": "/", "headers": [named]}, "route": _to(where)})
    host = {"name": "services", "domains": ["*"], "routes": routes}
    return {
        "name": INNER,
        "virtual_hosts": [host],
        "request_headers_to_remove": [SERVICE, "x-envoy-external-address"],
    }


def _inner_listener(extras: Extras) -> Json:
    manager = {
        "@type": HCM,
        "stat_prefix": "inside",
        "rds": {"route_config_name": INNER},
        "http_filters": [pieces.router(extras.counted)],
        "use_remote_address": False,  # what it carries was said by Envoy itself, at the outer listener
        "skip_xff_append": True,
        "generate_request_id": False,
    }
    return {
        "name": INNER,
        "address": {"pipe": {"path": PLACE + INSIDE, "mode": 0o600}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


# --- tables and listeners
# ----------------------------------------------------------------------------------------


def _chain(routes: Sequence[_Compiled]) -> list[str]:
    return pieces.supersequence([piece.kind for piece in made.words.pieces] for made in routes)


def _table(gateway: Gateway, listener: Listener, routes: Sequence[_Compiled], book: Book) -> Json:
    whole = _chain(routes)
    entries = []
    for made in routes:
        own = _switched_on(made.words.pieces, whole)
        entries += [Entry(match, {**said, **own}) for match, said in made.entries]
    last = {"name": NO_ROUTE, "match": {"prefix": "/"}, **direct(gateway.not_found)}
    return {
        "name": listener.name,
        "ignore_port_in_host_matching": True,
        "virtual_hosts": virtual_hosts(entries, last, {"name": "two hosts", **direct(TWO_HOSTS)}),
        "request_headers_to_add": [header(*told) for told in _always(gateway.forwarding, listener)],
        "request_headers_to_remove": sorted(
            {name for name in (*book.stamps, *book.ours) if name.startswith("x-sl-")}
            | {"x-envoy-external-address"}
        ),
        "response_headers_to_remove": ["x-powered-by"],
    }


def _switched_on(used: Sequence[Piece], whole: Sequence[str]) -> Json:
    at = pieces.places([piece.kind for piece in used], whole)
    own = {pieces.name_of(piece.kind, place): piece.own for piece, place in zip(used, at, strict=True)}
    return {"typed_per_filter_config": own} if own else {}


def _always(how: Forwarding, listener: Listener) -> Iterator[tuple[str, str, str]]:
    """What every backend is told. All in one place: the router changes headers once, not for each place.
    Where somebody is trusted, what stands there still was said by him."""
    before = IF_ABSENT if how.trusted else OVERWRITE
    yield "X-Forwarded-Host", "%REQ(:authority)%", before
    yield "X-Forwarded-Port", str(listener.port), before
    if how.path:
        yield "X-Forwarded-Path", "%PATH(NQ)%", OVERWRITE
    if how.real_ip:
        yield "X-Real-IP", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", OVERWRITE
    if how.server:
        yield "X-Forwarded-Server", how.server, OVERWRITE


# How many are let in between two looks at those who are inside: a herd waits outside, where it costs nothing.
AT_THE_DOOR = 8
HEADERS_S = 15  # what a client may take to say what it wants


def _patience(routes: Sequence[_Compiled]) -> Json:
    """How long nothing may move. Envoy's own clock runs until a route is found; one that leads to a backend
    goes on by its own (`_to`). What answers here, behind something that may take its time (somebody else's
    opinion, a queue), has none: then headers get a clock of theirs, which costs every request."""
    if any(_held(made.words) for made in routes):
        return {"request_headers_timeout": f"{HEADERS_S}s", "stream_idle_timeout": "300s"}
    return {"stream_idle_timeout": f"{HEADERS_S}s"}


def _held(words: Words) -> bool:
    here = words.answer is not None and "route" not in words.answer
    return here and any(piece.kind != "headers" for piece in words.pieces)


def _files(gateway: Gateway, routes: Sequence[_Compiled]) -> list[Json]:
    """Logs that routes have of their own."""
    told = [(made.route.id, made.words.told) for made in routes]
    nobodys = [each for step in gateway.unrouted for each in logs.told(step.policy)]
    return list(logs.access_logs(told, NO_ROUTE, nobodys))


def _by_network(how: Forwarding, book: Book, chain: Callable[[Json], Json]) -> Json:
    """One chain for trusted proxies, where there are such, one for everybody else. Everybody's is no match of
    all addresses: where such a one is trusted (0.0.0.0/0), Envoy would take either."""
    everybody = {"default_filter_chain": chain(edge(how, book, stranger=bool(how.trusted)))}
    if not how.trusted:
        return everybody
    match = {"direct_source_prefix_ranges": ranges(how.trusted)}
    trusted = {"filter_chain_match": match, **chain(edge(how, book, stranger=False))}
    return {"filter_chains": [trusted], **everybody}


def _listener(
    gateway: Gateway, listener: Listener, routes: Sequence[_Compiled], book: Book, extras: Extras
) -> Json:
    shared = {piece.kind: piece.shared for made in routes for piece in made.words.pieces}
    if "jwt" in shared:
        shared["jwt"] = {
            "@type": TYPE + "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "strip_failure_response": True,  # its own words tell the whole URL
            "providers": book.jwt_providers,
            "requirement_map": book.jwt_requirements,
        }
    manager = {
        "@type": HCM,
        "stat_prefix": listener.name,
        "rds": {"route_config_name": listener.name},
        "http_filters": pieces.chain(_chain(routes), shared, extras.counted),
        "local_reply_config": {"mappers": list(replies(gateway, book))},
        **_patience(routes),
        **shown(listener),
        **observed(extras, book),
    }
    files = _files(gateway, routes)
    if files:
        manager["access_log"] = [*manager.get("access_log", ()), *files]
    socket = {"transport_socket": tls(listener)} if listener.tls else {}

    def chain(said: Json) -> Json:
        return {"filters": [{"name": "http", "typed_config": {**manager, **said}}], **socket}

    address = {"address": listener.address, "port_value": listener.port}
    return {
        "name": listener.name,
        "address": {"socket_address": address},
        "per_connection_buffer_limit_bytes": 1 << 20,
        "max_connections_to_accept_per_socket_event": AT_THE_DOOR,
        **_by_network(gateway.forwarding, book, chain),
    }
