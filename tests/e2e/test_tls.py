"""Encrypted transport: the server's own TLS, and a device that knows its authority by `ca_file`."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from conftest import certificate
from skylift.agent.config import Config
from skylift.agent.transport import Transport
from skylift.core.errors import Unavailable
from skylift.testkit.server import Failed, Server
from skylift.testkit.stage import DEVICE_TYPE

pytestmark = pytest.mark.slow
TOKEN = "dev_tls-0123456789abcdef0123456789"


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
        answer = httpx2.post(
            f"{made.url}/api/devices", json=device, headers=admin, verify=trusted, timeout=60
        )
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
        httpx2.get(server.url.replace("https:", "http:") + "/healthz", timeout=60)


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
