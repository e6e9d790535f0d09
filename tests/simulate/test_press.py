"""The presser counts what came of what it asked, whoever answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from skylift.testkit import press
from skylift.testkit.ports import free_port

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@contextmanager
def server(answers: tuple[bytes, ...]) -> Iterator[int]:
    """Reads each connection's request and gives the next answer, in turns; closes behind it."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        listening.settimeout(30)

        def serve() -> None:
            number = 0
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answers[number % len(answers)])
                number += 1

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
WRONG = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
FULL = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n"
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{}"


@pytest.mark.parametrize(
    ("answers", "answered", "wrong", "failed"),
    [((GOOD,), 20, 0, 0), ((GOOD, WRONG), 20, 10, 0), ((GOOD, HALF), 10, 0, 10), ((b"",), 0, 0, 20)],
)
def test_every_request_at_its_time_is_answered_wrong_or_failed(
    answers: tuple[bytes, ...], answered: int, wrong: int, failed: int
) -> None:
    with server(answers) as port:
        told = press.opened("127.0.0.1", port, lambda number: REQUEST, 200.0, 0.1)
    assert (told.answered, told.wrong, told.failed) == (answered, wrong, failed)
    assert len(told.latencies) == answered


def test_who_is_told_when_to_come_back_is_counted_apart() -> None:
    with server((GOOD, FULL, WRONG, HALF)) as port:
        told = press.opened(
            "127.0.0.1", port, lambda number: REQUEST, 200.0, 0.1, burst=20, source="127.0.0.2"
        )
    assert (told.answered, told.wrong, told.postponed, told.failed) == (15, 10, 5, 5)


def test_where_nobody_listens_everything_failed() -> None:
    told = press.opened("127.0.0.1", free_port(), lambda number: REQUEST, 200.0, 0.05)
    assert (told.answered, told.failed) == (0, 10)


def test_a_closed_loop_asks_again_once_it_is_answered() -> None:
    asked: list[int] = []

    def request(number: int) -> bytes:
        asked.append(number)
        return REQUEST

    with server((GOOD,)) as port:
        told = press.afresh("127.0.0.1", port, request, 4, 0.2)
    assert told.answered == len(asked) >= 4
    assert asked == list(range(len(asked)))
    assert (told.wrong, told.failed) == (0, 0)
