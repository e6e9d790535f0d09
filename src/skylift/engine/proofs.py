"""Who really said it: a report that counts is signed by the device's own key.

What counts is the end of an update (complete, failed, rolled back), and whatever bears a word of health. The
signature is over the request's bytes as they came, so over device, deployment, attempt, state, reason, digest
and `sequence`, which grows with every signed word: an old one that is played again is refused, and one made
for another deployment or attempt says so itself. Stages on the way are not signed: a device says dozens of
them, and nothing is decided by them.

Refusals are counted, and told in the device's events at most once a minute: whoever sends them should not
fill the database.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from skylift.core.errors import Kind, Rejected
from skylift.core.lifecycle import OUTCOMES
from skylift.engine.identity import short, supersede
from skylift.engine.reports import Report
from skylift.store import devices, events, identity
from skylift.store.db import Connection
from skylift.store.identity import DeviceKey
from skylift.trust.identity import Purpose, verifies

SEQUENCES = 1 << 53  # below it, as every JSON reader can say it
WORDS = 100_000  # keys whose latest word of health is remembered until it is written: 20 MB
TOLD_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Proof:
    """How a report came: its bytes, the signature beside them, the number it bears."""

    payload: bytes
    signature: str
    sequence: int | None
    health: bool = False  # it bears a word of health
    log: tuple[int, str] | None = None  # the checkpoint of the log that the device has pinned: size, root


class Said(NamedTuple):
    """A report, from the device of this name with this token's hash, heard at `now`. The writer finds out
    which that is (`device_pk`)."""

    device_id: str
    token_hash: str
    report: Report
    now: datetime
    proof: Proof | None = None
    device_pk: int = 0

    @property
    def counts(self) -> bool:
        return self.report.state in OUTCOMES or (self.proof is not None and self.proof.health)


class Signed(NamedTuple):
    """By which key, and with which number."""

    public: str
    sequence: int


class Word(NamedTuple):
    """A word of health, as it is written behind. `signed`: None where a report brought it, which was written
    down by itself, and of a device that has no key."""

    at: datetime
    healthy: bool | None
    metrics: Mapping[str, float]
    signed: Signed | None = None


@dataclass
class Judged:
    """The reports, those that were verified saying by which key; and what refuses the others."""

    said: list[Said]
    refused: dict[int, Rejected] = field(default_factory=dict)
    heard: dict[int, tuple[int, bool]] = field(default_factory=dict)  # device -> sequence, newest key
    renewed: dict[int, tuple[DeviceKey, datetime]] = field(default_factory=dict)  # its new key signs at last

    def write(self, conn: Connection) -> None:
        for key, now in self.renewed.values():
            supersede(conn, key, now)
        identity.heard(conn, [(pk, sequence, newest) for pk, (sequence, newest) in self.heard.items()])
        told: set[int] = set()
        for number, why in self.refused.items():
            one = self.said[number]
            if one.device_pk not in told:
                told.add(one.device_pk)
                tell(conn, one.device_pk, why, _about(one.report), one.now)


@dataclass(frozen=True, slots=True)
class Proofs:
    """The rule of this server. `required`: also of devices that have no key. `count` is told each refusal.

    Words of health are written behind, and with each how far its key's sequence has come (`write_words`);
    `_words` holds that for the keys heard last until then.
    """

    required: bool = False
    count: Callable[[str], None] = lambda code: None
    _words: dict[str, int] = field(default_factory=dict)

    def judge(self, said: Sequence[Said], keys: Sequence[DeviceKey | None]) -> Judged:
        """In the transaction that takes them down; each beside its device's key."""
        judged = Judged(list(said))
        for number, (one, key) in enumerate(zip(said, keys, strict=True)):
            if (key is None and not self.required) or not one.counts:
                continue
            why = self._check(number, one, key, judged)
            if why is not None:
                judged.refused[number] = why
                self.count(why.code)
        return judged

    def check_health(self, conn: Connection, device_pk: int, proof: Proof) -> "Signed | Rejected | None":
        """Who signed this word of health, or why it does not count; None where nobody has to. A read."""
        found = self._who(identity.key_of(conn, device_pk), proof)
        if isinstance(found, Rejected):
            self.count(found.code)
        elif found is not None:
            self._words.pop(found.public, None)
            self._words[found.public] = found.sequence
            while len(self._words) > WORDS:
                self._words.pop(next(iter(self._words)), None)
        return found

    def _who(self, key: DeviceKey | None, proof: Proof) -> "Signed | Rejected | None":
        if key is None:
            return unsigned() if self.required else None
        if not proof.signature:
            return unsigned()
        latest = max(key.sequence, *(self._words.get(known or "", 0) for known in (key.public, key.previous)))
        found = check(key, Purpose.HEALTH, proof, latest)
        return found if isinstance(found, Rejected) else Signed(found, proof.sequence or latest)

    def _check(self, number: int, one: Said, key: DeviceKey | None, judged: Judged) -> Rejected | None:
        if key is None:
            return unsigned() if self.required else None
        if one.proof is None or not one.proof.signature:
            return unsigned()
        latest, newest_heard = judged.heard.get(one.device_pk, (key.sequence, False))
        found = check(key, Purpose.REPORT, one.proof, latest)
        if isinstance(found, Rejected):
            return found
        judged.said[number] = one._replace(report=one.report._replace(signed_by=short(found)))
        sequence = one.proof.sequence or latest
        if key.previous and found == key.public:
            judged.renewed[one.device_pk] = key, one.now
        judged.heard[one.device_pk] = (max(latest, sequence), newest_heard or found == key.public)
        return None


def write_words(conn: Connection, said: Mapping[int, Word]) -> None:
    """device_pk -> its latest word of health, and how far its key's sequence has come, in one transaction. A
    word that another server has overtaken meanwhile is no news."""
    keys = identity.keys_of(conn, [pk for pk, word in said.items() if word.signed])
    news = {
        pk: word
        for pk, word in said.items()
        if word.signed is None or pk not in keys or word.signed.sequence >= keys[pk].sequence
    }
    devices.note_health(conn, {pk: (word.at, word.healthy, word.metrics) for pk, word in news.items()})
    for pk, word in news.items():
        if word.signed and pk in keys and keys[pk].previous and word.signed.public == keys[pk].public:
            supersede(conn, keys[pk], word.at)
    signed = [(pk, word.signed) for pk, word in news.items() if word.signed]
    identity.advance(conn, [(pk, one.sequence, one.public) for pk, one in signed])


def check(key: DeviceKey, purpose: Purpose, proof: Proof, latest: int) -> "str | Rejected":
    """The key that signed it, or why it does not count. The latest word once more is no replay: its answer
    may have been lost."""
    public = next(
        (k for k in (key.public, key.previous) if k and verifies(k, purpose, proof.payload, proof.signature)),
        None,
    )
    if public is None:
        return _refused("report_forged", "Skylift-Signature: is not of this device's key over this body")
    if proof.sequence is None or proof.sequence < latest:
        return Rejected(
            "report_replayed",
            f"sequence is {proof.sequence}: this device has signed {latest} already",
            kind=Kind.CONFLICT,
            field="sequence",
            value=proof.sequence,
            rule=f"at least {latest}",
        )
    return public


def unsigned() -> Rejected:
    return _refused("report_unsigned", "Skylift-Signature: is needed with this report")


def _refused(code: str, sentence: str) -> Rejected:
    rule = "the signature of the body by the device's own key"
    return Rejected(code, sentence, kind=Kind.FORBIDDEN, field="Skylift-Signature", rule=rule)


def tell(conn: Connection, device_pk: int, why: Rejected, about: dict[str, Any], now: datetime) -> None:
    """A security event in the device's time line."""
    last = events.of_device(conn, device_pk, before=None, limit=1)
    if last and last[0].kind == "report_refused" and now - last[0].at < TOLD_EVERY:
        return
    events.say(conn, "report_refused", {"code": why.code, "why": str(why), **about}, now, device_pk=device_pk)


def _about(report: Report) -> dict[str, Any]:
    return {"deployment": report.deployment, "attempt": report.attempt, "state": report.state.value}
