"""Bytes that nobody names any more: a delta that gave way, what was in a draft that was deleted. They are
removed later, by the outbox's effect `unblob`, unless somebody names them by then.

The same bytes may come again meanwhile, here or at another server. What people send is therefore kept with
`keep`: what would remove it waits anew, longer than it takes to name it. Where a server is at it already, it
is to be sent again. (The workshop can make its files again, and looks after it named one.)
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from skylift.core.errors import Unavailable
from skylift.engine.blobs import Blobs, Intake, Stored
from skylift.store import outbox, pieces, releases
from skylift.store.db import Connection, Database

FETCHED = timedelta(hours=1)  # that a file is still served to those who fetch it
# Between `keep` and being named: milliseconds, or the minutes that a large image takes into a bucket. The
# rest is for servers whose clocks differ; beyond `store.outbox.FARTHEST` an effect would be due at once.
NAMED = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Unblob:
    """The outbox's effect `unblob`."""

    database: Database
    blobs: Blobs

    def __call__(self, payload: dict[str, Any]) -> None:
        sha256: str = payload["sha256"]
        if self._is_named(sha256):
            return
        self.blobs.remove(sha256)
        if self._is_named(sha256):  # made again meanwhile: once more, its bytes have just gone
            self.database.write(lambda conn: pieces.lost(conn, sha256))

    def _is_named(self, sha256: str) -> bool:
        with self.database.read() as conn:
            return releases.blob_is_named(conn, sha256)


def fetched(conn: Connection, sha256: str, now: datetime) -> None:
    """Devices may be fetching it, for an hour."""
    outbox.put(conn, "unblob", {"sha256": sha256}, now, now + FETCHED - timedelta(minutes=1))


def unused(conn: Connection, sha256: str, now: datetime) -> None:
    """Nobody was ever offered it."""
    outbox.put(conn, "unblob", {"sha256": sha256}, now, now + NAMED)


def keep(database: Database, intake: Intake, now: datetime) -> Stored:
    """Keep bytes that are named next. Raises `Unavailable` while a server removes an older one of them."""
    sha256 = intake.digest().sha256
    if not database.write(lambda conn: outbox.put_off(conn, "unblob", {"sha256": sha256}, now + NAMED)):
        raise Unavailable(f"{sha256[:16]}... is just being removed: it was a deleted draft's", 5)
    return intake.keep()
