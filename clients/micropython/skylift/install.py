"""From the first byte to the restart. One connection at a time: where progress is reported the download is
closed and goes on by Range, so that what a power cut needs is what every update does."""

import time

from skylift.http import Broken
from skylift.records import BOOTING, FETCHING
from skylift.slot import SlotWriter, digest, same_chip
from skylift.talk import Away, Bad, headed, say

QUIET_MS, WINDOW_MS = 30000, 60000
MOST_BREAKS = 12
LOOKED = 24  # bytes of an image's head
NOT_WRITTEN = "the key-value store cannot be written"


class Installing:
    """The update that the journal names; lives through rests, and through power cuts by its records."""

    def __init__(self, client):
        self._client = client
        self._writer = None
        self._breaks = self._said = self._saved = 0
        self._begun = 0

    def over(self, how, reason, words):
        self._writer = None
        self._client.over(how, reason, words)

    def room(self, found):
        """Whether there is, and what is written down before anything is erased."""
        client, image = self._client, found.image
        port, records = client.port, client.records
        journal, slot = records.journal, port.name(port.other)
        journal.update({"deployment": image.deployment, "attempt": image.attempt, "sha256": image.sha256})
        journal.update({"length": image.length, "security_version": image.security_version})
        if image.kind != "image":
            raise Bad("install_error", "this client installs images, nothing else")
        if records.facts["images"].get(port.name(port.running), (0, ""))[1] == image.sha256:
            self.over("complete", "", "")  # it runs: only the report got lost
            client.ring()
            return False
        if image.length > port.size(port.other):
            raise Bad("no_space", "the image is larger than the slot")
        if not client.hooks.battery_is_good():
            port.log("the update waits for a better battery")
            return False
        self._writer = None
        records.offset["at"] = 0
        journal.update({"slot": slot, "url": found.url, "stage": FETCHING, "tries": 0, "armed": False})
        journal.update({"resumed": False, "reason": "", "words": ""})
        if not records.save("offset") or not records.save("journal"):
            raise Bad("install_error", NOT_WRITTEN)
        return True

    def run(self):
        """To the restart."""
        journal = self._client.records.journal
        yield from say(self._client, "downloading", self._percent())
        while True:
            yield from self._fetch()
            if (yield from self._stands()):
                break
        yield from self.boot(journal)

    def boot(self, journal):
        """What stands there is what was signed: boot it, on trial."""
        client = self._client
        for state in ("installing", "validating"):
            client.state = state
            yield from say(client, state, 100)
        self._arm(journal)
        client.state = "restart"
        while not client.hooks.may_restart():
            yield 50
        client.port.log("restarting into the new image, on trial")
        client.port.reset()

    # --- the download ----------------------------------------------------------------------------------

    def _percent(self):
        length = self._client.records.journal["length"]
        done = self._writer.taken if self._writer else self._client.records.offset["at"]
        return done * 100 // length if length else 0

    def _fetch(self):
        """All of it, over as many connections as it takes. What came stays when `Away` goes through here; a
        way that never brings anything ends the update."""
        client = self._client
        journal, offset = client.records.journal, client.records.offset
        client.state = "fetch"
        if self._writer is None:
            self._writer = SlotWriter(client.port, offset["at"])
            self._begun, self._breaks = time.ticks_ms(), 0
            self._saved, self._said = offset["at"], self._percent()
            if offset["at"]:
                journal["resumed"] = True
        while self._writer.taken < journal["length"]:
            try:
                yield from self._some(journal)
            except Broken as e:
                self._breaks += 1
                if self._breaks == 1:
                    client.away = 0  # it comes on
                if self._breaks > MOST_BREAKS:
                    raise Bad("download_error", e.words) from None
                raise Away(e.words, e.retry_after) from None
            finally:
                client.http.close()
            if self._writer.taken < journal["length"]:
                yield from say(client, "downloading", self._percent())
        self._written(self._writer.finish)
        self._writer = None

    def _some(self, journal):
        """One connection: until progress is due, or all of it is here."""
        client, writer = self._client, self._writer
        http = client.http
        skip = yield from self._opened(journal)
        window, came, moved = time.ticks_ms(), 0, time.ticks_ms()
        while writer.taken < journal["length"]:
            now = time.ticks_ms()
            if time.ticks_diff(now, self._begun) > client.config.download_seconds * 1000:
                raise Bad("download_error", "the download passed its deadline")
            piece = http.some(min(1024, skip or journal["length"] - writer.taken))
            if piece is None:
                if time.ticks_diff(now, moved) > QUIET_MS:
                    raise Broken("the server went quiet")
                yield 2
                continue
            if not piece:
                raise Broken("the download ended early")
            moved, came = now, came + len(piece)
            if time.ticks_diff(now, window) > WINDOW_MS:
                if came < client.config.least_bytes_a_second * WINDOW_MS // 1000:
                    raise Broken("the download is too slow", 60)
                window, came = now, 0
            if skip:
                skip -= len(piece)
            else:
                self._take(writer, piece)
                if self._due():
                    return
            yield 0

    def _opened(self, journal):
        """Asks for what is missing; how many bytes to read past, where the server does not resume."""
        http, start, whole = self._client.http, self._writer.taken, journal["length"]
        http.ask("GET", journal["url"], self._client.token(), None, start, journal["sha256"])
        yield 0
        yield from headed(http)
        status = http.status
        if status == 206 and start:
            if http.headers.get("content-range") != f"bytes {start}-{whole - 1}/{whole}":
                raise Bad("download_error", "the server's file has another length than was signed")
            return 0
        if status == 200:
            if http.length is not None and http.length != whole:
                raise Bad("download_error", "the server's file has another length than was signed")
            return start
        if 300 <= status < 400:
            raise Bad("download_error", "the server redirects to another place")
        if status in (401, 429) or status >= 500:
            raise Broken("the server does not send the image now", http.retry_after())
        raise Bad("download_error", "the server does not give the image")

    def _take(self, writer, piece):
        client = self._client
        if not writer.taken and len(piece) >= LOOKED and not same_chip(client.port, piece):
            raise Bad("wrong_hardware", "the image is for another chip")
        self._written(lambda: writer.add(piece))
        self._breaks = 0
        if writer.safe >= self._saved + client.config.save_every:
            client.records.offset["at"] = self._saved = writer.safe
            if not client.records.save("offset"):
                raise Bad("install_error", NOT_WRITTEN)

    def _written(self, deed):
        try:
            deed()
        except OSError:
            raise Bad("install_error", "the flash cannot be written") from None

    def _due(self):
        """Whether progress is to be reported."""
        each, now = self._client.config.progress_percent, self._percent()
        if now < self._said + each or now >= 100:
            return False
        self._said = now - now % each
        return True

    # --- what stands in flash --------------------------------------------------------------------------

    def _stands(self):
        """Reads it back, all of it: the digest that two release keys signed decides. False: once more."""
        client = self._client
        journal, records = client.records.journal, client.records
        client.state = "read_back"
        found = yield from digest(client.port, client.port.other, journal["length"])
        if found == journal["sha256"]:
            return True
        again = journal["resumed"] or journal["stage"] == BOOTING
        words = "what stands in flash is not what was signed"
        if not again:
            raise Bad("hash_mismatch", words)
        client.port.log(words + ": once more, from the beginning")
        journal.update({"resumed": False, "stage": FETCHING})
        records.offset["at"] = 0
        if not records.save("offset") or not records.save("journal"):
            raise Bad("install_error", NOT_WRITTEN)
        return False

    def again(self):
        """An image that was to be armed when the power went: `run` goes on with it, or fetches it anew."""
        if (yield from self._stands()):
            yield from self.boot(self._client.records.journal)

    def _arm(self, journal):
        client = self._client
        port, records = client.port, client.records
        records.facts["images"][journal["slot"]] = [journal["length"], journal["sha256"]]
        journal.update({"stage": BOOTING, "tries": journal["tries"] + 1, "armed": False})
        if not records.save("facts") or not records.save("journal"):
            raise Bad("install_error", NOT_WRITTEN)
        try:
            port.set_boot()
        except OSError:
            raise Bad("install_error", "boot control does not take the new image") from None
        journal["armed"] = True
        records.save("journal")  # lost: one try more
