"""What is written behind: kept for a few seconds, then written for all devices at once.

Last contacts, words of health, and how far an update has come: devices say them all day, and nothing is
decided by one of them. A crash loses the last seconds of it; an outage of the database loses nothing.
"""

import threading
from datetime import datetime, timedelta
from functools import partial

from skylift.core.errors import SkyliftError
from skylift.engine.proofs import Word, write_words
from skylift.store import devices, updates
from skylift.store.db import Database
from skylift.store.updates import Moved, Update

# Contacts in one write: more hold the interpreter, and whoever waits to write, for tens of milliseconds;
# fewer cost more each.
PIECE = 4_000
NEAR = timedelta(minutes=1)  # many times as long as anything is kept here

_Key = tuple[str, int]  # deployment, device


class Progress:
    """The latest word of each update that is under way: still in its stage, and how far.

    Its silence begins anew with each word, so what comes near the end of its time is not put off: no server
    may give up a device that was just heard.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[_Key, Moved] = {}

    def note(self, moved: Moved) -> bool:
        """Whether it can wait, and is kept."""
        until = moved.update.deadline_at
        if until is not None and until - moved.now < NEAR:
            return False
        with self._lock:
            self._said[moved.update.deployment_id, moved.update.device_pk] = moved
        return True

    def take(self, update: Update) -> Update:
        """The update as far as it is known to have come; it is about to be written."""
        if not self._said:
            return update
        with self._lock:
            said = self._said.pop((update.deployment_id, update.device_pk), None)
        if said is None or (said.to, said.update.attempt) != (update.state, update.attempt):
            return update
        return update._replace(progress=said.progress)

    def flush(self, database: Database) -> None:
        """Write it down; what has moved on meanwhile is left alone."""
        with self._lock:
            said, self._said = self._said, {}
        try:
            if said:
                database.write(lambda conn: updates.refresh_many(conn, list(said.values())))
        except SkyliftError:  # an outage: it is written when that is over
            with self._lock:
                self._said = said | self._said
            raise


class SeenBook:
    """Last contacts, words of health and progress, written behind: losing a few seconds of them at a crash is
    the bargain."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.progress = Progress()
        self._lock = threading.Lock()
        self._contacts: dict[int, datetime] = {}
        self._health: dict[int, Word] = {}

    def note(self, device_pk: int, now: datetime) -> None:
        with self._lock:
            self._contacts[device_pk] = now

    def note_health(self, device_pk: int, word: Word) -> None:
        with self._lock:
            self._health[device_pk] = word

    def flush(self) -> None:
        self.progress.flush(self._database)
        with self._lock:
            contacts, self._contacts = self._contacts, {}
            said, self._health = self._health, {}
        try:
            order = sorted(contacts)  # neighbours lie on one page
            for at in range(0, len(order), PIECE):
                some = {device_pk: contacts[device_pk] for device_pk in order[at : at + PIECE]}
                self._database.write(partial(devices.touch, contacts=some))
                for device_pk in some:
                    del contacts[device_pk]
            if said:
                self._database.write(lambda conn: write_words(conn, said))
        except SkyliftError:  # an outage: they are written when it is over
            with self._lock:
                self._contacts = contacts | self._contacts
                self._health = said | self._health
            raise
