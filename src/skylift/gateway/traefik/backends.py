"""Traefik's services: servers behind a load balancer, and services made of services.

`weighted`, `mirroring` and `failover` may be nested; `Backends.resolve` unfolds what a router names into
destinations with weights and mirrors. A service that leads to itself is a problem, not a loop.
"""

from dataclasses import dataclass, field, replace
from math import gcd, lcm
from urllib.parse import urlsplit

from skylift.gateway.errors import nearest
from skylift.gateway.model import (
    Balance,
    Destination,
    HealthCheck,
    HostSent,
    Mirror,
    Origin,
    PassiveCheck,
    Service,
    Sticky,
    Target,
    Timeouts,
    Tls,
    Upstream,
)
from skylift.gateway.policies import Key, KeyKind
from skylift.gateway.reading import Fields, duration

_STRATEGIES = {
    "wrr": Balance.ROUND_ROBIN,
    "RoundRobin": Balance.ROUND_ROBIN,
    "p2c": Balance.TWO_CHOICES,
    "hrw": Balance.HASH,
    "leasttime": Balance.LATENCY,
}
_DEFAULT_HEALTH = ((200, 399),)
MAX_NESTING = 16


@dataclass(frozen=True, slots=True)
class Weighted:
    services: tuple[tuple[str, int], ...]
    at: Fields
    sticky: Sticky | None = None


@dataclass(frozen=True, slots=True)
class Mirroring:
    service: str
    mirrors: tuple[tuple[str, float], ...]
    at: Fields


@dataclass(frozen=True, slots=True)
class Failover:
    service: str
    fallback: str
    at: Fields


def elsewhere(provider: str) -> str:
    """Why a name of another provider cannot be found."""
    if provider == "internal":
        return ": Traefik's own pages are not here; the gateway's are at its --admin address"
    return f": only files are read, nothing of {provider}'s"


@dataclass(frozen=True, slots=True)
class Transport:
    """`serversTransports`: how servers are spoken to."""

    timeouts: Timeouts = Timeouts(connect=30.0, idle=0.0)  # noqa: RUF009 - frozen
    tls: Tls = Tls(verify=True)  # noqa: RUF009 - frozen


@dataclass(slots=True)
class Backends:
    """What was read, by name."""

    services: dict[str, Service] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    made: dict[str, Weighted | Mirroring | Failover] = field(default_factory=dict)
    transports: dict[str, Transport] = field(default_factory=dict)
    wanted: list[tuple[str, str, Fields]] = field(default_factory=list)  # service, transport, its place

    def names(self) -> tuple[str, ...]:
        return (*self.services, *self.made)

    def resolve(
        self, name: str, at: Fields, place: str, above: tuple[str, ...] = ()
    ) -> tuple[tuple[Destination, ...], tuple[Mirror, ...]]:
        """The destinations and mirrors behind a name."""
        name = name.removesuffix("@file")
        if name in above or len(above) > MAX_NESTING:
            at.wrong(place, name, f"it leads to itself: {' -> '.join((*above, name))}", "cyclic_reference")
            return (), ()
        if name in self.services:
            return (Destination(name),), ()
        above = (*above, name)
        match self.made.get(name):
            case Weighted(services, inner, _):
                return self._weighted(services, inner, above)
            case Mirroring(service, mirrors, inner):
                to, more = self.resolve(service, inner, "service", above)
                for mirror, percent in mirrors:
                    found, _ = self.resolve(mirror, inner, "mirrors", above)
                    more += tuple(Mirror(each.service, percent) for each in found)
                return to, more
            case Failover(service, fallback, inner):
                return self._failover(service, fallback, inner, above)
            case None:
                _, at_sign, provider = name.partition("@")
                rule = f"there is no service of this name{elsewhere(provider) if at_sign else ''}"
                at.wrong(place, name, rule, "unknown_service", nearest(name, self.names()))
                return (), ()

    def _weighted(
        self, services: tuple[tuple[str, int], ...], at: Fields, above: tuple[str, ...]
    ) -> tuple[tuple[Destination, ...], tuple[Mirror, ...]]:
        for name in (name for name, _ in services if self.sticky_of(name)):
            at.wrong("services", name, "a sticky service stands in no other weighted one", "not_supported")
        parts = [(*self.resolve(name, at, "services", above), weight) for name, weight in services]
        # A group of weights 1 and 2 that weighs 5 is 5/3 and 10/3: all are counted in a common share.
        share = lcm(*(max(1, sum(each.weight for each in to)) for to, _, _ in parts))
        found = tuple(
            replace(each, weight=each.weight * weight * share // max(1, sum(e.weight for e in to)))
            for to, _, weight in parts
            for each in to
        )
        divisor = gcd(*(each.weight for each in found)) or 1
        mirrors = tuple(mirror for _, more, _ in parts for mirror in more)
        return tuple(replace(each, weight=each.weight // divisor) for each in found), mirrors

    def sticky_of(self, name: str, above: tuple[str, ...] = ()) -> Sticky | None:
        """The cookie that keeps a client at one of the services behind a name."""
        if name in above:
            return None  # said where it is resolved
        match self.made.get(name.removesuffix("@file")):
            case Weighted(services, at, sticky) if sticky is not None:
                several = [child for child, _ in services if child.removesuffix("@file") in self.made]
                if several:
                    rule = "a sticky service's own ones have servers"
                    at.wrong("sticky", several[0], rule, "not_supported")
                return sticky
            case Mirroring(service, _, _) | Failover(service, _, _):
                return self.sticky_of(service, (*above, name))
            case _:
                return None

    def _failover(
        self, service: str, fallback: str, at: Fields, above: tuple[str, ...]
    ) -> tuple[tuple[Destination, ...], tuple[Mirror, ...]]:
        to, mirrors = self.resolve(service, at, "service", above)
        spare, _ = self.resolve(fallback, at, "fallback", above)
        if len(spare) == 1 and spare[0].service in self.services:
            for each in to:
                upstream = self.services[each.service].upstream
                self.upstreams[upstream] = replace(
                    self.upstreams[upstream], fallback=self.services[spare[0].service].upstream
                )
        elif spare:
            at.wrong("fallback", fallback, "it must be one service with servers of its own", "not_supported")
        return to, mirrors


# --- reading -------------------------------------------------------------------------------------------


def read_service(name: str, at: Fields, found: Backends) -> None:
    """One entry of `http.services`."""
    kinds = [kind for kind in ("loadBalancer", "weighted", "mirroring", "failover") if at.has(kind)]
    at.lacking("highestRandomWeight", "clients are kept by sticky cookies or the hrw strategy of servers")
    if len(kinds) != 1:
        at.wrong("", None, "exactly one of loadBalancer, weighted, mirroring, failover must be given")
    for kind in kinds:
        inner = at.must_table(kind)
        if kind == "loadBalancer":
            _load_balancer(name, inner, found)
        elif kind == "weighted":
            found.made[name] = read_weighted(name, inner)
        elif kind == "mirroring":
            found.made[name] = _mirroring(inner)
        else:
            inner.lacking("errors", "a fallback serves while the service is unhealthy, not by status")
            inner.ignored("healthCheck")
            service, fallback = inner.text("service", required=True), inner.text("fallback", required=True)
            found.made[name] = Failover(service, fallback, inner)
        inner.done()
    at.done()


def read_weighted(name: str, at: Fields) -> Weighted:
    entries = []
    for entry in at.tables("services"):
        entries.append((entry.text("name", required=True), entry.whole("weight", 1, high=10_000)))
        entry.done()
    at.ignored("healthCheck")
    return Weighted(tuple(entries), at, sticky(name, at))


def _mirroring(at: Fields) -> Mirroring:
    mirrors = []
    for entry in at.tables("mirrors"):
        mirrors.append((entry.text("name", required=True), entry.number("percent", 0, high=100)))
        entry.done()
    at.ignored("healthCheck", "maxBodySize", "mirrorBody")
    return Mirroring(at.text("service", required=True), tuple(mirrors), at)


def _load_balancer(name: str, at: Fields, found: Backends) -> None:
    targets, schemes = [], []
    for server in at.tables("servers"):
        url = server.text("url", required=True)
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https", "h2c") or not parts.hostname or port == -1:
            server.wrong("url", url, "it must be http://, https:// or h2c://, a host, and a port or none")
        if parts.path not in ("", "/"):
            if server.flag("preservePath", False):
                server.wrong("preservePath", True, "use addPrefix: the path of a server is not added here")
            server.note("path_of_server", f"{url}: the path of a server is not used (as in Traefik)", "url")
        server.ignored("preservePath")
        schemes.append(parts.scheme or "http")
        default = 443 if parts.scheme == "https" else 80
        targets.append(Target(parts.hostname or "", port or default, server.whole("weight", 1, high=10_000)))
        server.done()
    if len(set(schemes)) > 1:
        at.wrong("servers", None, "servers of one service speak one scheme", "not_supported")
    add_service(name, schemes[0] if schemes else "http", tuple(targets), at, found, at.origin)


def add_service(
    name: str, scheme: str, targets: tuple[Target, ...], at: Fields, found: Backends, origin: Origin
) -> None:
    """The settings that a load balancer and a route's service of a resource share; both forms end here."""
    strategy = at.choice("strategy", _STRATEGIES, Balance.ROUND_ROBIN)
    at.lacking("middlewares", "middlewares are the router's")
    at.ignored("responseForwarding")
    transport = at.text("serversTransport")
    if transport:
        found.wanted.append((name, transport, at))
    found.upstreams[name] = Upstream(
        name,
        targets,
        strategy,
        hash_on=(Key(KeyKind.CLIENT),) if strategy is Balance.HASH else (),
        active=_health(at),
        passive=_passive(at),
        sticky=sticky(name, at),
        origin=origin,
    )
    passes_host = at.flag("passHostHeader", True)
    found.services[name] = Service(
        name,
        name,
        scheme,
        host=HostSent.CLIENTS if passes_host else HostSent.TARGETS,
        timeouts=Transport().timeouts,
        tls=Transport().tls if scheme == "https" else None,
        origin=origin,
    )


def _health(at: Fields) -> HealthCheck | None:
    table = at.table("healthCheck")
    if table is None:
        return None
    interval = duration(table, "interval", 30.0, over=True)
    status = table.whole("status", 0, high=599)
    port = table.whole("port", 0, high=65535)
    made = HealthCheck(
        table.path_text("path", "/"),
        "grpc" if table.word("mode", ("http", "grpc"), "http") == "grpc" else table.text("scheme", "http"),
        table.text("method", "GET").upper(),
        table.text("hostname"),
        port or None,
        table.mapping("headers"),
        interval,
        duration(table, "unhealthyInterval", interval, over=True),
        duration(table, "timeout", 5.0, over=True),
        statuses=((status, status),) if status else _DEFAULT_HEALTH,
    )
    if "followRedirects" in table.value and table.flag("followRedirects", True):
        table.note("redirects_not_followed", "a health check does not follow redirects; 3xx is healthy")
    table.ignored("followRedirects")
    table.done()
    return made


def _passive(at: Fields) -> PassiveCheck | None:
    table = at.table("passiveHealthCheck")
    if table is None:
        return None
    failures = table.whole("maxFailedAttempts", 1, low=1)
    window = duration(table, "failureWindow", 10.0, over=True)
    table.done()
    return PassiveCheck(failures, failures, failures, tuple(range(500, 505)), window, window)


def sticky(name: str, at: Fields) -> Sticky | None:
    """The cookie of a service; one without a name is named after the service."""
    table = at.table("sticky")
    cookie = table.table("cookie") if table is not None else None
    if table is not None:
        table.done()
    if cookie is None:
        return None
    made = Sticky(
        cookie.text("name") or f"_{name[:20]}",
        cookie.flag("secure", False),
        cookie.flag("httpOnly", False),
        cookie.text("sameSite"),
        cookie.text("path", "/"),
        cookie.whole("maxAge", 0, low=-1),
        cookie.text("domain"),
    )
    cookie.done()
    return made


def read_transport(at: Fields) -> Transport:
    """One entry of `http.serversTransports`, or the `spec` of a ServersTransport."""
    at.lacking("certificates", "certificates for backends are not shown here")
    at.lacking("certificatesSecrets", "certificates for backends are not shown here")
    at.lacking("rootCAsSecrets", "authorities are files: rootCAs")
    at.lacking("spiffe", "SPIFFE is not spoken")
    at.lacking("peerCertURI", "a backend's certificate is checked by its name")
    at.ignored("maxIdleConnsPerHost", "disableHTTP2", "cipherSuites", "minVersion", "maxVersion")
    times = at.must_table("forwardingTimeouts")
    timeouts = Timeouts(
        duration(times, "dialTimeout", 30.0, over=True), 0.0, duration(times, "responseHeaderTimeout", 0.0)
    )
    times.ignored("idleConnTimeout", "readIdleTimeout", "pingTimeout")
    times.done()
    tls = Tls(
        not at.flag("insecureSkipVerify", False), at.text("serverName"), at.texts("rootCAs", single=True)
    )
    at.done()
    return Transport(timeouts, tls)


def apply_transports(found: Backends) -> None:
    """Services that name a transport get what it says."""
    for service, name, at in found.wanted:
        transport = found.transports.get(name.removesuffix("@file"))
        if transport is None:
            hint = nearest(name, found.transports)
            at.wrong(
                "serversTransport", name, "there is no transport of this name", "unknown_transport", hint
            )
            continue
        made = found.services[service]
        found.services[service] = replace(
            made, timeouts=transport.timeouts, tls=transport.tls if made.protocol == "https" else None
        )
