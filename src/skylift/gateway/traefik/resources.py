"""Traefik's Kubernetes resources, read from their files: there is no cluster to ask.

A Service's addresses come from the inventory; without an entry its name is resolved as it stands, which is
what a name in /etc/hosts or in the cluster's DNS needs. A namespace, where one is written, stands before
names with a slash.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from skylift.gateway.errors import nearest
from skylift.gateway.model import Target
from skylift.gateway.reading import Fields
from skylift.gateway.traefik.backends import (
    Mirroring,
    Weighted,
    add_service,
    read_transport,
    sticky,
)
from skylift.gateway.traefik.found import (
    MAX_PRIORITY,
    Found,
    Router,
    read_middleware,
    reads_tls,
    refuse_old_rules,
)
from skylift.gateway.traefik.tls import read_options

VERSIONS = ("traefik.io/v1alpha1", "traefik.containo.us/v1alpha1")
_NOT_HERE: Mapping[str, str] = {
    "IngressRouteTCP": "only HTTP is routed here",
    "IngressRouteUDP": "only HTTP is routed here",
    "MiddlewareTCP": "only HTTP is routed here",
    "ServersTransportTCP": "only HTTP is routed here",
    "TLSStore": "certificates are files of listeners",
}


def read_ports(at: Fields, found: Found) -> None:
    """The ports' names of a Kubernetes Service that stands beside."""
    if at.value.get("apiVersion") != "v1" or at.value.get("kind") != "Service":
        return
    meta, spec = at.must_table("metadata"), at.must_table("spec")
    for port in spec.tables("ports"):
        number = port.whole("port", 0, high=65535)
        found.ports[_spaced(meta.text("namespace"), meta.text("name")), port.text("name")] = number


def _others(at: Fields) -> bool:
    """A resource of somebody else's, which stands in the same file: said, and passed over."""
    version, kind = str(at.value.get("apiVersion", "")), str(at.value.get("kind", ""))
    if "traefik" in version or not version or kind in _ROUTING:
        return False
    at.note("others_resource", f"{kind} of {version} is not the gateway's: passed over")
    return True


def read_resource(at: Fields, found: Found) -> None:
    if _others(at):
        return
    if at.value.get("kind") in _ROUTING:
        kind = str(at.value["kind"])
        at.wrong("kind", kind, "it is not read: write it as an IngressRoute", "not_supported")
        return
    version = at.word("apiVersion", VERSIONS, VERSIONS[0])
    kind = at.text("kind", required=True)
    meta = at.must_table("metadata")
    name, space = meta.text("name", required=True), meta.text("namespace")
    meta.ignored(*meta.value)
    at.ignored("status")
    spec = at.must_table("spec")
    if kind in _NOT_HERE:
        at.wrong("kind", kind, f"this resource is not read: {_NOT_HERE[kind]}", "not_supported")
    elif kind not in _KINDS:
        at.wrong("kind", kind, "there is no such resource", "unknown_kind", nearest(kind, _KINDS))
    else:
        _KINDS[kind](_spaced(space, name), space, spec, found)
    if version == VERSIONS[1]:
        at.note("old_api_version", f"{version} is Traefik 2's; today's is {VERSIONS[0]}", "apiVersion")
    at.done()


def _spaced(space: str, name: str) -> str:
    return f"{space}/{name}" if space and "/" not in name else name


def _ingress_route(name: str, space: str, spec: Fields, found: Found) -> None:
    spec.ignored("ingressClassName")
    spec.lacking("parentRefs", "routes stand on one level")
    entry_points = spec.texts("entryPoints")
    tls, options = reads_tls(spec)
    options = _spaced(space, options) if options != "default" else options
    routes = spec.tables("routes")
    if not routes:
        spec.wrong("routes", None, "it must have at least one", "missing_field")
    for number, at in enumerate(routes):
        route = name if len(routes) == 1 else f"{name}-{number}"
        found.once("router", route, at)
        at.word("kind", ("Rule",), "Rule")
        refuse_old_rules(at)
        at.ignored("observability")
        middlewares = tuple(
            (f"middlewares[{n}].name", _named(entry, space))
            for n, entry in enumerate(at.tables("middlewares"))
        )
        service = _services(f"{route}-services", at, space, found)
        if not service:
            at.wrong("services", None, "it must name at least one service", "missing_field")
        found.routers.append(
            Router(
                route,
                at.text("match", required=True),
                at,
                service,
                middlewares,
                entry_points,
                at.whole("priority", 0, low=-MAX_PRIORITY, high=MAX_PRIORITY),
                tls,
                options,
            )
        )
        at.done()
    spec.done()


def _named(at: Fields, space: str) -> str:
    """A middleware by name and namespace."""
    name, own = at.text("name", required=True), at.text("namespace")
    at.done()
    return name if "@" in name else _spaced(own or space, name)


def _services(name: str, at: Fields, space: str, found: Found) -> str:
    """The services of a route: one, or several as a weighted one of this name."""
    entries = [_service(entry, space, found) for entry in at.tables("services")]
    if len(entries) < 2:
        return entries[0][0] if entries else ""
    found.backends.made[name] = Weighted(tuple(entries), at)
    return name


def _service(at: Fields, space: str, found: Found) -> tuple[str, int]:
    """A Kubernetes service by name and port, or a TraefikService; and its weight."""
    name, own = at.text("name", required=True), at.text("namespace") or space
    weight = at.whole("weight", 1, high=10_000)
    if "@" in name:
        at.wrong("name", name, "a name of another provider cannot stand here")
    if at.word("kind", ("Service", "TraefikService"), "Service") == "TraefikService":
        at.done()
        return _spaced(own, name), weight
    port = at.raw("port")
    if isinstance(port, str) and not port.isdecimal():
        named = found.ports.get((_spaced(own, name), port)) or found.ports.get((name, port))
        if named is None:
            rule = "only the cluster knows a port by its name: give its number, or its Service beside"
            at.wrong("port", port, rule)
        port = named
    number = int(port) if isinstance(port, int | str) and not isinstance(port, bool) else 0
    if not 0 < number < 65536:
        at.wrong("port", port, "it must be a number from 1 to 65535", "missing_field")
    scheme = at.word("scheme", ("http", "https", "h2c"), "https" if number == 443 else "http")
    at.ignored("nativeLB", "nodePortLB")
    host = f"{name}.{own}" if own else name
    service = f"{_spaced(own, name)}:{number}"
    add_service(service, scheme, (Target(host, number),), at, found.backends, at.origin)
    at.done()
    return service, weight


def _middleware(name: str, space: str, spec: Fields, found: Found) -> None:
    read_middleware(name, spec, found)


def _traefik_service(name: str, space: str, spec: Fields, found: Found) -> None:
    found.once("service", name, spec)
    spec.lacking("highestRandomWeight", "clients are kept by sticky cookies or the hrw strategy of servers")
    weighted, mirroring = spec.table("weighted"), spec.table("mirroring")
    if (weighted is None) == (mirroring is None):
        spec.wrong("", None, "exactly one of weighted and mirroring must be given")
    if weighted is not None:
        entries = tuple(_service(entry, space, found) for entry in weighted.tables("services"))
        kept = sticky(name, weighted)
        weighted.done()
        found.backends.made[name] = Weighted(entries, weighted, kept)
    if mirroring is not None:
        mirrors = []
        for entry in mirroring.tables("mirrors"):
            percent = entry.number("percent", 0, high=100)
            mirrors.append((_service(entry, space, found)[0], percent))
        mirroring.ignored("maxBodySize", "mirrorBody", "mirrors")
        main = replace(mirroring)  # the main service's fields stand beside `mirrors`
        found.backends.made[name] = Mirroring(_service(main, space, found)[0], tuple(mirrors), mirroring)
    spec.done()


def _tls_option(name: str, space: str, spec: Fields, found: Found) -> None:
    found.tls.options[name] = read_options(spec)


def _transport(name: str, space: str, spec: Fields, found: Found) -> None:
    found.backends.transports[name] = read_transport(spec)


_KINDS: Mapping[str, Callable[[str, str, Fields, Found], None]] = {
    "IngressRoute": _ingress_route,
    "Middleware": _middleware,
    "TraefikService": _traefik_service,
    "ServersTransport": _transport,
    "TLSOption": _tls_option,
}
_ROUTING = ("Ingress", "HTTPRoute", "GRPCRoute", "Gateway")  # other people's words for what this file is for
