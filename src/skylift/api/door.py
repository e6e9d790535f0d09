"""The door: HTTP/1.1 on a socket. What a fleet asks all day is answered right here, the rest by uvicorn.

One protocol per connection. A request that arrives whole and plain (`api.plain`) goes to the front and is
answered without a task, a scope or a framework: on a new connection that is most of what it would cost. For
any other the connection gets its `_Rest`, uvicorn's protocol, and both take turns on it from then on: what
arrives between two requests is looked at here first. Connections of a proxy carry both kinds. What comes on a
connection of its own mostly does not get as far as here (`api.porch`).

The rules:
- An answer at a time: what arrives before it is written waits.
- Whoever sends half a head, or nothing, is sent away after a while; heads have a limit.
- A request that was begun is finished when the server stops.
"""

import asyncio
import ssl
from functools import partial
from socket import socket
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from skylift.api.front import Front
from skylift.api.plain import read
from skylift.api.porch import BACKLOG, Porch
from skylift.api.sendfile import LINE, Files

IDLE_S = 75.0  # a kept connection without a request: longer than proxies keep theirs (60 s is usual)
HEAD_S = 15.0  # from the first byte of a head to its last
LOOK_S = 2.5
MAX_HEAD = 64 << 10  # bytes
STOP_S = 5.0  # for requests under way when the server stops

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Hall:
    """The doors that are open, and what they share."""

    def __init__(self, app: ASGIApp, front: Front) -> None:
        self.front = front
        self.config = Config(
            Files(app),
            interface="asgi3",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        self.config.load()
        self.state = ServerState()
        self.doors: set[Door] = set()
        self.loop = asyncio.get_running_loop()
        self._server: asyncio.Server | Porch | None = None
        self._looking: asyncio.TimerHandle | None = None

    async def open(self, listening: socket, tls: ssl.SSLContext | None = None) -> None:
        """Answer whoever comes, in this event loop."""
        if tls is None:
            self._server = Porch(listening, self.front, partial(Door, self))
        else:
            self._server = await self.loop.create_server(
                lambda: Door(self), sock=listening, backlog=BACKLOG, ssl=tls
            )
        self._look()

    async def close(self) -> None:
        """No new connections; those that are busy have a moment."""
        if self._server is None or self._looking is None:
            return
        self._looking.cancel()
        self._server.close()
        until = self.loop.time() + STOP_S
        while not self._is_empty and self.loop.time() < until:
            for door in list(self.doors):
                door.finish()
            await asyncio.sleep(0.02)
        for door in list(self.doors):
            door.slam()

    @property
    def _is_empty(self) -> bool:
        return not self.doors and not (isinstance(self._server, Porch) and not self._server.is_empty)

    def _look(self) -> None:
        now = self.loop.time()
        for door in list(self.doors):
            door.look(now)
        self._looking = self.loop.call_later(LOOK_S, self._look)


class Door(asyncio.Protocol):
    """One connection, which may have `said` something on the porch."""

    __slots__ = ("_asked", "_behind", "_closes", "_ends", "_hall", "_heard", "_rest", "_said", "_transport")

    def __init__(self, hall: Hall, said: bytes = b"") -> None:
        self._hall, self._said = hall, said
        self._transport: Any = None  # uvloop's own, which is no asyncio.Transport by name
        self._rest: _Rest | None = None
        self._asked: bytes | None = None  # the request whose answer the front owes
        self._behind: list[bytes] = []  # what arrived meanwhile
        self._closes = self._ends = False
        self._heard = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._heard = self._hall.loop.time()
        self._hall.doors.add(self)
        said, self._said = self._said, b""
        if said:
            self.data_received(said)

    def connection_lost(self, error: Exception | None) -> None:
        self._hall.doors.discard(self)
        self._asked, self._behind = None, []
        if self._rest is not None:
            self._rest.connection_lost(error)
            self._rest.app_state.clear()

    def data_received(self, data: bytes) -> None:
        if self._asked is not None:
            self._behind.append(data)
            self._transport.pause_reading()
            return
        self._heard = self._hall.loop.time()
        if self._rest is None or self._rest.is_between:
            plain = read(data, self._hall.front.max_body)
            if plain is not None:
                self._asked, self._closes = data, plain.closes
                if self._hall.front.take(plain, self._answer):
                    return
                self._asked = None
        self._hand_on(data)

    def eof_received(self) -> bool:
        """A client that has said all it will still hears the answer it waits for."""
        self._ends = True
        return self._asked is not None

    def pause_writing(self) -> None:
        if self._rest is not None:
            self._rest.pause_writing()

    def resume_writing(self) -> None:
        if self._rest is not None:
            self._rest.resume_writing()

    def _answer(self, response: bytes | None) -> None:
        asked, self._asked = self._asked, None
        if asked is None or self._transport.is_closing():
            return
        if response is None:
            self._hand_on(asked)
        else:
            self._transport.write(response)
        if response is not None and (self._closes or self._ends):
            self._transport.close()
        elif self._behind:
            behind, self._behind = b"".join(self._behind), []
            self._transport.resume_reading()
            self.data_received(behind)

    def _hand_on(self, data: bytes) -> None:
        if self._rest is None:
            hall = self._hall
            self._rest = _Rest(hall.config, hall.state, {}, hall.loop)
            self._rest.app_state[LINE] = self._rest
            self._rest.connection_made(self._transport)
        self._rest.data_received(data)

    # --- ends -------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Close it where nobody is to be expected any more."""
        if self._asked is not None or self._transport.is_closing():
            return
        rest = self._rest
        patience = HEAD_S if rest is not None and rest.in_head else IDLE_S
        if (rest is None or rest.in_head or rest.is_between) and now - self._heard > patience:
            self._transport.close()

    def finish(self) -> None:
        """After the answer that is under way, if one is."""
        self._closes = True
        if self._asked is not None:
            return
        if self._rest is not None and not self._rest.is_between:
            self._rest.shutdown()
        else:
            self._transport.close()

    def slam(self) -> None:
        self._transport.abort()


class _Rest(HttpToolsProtocol):
    """uvicorn's side of a connection: it also knows where one request ends and the next begins.

    Its timer of kept connections is not used: what the door answers does not set it back.
    """

    in_head = False
    _in_body = False
    _head = 0

    @property
    def is_between(self) -> bool:
        """Nothing is half read or half answered."""
        return (
            not self.in_head
            and not self._in_body
            and not self.pipeline
            and (self.cycle is None or self.cycle.response_complete)
        )

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head = self._head + len(data) if self.in_head else 0
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_message_begin(self) -> None:
        self.in_head = self._in_body = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()
