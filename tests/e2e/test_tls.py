"""Encrypted transport: the server's own TLS, and a device that knows its authority by `ca_file`."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from skylift.agent.config import Config
from skylift.agent.transport import Transport
from skylift.core.errors import Unavailable
from skylift.testkit.server import Failed, Server
from skylift.testkit.stage import DEVICE_TYPE

pytestmark = pytest.mark.slow
TOKEN = "dev_tls-0123456789abcdef0123456789"


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of its own authority for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, SHA256())
    )
    written = folder / f"{name}.pem", folder / f"{name}.key"
    written[0].write_bytes(made.public_bytes(Encoding.PEM))
    written[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def ours(folder: Path) -> tuple[Path, Path]:
    return certificate(folder, "ours")


def with_tls(data: Path, *files: Path | None) -> Server:
    names = ("SKYLIFT_TLS_CERTIFICATE", "SKYLIFT_TLS_KEY")
    settings = {name: str(file) for name, file in zip(names, files, strict=True) if file is not None}
    return Server(data, settings, ("--mqtt", "off"))


@pytest.fixture(scope="module")
def server(folder: Path, ours: tuple[Path, Path]) -> Iterator[Server]:
    made = with_tls(folder / "data", *ours)
    try:
        made.start()
        trusted = ssl.create_default_context(cafile=str(ours[0]))
        admin = {"Authorization": f"Bearer {(made.data / 'admin.token').read_text().strip()}"}
        device = {"device_id": "dev-1", "device_type": DEVICE_TYPE, "token": TOKEN}
        answer = httpx2.post(f"{made.url}/api/devices", json=device, headers=admin, verify=trusted)
        assert answer.status_code == 201, answer.text
        yield made
    finally:
        made.kill()


def device(server: Server, folder: Path, **settings: str) -> Transport:
    config = Config(server.url, "dev-1", DEVICE_TYPE, folder / "state", folder / "roots", **settings)
    return Transport(config, TOKEN)


def test_a_device_that_knows_the_authority_speaks_to_its_server(
    server: Server, folder: Path, ours: tuple[Path, Path]
) -> None:
    assert server.url.startswith("https://")
    answer = device(server, folder, ca_file=str(ours[0])).check("1.0.0", "", "")
    assert answer["update_available"] is False


def test_a_device_says_nothing_to_a_server_it_cannot_know(server: Server, folder: Path) -> None:
    stranger, _ = certificate(folder, "stranger")
    for known in ({}, {"ca_file": str(stranger)}):
        with pytest.raises(Unavailable, match="certificate verify failed"):
            device(server, folder, **known).check("1.0.0", "", "")


def test_without_tls_nobody_is_answered(server: Server) -> None:
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(server.url.replace("https:", "http:") + "/healthz", timeout=5)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (("ours.pem", None), "tls_key is ''"),
        ((None, "ours.key"), "tls_certificate is ''"),
        (("ours.pem", "other.key"), "must be PEM with tls_key as its key"),
    ],
)
def test_a_server_does_not_start_with_half_of_it(
    folder: Path, ours: tuple[Path, Path], tmp_path: Path, files: tuple[str | None, str | None], sentence: str
) -> None:
    """Least of all without TLS, where somebody wanted it."""
    certificate(folder, "other")
    wrong = with_tls(tmp_path / "data", *(folder / file if file else None for file in files))
    with pytest.raises(Failed, match="exit code 2"):
        wrong.start()
    (said,) = wrong.log.read_text().strip().splitlines()
    assert sentence in said
