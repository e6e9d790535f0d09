"""The database: reads from any thread, writes through one thread that commits in groups.

`Database.write(deed)` blocks until the deed is durable; `submit` is the same for the event loop. The
writer takes whatever waits, runs each deed in its own savepoint, commits once, and only then answers:
under load one fsync serves hundreds, when idle nobody waits for anybody (natural batches: fixed windows
measured two to four times worse).

The rules:
- A deed touches only the database: after a deadlock or a lost connection it runs again.
- A deed that raises is undone alone; the others of its group are not touched.
- SQLite: WAL and synchronous=FULL (NORMAL lost acknowledged reports in a simulated power cut);
  checkpoints run here, between groups, never in the foreground of a request.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from skylift.core.errors import Unavailable
from skylift.store.connect import Trouble, normal, reading_engine, trouble, writing_engine
from skylift.store.migrate import migrate

__all__ = ["Connection", "Database", "migrate"]

T = TypeVar("T")
Deed = Callable[[Connection], T]

MAX_GROUP = 500  # deeds per commit: 500 rows a commit is where both databases stop gaining
WAL_CHECKPOINT_BYTES = 4 << 20
TRIES = 4  # of a single deed on a connection that was lost or a deadlock


@dataclass(frozen=True, slots=True)
class _Job:
    deed: Deed[Any]
    future: "Future[Any]"


@dataclass(slots=True)
class WriterStats:
    """For metrics: commits so far, and deeds in them."""

    commits: int = 0
    deeds: int = 0


class Database:
    """One database, by URL: `sqlite:///path` or `postgresql://user@host/name`."""

    def __init__(self, url: str) -> None:
        parsed = normal(url)
        self.url = url
        self.dialect: str = parsed.get_backend_name()
        self.stats = WriterStats()
        self._file = parsed.database if self.dialect == "sqlite" else None
        self._readers = reading_engine(parsed)
        self._writers = writing_engine(parsed)
        self._writing: Connection | None = None  # kept open between groups
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="skylift-writer", daemon=True)
        self._thread.start()

    def read(self) -> AbstractContextManager[Connection]:
        """A connection on one consistent snapshot; reads only."""
        return self._reading()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            connection = self._readers.connect()
        except SQLAlchemyError as e:
            raise _unavailable(e) from e
        try:
            with connection:
                yield connection
        except SQLAlchemyError as e:
            if trouble(e) is not Trouble.DEED:
                raise _unavailable(e) from e
            raise

    def submit(self, deed: Deed[T]) -> "Future[T]":
        """The deed's future: resolved when its effect is durable."""
        future: Future[T] = Future()
        if self._closed:
            future.set_exception(Unavailable("the database is closing"))
        else:
            self._jobs.put(_Job(deed, future))
        return future

    def write(self, deed: Deed[T]) -> T:
        """Run the deed and wait until it is durable. Never call it from inside a deed."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a deed must not write through the Database it runs in")
        return self.submit(deed).result()

    def close(self) -> None:
        """Finish what waits, then close every connection."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._readers.dispose()
        self._writers.dispose()

    # --- the writer's thread --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            group, last = self._take()
            if group:
                self._commit(group)
            if last:
                self._hang_up("TRUNCATE")
                return

    def _take(self) -> tuple[list[_Job], bool]:
        job = self._jobs.get()
        group: list[_Job] = []
        while job is not None:
            group.append(job)
            if len(group) >= MAX_GROUP:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Job]) -> None:
        outcomes = self._attempt(group)
        if outcomes is not None:
            _answer(outcomes)
        elif len(group) > 1:  # something broke the whole group: find out who can go on alone
            for job in group:
                self._commit([job])
        else:
            self._insist(group[0])
        self._checkpoint()

    def _insist(self, job: _Job) -> None:
        for _ in range(TRIES - 1):
            outcomes = self._attempt([job])
            if outcomes is not None:
                _answer(outcomes)
                return
        job.future.set_exception(self._outage)

    def _attempt(self, group: list[_Job]) -> "list[tuple[_Job, Any, BaseException | None]] | None":
        """Every job's outcome after one durable commit, or None when the transaction was lost."""
        try:
            if self._writing is None:
                self._writing = self._writers.connect()
            with self._writing.begin():
                outcomes = [(job, *_run_alone(self._writing, job.deed)) for job in group]
        except SQLAlchemyError as e:
            self._outage = _unavailable(e)
            self._hang_up()
            return None
        self.stats.commits += 1
        self.stats.deeds += len(group)
        return outcomes

    def _hang_up(self, checkpoint: str = "") -> None:
        """Drop the writing connection; the next group opens a new one."""
        connection, self._writing = self._writing, None
        if connection is None:
            return
        try:
            if checkpoint and self._file:
                _wal_checkpoint(connection, checkpoint)
            connection.close()
        except SQLAlchemyError:
            connection.invalidate()  # it is broken already: nothing of it is kept

    def _checkpoint(self) -> None:
        """Between groups, so that no request ever waits for one."""
        if self._file is None or self._writing is None:
            return
        wal = f"{self._file}-wal"
        if os.path.exists(wal) and os.path.getsize(wal) >= WAL_CHECKPOINT_BYTES:
            try:
                _wal_checkpoint(self._writing, "PASSIVE")
            except SQLAlchemyError:
                self._hang_up()  # nothing is lost: the log only stays longer


def _wal_checkpoint(connection: Connection, mode: str) -> None:
    """Straight on the driver: a checkpoint runs outside any transaction."""
    driver = connection.connection.driver_connection
    if driver is None:
        return
    driver.execute(f"PRAGMA wal_checkpoint({mode})")


def _run_alone(connection: Connection, deed: Deed[Any]) -> tuple[Any, BaseException | None]:
    savepoint = connection.begin_nested()
    try:
        result = deed(connection)
        savepoint.commit()
    except Exception as e:
        if isinstance(e, SQLAlchemyError) and trouble(e) is not Trouble.DEED:
            raise
        savepoint.rollback()
        return None, e
    return result, None


def _answer(outcomes: "list[tuple[_Job, Any, BaseException | None]]") -> None:
    for job, result, error in outcomes:
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)


def _unavailable(error: Exception) -> Unavailable:
    orig = getattr(error, "orig", None) or error
    return Unavailable(f"the database does not answer ({type(orig).__name__}: {orig})"[:300])
