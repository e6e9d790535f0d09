"""The poll path's one read: devices by their tokens, straight on the driver.

Nearly every poll ends here: the device is known, nothing is open for it. Questions that come together are
asked together: on SQLite those of one turn of the event loop, read right there; on PostgreSQL, through
asyncpg in the event loop, those that gather while another is on its way. One by one they cost twice as much:
SQLite's read lets go of the interpreter, and another thread has to give it back; PostgreSQL's process is
woken for each.

A glance may come to nothing, because nobody is known by the token or because the database does not answer
here: then whoever asked takes the long way, which knows every error.
"""

import asyncio
import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy.engine import URL

from skylift.store.connect import normal

LOG = logging.getLogger("skylift.glance")
_COLUMNS = (
    "token_hash, pk, device_id, device_type, h, current_version, config_version, image_sha256, status,"
    " deployment_id"
)
_SQLITE = f"SELECT {_COLUMNS} FROM devices WHERE token_hash IN (%s)"
MOST = 32  # tokens in one statement of SQLite's: as many as the driver keeps compiled
_POSTGRESQL = f"SELECT {_COLUMNS} FROM unnest($1::text[]) AS asked (token) JOIN devices ON token_hash = token"
# Planning anew for each number of tokens, as PostgreSQL does for a few, costs more than reading them. One
# plan is kept, by the index: a table that is small today may grow before its statistics do.
_BY_THE_INDEX = """
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off
"""
MAPPED = 4 << 30  # bytes of SQLite's file read where the operating system keeps it, without a copy
# PostgreSQL's questions wait for company, a query costs what a dozen rows do: at most so long, less where few
# came the last time, and no longer once there are enough.
GATHER_S, GATHER_EACH_S = 0.005, 0.001
ENOUGH = 32
AT_ONCE = 2  # questions under way to PostgreSQL: while one is answered the other gathers
ANSWER_S = 5.0


class Glance(NamedTuple):
    """What a poll must know of its device."""

    token_hash: str
    pk: int
    device_id: str
    device_type: str
    h: int
    current_version: str | None
    config_version: str | None
    image_sha256: str | None
    status: str
    deployment_id: str | None


Tell = Callable[[Glance | None], None]  # None: not here
Asked = dict[str, list[Tell]]


class Glances(ABC):
    """One per server, used in its event loop."""

    def __init__(self) -> None:
        self._asked: Asked = {}

    def find(self, token_hash: str, tell: Tell) -> None:
        """The device with this token, told in the event loop, later. `tell` does not raise."""
        if not self._asked:
            self._begin(asyncio.get_running_loop())
        self._asked.setdefault(token_hash, []).append(tell)

    @abstractmethod
    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """The first question of a batch is about to be noted."""

    @abstractmethod
    def close(self) -> None:
        """Drop the connections. From any thread; the event loop may be gone."""

    def _batch(self) -> Asked:
        batch, self._asked = self._asked, {}
        return batch


class SqliteGlances(Glances):
    """Reads in the event loop."""

    def __init__(self, url: URL) -> None:
        super().__init__()
        self._path = url.database or ""
        self._connection: sqlite3.Connection | None = None

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(self._look)

    def _look(self) -> None:
        batch = self._batch()
        try:
            if self._connection is None:
                self._connection = _open(self._path)
            rows = _rows(self._connection, list(batch))
        except sqlite3.Error:
            self.close()
            rows = []
        _tell(batch, rows)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _rows(connection: sqlite3.Connection, hashes: list[str]) -> list[Any]:
    found: list[Any] = []
    for at in range(0, len(hashes), MOST):
        some = hashes[at : at + MOST]
        found += connection.execute(_STATEMENTS[len(some)], some).fetchall()
    return found


_STATEMENTS = [_SQLITE % ",".join("?" * count) for count in range(MOST + 1)]


def _open(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=1.0, check_same_thread=False, isolation_level=None, cached_statements=2 * MOST
    )
    connection.execute(f"PRAGMA mmap_size={MAPPED}")
    connection.execute("PRAGMA query_only=ON")
    return connection


class PostgresGlances(Glances):
    """Two connections of its own."""

    def __init__(self, url: URL) -> None:
        super().__init__()
        self._where = _where(url)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[_Line] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._gathered: asyncio.Future[None] | None = None  # somebody waits for company
        self._lately = 1  # came together the last time

    def find(self, token_hash: str, tell: Tell) -> None:
        super().find(token_hash, tell)
        if len(self._asked) >= ENOUGH and self._gathered is not None:
            _go(self._gathered)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:  # connections belong to the loop they were made in
            self._loop, self._idle, self._under_way, self._gathered = loop, [], set(), None
        if len(self._under_way) < AT_ONCE:
            task = loop.create_task(self._carry(loop))
            self._under_way.add(task)

    async def _carry(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._asked:
                await self._company(loop)
                if batch := self._batch():  # the other carrier may have taken it
                    self._lately = len(batch)
                    await self._ask(batch)
        finally:
            # Here, not in a callback of the task's: that would run a turn later, and whoever asked in between
            # would count on a task that has ended.
            self._under_way.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _company(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until enough have come, or it has been long enough."""
        if len(self._asked) >= ENOUGH:
            return
        self._gathered = gathered = loop.create_future()
        timer = loop.call_later(min(GATHER_S, GATHER_EACH_S * self._lately), _go, gathered)
        try:
            await gathered
        finally:
            timer.cancel()

    async def _ask(self, batch: Asked) -> None:
        rows: list[Any] = []
        try:
            rows = await self._fetch(list(batch))
        except Exception as e:  # noqa: BLE001 - whatever it is, the long way will meet it, and say it
            LOG.debug("no glance: %r", e)
        except BaseException:
            _tell(self._batch(), [])  # nobody waits for ever, whatever happened here
            raise
        finally:
            _tell(batch, rows)

    async def _fetch(self, hashes: list[str]) -> list[Any]:
        line = self._idle.pop() if self._idle else await _line(self._where)
        try:
            rows: list[Any] = await line.question.fetch(hashes, timeout=ANSWER_S)
        except BaseException:
            line.connection.terminate()
            raise
        self._idle.append(line)
        return rows

    def close(self) -> None:
        idle, self._idle = self._idle, []
        if self._loop is not None and not self._loop.is_closed():
            for line in idle:
                self._loop.call_soon_threadsafe(line.connection.terminate)


def _go(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


class _Line(NamedTuple):
    """A connection, and the question that is prepared on it."""

    connection: asyncpg.Connection
    question: PreparedStatement


async def _line(where: dict[str, Any]) -> _Line:
    async with asyncio.timeout(ANSWER_S):
        connection = await asyncpg.connect(**where)
        try:
            await connection.execute(_BY_THE_INDEX)
            return _Line(connection, await connection.prepare(_POSTGRESQL))
        except BaseException:
            connection.terminate()
            raise


def _tell(batch: Asked, rows: list[Any]) -> None:
    found = {row[0]: Glance(*row) for row in rows}
    for token_hash, tells in batch.items():
        for tell in tells:
            tell(found.get(token_hash))


def _where(url: URL) -> dict[str, Any]:
    """SQLAlchemy's URL as asyncpg takes it."""
    socket = url.query.get("unix_sock")
    folder = socket.rpartition("/")[0] if isinstance(socket, str) else None
    return {
        "host": folder or url.host or "127.0.0.1",
        "port": int(socket.rpartition(".")[2]) if isinstance(socket, str) else url.port or 5432,
        "user": url.username or "postgres",
        "password": url.password,
        "database": url.database,
        "timeout": ANSWER_S,
    }


def glances(url: str) -> Glances:
    """For this database."""
    parsed = normal(url)
    return SqliteGlances(parsed) if parsed.get_backend_name() == "sqlite" else PostgresGlances(parsed)
