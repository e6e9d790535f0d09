"""The control group of the statistical gate: matched sets, begun and judged; a chore of the loop.

Beside a device that has just completed stand three that were not offered anything yet: of the same type,
selected by the same deployment, in a phase that has not opened, heard of lately. All four are watched over
the same stretch of time, so that night, weather and an outage of ours meet all of them. Then each gets one
verdict: not heard of since the beginning, or unhealthy by its own word or by a metric out of bounds. A set
speaks where exactly one of the four is unhealthy (`core.gate`). One in which a device was meanwhile offered
something, or went away, says nothing. A device takes part once per deployment.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

from skylift.core.bucket import SPAN, place
from skylift.core.gate import CONTROLS
from skylift.core.health import MetricBound, is_unhealthy
from skylift.core.lifecycle import UpdateState
from skylift.core.world import PhaseState
from skylift.engine import select
from skylift.engine.waiting import needs
from skylift.store import apply, deployments, devices, matches, world
from skylift.store.db import Connection, Database
from skylift.store.devices import Device
from skylift.store.matches import Member

EVERY = timedelta(seconds=10)
RECENT = timedelta(minutes=2)  # completed this lately: the watch begins while it is known to be alive
POLLS = 3  # of silence make a device silent
SLACK = timedelta(seconds=15)  # contacts and health are written behind, every five seconds
SETS_PER_PHASE = 200  # a fifth of them speaking decides any case worth deciding
AT_ONCE = 50  # sets begun or judged in one go
SPARE = 4  # candidates looked at for each one needed


@dataclass
class Matching:
    """`poll_s`: seconds between two checks of an idle device."""

    database: Database
    poll_s: float
    draw: Random = field(default_factory=Random)

    @property
    def watch(self) -> timedelta:
        return timedelta(seconds=POLLS * self.poll_s)

    def __call__(self, now: datetime) -> None:
        self.judge(now)
        with self.database.read() as conn:
            plans = [
                (row.id, pairs) for row in matches.watched(conn) if (pairs := self._pairs(conn, row, now))
            ]
        for deployment_id, pairs in plans:
            self.database.write(partial(_begin, deployment_id, pairs, now, now + self.watch))

    # --- begin ------------------------------------------------------------------------------------

    def _pairs(self, conn: Connection, row: Any, now: datetime) -> list[tuple[int, list[int]]]:
        """Updated devices with their controls; reads only."""
        phases = deployments.phases_of(conn, row.id)
        opened = sum(phase.state != PhaseState.CLOSED.value for phase in phases)
        room = min(AT_ONCE, SETS_PER_PHASE * opened - matches.sets(conn, row.id))
        if room <= 0 or opened == len(phases):
            return []
        updated = matches.newly_updated(conn, row.id, now - RECENT, room)
        by_type: dict[str, list[int]] = {}
        for new in updated:
            by_type.setdefault(new.device_type, []).append(new.pk)
        taken = matches.taking_part(conn, row.id) if updated else set()
        return [
            pair
            for device_type, pks in by_type.items()
            for pair in self._matched(conn, row, phases, device_type, pks, taken, now)
        ]

    def _matched(
        self,
        conn: Connection,
        row: Any,
        phases: list[Any],
        device_type: str,
        pks: list[int],
        taken: set[int],
        now: datetime,
    ) -> Iterator[tuple[int, list[int]]]:
        wanted = CONTROLS * len(pks)
        found: list[tuple[int, int]] = []  # (phase, device): those that will be offered last come first
        waits = _waits_in(conn, row, phases)
        for from_h in (self.draw.randrange(SPAN), 0):
            near = matches.idle_devices(conn, device_type, from_h, now - self.watch, SPARE * wanted)
            fresh = devices.by_pks(conn, [pk for pk in near if pk not in taken])
            found += [(at, pk) for pk, device in fresh.items() if (at := waits(device)) is not None]
            taken |= set(near)
            if len(found) >= wanted:
                break
        controls = [pk for _, pk in sorted(found, reverse=True)]
        for pk in pks:
            if len(controls) < CONTROLS:
                return
            yield pk, [controls.pop(0) for _ in range(CONTROLS)]

    # --- judge ------------------------------------------------------------------------------------

    def judge(self, now: datetime) -> None:
        """Every set whose time is over gets its verdict."""
        with self.database.read() as conn:
            due = matches.due(conn, now - SLACK, AT_ONCE)
        for deployment_id in dict.fromkeys(deployment for deployment, _ in due):
            mine = [updated for deployment, updated in due if deployment == deployment_id]
            self.database.write(partial(_judge, deployment_id, mine))


def _begin(
    deployment_id: str,
    pairs: list[tuple[int, list[int]]],
    now: datetime,
    due: datetime,
    conn: Connection,
) -> None:
    world.lock(conn, deployment_id)
    taken = matches.taking_part(conn, deployment_id)  # another server may have been here
    for updated, controls in pairs:
        if not taken & {updated, *controls}:
            matches.begin(conn, deployment_id, updated, controls, now, due)


def _judge(deployment_id: str, updated: list[int], conn: Connection) -> None:
    world.lock(conn, deployment_id)
    row = deployments.find(conn, deployment_id)
    if row is None:
        return
    limits = tuple(MetricBound(**bound) for bound in row.health_metrics)
    for pk in updated:
        watched = matches.members(conn, deployment_id, pk)
        verdicts = {one.device_pk: verdict(one, pk, limits) for one in watched}
        matches.close(conn, deployment_id, pk, verdicts)
    matches.put_count(conn, deployment_id)
    apply.wake(conn, deployment_id)


def verdict(one: Member, updated_pk: int, limits: tuple[MetricBound, ...]) -> bool | None:
    """Unhealthy or not; None where the device was offered something, fell back (the failures count that) or
    went away: the set says nothing then."""
    expected = UpdateState.COMPLETE.value if one.device_pk == updated_pk else None
    if one.state != expected or one.busy_with is not None or one.status != devices.ACTIVE:
        return None
    if one.seen_at is None or one.seen_at <= one.begun_at:
        return True
    said = one.health_at is not None and one.health_at > one.begun_at
    return said and is_unhealthy(one.healthy, one.metrics or {}, limits)


def _waits_in(conn: Connection, row: Any, phases: list[Any]) -> Callable[[Device], int | None]:
    """In which phase that has not opened this device waits for the deployment's release; or None."""
    types = deployments.device_types(conn, row.release_id)

    def waits(device: Device) -> int | None:
        at = place(device.h, row.salt)
        phase = next((phase for phase in phases if at <= phase.upto), None)
        if phase is None or phase.state != PhaseState.CLOSED.value:
            return None
        wanted = needs(device, row.kind, row.version, types)
        return phase.number if wanted and select.selects(conn, row.id, row.selector, device) else None

    return waits
