"""A request is over when its time is over: in a handshake, in the head, in the body, on a kept line."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skylift.agent import transport
from skylift.agent.config import Config
from skylift.agent.transport import Transport
from skylift.core.errors import Unavailable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Serve = Callable[[Callable[[socket.socket, threading.Event], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Each connection is handed to this function; the port."""
    over, made = threading.Event(), list[socket.socket]()

    def start(speak: Callable[[socket.socket, threading.Event], None]) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        made.append(listening)

        def accept() -> None:
            while not over.is_set():
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=_quietly, args=(speak, line, over), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        port: int = listening.getsockname()[1]
        return port

    yield start
    over.set()
    for listening in made:
        listening.close()


def _quietly(
    speak: Callable[[socket.socket, threading.Event], None], line: socket.socket, over: threading.Event
) -> None:
    try:
        speak(line, over)
    except OSError:
        pass  # the device has hung up
    finally:
        line.close()


def drip(line: socket.socket, over: threading.Event, start: bytes, piece: bytes) -> None:
    line.sendall(start)
    while not over.wait(0.02):
        line.sendall(piece)


def device(server: str) -> Transport:
    return Transport(Config(server, "dev-1", "board", Path("state"), Path("roots")), "token")


@pytest.mark.parametrize(
    ("scheme", "start", "piece"),
    [
        ("https", b"\x16\x03\x03\x40\x00", b"\x00"),
        ("http", b"", b"H"),
        ("http", b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("http", b"HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n"[:1]),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b"{"),
        ("http", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        ("http", b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    ],
    ids=["a handshake", "a status line", "continue", "a header", "a body", "a chunk's length", "no length"],
)
def test_whatever_trickles_ends(
    scheme: str, start: bytes, piece: bytes, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ANSWER_S", 0.2)

    def speak(line: socket.socket, over: threading.Event) -> None:
        line.recv(65536)
        drip(line, over, start, piece)

    port = serve(speak)
    with pytest.raises(Unavailable, match=r"within 0\.2 s"):
        device(f"{scheme}://127.0.0.1:{port}").metadata("image", "timestamp.json", 1000)


def test_a_line_that_was_kept_open_is_watched_as_well(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(line: socket.socket, over: threading.Event) -> None:
        line.recv(65536)
        line.sendall(HEAD)
        line.recv(65536)
        drip(line, over, b"HTTP/1.1 200 OK\r\n", b"X")

    here = device(f"http://127.0.0.1:{serve(speak)}")
    assert here.metadata("image", "timestamp.json", 1000) == b"{}"
    monkeypatch.setattr(transport, "ANSWER_S", 0.2)
    with pytest.raises(Unavailable, match=r"within 0\.2 s"):
        here.metadata("image", "timestamp.json", 1000)


def test_what_says_that_it_is_packed_is_taken_as_it_is(serve: Serve) -> None:
    """Nothing that a header says unpacks anything: a kilobyte stays a kilobyte."""
    packed = b"\x1f\x8b\x08\x00" + bytes(60)

    def speak(line: socket.socket, over: threading.Event) -> None:
        line.recv(65536)
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
        line.sendall(head.encode() + packed)

    here = device(f"http://127.0.0.1:{serve(speak)}")
    assert here.metadata("image", "timestamp.json", 1000) == packed


def test_a_file_that_ends_early_is_no_file(serve: Serve) -> None:
    def speak(line: socket.socket, over: threading.Event) -> None:
        line.recv(65536)
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}")

    here = device(f"http://127.0.0.1:{serve(speak)}")
    with pytest.raises(Unavailable, match="88 bytes early"):
        here.metadata("image", "timestamp.json", 1000)
