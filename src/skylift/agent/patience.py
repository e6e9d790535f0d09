"""An end to waiting: whatever a server sends, however slowly, a request is over when its time is over.

Timeouts of a socket begin anew with every byte; a server that sends one byte now and then, or an endless row
of "100 Continue", holds a reader for ever. `within(seconds)` shuts the connections down that were used inside
it: every read, in whatever library it hangs, ends at once.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

_WATCH: "ContextVar[Watch | None]" = ContextVar("watch", default=None)


class Watch:
    """The sockets in use, and whether their time is over."""

    def __init__(self) -> None:
        self.over = False
        self._held: list[socket.socket] = []
        self._lock = threading.Lock()

    def hold(self, used: socket.socket) -> None:
        """A second handle on the same connection: TLS, which takes the first one over, is cut with it."""
        with self._lock:
            self._held.append(socket.socket(fileno=socket.dup(used.fileno())))
        if self.over:
            self.cut()

    def cut(self) -> None:
        with self._lock:
            self.over = True
            for held in self._held:
                with suppress(OSError):
                    held.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            for held in self._held:
                held.close()
            self._held.clear()


@contextmanager
def within(seconds: float) -> Iterator[Watch]:
    """What is requested inside ends after so many seconds; `over` says afterwards that this was why."""
    watch = Watch()
    timer = threading.Timer(seconds, watch.cut)
    timer.daemon = True
    timer.start()
    before = _WATCH.get()
    _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.set(before)
        timer.cancel()
        watch.close()


def pool(**options: Any) -> urllib3.PoolManager:
    """A pool whose connections `within` can end."""
    made = urllib3.PoolManager(**options)
    made.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return made


def _hold(used: Any) -> None:
    watch = _WATCH.get()
    if watch is not None and used is not None:
        watch.hold(used)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _hold(made)
        return made

    def putrequest(self, *args: Any, **more: Any) -> None:
        _hold(self.sock)  # one that was kept open from an earlier request
        super().putrequest(*args, **more)


class _SecureConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _hold(made)
        return made

    def putrequest(self, *args: Any, **more: Any) -> None:
        _hold(self.sock)
        super().putrequest(*args, **more)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
