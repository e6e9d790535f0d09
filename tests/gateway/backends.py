"""Backends that say what they were asked, and can be told to fail or to be slow."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Echo:
    """A real HTTP server. `status`, `body`, `kind`, `headers`: its answer; by default what it was asked."""

    name: str
    status: int = 200
    body: str | None = None
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def answer(self, method: str, path: str, headers: dict[str, str], body: str) -> bytes:
        seen = {"service": self.name, "method": method, "path": path, "headers": headers, "body": body}
        self.asked.append(seen)
        self.gate.wait(20)
        return (json.dumps(seen) if self.body is None else self.body).encode()


@contextmanager
def serving(echo: Echo, certificate: tuple[Path, Path] | None = None) -> Iterator[Echo]:
    """The backend, on a free port of this machine. `certificate` and its key: over TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = echo.answer(
                self.command, self.path, headers, self.rfile.read(length).decode("utf-8", "replace")
            )
            self.send_response(echo.status)
            for name, value in {"content-type": echo.kind, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            for name, value in echo.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    echo.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield echo
    finally:
        echo.gate.set()
        server.shutdown()
        server.server_close()
