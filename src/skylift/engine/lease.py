"""A lease on a file that is being made, renewed from a thread of its own until the work ends.

It is short, so that others take over soon where a server was killed, and work may take as long as it likes. A
database that does not answer is asked again; who finds that the lease has become somebody else's stops: what
it makes would be thrown away.
"""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from skylift.core.errors import SkyliftError
from skylift.store import pieces
from skylift.store.db import Database

LOG = structlog.get_logger("skylift.workshop")
RENEWALS = 4  # in the time of a lease: some may fail, or come late


class Held:
    """The row's lease by this token, as long as the block lasts. `lost` is called once when it is gone."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        pk: int,
        token: str,
        seconds: float,
        lost: Callable[[], None],
    ) -> None:
        self._database, self._clock = database, clock
        self._pk, self._token, self._seconds, self._lost = pk, token, seconds, lost
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"skylift-lease-{pk}", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / RENEWALS):
            try:
                if not self._renew() and not self._ended.wait(1.0):  # it may just have been settled
                    LOG.warning("the lease of a file is lost", piece=self._pk)
                    self._lost()
                    return
            except SkyliftError as e:
                LOG.warning("a lease is not renewed", piece=self._pk, error=str(e))
            except Exception:  # our own bug: the work goes on, whoever takes it over
                LOG.exception("a lease is not renewed", piece=self._pk)

    def _renew(self) -> bool:
        until = self._clock() + timedelta(seconds=self._seconds)
        return self._database.write(lambda conn: pieces.renew(conn, self._pk, self._token, until))
