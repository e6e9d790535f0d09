"""Files leave by the kernel's sendfile: ASGI's `http.response.pathsend`, which uvicorn does not know.

Only in clear: TLS has to see the bytes. The socket is written to beside its transport, once that has nothing
left to write; the head went out before, and the next answer begins when the file is through.
"""

import asyncio
import os
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINE = "skylift.line"  # in the scope's state: the connection
PIECE = 256 << 10  # bytes; other connections have their turn between two
EMPTY_S = 0.001  # until the head is out, which it nearly always is at once


class Line(Protocol):
    """uvicorn's protocol, as far as a file needs it."""

    transport: Any
    cycle: Any


class Files:
    """ASGI: adds the extension where the connection can do it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line: Line | None = scope["state"].pop(LINE, None)
        if line is None or scope["scheme"] != "http":
            await self._app(scope, receive, send)
            return

        async def sends(message: Message) -> None:
            if message["type"] != "http.response.pathsend":
                await send(message)
                return
            # What uvicorn counts has gone out beside it.
            line.cycle.expected_content_length -= await _send(line.transport, message["path"])
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        scope["extensions"] = {"http.response.pathsend": {}}
        await self._app(scope, receive, sends)


async def _send(transport: Any, path: str) -> int:
    """How many bytes went out; fewer than the file has where the connection broke."""
    while transport.get_write_buffer_size() and not transport.is_closing():
        await asyncio.sleep(EMPTY_S)
    if transport.is_closing():
        return 0
    # A descriptor of our own: the loop does not watch those of its transports for others.
    out, source = os.dup(transport.get_extra_info("socket").fileno()), os.open(path, os.O_RDONLY)
    try:
        return await _pieces(out, source, os.fstat(source).st_size)
    except OSError:  # the client has gone
        transport.abort()
        return 0
    finally:
        os.close(source)
        os.close(out)


async def _pieces(out: int, source: int, size: int) -> int:
    at = 0
    while at < size:
        try:
            sent = os.sendfile(out, source, at, min(PIECE, size - at))
        except BlockingIOError:
            await _writable(out)
            continue
        if not sent:
            break
        at += sent
        await asyncio.sleep(0)
    return at


async def _writable(out: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(out, ready.set_result, None)
    try:
        await ready
    finally:
        loop.remove_writer(out)
