"""Kong's upstreams: how a target is chosen, how its health is known."""

from dataclasses import dataclass, replace

from skylift.gateway.model import Balance, HealthCheck, PassiveCheck, Target, Upstream
from skylift.gateway.policies import Key, KeyKind
from skylift.gateway.reading import Fields

_ALGORITHMS = {
    "round-robin": Balance.ROUND_ROBIN,
    "least-connections": Balance.LEAST_REQUESTS,
    "consistent-hashing": Balance.HASH,
    "latency": Balance.LATENCY,
}
_HASHES = {
    "none": KeyKind.EVERYBODY,
    "consumer": KeyKind.CONSUMER,
    "ip": KeyKind.CLIENT,
    "header": KeyKind.HEADER,
    "cookie": KeyKind.COOKIE,
    "path": KeyKind.PATH,
    "query_arg": KeyKind.QUERY,
    "uri_capture": KeyKind.CAPTURE,
}
_NAMED = {"header", "cookie", "query_arg", "uri_capture"}


@dataclass(frozen=True, slots=True)
class KongUpstream:
    model: Upstream
    host_header: str

    def with_target(self, target: Target) -> "KongUpstream":
        return replace(self, model=replace(self.model, targets=(*self.model.targets, target)))


def read_target(at: Fields) -> Target:
    """`target`: a host, with a port or 8000."""
    at.ignored("id", "tags", "created_at", "updated_at", "failover")
    text = at.text("target", required=True)
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, "8000"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        at.wrong("target", text, "it must be a host, or host:port with a port from 1 to 65535")
        port = "8000"
    return Target(host.strip("[]"), int(port), at.whole("weight", 100, high=65535))


def read_upstream(at: Fields) -> KongUpstream:
    at.ignored("id", "tags", "created_at", "updated_at", "slots", "hash_on_cookie_path")
    name = at.text("name", required=True)
    hash_on = [key for key in (_hash(at, "hash_on"), _hash(at, "hash_fallback")) if key]
    balance = at.choice("algorithm", _ALGORITHMS, Balance.ROUND_ROBIN)
    at.lacking("client_certificate", "a certificate for the backend is not shown here")
    at.lacking("use_srv_name", "SRV records are not asked")
    for field in ("sticky_sessions_cookie", "sticky_sessions_cookie_path"):
        at.lacking(field, "hash_on cookie keeps a client at its target")
    health = at.must_table("healthchecks")
    active, passive = _active(health.must_table("active")), _passive(health.must_table("passive"))
    threshold = int(health.number("threshold", 0, high=100))
    health.done()
    targets = []
    for child in at.tables("targets"):
        targets.append(read_target(child))
        child.done()
    host_header = at.text("host_header")
    at.done()
    model = Upstream(
        name,
        tuple(targets),
        Balance.HASH if hash_on else balance,
        tuple(hash_on),
        active,
        passive,
        threshold=threshold,
        origin=at.origin,
    )
    return KongUpstream(model, host_header)


def _hash(at: Fields, field: str) -> Key | None:
    word = at.word(field, _HASHES, "none")
    names = {kind: at.text(f"{field}_{kind}") for kind in _NAMED if kind != "cookie"}
    cookie = at.text("hash_on_cookie")
    if word == "none":
        return None
    name = cookie if word == "cookie" else names.get(word, "")
    if word in _NAMED and not name:
        at.wrong(f"{field}_{word}", None, f"{field} {word} needs its name", "missing_field")
    return Key(_HASHES[word], name)


def _statuses(at: Fields, default: tuple[int, ...]) -> tuple[int, ...]:
    return at.wholes("http_statuses", default, low=100, high=999)


def _active(at: Fields) -> HealthCheck | None:
    """0 is off: a check needs an interval and a count on at least one side."""
    healthy, unhealthy = at.must_table("healthy"), at.must_table("unhealthy")
    interval, successes = healthy.number("interval", 0), healthy.whole("successes", 0, high=255)
    again = unhealthy.number("interval", 0)
    failures = [unhealthy.whole(name, 0, high=255) for name in ("http_failures", "tcp_failures", "timeouts")]
    statuses = _statuses(healthy, (200, 302))
    _statuses(unhealthy, ())
    kind = at.word("type", ("http", "https", "tcp", "grpc", "grpcs"), "http")
    headers = at.table("headers")
    made = HealthCheck(
        at.path_text("http_path", "/"),
        kind,
        headers=tuple((name, headers.texts(name)[0]) for name in headers.value if headers.texts(name))
        if headers
        else (),
        interval=interval or again or 30.0,
        unhealthy_interval=again or interval or 30.0,
        timeout=at.number("timeout", 1, over=True),
        healthy=successes or 1,
        unhealthy=min((count for count in failures if count), default=1),
        statuses=tuple((status, status) for status in statuses),
    )
    at.ignored("concurrency", "https_verify_certificate", "https_sni")
    for table in (healthy, unhealthy, at):
        table.done()
    return made if (interval and successes) or (again and any(failures)) else None


def _passive(at: Fields) -> PassiveCheck | None:
    healthy, unhealthy = at.must_table("healthy"), at.must_table("unhealthy")
    healthy.whole("successes", 0, high=255)
    _statuses(healthy, ())
    counts = [unhealthy.whole(name, 0, high=255) for name in ("http_failures", "tcp_failures", "timeouts")]
    statuses = _statuses(unhealthy, (429, 500, 503))
    at.word("type", ("http", "https", "tcp", "grpc", "grpcs"), "http")
    for table in (healthy, unhealthy, at):
        table.done()
    return PassiveCheck(counts[0], counts[1], counts[2], statuses) if any(counts) else None
