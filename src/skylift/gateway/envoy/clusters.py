"""Backends in Envoy's words: addresses, balancing, health, and how a connection is made."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from skylift.gateway.envoy import binary
from skylift.gateway.envoy.pieces import Book, Endpoints
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.model import (
    Balance,
    Gateway,
    HealthCheck,
    PassiveCheck,
    Service,
    Target,
    Tls,
    Upstream,
)

BALANCE = {
    Balance.ROUND_ROBIN: "ROUND_ROBIN",
    Balance.LEAST_REQUESTS: "LEAST_REQUEST",
    Balance.TWO_CHOICES: "LEAST_REQUEST",
    Balance.HASH: "RING_HASH",
    Balance.LATENCY: "LEAST_REQUEST",  # the nearest there is: the slow ones have more under way
    Balance.RANDOM: "RANDOM",
}
MANY = 1_000_000  # no cap of Envoy's own: its defaults of 1024 surprise
TLS = TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
H2 = TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster(service: Service, gateway: Gateway) -> Json:
    """One service: its upstream's targets, spoken to in the service's way. Named after the service."""
    upstream = gateway.upstreams[service.upstream]
    targets = list(upstream.targets)
    if upstream.fallback:
        below = max((target.priority for target in targets), default=0) + 1
        spare = gateway.upstreams[upstream.fallback].targets
        targets += [Target(t.host, t.port, t.weight, below + t.priority) for t in spare]
    found: Json = {
        "name": service.name,
        "connect_timeout": f"{service.timeouts.connect:.3f}s",
        "lb_policy": BALANCE[upstream.balance],
        **_where(service.name, targets, gateway.endpoints),
        "circuit_breakers": {"thresholds": [_caps(upstream)]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        **_protocol(service, [target.host for target in targets]),
    }
    if upstream.active:
        found["health_checks"] = [_active(upstream.active, service)]
    if upstream.passive:
        found["outlier_detection"] = _passive(upstream.passive)
    return found


VERIFIED = Tls(verify=True)


def of_url(url: str, book: Book, tls: Tls = VERIFIED) -> str:
    """The cluster of a helper service that is named by a URL; made if it is not there."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    how = "" if tls == VERIFIED or not secure else f":{tls.ca_files[0] if tls.ca_files else 'unverified'}"
    name = f"url:{parts.scheme}:{host}:{port}{how}"
    service = Service(name, name, protocol=parts.scheme, tls=replace(tls, server_name=host))
    book.clusters[name] = {
        "name": name,
        "connect_timeout": "5s",
        **_where(name, [Target(host, port)], book.endpoints),
        **_protocol(service, [host]),
    }
    return name


def _where(name: str, targets: Iterable[Target], endpoints_of: Endpoints) -> Json:
    """Addresses as they are, those of the inventory too; names looked up again and again."""
    served = [
        (target, host, port)
        for target in targets
        if target.weight > 0
        for host, port in endpoints_of(target.host, target.port)
    ]
    plain = all(_is_address(host) for _, host, _ in served)
    groups: dict[int, list[Json]] = {}
    for target, host, port in served:
        endpoint = {"address": {"socket_address": {"address": host, "port_value": port}}}
        health = {"health_check_config": {"hostname": target.host}}
        words: Json = {"endpoint": {**endpoint, **health, "hostname": target.host}}
        if target.weight > 1:
            words["load_balancing_weight"] = target.weight
        groups.setdefault(target.priority, []).append(words)
    ranks = {priority: rank for rank, priority in enumerate(sorted(groups))}
    endpoints = [{"priority": ranks[p], "lb_endpoints": group} for p, group in sorted(groups.items())]
    return {
        "type": "STATIC" if plain else "STRICT_DNS",
        **({} if plain else {"dns_lookup_family": "ALL", "respect_dns_ttl": True}),
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _caps(upstream: Upstream) -> Json:
    connections, requests = upstream.max_connections or MANY, upstream.max_requests or MANY
    return {
        "max_connections": connections,
        "max_requests": requests,
        "max_pending_requests": requests,
        "max_retries": MANY,
    }


def _secured(tls: Tls, hosts: Iterable[str]) -> Json:
    """TLS to a backend. Where its certificate is looked at, so is the name in it: any other server that the
    same authority knows is another server."""
    addresses = sorted({host for host in hosts if _is_address(host)})
    named = tls.server_name if not _is_address(tls.server_name) else ""
    common: Json = {}
    context: Json = {"@type": TLS, "common_tls_context": common}
    if tls.verify:
        if len(tls.ca_files) > 1:
            rule = "one file, with all authorities in it"
            raise Refused([Problem("", "ca_files", rule, ", ".join(tls.ca_files))])
        ca = tls.ca_files[0] if tls.ca_files else binary.authorities()
        common["validation_context"] = {"trusted_ca": {"filename": ca}}
        if addresses and not named:
            common["validation_context"]["match_typed_subject_alt_names"] = [
                {"san_type": "IP_ADDRESS", "matcher": {"exact": address}} for address in addresses
            ]
        else:
            context["auto_sni_san_validation"] = True
    if named:
        context["sni"] = named
    elif not addresses:
        context["auto_host_sni"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _protocol(service: Service, hosts: Iterable[str]) -> Json:
    """TLS and HTTP/2, where the service speaks them."""
    words: Json = {}
    if service.protocol in ("https", "grpcs"):
        words["transport_socket"] = _secured(service.tls or Tls(), hosts)
    if service.protocol in ("grpc", "grpcs", "h2c"):
        explicit: Json = {"explicit_http_config": {"http2_protocol_options": {}}}
        words["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": H2, **explicit}
        }
    return words


def _active(check: HealthCheck, service: Service) -> Json:
    words: Json = {
        "timeout": f"{check.timeout:.3f}s",
        "interval": f"{check.interval:.3f}s",
        "unhealthy_interval": f"{check.unhealthy_interval:.3f}s",
        "no_traffic_interval": f"{check.interval:.3f}s",
        "healthy_threshold": check.healthy,
        "unhealthy_threshold": check.unhealthy,
    }
    if check.kind == "tcp":
        return {**words, "tcp_health_check": {}}
    if check.kind == "grpc":
        return {**words, "grpc_health_check": {}}
    if check.port is not None:
        raise Refused([Problem("", "healthCheck.port", "a port of its own is not possible here", check.port)])
    http: Json = {
        "path": check.path,
        "method": check.method,
        "expected_statuses": [{"start": low, "end": high + 1} for low, high in check.statuses],
    }
    if check.host:
        http["host"] = check.host
    if check.headers:
        http["request_headers_to_add"] = [
            {"header": {"key": name.lower(), "value": value}} for name, value in check.headers
        ]
    return {**words, "http_health_check": http}


def _passive(check: PassiveCheck) -> Json:
    """Kong's and Traefik's passive checks put a target aside; Envoy brings it back after a while."""
    words: Json = {
        "interval": f"{min(check.window, 10.0):.3f}s",
        "base_ejection_time": f"{check.eject_for:.3f}s",
        "max_ejection_percent": 100,
        "max_ejection_time_jitter": "0s",
        "enforcing_success_rate": 0,
    }
    if check.http_failures:
        words |= {"consecutive_5xx": check.http_failures, "enforcing_consecutive_5xx": 100}
    else:
        words |= {"enforcing_consecutive_5xx": 0}
    local = check.tcp_failures or check.timeouts
    if local:
        words |= {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": local,
            "enforcing_consecutive_local_origin_failure": 100,
        }
    return words
