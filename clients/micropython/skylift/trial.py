"""From power-on to the first question: what boot control and the journal say, the trial, and the way back."""

import time

from skylift.http import Broken
from skylift.records import BOOTING
from skylift.slot import digest, image_length
from skylift.talk import Away, Bad, exchange
from skylift.trust.compact import Device
from skylift.trust.plain import Refused

MOST_TRIES = 2  # times an image is armed before it counts as one that does not boot
TESTS = ("network", "sensors", "mqtt")


class Trial:
    """`update` goes on where the power went between the read-back and boot control."""

    def __init__(self, client, update):
        self._client = client
        self._update = update

    def power_on(self):
        """False: this device can be told nothing, or it restarts."""
        client, journal = self._client, self._client.records.journal
        port = client.port
        here = port.name(port.running) == journal["slot"]
        if port.pending_verify() or (journal["stage"] == BOOTING and here):
            if not (yield from self._tried()):
                return False
        elif journal["stage"] == BOOTING:
            again = not journal["armed"] and journal["tries"] < MOST_TRIES and not journal["reason"]
            if again:
                return (yield from self._again())
            words = journal["words"] or "the new image did not come up, and the boot loader fell back"
            self._update.over("rolled_back", journal["reason"] or "boot_failed", words)
        if not self._pinned():
            return False
        yield from self._measured()
        return True

    def _again(self):
        """The power went before boot control was told."""
        try:
            yield from self._update.again()
        except Bad as e:
            self._update.over("failed", e.reason, e.words)
        return True

    def _pinned(self):
        """Whether the factory's roots can be read: without them nothing is ever installed."""
        config = self._client.config
        who = (config.device_id, config.device_type, config.product)
        try:
            Device(*who, config.image_root, config.director_root)
        except Refused:
            self._client.port.log("the factory's roots are unusable: no update can be trusted")
            return False
        return True

    def _measured(self):
        """How long the running image is, and its digest, if nobody has told: the factory's."""
        client = self._client
        port, images = client.port, client.records.facts["images"]
        name = port.name(port.running)
        length = 0 if name in images else image_length(port, port.running)
        if length:
            client.state = "measure"
            found = yield from digest(port, port.running, length)
            images[name] = [length, found]
            client.records.save("facts")

    # --- the trial -------------------------------------------------------------------------------------

    def _tried(self):
        """Whether it stays. Boot control first: an image that was never marked falls back, whatever the
        journal says."""
        client = self._client
        records, journal = client.records, client.records.journal
        client.state = "trial"
        words = yield from self._tests()
        if not words:
            try:
                client.port.mark_valid()
            except OSError:
                words = "the image cannot be marked valid"
        if words:
            self._give_up(words)
            return False
        if journal["stage"] == BOOTING and client.port.name(client.port.running) == journal["slot"]:
            records.facts["floor"] = max(records.facts["floor"], journal["security_version"])
            records.save("facts")
            self._update.over("complete", "", "")
        return True

    def _tests(self):
        """Why one failed, or ""."""
        client = self._client
        begun, most = time.ticks_ms(), client.config.trial_seconds * 1000
        for name in TESTS:
            while True:
                verdict = client.hooks.network(client) if name == "network" else getattr(client.hooks, name)()
                if verdict:
                    break
                late = time.ticks_diff(time.ticks_ms(), begun) > most
                if late or verdict is False:
                    how = " was not done in time " if late else " failed "
                    return "self-test " + name + how + client.hooks.trial_message()
                if name == "network" and not client.reached:
                    yield from self._reach()
                yield 0 if client.reached and name == "network" else 500
        return ""

    def _reach(self):
        """The way to the server: whatever it answers counts."""
        try:
            yield from exchange(self._client, "GET", "/healthz", 4096)
        except (Broken, Away) as e:
            self._client.port.log(e.words)

    def _give_up(self, words):
        client, journal = self._client, self._client.records.journal
        client.port.log(words)
        if journal["stage"] == BOOTING:
            journal.update({"reason": "health_check_failed", "words": words})
            client.records.save("journal")
        client.port.reset()  # not marked valid: the boot loader falls back
