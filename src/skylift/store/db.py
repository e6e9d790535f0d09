"""The database: reads from any thread, writes through one thread that commits in groups.

`Database.write(deed)` blocks until the deed is durable; `submit` is the same for the event loop. The
writer takes whatever waits, runs each deed in its own savepoint, commits once, and only then answers:
under load one fsync serves hundreds, when idle nobody waits for anybody (natural batches: fixed windows
measured two to four times worse).

The rules:
- A deed touches only the database: after a deadlock or a lost connection it runs again. It takes effect
  once all the same: a commit whose answer got lost is looked up in PostgreSQL, not guessed.
- A deed that raises is undone alone; the others of its group are not touched.
- A deed for many (reports) takes what waits for it at once; where that raises, each is done alone.
- When the database is gone, whoever waits is told so (`Unavailable`); nothing waits for ever, and nothing
  that goes wrong in here ends the thread.
- Of several servers on one PostgreSQL one writes at a time: a group begins by waiting for its turn. Side by
  side their groups deadlocked (three servers took 1200 reports in 32 s; in turns it is 6 s), and what a deed
  read would be old before it wrote. Who stops in the middle of a turn is cut off (`connect.FROZEN_S`).
- SQLite: WAL and synchronous=FULL (NORMAL lost acknowledged reports in a simulated power cut);
  checkpoints run here, between groups, never in the foreground of a request.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from skylift.core.errors import Rejected, Unavailable
from skylift.store.connect import (
    QUESTION_S,
    Trouble,
    bounded,
    is_duplicate,
    is_taken_back,
    normal,
    reading_engine,
    trouble,
    writing_engine,
)
from skylift.store.migrate import migrate

__all__ = ["Connection", "Database", "migrate"]

T = TypeVar("T")
Deed = Callable[[Connection], T]
# One deed for several items: their answers in the same order; an exception among them is that item's own.
Many = Callable[[Connection, list[Any]], list[Any]]

MAX_GROUP = 500  # deeds per commit: 500 rows a commit is where both databases stop gaining
WAL_CHECKPOINT_BYTES = 64 << 20  # at 4 MiB each group of reports paid for one: a fifth fewer reports a second
TRIES = 4  # of a single deed that collides with others'
RECONNECTS = 1  # a connection that was lost (PostgreSQL was restarted) is made anew; then it is an outage
TURN = 0x536B7966  # the advisory lock whose holder writes: any number that is ours
UNDECIDED_S = 10.0  # how long to ask about a commit whose answer got lost


@dataclass(frozen=True, slots=True)
class _Job:
    """A deed; or items for a deed for many, whose outcome is the list of their answers."""

    future: "Future[Any]"
    deed: "Deed[Any] | None" = None
    many: "Many | None" = None
    items: Sequence[Any] = ()


Outcome = tuple[_Job, Any, BaseException | None]


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
        # What a broken connection raises; the driver's own errors come where we speak to it directly.
        self._broken = (SQLAlchemyError, self._writers.dialect.loaded_dbapi.Error, ConnectionError)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._gate = threading.Lock()  # nothing enters behind the word that ends the queue
        self._lost: BaseException = Unavailable(
            "the database does not answer"
        )  # why an attempt came to nothing
        self._thread = threading.Thread(target=self._run, name="skylift-writer", daemon=True)
        self._thread.start()

    def read(self) -> AbstractContextManager[Connection]:
        """A connection on one consistent snapshot; reads only."""
        return self._reading(None)

    def ask(self) -> AbstractContextManager[Connection]:
        """The same for questions over the whole fleet, such as people's own queries: what takes longer than
        `QUESTION_S` is taken back, and `Rejected` says so."""
        return self._reading(QUESTION_S)

    @contextmanager
    def _reading(self, within: float | None) -> Iterator[Connection]:
        try:
            connection = self._readers.connect()
        except self._broken as e:
            raise _unavailable(e) from e
        try:
            with connection, bounded(connection, within) if within else nullcontext():
                yield connection
        except self._broken as e:
            if within and is_taken_back(e):
                raise _too_slow(within) from e
            if trouble(e) is not Trouble.DEED:
                raise _unavailable(e) from e
            raise

    def submit(self, deed: Deed[T]) -> "Future[T]":
        """The deed's future: resolved when its effect is durable."""
        return self._enqueue(_Job(Future(), deed))

    def submit_to(self, many: Many, items: Sequence[Any]) -> "Future[list[Any]]":
        """The same for items of a deed that does several at once: what waits together is done together. Their
        answers in their order; an exception among them is that item's own."""
        return self._enqueue(_Job(Future(), None, many, items))

    def _enqueue(self, job: _Job) -> "Future[Any]":
        with self._gate:
            if self._closed:
                job.future.set_exception(Unavailable("the database is closing"))
            else:
                self._jobs.put(job)
        return job.future

    def write(self, deed: Deed[T]) -> T:
        """Run the deed and wait until it is durable. Never call it from inside a deed."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a deed must not write through the Database it runs in")
        return self.submit(deed).result()

    def ping(self) -> None:
        """Raises `Unavailable` where the database does not answer."""
        with self.read() as connection:
            connection.exec_driver_sql("SELECT 1")

    def waiting(self) -> int:
        """Deeds in the queue at this moment."""
        return self._jobs.qsize()

    def close(self) -> None:
        """Finish what waits, then close every connection."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        self._readers.dispose()
        self._writers.dispose()

    # --- the writer's thread --------------------------------------------------------------------

    def _run(self) -> None:
        last = False
        while not last:
            group, last = self._take()
            if group:
                self._commit_or_tell(group)
        self._hang_up("TRUNCATE")

    def _commit_or_tell(self, group: list[_Job]) -> None:
        """A mistake of ours in here is told to those who wait, and does not end the thread."""
        try:
            self._commit(group)
        except BaseException as e:  # noqa: BLE001 - handed to every caller that has no answer yet
            self._hang_up()
            for job in group:
                if not job.future.done():
                    job.future.set_exception(e)

    def _take(self) -> tuple[list[_Job], bool]:
        job = self._jobs.get()
        group: list[_Job] = []
        while job is not None:
            if job.future.set_running_or_notify_cancel():  # its caller may have gone meanwhile
                group.append(job)
            if len(group) >= MAX_GROUP:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Job]) -> None:
        outcomes = self._attempt(group) if len(group) > 1 else None
        if outcomes is not None:
            _answer(outcomes)
        else:  # alone, or something broke the whole group: find out who can go on alone
            self._one_by_one(group)
        self._checkpoint()

    def _one_by_one(self, group: list[_Job]) -> None:
        for number, job in enumerate(group):
            if not self._insist(job):  # the others would wait for the same dead connection: tell them now
                for other in group[number:]:
                    other.future.set_exception(_unavailable(self._lost))
                return

    def _insist(self, job: _Job) -> bool:
        """Run one deed until it is through or refused; False when the database is gone (nobody was told)."""
        collisions = losses = 0
        while (outcomes := self._attempt([job])) is None:
            kind = trouble(self._lost)
            collisions += kind is Trouble.COLLISION
            losses += kind is Trouble.GONE
            if losses > (RECONNECTS if self.dialect == "postgresql" else 0):
                return False
            if collisions >= TRIES or kind is Trouble.DEED:
                own = kind is Trouble.DEED or is_duplicate(self._lost)
                job.future.set_exception(self._lost if own else _unavailable(self._lost))
                return True
        _answer(outcomes)
        return True

    def _attempt(self, group: list[_Job]) -> "list[Outcome] | None":
        """Every job's outcome after one durable commit, or None when the transaction was lost."""
        mark = None
        outcomes: list[Outcome] = []
        try:
            if self._writing is None:
                self._writing = self._writers.connect()
            with self._writing.begin():
                self._take_turn(self._writing)
                outcomes = _run_all(self._writing, group)
                mark = self._mark(self._writing)
        except Exception as e:  # noqa: BLE001 - kept, and judged by whoever called
            self._lost = e
            self._hang_up()
            if mark is None or not self._is_committed(mark, e):
                return None
        self.stats.commits += 1
        self.stats.deeds += len(group)
        return outcomes

    def _take_turn(self, connection: Connection) -> None:
        """Held until the commit is there for all to see. SQLite's BEGIN IMMEDIATE is the same."""
        if self.dialect == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({TURN})")

    def _mark(self, connection: Connection) -> str | None:
        """The name of this transaction, to ask for it later; None where it has written nothing, and can be
        done again. SQLite's commits answer, or did not happen."""
        if self.dialect != "postgresql":
            return None
        asked = connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()::text")
        name: str | None = asked.scalar_one()
        return name

    def _is_committed(self, mark: str, error: BaseException) -> bool:
        """Whether the transaction was committed although `error` came in place of the answer.

        Where nobody can be asked the answer is no: the caller is told of an outage, and asks again.
        """
        if isinstance(error, DBAPIError) and trouble(error) is not Trouble.GONE:
            return False  # the server answered, and the answer was no
        until = time.monotonic() + UNDECIDED_S
        while time.monotonic() < until:
            try:
                with self._writers.connect() as connection:
                    question = sa.text("SELECT pg_xact_status(CAST(:mark AS xid8))")
                    status = connection.execute(question, {"mark": mark}).scalar_one()
            except self._broken:
                return False
            if status != "in progress":
                return bool(status == "committed")
            time.sleep(0.02)  # its backend is still there, about to notice that nobody listens
        return False

    def _hang_up(self, checkpoint: str = "") -> None:
        """Drop the writing connection; the next group opens a new one."""
        connection, self._writing = self._writing, None
        if connection is None:
            return
        try:
            if checkpoint and self._file:
                _wal_checkpoint(connection, checkpoint)
            connection.close()
        except self._broken:
            connection.invalidate()  # it is broken already: nothing of it is kept

    def _checkpoint(self) -> None:
        """Between groups, so that no request ever waits for one."""
        if self._file is None or self._writing is None:
            return
        try:
            if os.path.getsize(f"{self._file}-wal") >= WAL_CHECKPOINT_BYTES:
                _wal_checkpoint(self._writing, "PASSIVE")
        except (OSError, *self._broken):
            self._hang_up()  # nothing is lost: the log only stays longer


def _wal_checkpoint(connection: Connection, mode: str) -> None:
    """Straight on the driver: a checkpoint runs outside any transaction."""
    driver = connection.connection.driver_connection
    if driver is None:
        return
    driver.execute(f"PRAGMA wal_checkpoint({mode})")


def _run_all(connection: Connection, group: list[_Job]) -> list[Outcome]:
    """In their order; neighbours of one deed for many together."""
    outcomes: list[Outcome] = []
    for many, jobs in groupby(group, key=lambda job: job.many):
        if many is not None:
            outcomes += _run_together(connection, many, list(jobs))
        else:
            outcomes += [(job, *_run_alone(connection, job.deed)) for job in jobs if job.deed is not None]
    return outcomes


def _run_together(connection: Connection, many: Many, jobs: list[_Job]) -> list[Outcome]:
    items = [item for job in jobs for item in job.items]
    answers, error = _run_alone(connection, lambda conn: many(conn, items))
    if error is not None:
        answers = [_only(connection, many, item) for item in items]
    left = iter(answers)
    return [(job, list(islice(left, len(job.items))), None) for job in jobs]


def _only(connection: Connection, many: Many, item: Any) -> Any:
    """The item's answer where it is the only one."""
    answers, error = _run_alone(connection, lambda conn: many(conn, [item]))
    return error if error is not None else answers[0]


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


def _answer(outcomes: list[Outcome]) -> None:
    for job, result, error in outcomes:
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)


def _too_slow(seconds: float) -> Rejected:
    rule = f"answers within {seconds:g} seconds"
    sentence = (
        f"query takes longer than {seconds:g} seconds over this fleet: ask for less (a device type, a label, "
        "fewer patterns), or again when the database is less busy"
    )
    return Rejected("too_slow", sentence, field="query", rule=rule)


def _unavailable(error: BaseException) -> Unavailable:
    orig = getattr(error, "orig", None) or error
    return Unavailable(f"the database does not answer ({type(orig).__name__}: {orig})"[:300])
