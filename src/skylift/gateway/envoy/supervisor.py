"""Keeps one Envoy running with the configuration that somebody's files ask for.

`look` is one turn of the loop: is the source new, does it hold, has Envoy taken it, is Envoy still there. A
bad source never replaces a good one: its error is said once and kept in `status`. `swap` puts a fresh Envoy
in the place of the running one without losing a request: it takes over the listening sockets, the old one
drains.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from skylift.core.errors import Rejected, SkyliftError, Unavailable
from skylift.gateway.envoy.beside import Beside
from skylift.gateway.envoy.process import Envoy, Options
from skylift.gateway.envoy.publish import Files, check
from skylift.gateway.envoy.snapshot import Snapshot

LOOK_EVERY_S = 0.5
RESTART_S = (
    0.1,
    10.0,
)  # after a death: doubling between these, back to the first once it has run for a while
STEADY_S = 30.0

Source = Callable[[], Snapshot | None]  # None: as it was. Raises a SkyliftError when it does not hold.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Status:
    """What the admin view shows. `error`: why the newest source is not what runs."""

    digest: str = ""
    since: float = 0.0  # seconds since 1970
    published: int = 0
    refused: int = 0
    restarts: int = 0
    swaps: int = 0
    error: str = ""


class Supervisor:
    """One gateway: a source of snapshots, a directory of files, an Envoy."""

    def __init__(
        self, source: Source, say: Say, options: Options | None = None, log: Path | None = None
    ) -> None:
        self._source = source
        self._say = say
        self._options = options or Options()
        self._place = Path(tempfile.mkdtemp(prefix="skylift-gateway-"))
        self._log = log or self._place / "envoy.log"
        self._files = Files(self._place / "xds")
        self._envoy: Envoy | None = None
        self._helper: Beside | None = None

        self._leaving: list[Envoy] = []  # replaced, draining
        self._started = 0.0

        self._deaths = 0
        self._refused = ""  # the digest of what Envoy would not have
        self._lock = threading.Lock()  # a swap, a look and a stop may come from three threads
        self.status = Status()

    @property
    def envoy(self) -> Envoy:
        if self._envoy is None:
            raise Unavailable("Envoy is not running", 1.0)
        return self._envoy

    @property
    def place(self) -> Path:
        """The directory of files and sockets that Envoy and the helper meet in."""
        return self._files.root

    def start(self) -> None:
        """The first configuration must hold: a gateway that never served anything has nothing to fall back
        on."""
        first = self._source()
        if first is None:
            raise Unavailable("the gateway has no configuration yet", 1.0)
        check(first)
        with self._lock:
            self._files.write(first)
            self._help(first)
            self._envoy = self._begin()
            self.status = replace(self.status, digest=first.digest, since=time.time(), published=1)

    def run(self, stop: threading.Event) -> None:
        """Look again and again, until told to stop."""
        while not stop.wait(LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        """One turn: nothing it meets ends the loop."""

        try:
            self._bury()
            self._revive()
            self._take()
        except SkyliftError as e:
            self._refuse(e)

    def _take(self) -> None:
        fresh = self._source()
        if fresh is None or fresh.digest == self._refused:
            return
        with self._lock:
            self._help(fresh)
            try:
                new = self._files.publish(fresh, self.envoy.admin)
            except Rejected:
                self._refused = fresh.digest  # not validated again every half second
                raise
            if new:
                self.status = replace(
                    self.status, digest=fresh.digest, since=time.time(), published=self.status.published + 1
                )
                self._say(f"configuration {fresh.digest} is in place")
        self._refused = ""
        if self.status.error:
            self.status = replace(self.status, error="")

    def _refuse(self, error: SkyliftError) -> None:
        words = str(error)
        if words != self.status.error:
            self._say(f"not taken, what ran before runs on: {words}")
            self.status = replace(self.status, error=words, refused=self.status.refused + 1)

    def _help(self, snapshot: Snapshot) -> None:
        """Whoever is to be asked is there before Envoy asks."""
        if snapshot.helper and self._helper is None:
            self._helper = Beside(self._files.root, self._log)

    @property
    def helper(self) -> Beside:
        if self._helper is None:
            raise Unavailable("no configuration has needed the helper yet", 1.0)
        return self._helper

    def _revive_helper(self) -> None:
        if self._helper is not None and not self._helper.running:
            self._say("the helper has ended; a new one starts")
            self._helper = Beside(self._files.root, self._log)
            self.status = replace(self.status, restarts=self.status.restarts + 1)

    def _revive(self) -> None:
        with self._lock:
            self._revive_helper()
            if self._envoy is not None and self._envoy.running:
                return
            if self._envoy is not None:
                self._envoy.stop()
                self._envoy = None
            if time.monotonic() - self._started > STEADY_S:
                self._deaths = 0
            rest = min(RESTART_S[1], RESTART_S[0] * 2**self._deaths)
            self._deaths += 1
            self._say(f"Envoy has ended; a new one starts in {rest:.1f} s")
            time.sleep(rest)
            self._envoy = self._begin()
            self.status = replace(self.status, restarts=self.status.restarts + 1)

    def _bury(self) -> None:
        """Replaced Envoys end by themselves once they have drained."""
        with self._lock:
            for gone in [envoy for envoy in self._leaving if not envoy.running]:
                gone.stop()
                self._leaving.remove(gone)

    def _begin(self, parent: Envoy | None = None) -> Envoy:
        envoy = Envoy(self._files.root, self._options, self._log, parent)
        try:
            envoy.wait_ready()
        except Unavailable:
            envoy.stop()
            raise
        self._started = time.monotonic()
        return envoy

    def swap(self) -> None:
        """A fresh Envoy (another version, perhaps) in the place of the running one; local limits start
        anew."""
        with self._lock:
            old = self.envoy
            self._envoy = self._begin(old)

            self._leaving.append(old)
            self.status = replace(self.status, swaps=self.status.swaps + 1)

    def stop(self) -> None:

        with self._lock:
            for envoy in (*self._leaving, *([self._envoy] if self._envoy else [])):
                envoy.stop()
            if self._helper is not None:
                self._helper.stop()
            self._leaving, self._envoy, self._helper = [], None, None
        shutil.rmtree(self._place, ignore_errors=True)
