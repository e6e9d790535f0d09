"""The server sends the device elsewhere for the bytes, as it does where an object store has them."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from skylift.agent.config import Config
from skylift.agent.transport import Transport
from skylift.core.errors import Unavailable

BODY = bytes(range(256)) * 1000
SHA256 = "ab" * 32


@dataclass
class Host:
    """A web server that remembers what it was asked; `redirect` sends everybody there."""

    redirect: str = ""
    status: int = 307
    etag: str = f'"{SHA256}"'
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""


def handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            given = {name.lower(): value for name, value in self.headers.items()}
            host.asked.append((self.path, given))
            if host.redirect:
                self.send_response(host.status)
                self.send_header("Location", host.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            whole = "range" not in given or given.get("if-range", host.etag) != host.etag
            start = 0 if whole else int(given["range"][6:-1])
            self.send_response(200 if whole else 206)
            self.send_header("Content-Length", str(len(BODY) - start))
            self.end_headers()
            self.wfile.write(BODY[start:])

    return Handler


MakeHost = Callable[..., Host]


@pytest.fixture
def host() -> Iterator[MakeHost]:
    servers = []

    def make(**settings: object) -> Host:
        made = Host(**settings)  # type: ignore[arg-type]
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        made.url = f"http://127.0.0.1:{server.server_port}"
        return made

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def transport(host: MakeHost, tmp_path: Path) -> Callable[[Host], Transport]:
    def make(server: Host) -> Transport:
        config = Config(
            server=server.url, device_id="dev-1", device_type="t", state_dir=tmp_path, roots=tmp_path
        )
        return Transport(config, "dev_token")

    return make


def download(transport: Transport, offset: int = 0) -> bytes:
    return b"".join(transport.download(f"/api/blobs/{SHA256}", SHA256, offset, len(BODY)))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_without_the_token(
    host: MakeHost, transport: Callable[[Host], Transport], status: int
) -> None:
    elsewhere = host(etag='"5-of-its-own"')
    server = host(redirect=f"{elsewhere.url}/bucket/{SHA256}?X-Amz-Signature=1", status=status)
    assert download(transport(server)) == BODY
    assert server.asked[0][1]["authorization"] == "Bearer dev_token"
    assert elsewhere.asked[0][0] == f"/bucket/{SHA256}?X-Amz-Signature=1"
    assert "authorization" not in elsewhere.asked[0][1]


def test_a_download_resumes_by_the_byte_elsewhere(
    host: MakeHost, transport: Callable[[Host], Transport]
) -> None:
    """An object store's ETag is its own: an If-Range with ours would bring the whole file."""
    elsewhere = host(etag='"5-of-its-own"')
    server = host(redirect=f"{elsewhere.url}/object")
    assert download(transport(server), 1000) == BODY[1000:]
    assert elsewhere.asked[0][1]["range"] == "bytes=1000-"
    assert "if-range" not in elsewhere.asked[0][1]


def test_a_redirect_to_the_own_server_keeps_the_token(
    host: MakeHost, transport: Callable[[Host], Transport]
) -> None:
    server = host(redirect="/again")
    with pytest.raises(Unavailable, match="307"):
        download(transport(server))
    assert [(path, told["authorization"]) for path, told in server.asked] == [
        (f"/api/blobs/{SHA256}", "Bearer dev_token"),
        ("/again", "Bearer dev_token"),
    ]


def test_redirects_are_not_followed_for_ever(host: MakeHost, transport: Callable[[Host], Transport]) -> None:
    second = host()
    second.redirect = f"{second.url}/round"
    with pytest.raises(Unavailable, match="307"):
        download(transport(host(redirect=second.url)))
    assert len(second.asked) == 1


@pytest.mark.parametrize("where", ["ftp://127.0.0.1/x", "file:///etc/passwd", "gopher:x"])
def test_a_redirect_to_something_else_than_the_web_is_not_followed(
    host: MakeHost, transport: Callable[[Host], Transport], where: str
) -> None:
    with pytest.raises(Unavailable, match="no TLS"):
        download(transport(host(redirect=where)))


def test_a_server_with_tls_does_not_send_us_where_there_is_none(
    host: MakeHost, transport: Callable[[Host], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = host()
    made = transport(host(redirect=f"{elsewhere.url}/object"))
    plain = made.config.server
    secure = plain.replace("http:", "https:")
    object.__setattr__(made.config, "server", secure)  # the way there is plain, for the test's sake
    reach = made._pool.request

    def plainly(method: str, url: str, **options: object) -> object:
        return reach(method, url.replace(secure, plain), **options)

    monkeypatch.setattr(made._pool, "request", plainly)
    with pytest.raises(Unavailable, match="no TLS"):
        download(made)
    assert elsewhere.asked == []
