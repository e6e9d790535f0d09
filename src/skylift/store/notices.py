"""Word from server to server: "the deployments changed", by PostgreSQL's NOTIFY.

It is said inside the transaction of the change and heard after its commit, within milliseconds. It is never
needed: whoever misses it reads again within a second. SQLite has one server, and nobody to tell.
"""

import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.connect import listening_engine, normal

CHANNEL = "skylift"
QUIET_S = 15.0  # without a word: see whether the connection still is one
AGAIN_S = 1.0  # until the next try, after it was lost


def say(conn: Connection) -> None:
    """Tell every server, when this transaction is committed."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(f"NOTIFY {CHANNEL}")


class Listener:
    """A thread with a connection of its own. `heard` is called for every word, and after every outage: what
    was said meanwhile was missed."""

    def __init__(self, url: str, heard: Callable[[], None]) -> None:
        self._engine = listening_engine(normal(url))
        # What a lost connection raises, here where the driver is spoken to directly.
        self._lost = (sa.exc.SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error, OSError)
        self._heard = heard
        self._stopping = threading.Event()
        self._bell, self._rope = socket.socketpair()  # `stop` pulls the rope
        self._thread = threading.Thread(target=self._run, name="skylift-listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._rope.send(b"!")
        if self._thread.ident is not None:
            self._thread.join()
        self._bell.close()
        self._rope.close()
        self._engine.dispose()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except self._lost:
                self._stopping.wait(AGAIN_S)

    def _listen(self) -> None:
        with self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute_simple(f"LISTEN {CHANNEL}")
            self._heard()
            with selectors.DefaultSelector() as ready:
                ready.register(driver._usock, selectors.EVENT_READ)
                ready.register(self._bell, selectors.EVENT_READ)
                while not self._stopping.is_set():
                    ready.select(QUIET_S)
                    driver.execute_simple("SELECT 1")  # the driver takes in what has come before the answer
                    if driver.notifications:
                        driver.notifications.clear()
                        self._heard()
