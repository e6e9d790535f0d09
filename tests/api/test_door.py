"""The door: both kinds of requests on one connection, in pieces or together; who dawdles is sent away."""

import asyncio
import errno
import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from skylift.api import door, porch
from skylift.api.plain import Plain, pairs, read
from skylift.testkit.image import build

from .conftest import Api

POLL = "/api/updates/check?device_id=dev-1&current_version=1.0.0&device_type=sensor-v2"


def poll(token: str, *lines: str) -> bytes:
    head = [f"GET {POLL} HTTP/1.1", "Host: skylift", f"Authorization: Bearer {token}", *lines]
    return "\r\n".join([*head, "", ""]).encode()


@contextmanager
def line(api: Api) -> Iterator[socket.socket]:
    url = api.client.base_url
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        yield connection


def answers(connection: socket.socket, count: int) -> list[dict[str, object]]:
    """The bodies of so many responses, which are all JSON and say how long they are."""
    got, found = b"", []
    while len(found) < count:
        head, gap, rest = got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) if gap else 0
        if gap and len(rest) >= length:
            found.append(json.loads(rest[:length]))
            got = rest[length:]
            continue
        more = connection.recv(65536)
        assert more, f"closed after {found}"
        got += more
    return found


@pytest.fixture
def token(api: Api) -> str:
    made = api.device("dev-1")
    assert api.check("dev-1", made).status_code == 200
    return made


def test_one_connection_carries_polls_and_everything_else_in_turns(api: Api, token: str) -> None:
    other = b"GET /healthz HTTP/1.1\r\nHost: skylift\r\n\r\n"
    with line(api) as connection:
        for request, key in ((poll(token), "retry_after"), (other, "status")) * 3:
            connection.sendall(request)
            assert key in answers(connection, 1)[0]


@pytest.mark.parametrize("at", [1, 20, 150, -3])
def test_a_request_in_pieces_is_answered_like_one_in_one_piece(api: Api, token: str, at: int) -> None:
    request = poll(token)
    with line(api) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            connection.sendall(request[:at])
            api.get("/healthz")  # by then the first piece has been read
            connection.sendall(request[at:])
            assert answers(connection, 1)[0]["update_available"] is False
            connection.sendall(request)
            assert answers(connection, 1)[0]["update_available"] is False


def test_requests_that_come_together_are_answered_in_their_order(api: Api, token: str) -> None:
    other = b"GET /healthz HTTP/1.1\r\nHost: skylift\r\n\r\n"
    with line(api) as connection:
        connection.sendall(poll(token) + other + poll(token))
        connection.sendall(poll(token))
        connection.sendall(other)
        kinds = ["status" in answer for answer in answers(connection, 5)]
    assert kinds == [False, True, False, False, True]


def test_a_connection_is_closed_for_whoever_asks_for_that(api: Api, token: str) -> None:
    with line(api) as connection:
        connection.sendall(poll(token, "Connection: close"))
        assert answers(connection, 1)[0]["update_available"] is False
        assert connection.recv(1) == b""


@pytest.mark.parametrize("at", [0, 60, -3])
def test_a_connection_for_one_report_is_answered_in_one_piece_or_two(api: Api, token: str, at: int) -> None:
    """The first is answered on the porch, the others are let in with what they had said."""
    body = json.dumps({"device_id": "dev-1", "deployment": "dep_none", "state": "complete"})
    head = [
        "POST /api/updates/status HTTP/1.1",
        "Host: skylift",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    request = "\r\n".join([*head, "", body]).encode()
    with line(api) as connection:
        if at:
            connection.sendall(request[:at])
            api.get("/healthz")  # by then the first piece has been read
        connection.sendall(request[at:])
        assert answers(connection, 1)[0]["code"] == "unknown_update"
        assert connection.recv(1) == b""


def test_a_stranger_s_only_request_is_refused_like_any(api: Api, token: str) -> None:
    with line(api) as connection:
        connection.sendall(poll("dev_stranger", "Connection: close"))
        assert answers(connection, 1)[0]["code"] == "unknown_token"
        assert connection.recv(1) == b""


def test_who_says_nothing_at_first_is_heard_later(api: Api, token: str) -> None:
    with line(api) as connection, line(api) as other:
        other.sendall(poll(token))
        assert answers(other, 1)[0]["update_available"] is False
        connection.sendall(poll(token, "Connection: close"))
        assert answers(connection, 1)[0]["update_available"] is False


class Narrow(socket.socket):
    """A listening socket of a process that has no file handle left, for the first time or two."""

    left = 2

    def accept(self) -> tuple[socket.socket, object]:
        self.left -= 1
        if self.left >= 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_where_there_is_no_room_a_connection_waits_until_there_is(
    api: Api, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(porch, "REST_S", 0.05)

    async def story() -> bytes:
        with Narrow() as listening:
            listening.bind(("127.0.0.1", 0))
            hall = door.Hall(api.server.app, api.server.front)
            await hall.open(listening)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: skylift\r\nConnection: close\r\n\r\n")
            got = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            await hall.close()
            assert listening.left < 0
            return got

    assert asyncio.run(story()).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_has_said_all_it_will_still_gets_its_answer(api: Api, token: str) -> None:
    with line(api) as connection:
        connection.sendall(poll(token))
        connection.shutdown(socket.SHUT_WR)
        assert answers(connection, 1)[0]["update_available"] is False
        assert connection.recv(1) == b""


def test_a_head_without_an_end_is_refused(api: Api) -> None:
    with line(api) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        with suppress(OSError):  # it has hung up meanwhile
            for number in range(2_000):
                connection.sendall(b"X-More-%d: %s\r\n" % (number, b"x" * 100))
        with suppress(ConnectionResetError):  # what was still on its way undid the answer
            assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")


def test_whoever_sends_half_a_head_or_nothing_is_sent_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_S", 0.0)
    monkeypatch.setattr(door, "IDLE_S", 0.0)
    for begin in (b"", b"GET /healthz HTTP/1.1\r\nHos"):
        with line(api) as connection:
            connection.sendall(begin)
            assert connection.recv(1) == b""


def test_a_file_goes_out_whole_and_the_connection_goes_on(api: Api, tmp_path: Path) -> None:
    """Larger than what a socket holds; to one that hangs up in the middle, then to one that reads it all."""
    api.hold_ceremony()
    whole = build(tmp_path / "large.pyz", "1.1.0", size=16 << 20).read_bytes()
    api.publish("1.1.0", whole)
    digest = hashlib.sha256(whole).hexdigest()
    get = f"GET /api/blobs/{digest} HTTP/1.1\r\nHost: skylift\r\nAuthorization: Bearer {api.admin}\r\n\r\n"
    with line(api) as connection:
        connection.sendall(get.encode())
        assert connection.recv(10).startswith(b"HTTP/1.1 2")
    with line(api) as connection:
        connection.sendall(get.encode())
        api.get("/healthz")  # others are answered meanwhile
        got = b""
        while len(got.partition(b"\r\n\r\n")[2]) < len(whole):
            got += connection.recv(1 << 20)
        assert got.partition(b"\r\n\r\n")[2] == whole
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: skylift\r\n\r\n")
        assert answers(connection, 1) == [{"status": "ok"}]


# --- the plain form ---------------------------------------------------------------------------------


def test_the_plain_form_is_read_whatever_else_a_client_says_of_itself() -> None:
    said = (
        "User-Agent: esp-idf/5.1 (x; y)",
        "Accept: */*",
        "X-Forwarded-For: 10.0.0.1",
        'If-None-Match: "nothing"',
    )
    found = read(poll("dev_1", *said), 1000)
    assert found == Plain(True, POLL.partition("?")[2], b"", b"dev_1", b'"nothing"', False)
    assert pairs(found.query) == {
        "device_id": "dev-1",
        "current_version": "1.0.0",
        "device_type": "sensor-v2",
    }
    report = b"POST /api/updates/status HTTP/1.1\r\nAuthorization: Bearer t\r\n" + (
        b"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    assert read(report, 1000) == Plain(False, "", b"{}", b"t", None, True)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5",),
        ("Content-Length : 5",),
        ("content-length:5",),
        ("Transfer-Encoding: chunked",),
        ("TRANSFER-ENCODING: chunked",),
        ("X-Folded: a", " Content-Length: 5"),
        ("X-Half: a\nContent-Length: 5",),
        ("X-Half: a\rContent-Length: 5",),
        ("Authorization: Bearer other",),
        ("authorization: Basic other",),
        ("Connection: close, upgrade",),
        ("Connection: close", "connection: keep-alive"),
        ("Upgrade: h2c",),
        ("Expect: 100-continue",),
        ("Content-Encoding: gzip",),
        ('If-None-Match: "a", "b"',),
        ("X-Forwarded-Client-Cert: Hash=00",),
        ("x-skylift-proxy-secret: 0123456789abcdef",),
        ("no colon",),
    ],
)
def test_a_trap_in_the_head_is_not_plain(lines: tuple[str, ...]) -> None:
    assert read(poll("dev_1", *lines), 1000) is None


@pytest.mark.parametrize("query", ["a=%41", "a=b+c", "a=1&a=2", "a", "a=1&", "=1", "a=1#b", "A=1"])
def test_a_query_that_needs_reading_is_not_plain(query: str) -> None:
    assert pairs(query) is None


def test_a_body_that_is_not_the_one_announced_is_not_plain() -> None:
    head = (
        b"POST /api/updates/status HTTP/1.1\r\nAuthorization: Bearer t\r\nContent-Type: application/json\r\n"
    )
    for length, body in ((b"3", b"{}"), (b"1", b"{}"), (b"2000", b" " * 2000), (b"-2", b"{}"), (b"", b"{}")):
        assert read(head + b"Content-Length: %s\r\n\r\n%s" % (length, body), 1000) is None
    assert read(head + b"\r\n{}", 1000) is None
