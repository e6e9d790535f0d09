"""Go on without a cohort: its devices are offered nothing more, and count in nothing from now on.

What they did stays on record (`updates`, the time line); their counters move out of their phases, so that
size, rate and evidence are those of the devices that stay. Who has not written yet is canceled; who has goes
on to its end, uncounted.

The one writer is never held for the fleet. Who goes is looked up on a reader's snapshot, which also says
whether what is left may go on: if not, nothing has changed. Then the cohort is written down, and its updates
are taken out some hundreds at a time. A server that dies in the middle leaves a paused deployment whose
counters are right; asked again, it goes on where it was.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from skylift.core.deadlines import Deadlines
from skylift.core.lifecycle import DeploymentStatus, UpdateState
from skylift.core.world import Matched, World
from skylift.engine import cohorts, moves, verbs, waiting
from skylift.engine.cohorts import Cohort
from skylift.engine.waiting import Waiting
from skylift.store import counters, deployments, leavers, matches, updates, world
from skylift.store.db import Connection, Database
from skylift.store.members import Scope
from skylift.store.updates import Update

AT_ONCE = 500  # updates taken out in one transaction


@dataclass(frozen=True, slots=True)
class Leaving:
    """Whom it concerns, as one look over the fleet found it. `devices` are primary keys; `left` is the world
    without them."""

    deployment: str
    selector: dict[str, Any]
    devices: "array[int]"
    waiting: Waiting
    left: World


def leave_out(
    database: Database,
    deployment_id: str,
    texts: tuple[str, ...],
    now: datetime,
    deadlines: Deadlines,
    *,
    threshold_percent: float | None = None,
    expected_percent: float | None = None,
) -> int:
    """Before a paused deployment is resumed: how many devices with an update this concerned. `Rejected` where
    it is not paused, where a cohort is none, and where it could not go on without them either (with the
    threshold or expected rate that it is to be resumed with)."""
    with database.ask() as conn:
        leaving = look(conn, deployment_id, texts)
    rule, _ = verbs.asked(leaving.left.failure_rule, threshold_percent, expected_percent)
    verbs.must_not_breach(replace(leaving.left, failure_rule=rule))
    database.write(partial(_begin, leaving, now))
    for at in range(0, len(leaving.devices), AT_ONCE):
        some = leaving.devices[at : at + AT_ONCE]
        database.write(partial(_take_out, deployment_id, some, now, deadlines))
    database.write(lambda conn: matches.forget(conn, deployment_id))
    return len(leaving.devices)


def look(conn: Connection, deployment_id: str, texts: tuple[str, ...]) -> Leaving:
    """Reads only; a few questions over the deployment's updates, one over the fleet."""
    found, row = world.load_world(conn, deployment_id), deployments.find(conn, deployment_id)
    if found is None or row is None:
        raise verbs.unknown(deployment_id)
    if found.status is not DeploymentStatus.PAUSED:
        raise verbs.conflict("not_paused", found, "only a paused or draft deployment can be resumed")
    verbs.check_approved(conn, found)
    gone = [cohorts.read(conn, "without", text) for text in texts]
    without = list(row.selector.get("without", ()))
    for cohort in gone:
        if cohort.dump() not in without:
            without.append(cohort.dump())
    selector = {**row.selector, "without": without}
    parts = list(_parts(conn, row, gone))
    devices = leavers.devices(conn, deployment_id, parts)
    counted = waiting.count(conn, deployment_id, selector)
    if counted is None:
        raise AssertionError("a paused deployment waits for nobody")
    left = _without(conn, found, leavers.tally(conn, deployment_id, parts), counted, devices)
    return Leaving(deployment_id, selector, devices, counted, left)


def _parts(conn: Connection, row: Any, gone: list[Cohort]) -> Iterator[leavers.Part]:
    """Who goes, as the store asks for them: by the version each came from, as far as a cohort looks at it."""
    versions = leavers.versions(conn, row.id)
    for cohort in gone:
        same: dict[Scope, list[str | None]] = {}
        for version in versions:
            same.setdefault(cohorts.scope(conn, cohort, row.kind, version), []).append(version)
        yield from same.items()


def _without(
    conn: Connection, found: World, gone: leavers.Tally, counted: Waiting, devices: Sequence[int]
) -> World:
    """The world as it will be: what they count for is taken off, and so are the matched sets around them."""
    counts = counters.of_deployment(conn, found.deployment)
    most = {phase.number: phase._mapping["count"] for phase in deployments.phases_of(conn, found.deployment)}
    phases = []
    for phase in found.phases:
        kept = Counter(counts.get(phase.number, {}))
        for state, reason, n in gone.get(phase.number, ()):
            kept.subtract(dict.fromkeys(counters.keys(state, reason), n))
        left = world.tally(counted.devices.get(phase.number, 0), kept, most[phase.number])
        phases.append(replace(phase, tally=left))
    sets = matches.count(conn, found.deployment, but=frozenset(devices))
    return replace(found, phases=tuple(phases), matched=Matched(*sets))


# --- in the writer, a little at a time ---------------------------------------------------------------


def _begin(leaving: Leaving, now: datetime, conn: Connection) -> None:
    """From here on nothing is offered to the cohort, and nobody of it is waited for."""
    world.lock(conn, leaving.deployment)
    found = world.load_world(conn, leaving.deployment)
    if found is None:
        raise verbs.unknown(leaving.deployment)
    if found.generation != leaving.left.generation:
        raise verbs.conflict("changed_meanwhile", found, "it changed at the same moment; look again")
    deployments.set_selector(conn, leaving.deployment, leaving.selector)
    waiting.put(conn, leaving.deployment, leaving.waiting, now)


def _take_out(
    deployment_id: str, some: "array[int]", now: datetime, deadlines: Deadlines, conn: Connection
) -> None:
    """These, as they stand now."""
    world.lock(conn, deployment_id)
    found = updates.find_many(conn, {(deployment_id, pk) for pk in some})
    leaving = [update for update in found.values() if not update.left_out]
    _uncount(conn, deployment_id, [_canceled(conn, update, now, deadlines) for update in leaving])


def _canceled(conn: Connection, update: Update, now: datetime, deadlines: Deadlines) -> Update:
    """The update as it stands when nothing more is begun."""
    if update.state not in moves.UNBEGUN:
        return update
    why = moves.Why(message="the deployment goes on without its cohort")
    return moves.move(conn, update, UpdateState.CANCELED, now, deadlines, why=why) or update


def _uncount(conn: Connection, deployment_id: str, leaving: list[Update]) -> None:
    tallies = Counter(
        (update.phase, key) for update in leaving for key in counters.keys(update.state, update.reason)
    )
    for (phase, key), n in sorted(tallies.items()):
        counters.bump(conn, deployment_id, phase, key, -n)
        counters.bump(conn, deployment_id, counters.OUTSIDE, key, n)
    updates.leave_out(conn, deployment_id, [update.device_pk for update in leaving])
