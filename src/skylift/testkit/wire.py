"""HTTP/1.1 for load: a few hundred kept connections, one request on each at a time, little CPU per request.

A general client costs several times what the server spends; this one sends bytes and reads a status, headers
as far as they bound the body, and the body. Anything odd closes the connection and is `Lost`.
"""

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from skylift.core.errors import invalid

TIMEOUT_S = 30.0  # a durable report behind a queue of thousands takes seconds; half a minute is no answer
LONGEST_HEAD = 64 << 10


class Lost(Exception):
    """No answer: refused, cut off, too late, or not HTTP. The request may have arrived all the same."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and body; of a download only the number of bytes (`size`)."""

    status: int
    body: bytes
    size: int


class Wire:
    """Connections to one server."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise invalid("--server", url, "begins with http:// or https:// and names a host")
        self._tls = ssl.create_default_context() if where.scheme == "https" else None
        self._host, self._port = where.hostname, where.port or (443 if self._tls else 80)
        self._base = where.path.rstrip("/")
        self._name = where.netloc.rpartition("@")[2]
        self._idle: list[_Line] = []
        self.opened = 0

    async def send(
        self, method: str, path: str, token: str, body: bytes = b"", *, keep: bool = True
    ) -> Reply:
        """The answer, or `Lost`. `keep=False` counts the body and throws it away."""
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = (
            f"{method} {self._base}{path} HTTP/1.1\r\nHost: {self._name}\r\n"
            f"Authorization: Bearer {token}\r\n{length}\r\n"
        )
        request = head.encode("ascii") + body
        while self._idle:
            line = self._idle.pop()
            if line.is_open:
                try:
                    return await self._ask(line, request, keep)
                except _Stale:
                    continue  # the server closed it while it lay here: not heard, so asked again
        return await self._ask(await self._open(), request, keep)

    async def _ask(self, line: "_Line", request: bytes, keep: bool) -> Reply:
        try:
            reply = await asyncio.wait_for(line.ask(request, keep), TIMEOUT_S)
        except TimeoutError as e:
            line.close()
            raise Lost(f"no answer in {TIMEOUT_S:g} s") from e
        except asyncio.CancelledError:
            line.close()
            raise
        if line.is_open:
            self._idle.append(line)
        return reply

    async def _open(self) -> "_Line":
        loop = asyncio.get_running_loop()
        try:
            _, line = await asyncio.wait_for(
                loop.create_connection(_Line, self._host, self._port, ssl=self._tls), TIMEOUT_S
            )
        except (OSError, TimeoutError) as e:
            raise Lost(str(e) or type(e).__name__) from e
        self.opened += 1
        return line

    def close(self) -> None:
        for line in self._idle:
            line.close()
        self._idle.clear()


class _Stale(Exception):
    """The connection was gone before a byte of the answer came."""


class _Line(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._asked = 0
        self._begin(True)

    def _begin(self, keep: bool) -> None:
        self._buffer = bytearray()
        self._keep = keep
        self._status = 0
        self._left: int | None = None  # bytes of the body still to come; None: head not read, or chunked
        self._size = 0
        self._chunked = False
        self._last = False  # the server closes after this answer

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes, keep: bool) -> "asyncio.Future[Reply]":
        self._answer = asyncio.get_running_loop().create_future()
        self._asked += 1
        self._begin(keep)
        if self._transport is not None:
            self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.close()  # bytes that nobody asked for
            return
        self._buffer += data
        if not self._status and not self._head():
            return
        if self._chunked:
            self._chunks()
        elif self._left is not None:
            self._body()

    def _head(self) -> bool:
        """Read the head once it is there."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > LONGEST_HEAD:
                self._fail("a head without an end")
            return False
        head = bytes(self._buffer[:end]).lower()
        del self._buffer[: end + 4]
        try:
            self._status = int(head[9:12])
            self._last = b"\r\nconnection: close" in head
            self._chunked = b"\r\ntransfer-encoding: chunked" in head
            _, found, rest = head.partition(b"\r\ncontent-length:")
            length = int(rest.partition(b"\r\n")[0]) if found else 0
        except ValueError:
            self._fail("not HTTP")
            return False
        if self._status == 100:
            self._status = 0
            return False
        self._left = None if self._chunked else length
        return True

    def _body(self) -> None:
        assert self._left is not None
        self._size += len(self._buffer)
        self._left -= len(self._buffer)
        if not self._keep:
            self._buffer.clear()
            if self._left <= 0:
                self._done(b"")
        elif self._left <= 0:
            self._done(bytes(self._buffer))
        else:  # counted again when more has come
            self._left += len(self._buffer)
            self._size -= len(self._buffer)

    def _chunks(self) -> None:
        """Chunked bodies come from proxies, and are small: read whole, when whole."""
        at = 0
        parts: list[bytes] = []
        while (end := self._buffer.find(b"\r\n", at)) >= 0:
            try:
                size = int(bytes(self._buffer[at:end]).partition(b";")[0], 16)
            except ValueError:
                self._fail("a chunk without a size")
                return
            if len(self._buffer) < end + 2 + size + 2:
                return
            if not size:
                body = b"".join(parts)
                self._size = len(body)
                self._done(body if self._keep else b"")
                return
            parts.append(bytes(self._buffer[end + 2 : end + 2 + size]))
            at = end + 2 + size + 2

    def _done(self, body: bytes) -> None:
        answer, self._answer = self._answer, None
        if self._last:
            self.close()
        if answer is not None and not answer.done():
            answer.set_result(Reply(self._status, body, self._size))

    def _fail(self, why: str) -> None:
        answer, self._answer = self._answer, None
        self.close()
        if answer is not None and not answer.done():
            answer.set_exception(Lost(why))

    def connection_lost(self, error: Exception | None) -> None:
        answer, self._answer = self._answer, None
        self._transport = None
        if answer is not None and not answer.done():
            stale = self._asked > 1 and not self._status and not self._buffer
            answer.set_exception(_Stale() if stale else Lost(str(error or "the connection was closed")))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
