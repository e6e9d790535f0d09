"""The model, compiled: one `Gateway` becomes one `Snapshot`.

Each listener has a table of its own, because ports, schemes and redirects are settled by it. Everything that
cannot be compiled is found in one go and refused by name; nothing is left out in silence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from skylift.gateway.conditions import ALWAYS, Part, Test
from skylift.gateway.envoy import clusters, login, matching, pieces, steps, sticking
from skylift.gateway.envoy.formats import direct, header, mapper
from skylift.gateway.envoy.matching import Place
from skylift.gateway.envoy.paths import Case, cases
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import HCM, PLACE, TYPE, Json, Snapshot
from skylift.gateway.envoy.steps import Where, Words
from skylift.gateway.envoy.tables import Entry, virtual_hosts
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.helper.asked import INSIDE, SERVICE
from skylift.gateway.model import Destination, Forwarding, Gateway, HostSent, Listener, Route, Service
from skylift.gateway.policies import JoinBase, Retry
from skylift.gateway.text import Kind, Text

DOWNSTREAM = TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
EARLY = TYPE + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
ANYWHERE = Listener("web", 8000)  # for a configuration that names none


@dataclass(frozen=True, slots=True)
class Extras:
    """What is the operator's and not the configuration's. `access_log`: a file, or /dev/stdout, for a line of
    JSON a request. `traces`: where spans go, an OTLP URL over HTTP."""

    access_log: str = ""
    traces: str = ""


@dataclass
class _Compiled:
    """A route at a listener, before the listener's chain is known."""

    route: Route
    words: Words
    entries: list[tuple[matching.Match, Json]] = field(default_factory=list)


def compiled(gateway: Gateway, extras: Extras = Extras()) -> Snapshot:
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
        listeners.append(_inner_listener())
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
    place = Place(listener.port, "https" if listener.tls else "http")
    for route in gateway.ordered:
        if route.listeners and listener.name not in route.listeners:
            continue
        try:
            if place.scheme in route.schemes:
                yield _route(Where(gateway, listener, route, book), place)
            elif route.wrong_scheme:
                answer = {"name": route.id, **direct(route.wrong_scheme)}
                entries = [(match, answer) for match in matching.matches(route.when, place)]
                late.append(_Compiled(route, Words(), entries))  # only where no other route takes it
        except Refused as e:
            problems += e.problems
    yield from late


def _route(where: Where, place: Place) -> _Compiled:
    route = where.route
    words = steps.words(where)
    words.pieces += sticking.sessions(where.gateway, route)
    made = _Compiled(route, words)
    for path in login.paths(route):
        at = Test(Part.PATH, (Text(Kind.EXACT, path),))
        made.entries += [(match, _says(where, words, Case())) for match in matching.matches(at, place)]
    for case in cases((step.policy for step in route.steps), route.path):
        found = matching.matches(route.when, place, case.way)
        for name, words_of in matching.stamps_used(found).items():
            where.book.stamp(name, words_of)
        made.entries += [(match, _says(where, words, case)) for match in found]
    return made


def _says(where: Where, words: Words, case: Case) -> Json:
    """All of a route but its match and its filters."""
    told = [*_forwarded(where.gateway.forwarding, where.route), *case.tells]
    said: Json = {"name": where.route.id}
    if told:
        said["request_headers_to_add"] = [header(name, value) for name, value in told]
    if words.answer is not None:
        return {**said, **words.answer}
    rewrite = {} if "path_rewrite" in words.action else _rewrite(case)  # replaced: nothing is left to cut
    return {**said, "route": {**_to(where), **rewrite, **words.action}}


def _forwarded(how: Forwarding, route: Route) -> Iterator[tuple[str, str]]:
    if how.path:
        yield "X-Forwarded-Path", "%PATH(NQ)%"
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
    if len(route.to) == 1:
        said["cluster"] = service.name
    else:
        parts = [{"name": to.service, "weight": to.weight} for to in route.to]
        said["weighted_clusters"] = {"clusters": parts}
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


def _inner_listener() -> Json:
    manager = {
        "@type": HCM,
        "stat_prefix": "inside",
        "rds": {"route_config_name": INNER},
        "http_filters": [pieces.ROUTER],
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
    last = {"name": "not found", "match": {"prefix": "/"}, **direct(gateway.not_found)}
    return {
        "name": listener.name,
        "ignore_port_in_host_matching": True,
        "virtual_hosts": virtual_hosts(entries, last),
        "request_headers_to_add": [
            header(name, value) for name, value in _always(gateway.forwarding, listener)
        ],
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


def _always(how: Forwarding, listener: Listener) -> Iterator[tuple[str, str]]:
    yield "X-Forwarded-Host", "%REQ(:authority)%"
    yield "X-Forwarded-Port", str(listener.port)
    if how.real_ip:
        yield "X-Real-IP", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    if how.server:
        yield "X-Forwarded-Server", how.server


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
        "http_filters": pieces.chain(_chain(routes), shared),
        "local_reply_config": {"mappers": list(_replies(gateway, book))},
        **_edge(gateway.forwarding, book),
        **_shown(listener),
        **_observed(extras, book),
    }
    chain: Json = {"filters": [{"name": "http", "typed_config": manager}]}
    if listener.tls:
        chain["transport_socket"] = _tls(listener)
    address = {"address": listener.address, "port_value": listener.port}
    return {
        "name": listener.name,
        "address": {"socket_address": address},
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [chain],
    }


def _edge(how: Forwarding, book: Book) -> Json:
    """What holds for every request from outside, whatever its route."""
    stamps = {**book.stamps}
    early: list[Json] = [{"remove": name} for name in sorted(book.ours)]
    early += [{"append": header(name, value)} for name, value in sorted(stamps.items())]
    said: Json = {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "generate_request_id": True,
        "preserve_external_request_id": True,  # a client's own id is kept, as in both dialects
        "request_id_extension": {
            "typed_config": {
                "@type": TYPE + "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "pack_trace_reason": False,
                "use_request_id_for_trace_sampling": False,  # a client's own id may be any text
            }
        },
        "server_name": "gateway",
        "request_headers_timeout": "15s",
        "stream_idle_timeout": "300s",
        "common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"},
        **_addresses(how),
    }
    if early:
        said["early_header_mutation_extensions"] = [
            {"name": "ours", "typed_config": {"@type": EARLY, "mutations": early}}
        ]
    return said


def _shown(listener: Listener) -> Json:
    """What the backend is told of a client's certificate; what a client says of it itself is taken off."""
    if not listener.client_ca:
        return {}
    return {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}


def _addresses(how: Forwarding) -> Json:
    """Whose X-Forwarded-For is believed: nobody's, or that of the proxies in these networks."""
    if not how.trusted:
        return {"use_remote_address": True}
    ranges = []
    for network in how.trusted:
        address, _, bits = network.partition("/")
        whole = 128 if ":" in address else 32
        ranges.append({"address_prefix": address, "prefix_len": int(bits) if bits else whole})
    found = {
        "@type": TYPE + "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig",
        "xff_trusted_cidrs": {"cidrs": ranges},
        "skip_xff_append": False,
    }
    return {
        "use_remote_address": False,
        "original_ip_detection_extensions": [
            {"name": "envoy.http.original_ip_detection.xff", "typed_config": found}
        ],
    }


def _replies(gateway: Gateway, book: Book) -> Iterator[Json]:
    for expression, answer in book.replies:
        yield mapper(answer, _cel(expression))
    for status, answer in gateway.answers:
        compared = {"op": "EQ", "value": {"default_value": status, "runtime_key": f"gateway.{status}"}}
        ours = _cel(f"!(response.code_details in {SAID_ALREADY})")
        both = [{"status_code_filter": {"comparison": compared}}, ours]
        yield mapper(answer, {"and_filter": {"filters": both}})


SAID_ALREADY = "['ext_authz_denied', 'skylift_limit', 'skylift_breaker', 'skylift_addresses', 'skylift_kept']"


def _cel(expression: str) -> Json:
    cel = {
        "@type": TYPE + "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        "expression": expression,
    }
    return {"extension_filter": {"name": "cel", "typed_config": cel}}


LOGGED = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "host": "%REQ(:AUTHORITY)%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "ms": "%DURATION%",
    "bytes": "%BYTES_SENT%",
    "route": "%ROUTE_NAME%",
    "service": "%UPSTREAM_CLUSTER%",
    "backend": "%UPSTREAM_HOST%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "consumer": "%REQ(X-CONSUMER-USERNAME)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace": "%TRACE_ID%",
}


def _observed(extras: Extras, book: Book) -> Json:
    said: Json = {}
    if extras.access_log:
        log: dict[str, Any] = {
            "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": extras.access_log,
            "log_format": {"json_format": LOGGED},
        }
        said["access_log"] = [{"name": "requests", "typed_config": log}]
    if extras.traces:
        uri = {"uri": extras.traces, "cluster": clusters.of_url(extras.traces, book), "timeout": "1s"}
        provider = {
            "@type": TYPE + "envoy.config.trace.v3.OpenTelemetryConfig",
            "service_name": "skylift-gateway",
            "http_service": {"http_uri": uri},
        }
        said["tracing"] = {
            "random_sampling": {"value": 100},
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": provider},
        }
    return said


def _tls(listener: Listener) -> Json:
    certificate = {
        "certificate_chain": {"filename": listener.certificate},
        "private_key": {"filename": listener.key},
    }
    common: Json = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificates": [certificate],
    }
    if listener.client_ca:
        common["validation_context"] = {"trusted_ca": {"filename": listener.client_ca}}
    context: Json = {"@type": DOWNSTREAM, "common_tls_context": common}
    if listener.client_ca:
        context["require_client_certificate"] = not listener.client_optional
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
