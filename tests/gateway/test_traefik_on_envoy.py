"""What Traefik's files ask for at the edge, on a real Envoy: TLS options, certificates by name, redirections
of entry points; and middlewares that are more than a row."""

import gzip
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from gateway.authority import Authority
from gateway.backends import Echo, serving
from gateway.conftest import Start, ask
from gateway.door import Door
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.loading import loads
from skylift.gateway.read import read_documents
from skylift.testkit.ports import free_port


@pytest.fixture(scope="module")
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


# --- TLS -----------------------------------------------------------------------------------------------

EDGE = """
entryPoints:
  web:
    address: '127.0.0.1:{web}'
    http: {{redirections: {{entryPoint: {{to: websecure}}}}}}
  websecure: {{address: '127.0.0.1:{secure}', http: {{tls: {{}}}}}}
tls:
  options: {{default: {{minVersion: VersionTLS13, clientAuth: {{caFiles: [{ca}], clientAuthType: {kind}}}}}}}
  certificates: [{{certFile: {a[0]}, keyFile: {a[1]}}}, {{certFile: {b[0]}, keyFile: {b[1]}}}]
http:
  services: {{s: {{loadBalancer: {{servers: [{{url: 'http://127.0.0.1:{backend}'}}]}}}}}}
  routers: {{r: {{rule: 'PathPrefix(`/`)', service: s, tls: {{}}}}}}
"""


class Edge:
    """A gateway with TLS, and the authority of its certificates."""

    def __init__(self, supervised: Start, place: Path, backend: Echo, kind: str) -> None:
        self.web, self.secure = free_port(), free_port()
        self.ours = Authority(place, "ours")
        a, b = self.ours.issue("a.test"), self.ours.issue("b.test")
        places = {"ca": self.ours.file, "a": a, "b": b, "kind": kind}
        text = EDGE.format(web=self.web, secure=self.secure, backend=backend.port, **places)
        gateway = read_documents(loads(text, "traefik.yaml"))
        supervised(lambda: compiled(gateway))

    def name_shown(self, name: str, client: tuple[Path, Path, str] | None = None, newest: int = 0) -> str:
        """For whom the certificate is that a client of this name is shown, once it has an answer."""
        context = ssl.create_default_context(cafile=str(self.ours.file))
        context.check_hostname = False
        if client:
            context.load_cert_chain(client[0], client[1])
        if newest:
            context.maximum_version = ssl.TLSVersion(newest)
        with (
            socket.create_connection(("127.0.0.1", self.secure), 20) as plain,
            context.wrap_socket(plain, server_hostname=name) as line,
        ):
            line.sendall(f"GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
            assert line.recv(4096).startswith(b"HTTP/1.1 200")
            shown = line.getpeercert(binary_form=True)
        assert shown
        return str(x509.load_der_x509_certificate(shown).subject.rfc4514_string())


def test_a_client_gets_the_certificate_of_the_name_it_asks_for(
    supervised: Start, tmp_path: Path, backend: Echo
) -> None:
    edge = Edge(supervised, tmp_path, backend, "VerifyClientCertIfGiven")
    assert [edge.name_shown(name) for name in ("a.test", "b.test")] == ["CN=a.test", "CN=b.test"]
    with pytest.raises((ssl.SSLError, OSError)):
        edge.name_shown("a.test", newest=ssl.TLSVersion.TLSv1_2)  # the options ask for 1.3
    moved = ask(edge.web, "/x?y=1", "POST", host="a.test")
    assert (moved.status, moved.headers["location"]) == (308, f"https://a.test:{edge.secure}/x?y=1")


def test_options_that_want_a_certificate_let_nobody_in_without(
    supervised: Start, tmp_path: Path, backend: Echo
) -> None:
    edge = Edge(supervised, tmp_path, backend, "RequireAndVerifyClientCert")
    assert edge.name_shown("a.test", edge.ours.issue("device")) == "CN=a.test"
    backend.asked.clear()
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        edge.name_shown("a.test")
    assert backend.asked == []


# --- middlewares ---------------------------------------------------------------------------------------

TRAEFIK = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: s, middlewares: [m]}}
  services: {s: {loadBalancer: {servers: [{url: 'http://@backend'}]}}}
  middlewares: {m: {%s}}
"""


def test_headers_of_the_auth_service_are_chosen_by_an_expression_and_nobody_says_them_himself(
    door: Door, backend: Echo
) -> None:
    with serving(Echo("auth", headers={"Remote-User": "ada", "X-Other": "no"})) as auth:
        address = f"http://127.0.0.1:{auth.port}/verify"
        asked = f"forwardAuth: {{address: '{address}', authResponseHeadersRegex: '^Remote-'}}"
        door.open(TRAEFIK % asked, {"backend": backend}, "traefik.yaml")
        backend.asked.clear()
        assert door.ask("/", remote_user="root", remote_groups="admins").status == 200
    (seen,) = backend.asked
    assert seen["headers"]["remote-user"] == "ada"
    assert not {"remote-groups", "x-other"} & set(seen["headers"])


def test_what_is_excluded_is_not_compressed(door: Door) -> None:
    with serving(Echo("page", body="x" * 4096, kind="text/html")) as page:
        for excluded, encoding in (("[text/csv]", "gzip"), ("[text/html]", None)):
            words = f"compress: {{encodings: [gzip], excludedContentTypes: {excluded}}}"
            door.open(TRAEFIK % words, {"backend": page}, "traefik.yaml")
            line = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
            line.request("GET", "/", headers={"Accept-Encoding": "gzip"})
            answer = line.getresponse()
            body = answer.read()
            line.close()
            assert answer.getheader("content-encoding") == encoding
            assert (gzip.decompress(body) if encoding else body) == b"x" * 4096
