"""The update client: asks, verifies, downloads, installs, tries, confirms or falls back.

The caller owns the loop: `begin` once, then `step` again and again; each step moves at most one buffer, and
says after how many milliseconds it wants to be called again. What is next is plain code in generators, a
yield wherever it waits; after a power cut it goes on with what the records and boot control say.
"""

import gc
import time

from skylift import talk
from skylift.config import Hooks
from skylift.http import Broken, Http
from skylift.install import Installing
from skylift.port import Port
from skylift.records import FETCHING, Records
from skylift.slot import described_floor
from skylift.talk import Away, Bad, Ended
from skylift.trial import Trial

LONGEST_S = 300  # between two tries, but for what the server says


class Client:
    """One device's updates. `port` is made where none is given."""

    def __init__(self, config, hooks=None, port=None):
        self.config = config
        self.hooks = hooks or Hooks()
        self.port = port or Port()
        self.http = Http(config.server, config.ca)
        self.state = "halt"
        self.reached = False  # whether the server has answered anything since `begin`
        self.rang = False
        self.away = 0  # tries since the server answered well
        self._back = False
        self._life = None

    def begin(self):
        self.records = Records(self.port)
        self.reached = self.rang = self._back = False
        self.away = 0
        self._life = self._live()

    def step(self):
        """Milliseconds until the next."""
        if self._life is None:
            return 1000
        try:
            return next(self._life)
        except StopIteration:
            self._life = None
            return 1000

    def finish(self):
        """Lets go of the network; `begin` may follow."""
        self.http.close()
        self._life = None
        self.state = "halt"

    def ring(self):
        """The doorbell: check now."""
        self.rang = True

    def rollback(self):
        """Boot the other slot."""
        self._back = True

    def token(self):
        return self.config.token or self.records.facts["token"]

    def floor(self):
        return max(self.config.security_version, self.records.facts["floor"])

    # --- its life --------------------------------------------------------------------------------------

    def _live(self):
        update = Installing(self)
        if not (yield from Trial(self, update).power_on()):
            return
        while True:
            try:
                wait = yield from self._turn(update)
                self.away = 0
            except Away as e:
                wait = self._later(e)
            except Broken as e:
                wait = self._later(e)
            except MemoryError:
                gc.collect()
                wait = self._later(Away("there is not enough memory for it now", 60))
            except Ended:
                wait = 1000
            except Bad as e:
                self.port.log(e.words)
                update.over("failed", e.reason, e.words)
                wait = 0
            finally:
                self.http.close()
            if wait is None:
                return
            yield from self._rest(wait)

    def _turn(self, update):
        """One check and what comes of it; milliseconds until the next, None: the chip restarts."""
        records = self.records
        yield from talk.enroll(self)
        yield from talk.report(self)
        if records.journal["stage"] != FETCHING:
            found = yield from talk.check(self)
            if found.image is None:
                if found.health:
                    yield from talk.health(self)
                return found.wait
            if not update.room(found):
                return found.wait
        yield from update.run()
        return None

    def _later(self, why):
        """After what the server said, or ever later while it is away, with some chance."""
        self.port.log(why.words)
        wait = max(min(1 << min(self.away, 9), LONGEST_S), why.retry_after)
        self.away += 1
        return wait * 1000 + wait * self.port.random(1)[0] // 2

    def _rest(self, wait):
        """Until the time is over, the bell rings, or somebody wants the other slot."""
        self.state = "rest"
        begun = time.ticks_ms()
        while not self.rang and (left := wait - time.ticks_diff(time.ticks_ms(), begun)) > 0:
            if self._back:
                self._back = False
                yield from self._roll_back()
            yield min(left, 50)
        self.rang = False

    def _roll_back(self):
        """The operator's or the user's: on trial like any image, unless it is below the floor."""
        port, journal = self.port, self.records.journal
        described = described_floor(port, port.other)
        if described is not None and described < self.floor():
            return port.log("no rollback: the other slot is below the security floor")
        try:
            port.set_boot()
        except OSError:
            return port.log("no rollback: the other slot holds nothing that boots")
        if journal["ended"] == "complete" and not journal["to_say"]:
            self.over("rolled_back", "aborted", "rolled back on the device")
        port.reset()
        while True:
            yield 1000

    def over(self, how, reason, words):
        """The update is over. What there is to say survives until somebody has heard it."""
        journal = self.records.journal
        tag = journal["deployment"] + "/" + str(journal["attempt"])
        journal["answered"] = talk.remember(journal["answered"], tag)
        journal.update({"stage": 0, "to_say": how, "reason": reason, "words": words})
        self.records.save("journal")
