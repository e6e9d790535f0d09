"""What holds at a listener whatever the route: what clients may not say, whose addresses are believed, what
Envoy says by itself, what is told of requests, TLS.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from skylift.gateway.envoy import clusters
from skylift.gateway.envoy.formats import addresses, header, mapper
from skylift.gateway.envoy.pieces import Book
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.model import Forwarding, Gateway, Listener

DOWNSTREAM = TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
EARLY = TYPE + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"


@dataclass(frozen=True, slots=True)
class Extras:
    """What is the operator's and not the configuration's. `access_log`: a file, or /dev/stdout, for a line of
    JSON a request. `traces`: where spans go, an OTLP URL over HTTP. `counted`: somebody reads the metrics, so
    each service's are kept."""

    access_log: str = ""
    traces: str = ""
    counted: bool = False


NOTHING_MORE = Extras()
WEBSOCKET = "websocket"  # the one protocol that a connection may change to, as in Kong and in Traefik


# What only a trusted proxy may say; X-Forwarded-Proto Envoy sets anew for everybody else.
BEFORE = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-port")


def edge(how: Forwarding, book: Book, *, stranger: bool) -> Json:
    """What holds for every request from outside, whatever its route. `stranger`: from none of the trusted
    networks, where there are such."""
    stamps = {**book.stamps}
    early: list[Json] = [{"remove": name} for name in (*sorted(book.ours), *(BEFORE if stranger else ()))]
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
        "upgrade_configs": [{"upgrade_type": WEBSOCKET}],
        "common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"},
        **({"use_remote_address": True} if stranger or not how.trusted else _addresses(how)),
    }
    if early:
        said["early_header_mutation_extensions"] = [
            {"name": "ours", "typed_config": {"@type": EARLY, "mutations": early}}
        ]
    return said


def shown(listener: Listener) -> Json:
    """What the backend is told of a client's certificate; what a client says of it itself is taken off."""
    if not listener.client_ca:
        return {}
    return {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}


def _addresses(how: Forwarding) -> Json:
    """For who comes from a trusted network: whose word in X-Forwarded-For counts."""
    found = {
        "@type": TYPE + "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig",
        "xff_trusted_cidrs": {"cidrs": ranges(how.trusted)},
        "skip_xff_append": False,
    }
    return {
        "use_remote_address": False,
        "original_ip_detection_extensions": [
            {"name": "envoy.http.original_ip_detection.xff", "typed_config": found}
        ],
    }


def ranges(networks: Iterable[str]) -> list[Json]:
    """Each once, however often and in whatever way it is written: Envoy refuses a match that stands twice."""
    found = (addresses(network) for network in networks)
    return list({tuple(each.values()): each for each in found}.values())


def replies(gateway: Gateway, book: Book) -> Iterator[Json]:
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


def observed(extras: Extras, book: Book) -> Json:
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


def _version(number: str) -> str:
    return f"TLSv{number.replace('.', '_')}"


def tls(listener: Listener) -> Json:
    certificates = [
        {"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}
        for certificate, key in ((listener.certificate, listener.key), *listener.further)
    ]
    versions = {"tls_minimum_protocol_version": _version(listener.oldest_tls)}
    if listener.newest_tls:
        versions["tls_maximum_protocol_version"] = _version(listener.newest_tls)
    common: Json = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": versions,
        "tls_certificates": certificates,
    }
    if listener.client_ca:
        common["validation_context"] = {"trusted_ca": {"filename": listener.client_ca}}
    context: Json = {"@type": DOWNSTREAM, "common_tls_context": common}
    if listener.client_ca:
        context["require_client_certificate"] = not listener.client_optional
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
