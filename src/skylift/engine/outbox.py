"""The courier: carries side effects out of the outbox, at least once, one of each sort at a time.

The slow ones have threads of their own (`LANES`: minutes of computing; answers of other people's servers), so
that a doorbell or a rollback never waits behind them.

Who works on a row holds its lease; killed in the middle, the row comes back when the lease ends. A handler
that fails is tried again with back-off, for ever: effects are promises. One that raises `Later` says when.
"""

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from skylift.engine.poked import Poked, survived
from skylift.store import outbox
from skylift.store.db import Database
from skylift.store.outbox import Job

LOG = structlog.get_logger("skylift.outbox")
# The longest effect is the purge of a million updates: about 2 minutes; three times that.
LEASE = timedelta(minutes=6)
BACK_OFF_S = (1.0, 300.0)
LANES = (frozenset({"deltas", "purge", "unblob"}), frozenset({"delivery"}))  # the others share one


class Later(Exception):
    """Not done, and nobody's mistake: again at `at`, an hour ahead at most."""

    def __init__(self, sentence: str, at: datetime) -> None:
        super().__init__(sentence)
        self.at = at


@dataclass
class Courier:
    """A thread for each lane, and one that looks out for all of them: one question a second, however many
    lanes there are. `poke` makes it look at once; `stop` ends each lane after the effect it is at."""

    database: Database
    handlers: Mapping[str, Callable[[dict[str, Any]], None]]
    clock: Callable[[], datetime]

    def __post_init__(self) -> None:
        self._stopping = False
        quick = frozenset(self.handlers).difference(*LANES)
        lanes = [[kind for kind in self.handlers if kind in lane] for lane in (quick, *LANES)]
        self._lanes = [_Lane(self, kinds) for kinds in lanes if kinds]
        self._poked = Poked()
        self._lookout = threading.Thread(target=self._look_out, name="skylift-courier", daemon=True)

    def start(self) -> None:
        for thread in self._threads():
            thread.start()

    def stop(self) -> None:
        self._stopping = True
        self.poke()
        for lane in self._lanes:
            lane.called.set()
        for thread in self._threads():
            if thread.ident is not None:
                thread.join()

    def poke(self) -> None:
        self._poked.set()

    def _threads(self) -> list[threading.Thread]:
        return [self._lookout, *(lane.thread for lane in self._lanes)]

    def _look_out(self) -> None:
        """The life of the thread that looks out."""
        while not self._stopping:
            self._poked.clear()
            with survived(LOG, "outbox failed"):
                for lane in self._due():
                    lane.called.set()
            self._poked.rest()

    def _due(self) -> list["_Lane"]:
        with self.database.read() as conn:
            due = outbox.due(conn, [lane.kinds for lane in self._lanes], self.clock())
        return [lane for lane, is_due in zip(self._lanes, due, strict=True) if is_due]

    def walk(self, kinds: list[str], called: threading.Event) -> None:
        """The life of a lane's thread."""
        while not self._stopping:
            with survived(LOG, "outbox failed"):
                while not self._stopping and self.carry_one(self.clock(), kinds):
                    pass
            called.wait()
            called.clear()

    def carry_one(self, now: datetime, kinds: list[str] | None = None) -> bool:
        """Do the effect (of these kinds) that is due the longest; False when nothing is due."""
        kinds = list(self.handlers) if kinds is None else kinds
        with self.database.read() as conn:
            if not any(outbox.due(conn, [kinds], now)):
                return False
        token = secrets.token_hex(8)
        job = self.database.write(lambda conn: outbox.lease(conn, kinds, token, now + LEASE, now))
        if job is None:
            return False
        self._carry(job)
        return True

    def _carry(self, job: Job) -> None:
        try:
            self.handlers[job.kind](job.payload)
        except Later as e:
            sentence, at = str(e), e.at
            self.database.write(lambda conn: outbox.failed(conn, job, sentence, at))
            return
        except Exception as e:
            LOG.warning("effect failed", kind=job.kind, attempt=job.attempts, error=str(e), exc_info=True)
            wait = min(BACK_OFF_S[1], BACK_OFF_S[0] * 2 ** min(job.attempts, 10))
            again = self.clock() + timedelta(seconds=wait)
            said = f"{type(e).__name__}: {e}"
            self.database.write(lambda conn: outbox.failed(conn, job, said, again))
            return
        self.database.write(lambda conn: outbox.done(conn, job, self.clock()))


class _Lane:
    """A thread over some kinds of effects."""

    def __init__(self, courier: Courier, kinds: list[str]) -> None:
        self.kinds = kinds
        self.called = threading.Event()
        self.thread = threading.Thread(
            target=courier.walk, args=(kinds, self.called), name=f"skylift-courier-{kinds[0]}", daemon=True
        )
