"""Engines for the two databases, and what their errors mean.

SQLite runs in WAL mode, `synchronous=FULL` (a commit that was answered survives a power cut), with foreign
keys on, and with transactions of our own making: the driver's implicit ones would not cover DDL or reads.
PostgreSQL is spoken through pg8000. Both give connections whose transactions begin when asked to.
"""

import logging
import sqlite3
from enum import StrEnum
from typing import Any

import pg8000.exceptions
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from skylift.core.errors import invalid

BUSY_S = (
    10.0  # another process holds SQLite's write lock (a backup, a migration): wait that long, then say so
)
SOCKET_S = 60.0  # the longest question we ask PostgreSQL (a preview over millions of devices) takes seconds
FROZEN_S = 30.0  # a server that stops in the middle of a transaction is cut off: the others wait for it
ANSWER_S = 10.0  # ... and the shortest, which only shows that the connection still is one
POOL = 8  # readers kept open; more are made when needed: a reader in the event loop must never queue for one

# PostgreSQL's words (SQLSTATE) for "another transaction was in the way: try again".
_DUPLICATE = "23505"  # another server inserted it a moment ago: looked at again, it is there
_COLLISIONS = frozenset({"40001", "40P01", "55P03", _DUPLICATE})
# ... and for "I am going away": classes 08 (connection), 53 (resources), 57P (shutdown); 25P03: see FROZEN_S.
_GONE = ("08", "53", "57P", "25P03")
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
    engine = _postgresql(url, pool_size=POOL, max_overflow=-1, pool_pre_ping=True)
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


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
    return sa.create_engine(url, connect_args={"timeout": SOCKET_S, "tcp_keepalive": True}, **options)


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


def sqlstate(error: BaseException) -> str | None:
    """The five characters of PostgreSQL's answer; None where the server did not get to answer."""
    args = getattr(getattr(error, "orig", error), "args", ())
    answer = args[0] if args else None
    return answer.get("C") if isinstance(answer, dict) else None


def is_duplicate(error: BaseException) -> bool:
    """Whether a unique constraint of PostgreSQL refused it."""
    return isinstance(error, DBAPIError) and sqlstate(error) == _DUPLICATE
