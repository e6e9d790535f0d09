"""Certificates of clients at a real Envoy: asked for, verified, told to the backend; nobody tells his own."""

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.authority import Authority
from gateway.backends import Echo, serving
from gateway.conftest import Start
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.loading import load, loads
from skylift.gateway.read import read_documents
from skylift.testkit.ports import free_port

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "gateway-tls.yaml"
ROUTES = "gateway: 1\nservices: {s: {targets: ['@backend']}}\nroutes: [{name: r, path: /, to: s}]\n"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "ours")


@pytest.fixture(scope="module")
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


def opened(supervised: Start, ours: Authority, backend: Echo, optional: bool) -> int:
    """The gateway as it is shipped, with certificates of this test's; its port."""
    certificate, key, _ = ours.issue("gateway.test")
    text, port = SHIPPED.read_text(), free_port()
    for shipped, made in (("tls.crt", certificate), ("tls.key", key), ("devices.pem", ours.file)):
        text = text.replace(f"/etc/skylift/gateway/{shipped}", str(made))
    text = text.replace("port: 8443", f"port: {port}\n    address: 127.0.0.1")
    text = text.replace("client_optional: true", f"client_optional: {str(optional).lower()}")
    routes = ROUTES.replace("@backend", f"127.0.0.1:{backend.port}")
    gateway = read_documents([*loads(text, "tls.yaml"), *loads(routes, "gateway.yaml")])
    supervised(lambda: compiled(gateway))
    return port


def seen(port: int, ours: Authority, shown: tuple[Path, Path, str] | None) -> dict[str, str]:
    """The headers that the backend sees of a client that also says something of itself."""
    context = ssl.create_default_context(cafile=str(ours.file))
    context.check_hostname = False
    if shown:
        context.load_cert_chain(shown[0], shown[1])
    line = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    try:
        line.request("GET", "/", headers={"X-Forwarded-Client-Cert": f"Hash={'0' * 64}"})
        return dict(json.loads(line.getresponse().read())["headers"])
    finally:
        line.close()


def test_a_certificate_is_told_and_without_one_nothing_is(
    supervised: Start, ours: Authority, backend: Echo
) -> None:
    port = opened(supervised, ours, backend, optional=True)
    device = ours.issue("device-1")
    assert f"Hash={device[2]}" in seen(port, ours, device)["x-forwarded-client-cert"]
    assert "0" * 64 not in seen(port, ours, device)["x-forwarded-client-cert"]
    assert "x-forwarded-client-cert" not in seen(port, ours, None)


def test_a_certificate_of_another_authority_gets_nowhere(
    supervised: Start, ours: Authority, backend: Echo
) -> None:
    port = opened(supervised, ours, backend, optional=True)
    backend.asked.clear()
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        seen(port, ours, Authority(ours.place, "theirs").issue("device-1"))
    assert backend.asked == []


def test_where_it_is_not_optional_nobody_comes_without(
    supervised: Start, ours: Authority, backend: Echo
) -> None:
    port = opened(supervised, ours, backend, optional=False)
    assert seen(port, ours, ours.issue("device-2"))
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        seen(port, ours, None)


def test_what_is_shipped_goes_with_the_gateway_before_the_fleet() -> None:
    front = Path(__file__).resolve().parents[2] / "deploy" / "gateway" / "fleet.yaml"
    names = {listener.name for listener in read_documents(load([front, SHIPPED])).listeners}
    assert names == {"http", "https"}
