"""One configuration of the gateway, whatever dialect it was written in.

    Gateway
      listeners   where it listens
      routes      in the order they are tried: highest `rank` first, then as written
        when        a condition on the request        (`conditions`)
        steps       policies in the order they run    (`policies`, `access`)
        to          services, with weights
      services    how a backend is spoken to
      upstreams   which addresses it has, how one is chosen, how its health is known
      consumers   who may come, and in which groups they are
      answers     what the gateway itself says for 404, 502, ...

Rules:
 1. Order is data. `Route.rank` is the dialect's own sort key: (kinds, plain host, headers, regex, priority,
    length) for Kong, (length of the rule's text,) for Traefik. A gateway holds routes of one dialect.
 2. A Kong route with several paths is several `Route`s with one `name`, told apart by `part`.
 3. Every reference (route to service, service to upstream) leads somewhere; `audit.py` says where not.
 4. `origin` says where something was written, and is no part of equality.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from skylift.gateway.access import Policy
from skylift.gateway.conditions import Condition
from skylift.gateway.policies import Answer, Key, Retry
from skylift.gateway.template import plain
from skylift.gateway.text import Text


@dataclass(frozen=True, slots=True)
class Origin:
    """File and path inside it: `kong.yaml: services[0].routes[1]`."""

    file: str = ""
    path: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.path}" if self.path else self.file


NOWHERE = Origin()


class HostSent(StrEnum):
    """Which Host the backend sees."""

    CLIENTS = "the client's"
    TARGETS = "the service's own"


# --- routes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One policy of a route. `name`: the plugin's or middleware's, as people know it."""

    name: str
    policy: Policy
    origin: Origin = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Destination:
    service: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of `percent` of the requests goes here too, its answer is dropped."""

    service: str
    percent: float = 100.0


@dataclass(frozen=True, slots=True)
class Route:
    """`path`: the one comparison of `when` that path policies may cut (Kong), or None. `written`: the rule as
    people wrote it. `wrong_scheme`: the answer where all but the scheme matched."""

    name: str
    when: Condition
    to: tuple[Destination, ...]
    steps: tuple[Step, ...] = ()
    rank: tuple[int, ...] = ()
    part: int = 0
    path: Text | None = None
    schemes: tuple[str, ...] = ("http", "https")
    wrong_scheme: Answer | None = None
    listeners: tuple[str, ...] = ()  # empty: all
    mirrors: tuple[Mirror, ...] = ()
    sticky: "Sticky | None" = None  # keeps a client at one of the services in `to`
    host: HostSent | None = None  # instead of the service's
    buffer_request: bool = False
    written: str = ""
    origin: Origin = field(default=NOWHERE, compare=False)

    @property
    def id(self) -> str:
        """Unique in a gateway."""
        return f"{self.name}~{self.part}" if self.part else self.name


# --- backends -----------------------------------------------------------------------------------------


class Balance(StrEnum):
    ROUND_ROBIN = "round robin"
    LEAST_REQUESTS = "least requests"
    TWO_CHOICES = "power of two choices"
    HASH = "consistent hashing"
    LATENCY = "least latency"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Target:
    """`weight` 0: drained. `priority`: 0 first, higher only while lower ones are unhealthy."""

    host: str
    port: int
    weight: int = 1
    priority: int = 0


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Asks every target. `healthy` and `unhealthy`: how many in a row turn it; statuses that are well."""

    path: str = "/"
    kind: str = "http"  # http https tcp grpc
    method: str = "GET"
    host: str = ""
    port: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    interval: float = 30.0
    unhealthy_interval: float = 30.0
    timeout: float = 5.0
    healthy: int = 1
    unhealthy: int = 1
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)


@dataclass(frozen=True, slots=True)
class PassiveCheck:
    """Watches real traffic: so many failures in a row put a target aside for `eject_for` seconds. 0: off."""

    http_failures: int = 0
    tcp_failures: int = 0
    timeouts: int = 0
    statuses: tuple[int, ...] = (429, 500, 503)
    window: float = 10.0
    eject_for: float = 30.0


@dataclass(frozen=True, slots=True)
class Sticky:
    """A cookie that keeps a client at its target, or at one of several services."""

    cookie: str
    secure: bool = False
    http_only: bool = False
    same_site: str = ""
    path: str = "/"
    max_age: int = 0
    domain: str = ""

    def header(self, service: str) -> str:
        """Set-Cookie's value for one of several services."""
        said = [f"{self.cookie}={label(service)}", f"Path={self.path or '/'}"]
        said += [f"Domain={self.domain}"] if self.domain else []
        said += [f"Max-Age={max(0, self.max_age)}"] if self.max_age else []
        said += ["HttpOnly"] if self.http_only else []
        said += ["Secure"] if self.secure else []
        said += [f"SameSite={self.same_site.capitalize()}"] if self.same_site else []
        return "; ".join(said)


def label(service: str) -> str:
    """A service in a cookie, as Traefik writes it: nobody is told its name."""
    return hashlib.sha256(service.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Upstream:
    name: str
    targets: tuple[Target, ...]
    balance: Balance = Balance.ROUND_ROBIN
    hash_on: tuple[Key, ...] = ()  # the first that has a value
    active: HealthCheck | None = None
    passive: PassiveCheck | None = None
    sticky: Sticky | None = None
    max_connections: int = 0  # 0: no cap of ours
    max_requests: int = 0
    fallback: str = ""  # the upstream that serves while no target here is healthy
    threshold: int = 0  # percent of weight that must be healthy
    origin: Origin = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; `idle` is between two bytes, not of a whole exchange, so that long downloads live."""

    connect: float = 60.0
    idle: float = 60.0
    answer: float = 0.0  # until the answer's headers; 0: no limit of its own


@dataclass(frozen=True, slots=True)
class Tls:
    """How the backend's certificate is checked."""

    verify: bool = False
    server_name: str = ""
    ca_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """How an upstream is spoken to. `host_header`: a fixed one, else by `host`."""

    name: str
    upstream: str
    protocol: str = "http"  # http https grpc grpcs h2c
    host: HostSent = HostSent.TARGETS
    host_header: str = ""
    retry: Retry | None = None
    timeouts: Timeouts = Timeouts()
    tls: Tls | None = None
    origin: Origin = field(default=NOWHERE, compare=False)


# --- the whole ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listener:
    """`certificate` and `key`: files, for https."""

    name: str
    port: int
    address: str = "0.0.0.0"  # noqa: S104 - a gateway is there to be reached; the file may say otherwise
    tls: bool = False
    certificate: str = ""
    key: str = ""
    client_ca: str = ""  # clients show a certificate of this authority
    client_optional: bool = False  # or none; the backend is told in X-Forwarded-Client-Cert
    origin: Origin = field(default=NOWHERE, compare=False)
    further: tuple[tuple[str, str], ...] = ()  # more certificates and keys: the client's server name chooses
    oldest_tls: str = "1.2"
    newest_tls: str = ""  # empty: whatever there is


@dataclass(frozen=True, slots=True)
class Consumer:
    name: str
    custom_id: str = ""
    id: str = ""
    groups: tuple[str, ...] = ()
    plan: str = ""
    origin: Origin = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What the backend is told of the request before the gateway touched it: X-Forwarded-For, -Proto, -Host
    and -Port always; these besides. `trusted`: networks whose own X-Forwarded-* are believed."""

    path: bool = False
    prefix: bool = False
    real_ip: bool = True
    server: str = ""
    consumer_headers: bool = False  # X-Consumer-*, X-Credential-Identifier
    trusted: tuple[str, ...] = ()


class Dialect(StrEnum):
    KONG = "kong"
    TRAEFIK = "traefik"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class Note:
    """Something a reader wants said: what is ours, what is only near, what is not done. `code` is stable."""

    code: str
    sentence: str
    origin: Origin = NOWHERE


NOT_FOUND = Answer(404, plain("not found\n"))


@dataclass(frozen=True, slots=True)
class Gateway:
    """A whole configuration. `routes` may stand in any order; `ordered` is the order they are tried in."""

    dialect: Dialect
    routes: tuple[Route, ...] = ()
    services: Mapping[str, Service] = field(default_factory=dict)
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    consumers: Mapping[str, Consumer] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    not_found: Answer = NOT_FOUND
    unrouted: tuple[Step, ...] = ()  # what is done with requests that no route takes: logs
    answers: tuple[tuple[int, Answer], ...] = ()  # for what the data plane itself says: 413, 502, 503, 504
    forwarding: Forwarding = Forwarding()
    notes: tuple[Note, ...] = ()
    inventory: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def ordered(self) -> tuple[Route, ...]:
        """As they are tried: by rank, the highest first; equal ranks as written."""
        return tuple(sorted(self.routes, key=lambda route: tuple(-part for part in route.rank)))

    def upstream_of(self, service: str) -> Upstream:
        return self.upstreams[self.services[service].upstream]

    def endpoints(self, host: str, port: int) -> tuple[tuple[str, int], ...]:
        """Where `host:port` really is: what the inventory says of it, else itself.

        An entry is named `host:port` or `host`; for a Kubernetes service `name.namespace`, or `name` alone,
        with or without the port. Its values are `host:port`, or `host`, which keeps the port."""
        name = host.partition(".")[0]
        for entry in (f"{host}:{port}", host, f"{name}:{port}", name):
            if entry in self.inventory:
                return tuple(_endpoint(value, port) for value in self.inventory[entry])
        return ((host, port),)


def _endpoint(value: str, port: int) -> tuple[str, int]:
    host, colon, own = value.rpartition(":")
    return (host, int(own)) if colon and own.isdecimal() and not host.endswith(":") else (value, port)
