"""The C++ client over TLS, with the pinned authority and with another: a real server behind a real line."""

import asyncio
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from conftest import missing
from skylift.testkit import esp32
from skylift.testkit.stage import wait

pytestmark = pytest.mark.slow


def authority(folder: Path, name: str) -> tuple[Path, Path]:
    """(certificate, certificate with key) of a server at 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    certificate, both = folder / f"{name}.pem", folder / f"{name}.both.pem"
    pem = made.public_bytes(Encoding.PEM)
    certificate.write_bytes(pem)
    both.write_bytes(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, both


class Tunnel:
    """Ends TLS before the server, as whatever stands in front of it would."""

    def __init__(self, upstream: str, certificate: Path) -> None:
        self._upstream = urlsplit(upstream)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far, near = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while some := await source.read(65536):
                    sink.write(some)
                    await sink.drain()
            except OSError:
                pass  # the other side hung up
            sink.close()

        await asyncio.gather(carry(reader, near), carry(far, writer))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture
def tls(desk, tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """(address, the authority to pin, another one)"""
    if not esp32.has_openssl():
        missing("OpenSSL's headers (libssl-dev)")
    right, both = authority(tmp_path, "right")
    other, _ = authority(tmp_path, "other")
    tunnel = Tunnel(desk.stage.facts["url"], both)
    yield f"https://127.0.0.1:{tunnel.port}", right, other
    tunnel.close()


def test_an_update_over_tls_with_the_pinned_authority_and_with_no_other(desk, device, tls) -> None:
    address, right, other = tls
    one = device(deltas="0")
    one.kill()
    one.start(server=address, ca=str(other))
    deployment = desk.deploy(one, "1.1.0")
    wait(lambda: "the server cannot be reached" in one.log, "another authority's server is no server")
    assert desk.update(deployment).get("state") in (None, "pending")
    one.kill()
    one.settings |= {"server": address, "ca": str(right)}
    one.start()
    assert desk.ended(deployment)["state"] == "complete"
    wait(lambda: one.version() == "1.1.0", "the new image is confirmed")
