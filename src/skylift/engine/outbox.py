"""The courier: carries side effects out of the outbox, at least once, one at a time.

Who works on a row holds its lease; killed in the middle, the row comes back when the lease ends. A handler
that fails is tried again with back-off, for ever: effects are promises.
"""

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from skylift.core.errors import SkyliftError
from skylift.store import outbox
from skylift.store.db import Database
from skylift.store.outbox import Job

LOG = structlog.get_logger("skylift.outbox")
# The longest effect is a delta of a 64 MB image: about 2 minutes; three times that.
LEASE = timedelta(minutes=6)
BACK_OFF_S = (1.0, 300.0)
LONGEST_SLEEP_S = 1.0


@dataclass
class Courier:
    """One thread. `poke` makes it look at once; `stop` ends it after the effect it is at."""

    database: Database
    handlers: Mapping[str, Callable[[dict[str, Any]], None]]
    clock: Callable[[], datetime]

    def __post_init__(self) -> None:
        self._poked = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="skylift-courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._poked.set()
        if self._thread.ident is not None:
            self._thread.join()

    def poke(self) -> None:
        self._poked.set()

    def _run(self) -> None:
        while not self._stopping:
            self._poked.clear()
            try:
                while not self._stopping and self.carry_one(self.clock()):
                    pass
            except SkyliftError as e:
                LOG.warning("outbox not reachable", error=str(e))
            except Exception:  # our own bug in one effect must not end all others
                LOG.exception("outbox failed")
            self._poked.wait(LONGEST_SLEEP_S)

    def carry_one(self, now: datetime) -> bool:
        """Do the effect that is due the longest; False when nothing is due."""
        kinds = list(self.handlers)
        with self.database.read() as conn:
            due = outbox.next_due(conn, kinds)
        if due is None or due > now:
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
        except Exception as e:
            LOG.warning("effect failed", kind=job.kind, attempt=job.attempts, error=str(e), exc_info=True)
            wait = min(BACK_OFF_S[1], BACK_OFF_S[0] * 2 ** min(job.attempts, 10))
            again = self.clock() + timedelta(seconds=wait)
            said = f"{type(e).__name__}: {e}"
            self.database.write(lambda conn: outbox.failed(conn, job, said, again))
            return
        self.database.write(lambda conn: outbox.done(conn, job, self.clock()))
