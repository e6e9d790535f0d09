"""Client certificates through a real Envoy: the real agent behind it, and everybody who is not the device."""

import ipaddress
import json
import secrets
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from skylift.gateway.envoy.binary import envoy
from skylift.testkit.image import build
from skylift.testkit.ports import free_port
from skylift.testkit.server import Server
from skylift.testkit.stage import DEVICE_TYPE, Device, Stage, wait
from skylift.trust import identity
from skylift.trust.authority import Authorities

from .conftest import everywhere

pytestmark = pytest.mark.slow
PROXY_SECRET = secrets.token_hex(16)


def server_certificate(home: Path) -> tuple[Path, Path]:
    """(certificate, key) of 127.0.0.1, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ota.test")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    files = home / "tls.crt", home / "tls.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def configuration(port: int, upstream: int, home: Path) -> dict[str, Any]:
    """What docs/operate/identity.md says of Envoy, as JSON."""

    def address(of: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": of}}

    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "devices",
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"subject": True},
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "skylift",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "skylift"}}],
                    "request_headers_to_add": [
                        {
                            "header": {"key": "x-skylift-proxy-secret", "value": PROXY_SECRET},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": False,
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(home / "tls.crt")},
                    "private_key": {"filename": str(home / "tls.key")},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(home / "bundle.pem")}},
        },
    }
    listener = {
        "name": "devices",
        "address": address(port),
        "filter_chains": [
            {
                "filters": [{"name": "http", "typed_config": manager}],
                "transport_socket": {"name": "tls", "typed_config": tls},
            }
        ],
    }
    cluster = {
        "name": "skylift",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "skylift",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@dataclass
class Front:
    """Envoy before the stage's server."""

    stage: Stage
    url: str
    ca: Path

    def ask(
        self, path: str, *, show: Path | None = None, direct: bool = False, **options: Any
    ) -> httpx2.Response:
        """Through Envoy, showing this key and certificate; or `direct`, past it."""
        if direct:
            with httpx2.Client(base_url=self.stage.facts["url"], timeout=60) as client:
                return client.request(options.pop("method", "GET"), path, **options)
        context = ssl.create_default_context(cafile=str(self.ca))
        if show is not None:
            context.load_cert_chain(str(show))
        with httpx2.Client(base_url=self.url, verify=context, timeout=60) as client:
            return client.request(options.pop("method", "GET"), path, **options)

    def check(self, name: str, **options: Any) -> tuple[int, str]:
        """(status, code) of this device's check."""
        query = f"device_id={name}&device_type={DEVICE_TYPE}&current_version=1.0.0"
        answer = self.ask(f"/api/updates/check?{query}", **options)
        return answer.status_code, answer.json().get("code", "")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    home = tmp_path_factory.mktemp("mtls")
    settings = {
        "SKYLIFT_TRUSTED_PROXIES": "127.0.0.1/32",
        "SKYLIFT_PROXY_SECRET": PROXY_SECRET,
        "SKYLIFT_REQUIRE_CLIENT_CERTIFICATES": "true",
        "SKYLIFT_REQUIRE_SIGNED_REPORTS": "true",
    }
    stage = Stage(home / "stage", settings=settings)
    (home / "stage").mkdir()
    process = None
    try:
        stage.serve("--mqtt", "off")
        stage.ceremony()
        server_certificate(home)
        (home / "bundle.pem").write_bytes(
            httpx2.get(stage.facts["url"] + "/api/authorities/bundle.pem", timeout=60).content
        )
        port, upstream = free_port(), int(stage.facts["url"].rpartition(":")[2])
        (home / "envoy.json").write_text(json.dumps(configuration(port, upstream, home)))
        arguments = ["--config-path", str(home / "envoy.json"), "--concurrency", "1", "--log-level", "warn"]
        with (home / "envoy.log").open("wb") as log:
            process = subprocess.Popen(
                [str(envoy()), *arguments, "--use-dynamic-base-id"], stdout=log, stderr=log
            )
        made = Front(stage, f"https://127.0.0.1:{port}", home / "tls.crt")

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait(listens, "Envoy listens")
        yield made
    finally:
        if process is not None:
            process.terminate()
            process.wait()
        stage.close()


@pytest.fixture(scope="module")
def devices(front: Front) -> list[Device]:
    """Two real agents behind Envoy, enrolled: each has its certificate."""
    stage = front.stage
    image = build(stage.home / "1.0.0.pyz", "1.0.0")
    settings = {"server": front.url, "ca_file": str(front.ca), "mqtt": "", "poll_seconds": 1}
    made = stage.enroll(["dev-1", "dev-2"], image, "1.0.0", **settings)
    for device in made:
        wait((device.state / "shared" / "identity.json").exists, f"{device.name} is certified")
    return made


def key_of(device: Device) -> Path:
    return device.state / "shared" / "device.pem"


def is_listed(front: Front, serial: int) -> bool:
    """Whether the authority's revocation list names this certificate."""
    told = x509.load_pem_x509_crl(front.ask("/api/authorities/crl.pem").content)
    return told.get_revoked_certificate_by_serial_number(serial) is not None


def token_of(device: Device) -> dict[str, str]:
    return {"Authorization": f"Bearer {(device.state / 'shared' / 'token').read_text()}"}


def test_the_agent_updates_by_client_certificate_signs_its_report_and_pins_the_log(
    front: Front, devices: list[Device]
) -> None:
    stage = front.stage
    part = {"type": "library", "name": "zlib", "version": "1.3"}
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [part]}
    (stage.home / "bom.json").write_text(json.dumps(bill))
    stage.release(build(stage.home / "1.1.0.pyz", "1.1.0"), "1.1.0", "--sbom", "bom.json")
    assert "1 components, CycloneDX 1.6" in stage.run("release", "show", "sensor/1.1.0").stdout
    stage.skylift("release", "sbom", "sensor/1.1.0", "got.json")
    assert (stage.home / "got.json").read_bytes() == (stage.home / "bom.json").read_bytes()
    made = stage.skylift("deploy", "create", "1.1.0", "--all", "--interval", "0")["id"]
    assert stage.completed(made)["complete"] == 2
    everywhere("1.1.0", *devices)
    shown = stage.skylift("device", "show", "dev-1")["certificate"]
    assert shown["subject"] == "CN=dev-1"
    assert shown["days_left"] in (364, 365)
    told = stage.client.get("/api/devices/dev-1/timeline")["items"]
    (done,) = [one["data"] for one in told if one["data"].get("state") == "complete"]
    assert done["signed_by"] == shown["key"]
    wait(lambda: stage.skylift("device", "show", "dev-1")["health"], "its health, signed as well, is shown")
    said = stage.skylift("device", "show", "dev-1")["health"]
    assert (said["healthy"], said["metrics"]["disk_free_mb"] > 0) == (True, True)
    found = stage.skylift("trust", "log", "verify", "--keys", "desk")
    assert (found["orders"], found["seen_before"]) == (1, 0)
    stage.skylift("trust", "log", "save", "copy.json")
    assert stage.skylift("trust", "log", "verify", "--file", "copy.json", "--keys", "desk")["entries"]
    copy = json.loads((stage.home / "copy.json").read_text())
    copy["entries"][1] = copy["entries"][0]
    (stage.home / "forged.json").write_text(json.dumps(copy))
    forged = stage.run("trust", "log", "verify", "--file", "forged.json", "--keys", "desk")
    assert (forged.returncode, "not what the checkpoint signs" in forged.stderr) == (3, True)
    assert stage.skylift("trust", "log", "show", "--last", "1")["checkpoint"]["size"] >= found["entries"]

    def witnessed() -> bool:
        """What it has pinned, it has reported: the log grows, and it says so with what it says next."""
        pin = json.loads((devices[0].state / "trust" / "log.json").read_text())
        seen = stage.client.get("/api/log/witnessed")["items"]
        return (pin["size"], pin["root"], True) in [(one["size"], one["root"], one["agrees"]) for one in seen]

    wait(witnessed, "the log that it was shown is reported")


def test_a_certificate_alone_is_enough_and_a_token_alone_is_not(front: Front, devices: list[Device]) -> None:
    one = devices[0]
    assert front.check("dev-1", show=key_of(one)) == (200, "")
    assert front.check("dev-1", show=key_of(one), headers=token_of(one)) == (200, "")
    assert front.check("dev-1", headers=token_of(one)) == (401, "certificate_needed")
    assert front.check("dev-1", headers=token_of(one), direct=True) == (401, "certificate_needed")
    blob = front.stage.client.get("/api/releases")["items"][0]["artifacts"][0]["url"]
    assert front.ask(blob, show=key_of(one)).status_code == 200
    assert front.ask(blob, headers=token_of(one)).json()["code"] == "certificate_needed"


def test_another_devices_certificate_cannot_act_for_this_one(front: Front, devices: list[Device]) -> None:
    one, two = devices
    assert front.check("dev-1", show=key_of(two)) == (403, "foreign_certificate")
    # Not with this one's token either: which of the two would it be?
    assert front.check("dev-1", show=key_of(two), headers=token_of(one)) == (403, "foreign_certificate")
    assert front.ask("/director/dev-1/timestamp.json", show=key_of(two)).status_code == 403
    body = {"device_id": "dev-1", "deployment": "dep_1", "state": "complete"}
    answer = front.ask("/api/updates/status", method="POST", json=body, show=key_of(two))
    assert answer.json()["code"] == "foreign_certificate"


def test_the_header_counts_from_the_proxy_only(front: Front, devices: list[Device]) -> None:
    one = devices[0]
    fingerprint = front.stage.skylift("device", "show", "dev-1")["certificate"]["fingerprint"]
    forged = {"x-forwarded-client-cert": f'Hash={fingerprint};Subject="CN=dev-1"'}
    needed = (401, "certificate_needed")
    assert front.check("dev-1", headers=forged | token_of(one)) == needed  # Envoy takes it off
    assert front.check("dev-1", headers=forged | token_of(one), direct=True) == needed  # no secret
    wrong = forged | {"x-skylift-proxy-secret": "0" * 32}
    assert front.check("dev-1", headers=wrong | token_of(one), direct=True) == needed
    proxy = {"x-skylift-proxy-secret": PROXY_SECRET}
    assert front.check("dev-1", headers=forged | proxy, direct=True) == (200, "")  # as Envoy would say it
    for said in (
        f"Hash={fingerprint},Hash={fingerprint}",  # two hops: the first is anybody's
        f'Subject="CN=dev-1;Hash={fingerprint}"',  # a subject that looks like more
        f"Hash={fingerprint}0",
    ):
        headers = {"x-forwarded-client-cert": said} | proxy | token_of(one)
        assert front.check("dev-1", headers=headers, direct=True) == needed


def test_a_stranger_to_the_authority_gets_no_connection(front: Front, tmp_path: Path) -> None:
    certificate, key = server_certificate(tmp_path)
    (tmp_path / "both.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
    with pytest.raises(httpx2.HTTPError):
        front.check("dev-1", show=tmp_path / "both.pem")


def test_a_device_renews_over_its_old_certificate_and_goes_on_with_the_new_one(
    front: Front, devices: list[Device], tmp_path: Path
) -> None:
    """As at the end of its year: a new key, the old one's proof, one certificate less that counts."""
    one, stage = devices[0], front.stage
    before = stage.skylift("device", "show", "dev-1")["certificate"]
    one.stop()
    old = tmp_path / "old.pem"
    old.write_bytes(key_of(one).read_bytes())
    now = datetime.now(UTC)
    days = {"issued_at": -300, "expires_at": 65}  # as if it were that late in the year
    due = {name: (now + timedelta(days=more)).isoformat() for name, more in days.items()}
    (one.state / "shared" / "identity.json").write_text(json.dumps(due))
    one.start()

    def shown() -> Any:
        return stage.skylift("device", "show", "dev-1")["certificate"]

    wait(lambda: shown()["fingerprint"] != before["fingerprint"], "the agent renews")
    wait(lambda: json.loads((one.state / "shared" / "identity.json").read_text()) != due, "and keeps it")
    after = shown()
    assert after["key"] != before["key"]
    assert after["days_left"] in (364, 365)
    assert front.check("dev-1", show=key_of(one)) == (200, "")
    stage.publish(build(stage.home / "1.2.0.pyz", "1.2.0"), "1.2.0")
    made = stage.skylift("deploy", "create", "1.2.0", "--device", "dev-1", "--all-at-once")["id"]
    assert stage.completed(made)["complete"] == 1
    told = stage.client.get("/api/devices/dev-1/timeline")["items"]
    done = next(one["data"] for one in told if one["data"].get("state") == "complete")
    assert done["signed_by"] == after["key"]
    assert front.check("dev-1", show=old) == (401, "unknown_certificate")  # since the new key has signed
    serial = x509.load_pem_x509_certificate(old.read_bytes()).serial_number
    wait(lambda: is_listed(front, serial), "the old one is on the list")


def test_a_revoked_device_is_refused_at_once_although_the_proxy_lets_it_through(
    front: Front, devices: list[Device]
) -> None:
    two = devices[1]
    two.stop()
    front.stage.skylift("device", "revoke", "dev-2", "--yes")
    assert front.check("dev-2", show=key_of(two)) == (401, "unknown_certificate")
    assert front.check("dev-2", show=key_of(two), headers=token_of(two)) == (401, "unknown_certificate")
    serial = x509.load_pem_x509_certificate(key_of(two).read_bytes()).serial_number
    wait(lambda: is_listed(front, serial), "it is on the list, which is made once a second")
    body = {"csr": identity.request(key_of(two).read_bytes(), "dev-2")}
    answer = front.ask("/api/devices/dev-2/certificate", method="POST", json=body, headers=token_of(two))
    assert answer.status_code == 401


def test_the_server_alone_keeps_strangers_from_connecting(tmp_path: Path) -> None:
    """Its own TLS verifies the certificate; whose it is the token still says."""
    certificate, key = server_certificate(tmp_path)
    settings = {
        "SKYLIFT_TLS_CERTIFICATE": str(certificate),
        "SKYLIFT_TLS_KEY": str(key),
        "SKYLIFT_TLS_CLIENT_CA": str(tmp_path / "data" / "keys" / "device-ca-1.crt"),
        "SKYLIFT_CA_PASSPHRASE": "of the test",
    }
    server = Server(tmp_path / "data", settings, ("--mqtt", "off"))
    server.start()
    try:
        bare = ssl.create_default_context(cafile=str(certificate))
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(f"{server.url}/healthz", verify=bare, timeout=60)
        own = identity.new_key()
        authorities = Authorities.open(tmp_path / "data" / "keys", "of the test", datetime.now(UTC))
        issued = authorities.issue("dev-1", identity.public_of(own), datetime.now(UTC))
        (tmp_path / "dev.pem").write_bytes(own + issued.pem.encode())
        context = ssl.create_default_context(cafile=str(certificate))
        context.load_cert_chain(str(tmp_path / "dev.pem"))
        assert httpx2.get(f"{server.url}/healthz", verify=context, timeout=60).status_code == 200
    finally:
        server.stop()
