"""A hostile server: a proxy between a device and a real server, over real HTTP, and whoever runs it.

Everything that passes is recorded; a lie, chosen by the path it is for, may change, withhold, delay, replay,
reorder, duplicate, cut, stretch or trickle it. A lie is a function of what was asked and of a way to ask the
real server; what it returns is an `Answer`, or an `Answer` whose bytes go onto the line as they are.
"""

import http.client
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

# What belongs to one connection, not to the answer.
_HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server"}
_PIECE = 64 << 10


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    path: str  # with its query
    headers: Mapping[str, str]
    body: bytes

    @property
    def where(self) -> str:
        return urlsplit(self.path).path


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. `raw`: these bytes instead, status line and all; then the line is closed, or kept."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    raw: Iterator[bytes] | None = None
    keep: bool = False

    def head(self, length: int | None) -> bytes:
        """The status line and headers; no Content-Length where `length` is None."""
        lines = [f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, 'So')}"]
        lines += [f"{name}: {value}" for name, value in self.headers if name.lower() != "content-length"]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


Lie = Callable[[Asked, Callable[[], Answer]], Answer]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A device that hangs up in the middle is what a hostile server is for."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Proxy:
    """Listens from the moment it is made until `close`. Honest where no lie fits."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.lies: list[tuple[re.Pattern[str], Lie]] = []
        self.asked: list[Asked] = []
        self.recorded: dict[str, Answer] = {}  # path without query -> the real server's last answer
        self.reports: list[tuple[int, dict[str, Any]]] = []  # (what the server said to it, report)
        self.lied = 0  # answers that were lies
        self.sent = 0
        self.ended = threading.Event()  # nothing trickles on after it
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        serve = {"poll_interval": 0.02}
        threading.Thread(target=self._server.serve_forever, kwargs=serve, daemon=True).start()

    def lie(self, pattern: str, told: Lie) -> None:
        """What is told where the path (with its query) matches; the lie told last comes first."""
        self.lies.insert(0, (re.compile(pattern), told))

    def files(self, device_id: str, forged: Mapping[tuple[str, str], bytes]) -> None:
        """These metadata files instead of the server's."""
        for (repo, name), body in forged.items():
            owner = f"/{device_id}" if repo == "director" else ""
            self.lie(f"^{re.escape(f'/{repo}{owner}/{name}')}$", instead(body))

    def honest(self) -> None:
        self.lies.clear()

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, asked: Asked) -> Answer:
        """The first lie that fits, or what the server says."""
        self.asked.append(asked)
        told = next((lie for pattern, lie in self.lies if pattern.search(asked.path)), None)
        if told is None:
            return self.forward(asked)
        self.lied += 1
        return told(asked, lambda: self.forward(asked))

    def forward(self, asked: Asked) -> Answer:
        """Ask the real server."""
        where = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        try:
            headers = {n: v for n, v in asked.headers.items() if n.lower() not in {*_HOP, "host"}}
            connection.request(asked.method, asked.path, asked.body or None, headers)
            found = connection.getresponse()
            kept = tuple((n, v) for n, v in found.getheaders() if n.lower() not in _HOP)
            answer = Answer(found.status, kept, found.read())
        finally:
            connection.close()
        self.recorded[asked.where] = answer
        if asked.where == "/api/updates/status":
            self.reports.append((answer.status, json.loads(asked.body)))
        return answer


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, dict(self.headers.items()), body)
            answer = proxy.answer(asked)
            try:
                if answer.raw is None:
                    self._send(answer.head(len(answer.body)) + answer.body)
                    return
                self.close_connection = not answer.keep
                for piece in answer.raw:
                    self._send(piece)
            except OSError:
                self.close_connection = True  # the device has had enough

        def _send(self, piece: bytes) -> None:
            self.wfile.write(piece)
            proxy.sent += len(piece)

        do_GET = do_POST = do_PUT = _any  # noqa: N815 - the library's names

    return Handler


# --- lies ------------------------------------------------------------------------------------------------


def instead(body: bytes, status: int = 200, *headers: tuple[str, str]) -> Lie:
    """These bytes, whatever was asked."""
    return lambda asked, go: Answer(status, headers, body)


def withheld(status: int = 404) -> Lie:
    return instead(b"{}", status)


def changed(how: Callable[[bytes], bytes]) -> Lie:
    """The server's answer with another body."""
    return lambda asked, go: replace(found := go(), body=how(found.body))


def said(**values: Any) -> Lie:
    """The server's JSON with these values; None takes a name away."""

    def how(body: bytes) -> bytes:
        found = {**json.loads(body), **values}
        return json.dumps({name: value for name, value in found.items() if value is not None}).encode()

    return changed(how)


def replayed(recorded: Mapping[str, Answer]) -> Lie:
    """What was recorded under this path; what was not is not there."""
    return lambda asked, go: recorded.get(asked.where, Answer(404, (), b"{}"))


def swapped(proxy: Proxy, how: Callable[[str], str]) -> Lie:
    """The answer to another path: the files come in another order than they were asked for."""
    return lambda asked, go: proxy.forward(replace(asked, path=how(asked.path)))


def delayed(until: threading.Event, at_most: float = 30.0) -> Lie:
    """The server's answer, when the attacker likes."""

    def lie(asked: Asked, go: Callable[[], Answer]) -> Answer:
        until.wait(at_most)
        return go()

    return lie


def truncated(keep: int) -> Lie:
    """The head promises the whole; only so many bytes come."""

    def lie(asked: Asked, go: Callable[[], Answer]) -> Answer:
        found = go()
        return replace(found, raw=iter((found.head(len(found.body)) + found.body[:keep],)))

    return lie


def shortened(keep: int) -> Lie:
    """So many bytes, and a head that says that this is all."""
    return changed(lambda body: body[:keep])


def endless(piece: bytes = b" " * _PIECE, before: bool = True) -> Lie:
    """The answer, and then more, and more; no length is told."""

    def lie(asked: Asked, go: Callable[[], Answer]) -> Answer:
        found = go()

        def pieces() -> Iterator[bytes]:
            yield found.head(None) + (found.body if before else b"")
            while True:
                yield piece

        return replace(found, raw=pieces())

    return lie


def endless_raw(start: bytes, piece: bytes) -> Lie:
    """Not even an answer: these bytes, then this piece for ever."""

    def pieces() -> Iterator[bytes]:
        yield start
        while True:
            yield piece

    return lambda asked, go: Answer(raw=pieces())


def trickled(proxy: Proxy, every_s: float, head: bool = True) -> Lie:
    """One byte now and then. `head`: the head comes at once, else that trickles too."""

    def lie(asked: Asked, go: Callable[[], Answer]) -> Answer:
        found = go()
        start = found.head(len(found.body))

        def pieces() -> Iterator[bytes]:
            slow = found.body if head else start + found.body
            if head:
                yield start
            for at in range(len(slow)):
                yield slow[at : at + 1]
                if proxy.ended.wait(every_s):
                    return

        return replace(found, raw=pieces())

    return lie


def stripped(*names: str) -> Lie:
    """Without these headers (Content-Length: the line's end is the answer's)."""
    gone = {name.lower() for name in names}

    def lie(asked: Asked, go: Callable[[], Answer]) -> Answer:
        found = go()
        kept = replace(found, headers=tuple(pair for pair in found.headers if pair[0].lower() not in gone))
        if "content-length" not in gone:
            return kept
        return replace(kept, raw=iter((kept.head(None) + kept.body,)))

    return lie


def doubled() -> Lie:
    """The request reaches the server twice, and the answer the device twice, on a line that stays open: who
    reads on takes the second for the answer to its next question."""

    def lie(asked: Asked, go: Callable[[], Answer]) -> Answer:
        go()
        found = go()
        whole = found.head(len(found.body)) + found.body
        return replace(found, raw=iter((whole + whole,)), keep=True)

    return lie
