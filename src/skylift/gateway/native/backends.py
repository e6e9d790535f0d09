"""The native form's services: addresses, how one is chosen, how its health is known, how long is waited."""

from dataclasses import dataclass, field

from skylift.gateway.model import (
    Balance,
    HealthCheck,
    HostSent,
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

_HASH = {"client": KeyKind.CLIENT, "consumer": KeyKind.CONSUMER, "path": KeyKind.PATH, "host": KeyKind.HOST}


@dataclass(slots=True)
class Backends:
    services: dict[str, Service] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)


def read_service(name: str, at: Fields, found: Backends) -> None:
    """One entry of `services`: `targets` is a list of `host:port`, or of tables with weight and priority."""
    protocol = at.word("protocol", ("http", "https", "h2c", "grpc", "grpcs"), "http")
    secure = protocol in ("https", "grpcs")
    targets = _targets(at, 443 if secure else 80)
    hash_on = [Key(_HASH[word]) for word in (at.word("hash_on", _HASH, "client"),) if at.has("hash_on")]
    balance = at.choice("balance", Balance, Balance.ROUND_ROBIN)
    found.upstreams[name] = Upstream(
        name,
        targets,
        Balance.HASH if hash_on else balance,
        tuple(hash_on),
        _health(at),
        _passive(at),
        _sticky(at),
        at.whole("max_connections", 0),
        at.whole("max_requests", 0),
        origin=at.origin,
    )
    host = at.text("host", "target")
    fixed = host if host not in ("client", "target") else ""
    times = at.must_table("timeout")
    timeouts = Timeouts(
        duration(times, "connect", 5.0, over=True),
        duration(times, "idle", 60.0),
        duration(times, "answer", 0.0),
    )
    times.done()
    found.services[name] = Service(
        name,
        name,
        protocol,
        HostSent.CLIENTS if host == "client" else HostSent.TARGETS,
        fixed,
        timeouts=timeouts,
        tls=_tls(at) if secure else None,
        origin=at.origin,
    )
    at.done()


def _tls(at: Fields) -> Tls:
    table = at.must_table("tls")
    made = Tls(table.flag("verify", True), table.text("server_name"), table.texts("ca_files", single=True))
    table.done()
    return made


def _targets(at: Fields, default: int) -> tuple[Target, ...]:
    value = at.raw("targets")
    if not isinstance(value, list) or not value:
        at.wrong("targets", value, "it must be a list with at least one host:port", "missing_field")
        return ()
    found = []
    for number, entry in enumerate(value):
        place = f"targets[{number}]"
        if isinstance(entry, str):
            found.append(_target(at, place, entry, default, 1, 0))
        elif isinstance(entry, dict):
            table = Fields(at.document, at.where(place), entry, at.problems)
            weight, priority = table.whole("weight", 1, high=65535), table.whole("priority", 0, high=127)
            address = table.text("address", required=True)
            found.append(_target(table, "address", address, default, weight, priority))
            table.done()
        else:
            at.wrong(place, entry, "it must be host:port, or a table with address, weight, priority")
    return tuple(found)


def _target(at: Fields, place: str, text: str, default: int, weight: int, priority: int) -> Target:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return Target(text.strip("[]"), default, weight, priority)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        at.wrong(place, text, "it must be a host, or host:port with a port from 1 to 65535")
        return Target(host, default, weight, priority)
    return Target(host.strip("[]"), int(port), weight, priority)


def _health(at: Fields) -> HealthCheck | None:
    table = at.table("health")
    if table is None:
        return None
    interval = duration(table, "interval", 10.0, over=True)
    made = HealthCheck(
        table.path_text("path", "/"),
        table.word("kind", ("http", "tcp", "grpc"), "http"),
        host=table.text("host"),
        interval=interval,
        unhealthy_interval=interval,
        timeout=duration(table, "timeout", 2.0, over=True),
        healthy=table.whole("healthy", 2, low=1, high=100),
        unhealthy=table.whole("unhealthy", 3, low=1, high=100),
    )
    table.done()
    return made


def _passive(at: Fields) -> PassiveCheck | None:
    table = at.table("eject")
    if table is None:
        return None
    failures = table.whole("after", 5, low=1)
    away = duration(table, "for", 30.0, over=True)
    table.done()
    return PassiveCheck(failures, failures, failures, (500, 502, 503, 504), eject_for=away)


def _sticky(at: Fields) -> Sticky | None:
    cookie = at.text("sticky_cookie")
    return Sticky(cookie, http_only=True, same_site="lax") if cookie else None
