"""A sample fleet: two dozen devices that are not there, for whoever has none yet. Switched on and off.

They are rows like any others: enrolled, labelled `sample`, offered updates, judged by the same tables. What a
device would say is said for them here, by the loop, a word every few seconds; every twentieth update fails.
They install nothing. Off, they are decommissioned: what they did stays history.
"""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from skylift.core.deadlines import Deadlines
from skylift.core.errors import Kind, Rejected
from skylift.core.ids import check_name
from skylift.core.lifecycle import OPEN, Reason, UpdateState
from skylift.engine import enroll
from skylift.engine.checkin import Ask, Checkin, Needs
from skylift.engine.reports import Report, record
from skylift.store import devices, events, facts, updates
from skylift.store.db import Connection, Database
from skylift.store.devices import Device

COUNT = 24
KEY = "sample"
VERSION = "0.9.0"  # what they run before anybody updates them
REGIONS, HARDWARE = ("eu", "us", "ap"), ("rev-a", "rev-a", "rev-b")
SHORTEST_S, LONGEST_S = 2, 8  # between two words of one device
FAILS_PERCENT = 5
NEXT = {
    UpdateState.PENDING: UpdateState.DOWNLOADING,
    UpdateState.DOWNLOADING: UpdateState.INSTALLING,
    UpdateState.INSTALLING: UpdateState.VALIDATING,
    UpdateState.VALIDATING: UpdateState.COMPLETE,
}


def _name(number: int) -> str:
    return f"sample-{number:02}"


def is_on(conn: Connection) -> bool:
    return bool((facts.get(conn, KEY) or {}).get("on"))


def switch_on(conn: Connection, device_type: str, actor: str, now: datetime) -> None:
    """Enroll them. A device of another kind that has one of their names stays as it is, and it is said."""
    check_name("device_type", device_type)
    if is_on(conn):
        return
    for number in range(COUNT):
        known = devices.find_device(conn, _name(number))
        if known is not None and known.status == devices.ACTIVE:
            raise Rejected(
                "device_exists",
                f"device_id is {_name(number)!r}: there is a device of that name, which is no sample",
                kind=Kind.CONFLICT,
                field="device_id",
                value=_name(number),
                rule="names the sample fleet may have",
            )
        labels = {"sample": "yes", "region": REGIONS[number % 3], "hw": HARDWARE[number // 3 % 3]}
        token = secrets.token_urlsafe(32)  # nobody has it
        enroll.register(conn, _name(number), device_type, token, labels, actor, now)
    facts.put(conn, KEY, {"on": True})
    said = {"on": True, "devices": COUNT, "device_type": device_type}
    events.record(conn, actor, "sample.on", KEY, said, now, before={"on": False})


def switch_off(conn: Connection, actor: str, now: datetime, deadlines: Deadlines) -> None:
    """They are out; a deployment that waits for them goes on without."""
    if not is_on(conn):
        return
    for number in range(COUNT):
        enroll.decommission(conn, _name(number), actor, now, deadlines)
    facts.put(conn, KEY, {"on": False})
    events.record(conn, actor, "sample.off", KEY, {"on": False, "devices": COUNT}, now, before={"on": True})


@dataclass
class Sample:
    """What the devices say, at each look of the loop. Reads one row while it is off."""

    database: Database
    checkin: Checkin
    deadlines: Deadlines

    def __call__(self, now: datetime) -> None:
        with self.database.read() as conn:
            if not is_on(conn):
                return
            found = devices.by_ids(conn, [_name(number) for number in range(COUNT)])
            active = [device for device in found.values() if device.status == devices.ACTIVE]
            said = list(self._words(conn, active, now))
        waiting = [self.database.submit(word) for word in said]  # one commit, each word for itself
        self.database.write(lambda conn: devices.touch(conn, {device.pk: now for device in active}))
        for word in waiting:
            with suppress(Rejected):  # it was switched off, or its deployment ended, in this moment
                word.result()

    def _words(self, conn: Connection, active: list[Device], now: datetime) -> "Iterator[_Word]":
        for device in active:
            update = None
            if device.deployment_id is not None:
                update = updates.find(conn, device.deployment_id, device.pk)
            if update is None or update.state not in OPEN:
                ask = Ask(device.device_type, device.current_version or VERSION, device.config_version, None)
                outcome = self.checkin.look(conn, device, ask, now)
                if isinstance(outcome, Needs):
                    yield _Word(self, device, asks=outcome)
            elif updates.changed_at(conn, update) + _pause(device, update.state) <= now:
                yield _Word(self, device, says=_next(device, update), now=now)


@dataclass(frozen=True)
class _Word:
    """One device's request, done in a deed of the loop's."""

    sample: Sample
    device: Device
    asks: Needs | None = None
    says: Report | None = None
    now: datetime | None = None

    def __call__(self, conn: Connection) -> None:
        if self.asks is not None:
            self.asks.deed(conn)
        elif self.says is not None and self.now is not None:
            record(conn, self.device, self.says, self.now, self.sample.deadlines)


def _drawn(*parts: str) -> int:
    """0 to 99, always the same for the same words."""
    return int.from_bytes(sha256(" ".join(parts).encode()).digest()[:4], "big") % 100


def _pause(device: Device, state: UpdateState) -> timedelta:
    spread = LONGEST_S - SHORTEST_S
    return timedelta(seconds=SHORTEST_S + spread * _drawn(device.device_id, state.value) / 100)


def _next(device: Device, update: updates.Update) -> Report:
    fails = _drawn(device.device_id, update.deployment_id, str(update.attempt)) < FAILS_PERCENT
    if update.state is UpdateState.VALIDATING and fails:
        return Report(
            update.deployment_id, UpdateState.ROLLED_BACK, update.attempt, reason=Reason.HEALTH_CHECK_FAILED
        )
    return Report(update.deployment_id, NEXT[update.state], update.attempt)
