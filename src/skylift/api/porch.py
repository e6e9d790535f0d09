"""The porch: new connections, in front of the door.

Most devices come on a new connection for each poll and close it behind them. Such a poll has arrived when its
connection is accepted (the kernel holds it back until then), and is read and answered on the bare socket: a
transport for it would cost as much as the poll. Whoever stays, or asks for anything else, goes inside, with
what was read so far.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from skylift.api.front import Front
from skylift.api.plain import read

LOG = logging.getLogger("skylift.porch")
BACKLOG = 1024  # new connections that wait: a third of a second of a million devices' polls
AT_ONCE = 64  # accepted in a row, before others have their turn
SILENT_S = 1  # who has said nothing for about so long is accepted all the same
FIRST = 16 << 10  # bytes that are read here
REST_S = 0.5  # when there is no room for another connection
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NOW = getattr(socket, "MSG_DONTWAIT", 0)  # one call less than making the socket another kind


class Porch:
    """Accepts on `listening`, in this event loop. `inside` makes the protocol of a connection that has said
    these bytes already."""

    def __init__(
        self, listening: socket.socket, front: Front, inside: Callable[[bytes], asyncio.Protocol]
    ) -> None:
        self._listening, self._front, self._inside = listening, front, inside
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._resting: asyncio.TimerHandle | None = None
        self.guests = 0  # they wait here for their answer
        with suppress(AttributeError, OSError):  # Linux has it; elsewhere more of them go inside
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, SILENT_S)
        listening.setblocking(False)
        listening.listen(BACKLOG)
        self._loop.add_reader(listening, self._accept)

    @property
    def is_empty(self) -> bool:
        return not self.guests and not self._tasks

    def close(self) -> None:
        """Nobody else is let in."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except OSError as e:
                if e.errno in _NO_ROOM:
                    self._rest(e)
                return  # nobody is there, or who was there has gone
            self._hear(connection)

    def _rest(self, error: OSError) -> None:
        """Whoever cannot be accepted stays there, and would wake the loop again at once."""
        LOG.error("no room for new connections: %s", error)
        self._loop.remove_reader(self._listening)
        self._resting = self._loop.call_later(REST_S, self._loop.add_reader, self._listening, self._accept)

    def _hear(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(FIRST, _NOW)
        except BlockingIOError:
            self._let_in(connection, b"")
            return
        except OSError:
            connection.close()
            return
        plain = read(data, self._front.max_body)
        if plain is None or not plain.closes:
            self._let_in(connection, data)
            return

        def reply(response: bytes | None) -> None:
            self.guests -= 1
            if response is None:
                self._let_in(connection, data)
            else:
                self._answer(connection, response)

        self.guests += 1
        if not self._front.take(plain, reply):
            self.guests -= 1
            self._let_in(connection, data)

    def _answer(self, connection: socket.socket, response: bytes) -> None:
        try:
            sent = connection.send(response, _NOW)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has hung up
            sent = len(response)
        if sent == len(response):
            connection.close()
        else:
            self._do(self._send(connection, response[sent:]))

    async def _send(self, connection: socket.socket, rest: bytes) -> None:
        connection.setblocking(False)
        with connection, suppress(OSError):
            await self._loop.sock_sendall(connection, rest)

    def _let_in(self, connection: socket.socket, said: bytes) -> None:
        self._do(self._enter(connection, said))

    async def _enter(self, connection: socket.socket, said: bytes) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(lambda: self._inside(said), connection)
        except OSError:  # it has hung up
            connection.close()

    def _do(self, what: Any) -> None:
        task = self._loop.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
