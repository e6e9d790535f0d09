"""What the loop does now and then, beside the rollouts: each chore at its own interval."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from skylift.engine import deltas, expiry, matching, signing
from skylift.engine.behind import SeenBook
from skylift.engine.blobs import Blobs
from skylift.engine.matching import Matching
from skylift.engine.online import OnlineKeys
from skylift.engine.retention import Retention
from skylift.engine.serving import Tally
from skylift.store import access, channels, outbox
from skylift.store.db import Database

SEEN_FLUSH = timedelta(seconds=5)
FRESHEN_EVERY = timedelta(minutes=5)
SWEEP_EVERY = timedelta(hours=1)
KEEP_ANSWERS = timedelta(days=7)  # for repeated requests
KEEP_EFFECTS = timedelta(days=7)  # done outbox rows
KEEP_DELIVERIES = timedelta(days=30)  # of the log of messages


@dataclass
class Chores:
    """Called by the loop at every turn with the time."""

    database: Database
    online: OnlineKeys
    seen: SeenBook
    blobs: Blobs
    matching: Matching
    retention: Retention
    tally: Tally
    planner: deltas.DeltaPlanner
    _due: dict[str, datetime] = field(default_factory=dict)

    def __call__(self, now: datetime) -> None:
        if self._is_due("seen", now, SEEN_FLUSH):
            self.seen.flush()
            self.tally.flush()
        if self._is_due("deltas", now, deltas.AGAIN_EVERY):
            self.planner.again(now)
        if self._is_due("matching", now, matching.EVERY):
            self.matching(now)
        if self._is_due("freshen", now, FRESHEN_EVERY):
            self._freshen(now)
        if self._is_due("expiry", now, SWEEP_EVERY):
            expiry.tell(self.database, now)
        if self._is_due("sweep", now, SWEEP_EVERY):
            self.database.write(lambda conn: access.forget_kept(conn, now - KEEP_ANSWERS))
            self.database.write(lambda conn: outbox.sweep(conn, now - KEEP_EFFECTS))
            self.database.write(lambda conn: channels.sweep(conn, now - KEEP_DELIVERIES))
            self.blobs.sweep()
            self.retention(now)

    def _is_due(self, name: str, now: datetime, every: timedelta) -> bool:
        due = self._due.get(name, now)
        # A clock that jumped back must not stop a chore for as long as it jumped.
        if due <= now or due - now > every:
            self._due[name] = now + every
            return True
        return False

    def _freshen(self, now: datetime) -> None:
        with self.database.read() as conn:
            stale = signing.is_stale(conn, now)
        if stale:
            self.database.write(lambda conn: signing.freshen(conn, self.online, now))
