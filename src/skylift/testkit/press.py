"""Presses a server with requests and keeps the time: closed loop (as many as it answers) or open (as many as
come, whether or not the ones before were answered). For this machine's own servers only.

Bare sockets, kept ones on uvloop: what is measured is the server, not a client library.
"""

import asyncio
import errno
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import uvloop

GIVE_UP_S = 10.0
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: connecting finds the port, where it is free for this one other end
BURST = 64  # requests that are late in a row, before answers are looked at


@dataclass
class Pressed:
    """What came of it. `latencies` in seconds, of answered requests; `wrong` counts other status codes than
    200, `postponed` those of them that say when to come back (429 or 503 with Retry-After), `failed`
    connections that broke or never answered."""

    seconds: float = 0.0
    answered: int = 0
    wrong: int = 0
    postponed: int = 0
    failed: int = 0
    latencies: list[float] = field(default_factory=list)

    def hear(self, head: bytes, seconds: float) -> None:
        """An answer that came after so long."""
        self.latencies.append(seconds)
        self.answered += 1
        self.wrong += not head.startswith(b"HTTP/1.1 200")
        full = head.startswith((b"HTTP/1.1 429", b"HTTP/1.1 503"))
        self.postponed += full and b"\r\nretry-after:" in head.lower()

    def percentile(self, percent: float) -> float:
        """Seconds below which this share of the answers came; 0 without any."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


class _Line(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self, told: Pressed, done: Callable[["_Line", bool], None]) -> None:
        self._told, self._done = told, done
        self._got = b""
        self._sent_at = 0.0
        self.transport: Any = None  # uvloop's own, which is no asyncio.Transport by name

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes, since: float | None = None) -> None:
        self._got = b""
        self._sent_at = perf_counter() if since is None else since
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, gap, body = self._got.partition(b"\r\n\r\n")
        if not gap or len(body) < _length(head):
            return
        self._told.hear(head, perf_counter() - self._sent_at)
        self._sent_at = 0.0
        self._done(self, True)

    def connection_lost(self, error: Exception | None) -> None:
        if self._sent_at:
            self._told.failed += 1
            self._sent_at = 0.0
            self._done(self, False)


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


def closed(
    host: str, port: int, request: Callable[[int], bytes], lines: int, most: int, seconds: float
) -> Pressed:
    """`lines` connections, each asking again once it is answered, until `most` requests or `seconds`."""
    return uvloop.run(_closed(host, port, request, lines, most, seconds))


async def _closed(
    host: str, port: int, request: Callable[[int], bytes], lines: int, most: int, seconds: float
) -> Pressed:
    loop, told = asyncio.get_running_loop(), Pressed()
    begun = perf_counter()
    over = asyncio.Event()
    asked, busy = 0, 0

    def next_one(line: _Line, alive: bool) -> None:
        nonlocal asked, busy
        if alive and asked < most and perf_counter() - begun < seconds:
            asked += 1
            line.ask(request(asked - 1))
            return
        busy -= 1
        if not busy:
            over.set()

    opened = [(await loop.create_connection(lambda: _Line(told, next_one), host, port)) for _ in range(lines)]
    begun = perf_counter()
    busy = lines
    for _, line in opened:
        next_one(line, True)
    try:
        await asyncio.wait_for(over.wait(), seconds + GIVE_UP_S)
    except TimeoutError:
        told.failed += busy
    told.seconds = perf_counter() - begun
    for transport, _ in opened:
        transport.abort()
    return told


class _Fresh:
    """New connections, one request each, on bare sockets: an event loop's transports would cost whoever asks
    more than they cost whoever answers."""

    def __init__(self, host: str, port: int, told: Pressed, source: str = "") -> None:
        self._to, self._from, self._told = (host, port), source, told
        self._poller = select.epoll()
        self._open: dict[int, _Call] = {}

    @property
    def busy(self) -> int:
        return len(self._open)

    def begin(self, request: bytes, due: float) -> None:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if self._from:
            connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((self._from, 0))
        if connection.connect_ex(self._to) not in (0, errno.EINPROGRESS):
            self._told.failed += 1
            connection.close()
            return
        self._open[connection.fileno()] = _Call(connection, request, due)
        self._poller.register(connection, select.EPOLLOUT)

    def turn(self, wait: float) -> None:
        """Go on with whatever can go on, once something can."""
        for handle, _ in self._poller.poll(wait):
            self._go_on(handle, self._open[handle])

    def settle(self, patience_s: float = GIVE_UP_S) -> None:
        """Until all are answered, or nobody waits any longer."""
        until = perf_counter() + patience_s
        while self._open and perf_counter() < until:
            self.turn(0.05)
        self._told.failed += len(self._open)
        for call in self._open.values():
            call.connection.close()
        self._poller.close()

    def _go_on(self, handle: int, call: "_Call") -> None:
        try:
            if call.request:
                call.connection.send(call.request)
                call.request = b""
                self._poller.modify(handle, select.EPOLLIN)
                return
            data = call.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        call.got += data
        head, gap, body = call.got.partition(b"\r\n\r\n")
        if gap and len(body) >= _length(head):
            self._told.hear(head, perf_counter() - call.due)
        elif data:
            return
        else:
            self._told.failed += 1
        del self._open[handle]
        call.connection.close()


@dataclass(slots=True)
class _Call:
    connection: socket.socket
    request: bytes  # until it is sent
    due: float
    got: bytes = b""


def afresh(host: str, port: int, request: Callable[[int], bytes], lines: int, seconds: float) -> Pressed:
    """`lines` at a time, closed loop, each request on a new connection."""
    told = Pressed()
    fresh, begun, number = _Fresh(host, port, told), perf_counter(), 0
    while (now := perf_counter()) - begun < seconds:
        for _ in range(lines - fresh.busy):
            fresh.begin(request(number), now)
            number += 1
        fresh.turn(0.1)
    told.seconds = perf_counter() - begun
    fresh.settle()
    return told


def opened(
    host: str,
    port: int,
    request: Callable[[int], bytes],
    per_second: float,
    seconds: float,
    *,
    burst: int = BURST,
    patience_s: float = GIVE_UP_S,
    source: str = "",
) -> Pressed:
    """A new connection per request, at its time, whether or not the ones before were answered. A request's
    latency counts from when it was due, so that a server that falls behind cannot hide it. `burst`: how many
    that are late are begun before answers are looked at; `seconds` of the result: within which all were.
    `source`: the address to come from; behind ten thousand ports of one, to find a free one is slow."""
    told, most = Pressed(), int(per_second * seconds)
    fresh, begun, number = _Fresh(host, port, told, source), perf_counter(), 0
    while number < most:
        due = min(most, number + burst, int((perf_counter() - begun) * per_second) + 1)
        while number < due:
            fresh.begin(request(number), begun + number / per_second)
            number += 1
        fresh.turn(max(0.0, begun + number / per_second - perf_counter()))
    told.seconds = perf_counter() - begun
    fresh.settle(patience_s)
    return told


def paced(
    host: str,
    port: int,
    request: Callable[[int], bytes],
    lines: int,
    per_second: float,
    seconds: float,
    tls: ssl.SSLContext | None = None,
) -> Pressed:
    """Open loop over `lines` kept connections, in turns. Latencies count from when a request was due."""
    return uvloop.run(_paced(host, port, request, lines, per_second, seconds, tls))


async def _paced(
    host: str,
    port: int,
    request: Callable[[int], bytes],
    lines: int,
    per_second: float,
    seconds: float,
    tls: ssl.SSLContext | None,
) -> Pressed:
    loop, told = asyncio.get_running_loop(), Pressed()
    idle: list[_Line] = []
    waiting: list[tuple[bytes, float]] = []

    def next_one(line: _Line, alive: bool) -> None:
        if alive and waiting:
            line.ask(*waiting.pop(0))
        elif alive:
            idle.append(line)

    for _ in range(lines):
        _, line = await loop.create_connection(
            lambda: _Line(told, next_one), host, port, ssl=tls, server_hostname="localhost" if tls else None
        )
        idle.append(line)
    begun, most = perf_counter(), int(per_second * seconds)
    for number in range(most):
        due = begun + number / per_second
        if (late := due - perf_counter()) > 0:
            await asyncio.sleep(late)
        if idle:
            idle.pop().ask(request(number), due)
        else:
            waiting.append((request(number), due))
    told.seconds = perf_counter() - begun
    await _settled(told, most)
    return told


async def _settled(told: Pressed, most: int) -> None:
    """Until all are answered, or nothing comes any more."""
    until = perf_counter() + GIVE_UP_S
    while told.answered + told.failed < most and perf_counter() < until:
        await asyncio.sleep(0.05)
    told.failed = most - told.answered
