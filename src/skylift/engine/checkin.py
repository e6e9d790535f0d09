"""A device asks: is there something for me?

`look` reads (one transaction, a handful of indexed reads, none of them over the fleet) and answers at once
where nothing changes; where something must be written (a first offer, a superseded update, new facts about
the device) it returns the deed, and the edge answers when that is durable. The decision is `core.offer`'s.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import Any, NamedTuple

from skylift.core.deadlines import Deadlines
from skylift.core.errors import Kind, Rejected
from skylift.core.lifecycle import OPEN, DeploymentStatus, UpdateState
from skylift.core.offer import Again, Asking, Live, Nothing, Offer, OpenUpdate, Wait, decide, precedence
from skylift.core.ways import MAX_RATIO, Means
from skylift.engine import director, moves, publish, select, serving, waiting
from skylift.engine.pace import Pace
from skylift.store import counters, deployments, devices, events, matches, offers, pieces, updates
from skylift.store.db import Connection, Database
from skylift.store.deployments import LiveRow
from skylift.store.devices import Device
from skylift.store.glance import Glance

Answer = dict[str, Any]
CACHE_S = 1.0  # how old the list of live deployments may be; offers check again in their transaction


class Ask(NamedTuple):
    """What the device says of itself at a check."""

    device_type: str
    current_version: str
    config_version: str | None = None
    image_sha256: str | None = None
    nonce: str | None = None
    means: Means = Means()


@dataclass(frozen=True, slots=True)
class Ready:
    """Nothing to write: the answer."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Needs:
    """The answer is the deed's result."""

    deed: Callable[[Connection], Answer]


class LiveCache:
    """The live deployments, in their order of precedence.

    Looked at again when they changed here, or after a second: others may change them. A look is one sum over
    an index; they are read only when it differs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[dict[str, LiveRow], list[Live]] = ({}, [])
        self._compared: frozenset[int] = frozenset()
        self._mark: object = None
        self._read_at = -CACHE_S
        self._change = self._read_after = object()  # the last one; and the last before the rows were read
        self._lock = threading.Lock()

    def invalidate(self) -> None:
        """Something changed: look again at the next question, also where a look is under way."""
        self._change = object()

    def get(self) -> tuple[dict[str, LiveRow], list[Live]]:
        """Rows by id, and the order of precedence."""
        if self._is_fresh():
            return self._known
        with self._lock:
            if not self._is_fresh():
                change, begun = self._change, monotonic()
                with self._database.read() as conn:
                    self._look(conn)
                self._read_at, self._read_after = begun, change
            return self._known

    def is_compared(self, device_pk: int) -> bool:
        """Whether a statistical gate watches this device now."""
        return device_pk in self._compared

    def _is_fresh(self) -> bool:
        return self._change is self._read_after and monotonic() - self._read_at < CACHE_S

    def _look(self, conn: Connection) -> None:
        mark = deployments.live_mark(conn)
        if mark != self._mark:
            rows = deployments.live_deployments(conn)
            self._known = {row.live.id: row for row in rows}, precedence([row.live for row in rows])
            self._mark = mark
        compares = any(row.is_compared for row in self._known[0].values())
        self._compared = matches.compared(conn) if compares else frozenset()


@dataclass(frozen=True, slots=True)
class Checkin:
    """What every check needs; built once."""

    lives: LiveCache
    deadlines: Deadlines
    pace: Pace = field(default_factory=Pace)
    tally: serving.Tally | None = None
    max_ratio: float = MAX_RATIO  # of the compressed full image

    def glance(self, seen: Glance, ask: Ask, now: datetime) -> Ready | None:
        """The answer where it follows from the device's row and the live deployments; None: `look`."""
        if seen.deployment_id is not None or not _says_nothing_new(seen, ask):
            return None
        rows, order = self.lives.get()
        if not order:
            return Ready(self._none(self.pace.idle()))
        is_compared = self.lives.is_compared(seen.pk)
        asking = Asking(seen.h, seen.device_type, seen.current_version, seen.config_version)

        def everyone(live: Live) -> bool:
            if rows[live.id].selector.get("all"):
                return True
            raise _MustLook

        try:
            decision = decide(asking, order, None, everyone, _had, now)
        except _MustLook:
            return None
        match decision:
            case Nothing():
                return Ready(self._none(self.pace.idle(), is_compared))
            case Wait():
                return Ready(self._none(self.pace.waiting(), is_compared))
            case _:
                return None

    def look(self, conn: Connection, device: Device, ask: Ask, now: datetime) -> Ready | Needs:
        """Answer, or say which deed gives the answer."""
        if ask.device_type != device.device_type:
            raise Rejected(
                "wrong_device_type",
                f"device_type is {ask.device_type!r}: {device.device_id} is enrolled as {device.device_type}",
                kind=Kind.CONFLICT,
                field="device_type",
                value=ask.device_type,
                rule=f"is {device.device_type}",
            )
        outcome = self._decide(conn, device, ask, now)
        if _same_facts(device, ask) and isinstance(outcome, Ready):
            return outcome
        return Needs(lambda conn: self._write(conn, device.pk, ask, outcome, now))

    def _decide(self, conn: Connection, device: Device, ask: Ask, now: datetime) -> Ready | Needs:
        rows, order = self.lives.get()
        current, stored = _open_update(conn, device, rows)
        if stored is not None and stored.state is UpdateState.PENDING and self._there(conn, device, ask):
            return Needs(lambda conn: self._skip(conn, device.pk, ask, now))
        asking = Asking(device.h, device.device_type, ask.current_version, ask.config_version)
        said = replace(device, current_version=ask.current_version, config_version=ask.config_version)
        decision = decide(
            asking,
            order,
            current,
            lambda live: select.selects(conn, live.id, rows[live.id].selector, said),
            lambda live: updates.exists(conn, live.id, device.pk),
            now,
        )
        match decision:
            case Nothing():
                return Ready(self._none(self.pace.idle(), self.lives.is_compared(device.pk)))
            case Wait():
                return Ready(self._none(self.pace.waiting(), self.lives.is_compared(device.pk)))
            case Again():
                return self._again(conn, device, ask, current, now)
            case Offer() as offer:
                return Needs(lambda conn: self._offer(conn, device.pk, ask, offer, now))

    def _none(self, seconds: int, is_compared: bool = False) -> Answer:
        """Who is compared with others is asked how it is: nobody else's health is looked at now."""
        answer: Answer = {"update_available": False, "retry_after": seconds}
        return answer | {"report_health": True} if is_compared else answer

    def _there(self, conn: Connection, device: Device, ask: Ask) -> bool:
        """Whether the device already runs what its open update is to."""
        row = deployments.find(conn, device.deployment_id or "")
        if row is None:
            return False
        have = ask.config_version if row.kind == "config" else ask.current_version
        return bool(have == row.version)

    def _again(
        self, conn: Connection, device: Device, ask: Ask, current: OpenUpdate | None, now: datetime
    ) -> Ready | Needs:
        """The open update once more; canceled if its deployment ended before the device had written."""
        if current is None:
            return Ready(self._none(self.pace.idle()))
        if current.live is None and current.state in (UpdateState.PENDING, UpdateState.DOWNLOADING):
            return Needs(lambda conn: self._cancel(conn, device.pk, now))
        return Ready(self._answer(conn, device, ask, current.deployment))

    # --- deeds ------------------------------------------------------------------------------------

    def _write(
        self, conn: Connection, device_pk: int, ask: Ask, outcome: Ready | Needs, now: datetime
    ) -> Answer:
        """New facts about the device first, then whatever else was to be done."""
        before = devices.by_pk(conn, device_pk)
        was = waiting.of(conn, before)
        devices.set_facts(conn, device_pk, ask.current_version, ask.config_version, ask.image_sha256)
        waiting.moved(conn, was, waiting.of(conn, devices.by_pk(conn, device_pk)))
        data = {"current_version": ask.current_version, "config_version": ask.config_version}
        events.say(conn, "facts", data, now, device_pk=device_pk)
        _note_means(conn, device_pk, ask)
        return outcome.answer if isinstance(outcome, Ready) else outcome.deed(conn)

    def _offer(self, conn: Connection, device_pk: int, ask: Ask, offer: Offer, now: datetime) -> Answer:
        """The first offer: row, counters, slot and order in one transaction, or nothing at all."""
        device = devices.by_pk(conn, device_pk)
        row = self.lives.get()[0].get(offer.live.id)
        if device is None or row is None:
            return self._none(self.pace.waiting())
        if (before := updates.find(conn, offer.live.id, device_pk)) is not None:  # the same check came twice
            again = before.state in OPEN
            return self._answer(conn, device, ask, offer.live.id) if again else self._none(self.pace.busy())
        if not offers.admit(conn, offer.live.id, offer.phase, row.max_parallel):
            return self._none(self.pace.waiting())
        if offer.instead_of is not None and device.deployment_id == offer.instead_of:
            self._supersede(conn, device, offer, now)
        if not updates.take_slot(conn, device_pk, offer.live.id, 1, None):
            return self._none(self.pace.busy())
        offers.take(conn, offer.live.id, offer.phase)
        updates.insert(
            conn,
            offer.live.id,
            device_pk,
            offer.phase,
            from_version=ask.config_version if offer.live.kind == "config" else ask.current_version,
            from_sha256=ask.image_sha256,
            deadline_at=self.deadlines.at(UpdateState.PENDING, now),
            now=now,
        )
        counters.move(conn, offer.live.id, offer.phase, None, (UpdateState.PENDING, ""))
        data = {"from": "", "state": "pending", "attempt": 1, "phase": offer.phase}
        events.say(conn, "update", data, now, deployment_id=offer.live.id, device_pk=device_pk)
        _order(conn, device, offer.live.id, row.release_id, row.mandatory, 1, now)
        _note_means(conn, device_pk, ask)
        return self._answer(conn, device, ask, offer.live.id, row=row, attempt=1)

    def _supersede(self, conn: Connection, device: Device, offer: Offer, now: datetime) -> None:
        old = updates.find(conn, offer.instead_of or "", device.pk)
        if old is not None and old.state is UpdateState.PENDING:
            why = moves.Why(message=f"superseded by {offer.live.id}")
            moves.move(conn, old, UpdateState.CANCELED, now, self.deadlines, why=why)

    def _cancel(self, conn: Connection, device_pk: int, now: datetime) -> Answer:
        device = devices.by_pk(conn, device_pk)
        old = updates.find(conn, device.deployment_id or "", device_pk) if device else None
        if old is not None and old.state in (UpdateState.PENDING, UpdateState.DOWNLOADING):
            why = moves.Why(message="the deployment has ended")
            moves.move(conn, old, UpdateState.CANCELED, now, self.deadlines, why=why)
        return self._none(self.pace.busy())

    def _skip(self, conn: Connection, device_pk: int, ask: Ask, now: datetime) -> Answer:
        device = devices.by_pk(conn, device_pk)
        old = updates.find(conn, device.deployment_id or "", device_pk) if device else None
        if old is not None and old.state is UpdateState.PENDING:
            why = moves.Why(message=f"already runs {ask.current_version}")
            moves.move(conn, old, UpdateState.SKIPPED, now, self.deadlines, why=why)
        return self._none(self.pace.busy())

    # --- the answer -------------------------------------------------------------------------------

    def _answer(
        self,
        conn: Connection,
        device: Device,
        ask: Ask,
        deployment_id: str,
        *,
        row: LiveRow | None = None,
        attempt: int | None = None,
    ) -> Answer:
        stored = deployments.find(conn, deployment_id)
        if stored is None:
            raise AssertionError("an update without its deployment")
        release_id = row.release_id if row else stored.release_id
        offered = publish.offerable(conn, release_id, device.device_type)
        if offered is None:
            return self._none(self.pace.busy())
        answer: Answer = {
            "update_available": True,
            "version": stored.version,
            "url": f"/api/blobs/{offered.full.sha256}",
            "sha256": offered.full.sha256,
            "size": offered.full.size,
            "mandatory": stored.mandatory,
            "kind": stored.kind,
            "deployment": deployment_id,
            "attempt": attempt or device.attempt or 1,
            "retry_after": self.pace.busy(),
            "trust": director.facts(conn, device.pk, stored.product),
        }
        if ask.nonce is not None:
            url = f"/director/{device.device_id}/{director.FRESH}?nonce={ask.nonce}"
            answer["trust"]["order_url"] = url
        if stored.kind == "image":
            chosen = serving.decision(
                conn,
                release_id,
                offered.product,
                offered.full,
                ask.image_sha256,
                ask.means,
                self.max_ratio,
            )
            answer |= serving.told(chosen)
            if row is not None and self.tally is not None:  # the first time
                self.tally.offered(deployment_id, chosen)
        return answer


def order_again(conn: Connection, device_pk: int, deployment_id: str, attempt: int, now: datetime) -> None:
    """The signed order of another attempt: what `engine.retry` asks for."""
    device, row = devices.by_pk(conn, device_pk), deployments.find(conn, deployment_id)
    if device is None or row is None:
        raise AssertionError("an update without its device or its deployment")
    _order(conn, device, deployment_id, row.release_id, row.mandatory, attempt, now)


def _order(
    conn: Connection,
    device: Device,
    deployment_id: str,
    release_id: str,
    mandatory: bool,
    attempt: int,
    now: datetime,
) -> None:
    offered = publish.offerable(conn, release_id, device.device_type)
    if offered is None:
        raise AssertionError(f"{deployment_id} offers nothing for {device.device_type}")
    target = director.OrderTarget(
        **offered.target, deployment=deployment_id, attempt=attempt, mandatory=mandatory
    )
    director.assign(conn, device.pk, target, now)


def _note_means(conn: Connection, device_pk: int, ask: Ask) -> None:
    """What the device gives for an update, where it says so and it is news."""
    if ask.means.codecs is not None and ask.means != pieces.means_of(conn, device_pk):
        pieces.note_means(conn, device_pk, ask.means)


class _MustLook(Exception):
    """Only the store can say."""


def _had(live: Live) -> bool:
    raise _MustLook


def _says_nothing_new(seen: Glance, ask: Ask) -> bool:
    return (
        seen.status == devices.ACTIVE
        and seen.device_type == ask.device_type
        and seen.current_version == ask.current_version
        and seen.config_version == ask.config_version
        and ask.image_sha256 in (None, seen.image_sha256)
    )


def _same_facts(device: Device, ask: Ask) -> bool:
    """Small clients do not say which image they run: that is no news."""
    return _same_versions(device, ask) and ask.image_sha256 in (None, device.image_sha256)


def _same_versions(device: Device, ask: Ask) -> bool:
    return (device.current_version, device.config_version) == (ask.current_version, ask.config_version)


def _open_update(
    conn: Connection, device: Device, rows: dict[str, LiveRow]
) -> tuple[OpenUpdate | None, updates.Update | None]:
    if device.deployment_id is None:
        return None, None
    stored = updates.find(conn, device.deployment_id, device.pk)
    if stored is None:
        return None, None
    row = rows.get(device.deployment_id)
    live = row.live if row else None
    if live is None:  # not in the cache: ended, or begun by another server a moment ago
        found = deployments.find(conn, device.deployment_id)
        if found is not None and DeploymentStatus(found.status) in deployments.LIVE:
            live = deployments.live_row(conn, found).live
    return OpenUpdate(live, stored.deployment_id, stored.state), stored


def recount(conn: Connection, deployment_id: str) -> dict[str, Any]:
    """Counters against a full count, on one snapshot: what differs, by phase; {} when they are equal."""
    counted, full = counters.of_deployment(conn, deployment_id), counters.recount(conn, deployment_id)
    return {
        str(phase): {"counters": counted.get(phase, {}), "rows": full.get(phase, {})}
        for phase in sorted(counted.keys() | full.keys())
        if counted.get(phase, {}) != full.get(phase, {})
    }
