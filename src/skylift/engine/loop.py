"""The loop: silence becomes failure, and every deployment takes its next step. Level-triggered, restartable.

It keeps nothing of its own: killed at any moment and started again, it finds in the database what is due.
Several servers may run it: plans are conditional on their generation, moves on their state.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

import structlog

from skylift.core.deadlines import Deadlines
from skylift.core.lifecycle import Reason, UpdateState
from skylift.core.window import Window
from skylift.engine import moves
from skylift.engine.checkin import LiveCache
from skylift.engine.poked import LONGEST_SLEEP_S, Poked, survived
from skylift.store import deployments, updates
from skylift.store.db import Connection, Database
from skylift.store.updates import Update

LOG = structlog.get_logger("skylift.loop")
SWEEP = 500  # overdue updates per transaction
REST = 4  # times as long as the last look took: thousands of reports a second do not keep it looking


@dataclass
class Loop:
    """One thread. `poke` makes it look at once, or once it has rested; `stop` ends it after the step it is
    in."""

    database: Database
    clock: Callable[[], datetime]
    deadlines: Deadlines
    lives: LiveCache
    chores: tuple[Callable[[datetime], None], ...] = ()

    def __post_init__(self) -> None:
        self._poked = Poked()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="skylift-loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._poked.set()
        if self._thread.ident is not None:
            self._thread.join()

    def poke(self) -> None:
        """Something changed: look now."""
        self.lives.invalidate()
        self._poked.set()

    def settled(self) -> None:
        """An update ended well: look now. The live deployments are what they were. Thousands a second."""
        if not self._poked.is_set():
            self._poked.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._poked.clear()
            begun = monotonic()
            with survived(LOG, "tick failed"):
                self.tick(self.clock())
            self._stopping.wait(min(LONGEST_SLEEP_S, REST * (monotonic() - begun)))
            self._poked.rest()

    def tick(self, now: datetime) -> None:
        """One look at everything that is due."""
        self.sweep(now)
        with self.database.read() as conn:
            due = deployments.due(conn, now)
        for deployment_id in due:
            self.advance(deployment_id, now)
        for chore in self.chores:
            chore(now)

    def advance(self, deployment_id: str, now: datetime) -> None:
        """Step one deployment until its plan has nothing more to do right now."""
        while True:
            planned = self.database.write(lambda conn: moves.step(conn, deployment_id, now, self.deadlines))
            if planned is None or not planned.actions:
                return
            self.lives.invalidate()
            LOG.info("step", deployment=deployment_id, actions=[str(a) for a in planned.actions])

    def sweep(self, now: datetime) -> int:
        """Devices past their deadline count as failed(timeout); how many there were."""
        with self.database.read() as conn:
            if not updates.overdue(conn, now, self._resumed_before(now), 1):
                return 0
        total = 0
        while n := self.database.write(lambda conn: self._sweep_some(conn, now)):
            total += n
            self.lives.invalidate()
        return total

    def _sweep_some(self, conn: Connection, now: datetime) -> int:
        swept = 0
        for update in updates.overdue(conn, now, self._resumed_before(now), SWEEP):
            if self._window_was_closed(conn, update, now):
                later = now + self.deadlines.stages[UpdateState.PENDING]
                updates.move(conn, update, update.state, deadline_at=later)
                swept += 1
                continue
            why = moves.Why(Reason.TIMEOUT, f"no word while {update.state.value}")
            if moves.move(conn, update, UpdateState.FAILED, now, self.deadlines, why=why):
                swept += 1
        return swept

    def _window_was_closed(self, conn: Connection, update: Update, now: datetime) -> bool:
        """Whether the device could not begin because the maintenance window was closed; offers do not age
        then, until the deployment's lifetime is over."""
        row = deployments.find(conn, update.deployment_id)
        if update.state is not UpdateState.PENDING or row is None or not row.window:
            return False
        window = Window.parse("window", row.window)
        long_open = window.open_at(now) and window.open_at(self._resumed_before(now))
        return not long_open and (row.ends_at is None or now < row.ends_at)

    def _resumed_before(self, now: datetime) -> datetime:
        """Offers of deployments that run since then have had their whole time."""
        return now - self.deadlines.stages[UpdateState.PENDING]
