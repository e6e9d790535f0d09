"""Engines for the two databases, and what their errors mean.

SQLite runs in WAL mode, `synchronous=FULL` (a commit that was answered survives a power cut), with foreign
keys on, and with transactions of our own making: the driver's implicit ones would not cover DDL or reads.
PostgreSQL is spoken through pg8000 (`store.wire`). Both give connections whose transactions begin when
asked to.
"""

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import pg8000.exceptions
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from skylift.core.errors import invalid
from skylift.store.wire import Wire

BUSY_S = (
    10.0  # another process holds SQLite's write lock (a backup, a migration): wait that long, then say so
)
SOCKET_S = 60.0  # the longest question we ask PostgreSQL (a preview over millions of devices) takes seconds
FROZEN_S = 30.0  # a server that stops in the middle of a transaction is cut off: the others wait for it
ANSWER_S = 10.0  # ... and the shortest, which only shows that the connection still is one
QUESTION_S = 30.0  # what people ask of the whole fleet is taken back beyond that, and they are told
POOL = 8  # readers kept open; more are made when needed: a reader in the event loop must never queue for one

# PostgreSQL's words (SQLSTATE) for "another transaction was in the way: try again".
# Another server inserted it a moment ago: looked at again, it is there. The second is a hash index's word.
_DUPLICATES = frozenset({"23505", "23P01"})
_COLLISIONS = frozenset({"40001", "40P01", "55P03"}) | _DUPLICATES
# ... and for "I am going away": classes 08 (connection), 53 (resources), 57P (shutdown); 25P03: see FROZEN_S;
# 25006: it is read-only, as one is that another has taken over from.
_GONE = ("08", "53", "57P", "25P03", "25006")
_TAKEN_BACK = "57014"
_SNAPSHOT = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_STEPS = 50_000  # of SQLite's machine between two looks at the clock: about a millisecond
# SQLite's: locked, full, unreadable. None of them says anything about the deed; all others do.
_SQLITE_GONE = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_CANTOPEN",
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_READONLY",
    "SQLITE_NOMEM",
    "SQLITE_PROTOCOL",
    "SQLITE_INTERRUPT",
)

# Lost connections, as SQLAlchemy does not wrap them: while it opens, resets and closes them.
_NETWORK = (OSError, sa.exc.TimeoutError, sa.exc.DisconnectionError, pg8000.exceptions.InterfaceError)


class Trouble(StrEnum):
    """What a database error asks of us."""

    GONE = "gone"  # the way to the database is bad: reconnect, then give up with Unavailable
    COLLISION = "collision"  # the transaction lost against another: run it again
    DEED = "deed"  # the deed's own fault: only it is told


def normal(url: str) -> URL:
    """The URL with the driver we use; `sqlite:///path` and `postgresql://user@host/db` are understood."""
    try:
        parsed = make_url(url)
    except ArgumentError as e:
        raise invalid("database_url", url, "must be a URL, such as postgresql://user@host/name") from e
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise invalid("database_url", url, "needs a file: several connections share the database")
        return parsed.set(drivername="sqlite")
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+pg8000")
    raise invalid("database_url", parsed.drivername, "must be sqlite or postgresql")


def writing_engine(url: URL) -> Engine:
    """One connection at a time, for the writer thread and for migrations. Begins with the write lock held."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, "BEGIN IMMEDIATE", readonly=False, poolclass=NullPool)
    engine = _postgresql(url, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute_simple(f"SET idle_in_transaction_session_timeout = '{FROZEN_S:g}s'")

    return engine


def listening_engine(url: URL) -> Engine:
    """One connection at a time, outside any transaction; PostgreSQL only."""
    options = {"isolation_level": "AUTOCOMMIT", "poolclass": NullPool}
    return sa.create_engine(url, connect_args={"timeout": ANSWER_S, "tcp_keepalive": True}, **options)


def reading_engine(url: URL) -> Engine:
    """A pool of connections whose transactions are snapshots and cannot write."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, "BEGIN", readonly=True, pool_size=POOL, max_overflow=-1)
    engine = _postgresql(url, pool_size=POOL, max_overflow=-1)

    # Once for the connection: SQLAlchemy's options say it at each use and take it back: twelve round trips.
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute_simple(f"SET SESSION CHARACTERISTICS AS TRANSACTION {_SNAPSHOT}")

    @event.listens_for(engine, "checkout")
    def look(connection: Any, _record: object, _proxy: object) -> None:
        if connection.is_lost():  # the server was restarted: the pool makes another
            raise sa.exc.DisconnectionError("the server has hung up")

    return engine


def _sqlite(url: URL, begin: str, *, readonly: bool, **options: Any) -> Engine:
    # A connection wanders between threads, but is used by one at a time.
    connect_args = {"timeout": BUSY_S, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=connect_args, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # no implicit BEGIN: ours comes from `start`
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA wal_autocheckpoint=0")  # in the foreground it stalled a commit for 321 ms
        connection.execute("PRAGMA cache_size=-16000")
        if readonly:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgresql(url: URL, **options: Any) -> Engine:
    # A line that is broken cannot be hung up politely: the pool would log a traceback for each, and whoever
    # asked on it says so anyway.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    engine = sa.create_engine(url, connect_args={"timeout": SOCKET_S, "tcp_keepalive": True}, **options)

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, args: Any, named: Any) -> Wire:
        return Wire(*args, **named)

    return engine


def trouble(error: BaseException) -> Trouble:
    """Whose fault `error` is. Anything that is neither the driver's nor the network's is the deed's."""
    if isinstance(error, _NETWORK):
        return Trouble.GONE
    if not isinstance(error, DBAPIError | pg8000.exceptions.DatabaseError):
        return Trouble.DEED
    code = sqlstate(error)
    if code is not None:
        if code in _COLLISIONS:
            return Trouble.COLLISION
        return Trouble.GONE if code.startswith(_GONE) else Trouble.DEED
    if not isinstance(error, DBAPIError):
        return Trouble.DEED
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return Trouble.GONE
    if isinstance(error.orig, OSError):
        return Trouble.GONE
    if isinstance(error.orig, sqlite3.Error):
        name = getattr(error.orig, "sqlite_errorname", "")
        return Trouble.GONE if name.startswith(_SQLITE_GONE) else Trouble.DEED
    return Trouble.GONE if isinstance(error, OperationalError) else Trouble.DEED


@contextmanager
def bounded(conn: sa.Connection, seconds: float) -> Iterator[None]:
    """Whatever is asked on this connection in here has so long, all together; then the database lets go of
    it, and `is_taken_back` is true of what it raises. Of PostgreSQL's streams every fetch has what was left
    when they began: their rows are bounded by the fleet."""
    until = time.monotonic() + seconds
    if conn.dialect.name == "postgresql":
        event.listen(conn, "before_cursor_execute", _time_left(until))
        yield
        return
    driver = conn.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def _time_left(until: float) -> Any:
    def before(conn: sa.Connection, *_: object) -> None:
        driver: Any = conn.connection.driver_connection
        left = max(1, round(1000 * (until - time.monotonic())))
        # On a cursor of its own: the question's may be one of the server's, which takes nothing else.
        driver.cursor().execute(f"SET LOCAL statement_timeout = {left}")

    return before


def is_taken_back(error: BaseException) -> bool:
    """Whether a question ended because its time was over."""
    if not isinstance(error, DBAPIError):
        return False
    name = getattr(error.orig, "sqlite_errorname", "")
    return name == "SQLITE_INTERRUPT" or sqlstate(error) == _TAKEN_BACK


def sqlstate(error: BaseException) -> str | None:
    """The five characters of PostgreSQL's answer; None where the server did not get to answer."""
    args = getattr(getattr(error, "orig", error), "args", ())
    answer = args[0] if args else None
    return answer.get("C") if isinstance(answer, dict) else None


def is_duplicate(error: BaseException) -> bool:
    """Whether PostgreSQL refused it because there is one like it."""
    return isinstance(error, DBAPIError) and sqlstate(error) in _DUPLICATES
