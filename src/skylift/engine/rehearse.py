"""Rehearse a deployment: what the fleet did before, put to the planner, and told as numbers and sentences.

Reads only. `core.rehearsal` plays; here its model is gathered: when devices were last heard, how long past
updates took and how many failed, what devices run now. Where there is no such past it says so, and which
defaults stand in.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from skylift.core.course import Model
from skylift.core.errors import invalid
from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import FAILURES, DeploymentStatus
from skylift.core.rehearsal import Rehearsal, Spread, Trip, rehearse
from skylift.core.rollout import DeploymentConfig
from skylift.core.ways import MAX_RATIO, Way
from skylift.core.world import Gate, Phase, Tally, World
from skylift.engine import select
from skylift.engine.deployments import Count, Prepared, nobody, prepare
from skylift.engine.pace import Pace
from skylift.engine.serving import decision
from skylift.store import history, members, pieces, releases
from skylift.store.db import Connection
from skylift.store.pieces import Crowd

DEFECTS = (1.0, 5.0, 20.0)
MOST_DEFECTS = 10
LOST_AFTER = timedelta(days=30)  # not heard for so long: not expected back
# Download of some megabytes, writing, a reboot and health checks: what devices take that nobody has seen yet.
DEFAULT_RUN_S = (60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 420.0, 600.0)
REPORTS = 5  # of one update: downloading twice, installing, validating, its end
SEED = 1


@dataclass(frozen=True, slots=True)
class _Past:
    """What there was to learn from."""

    heard_s: list[float]
    lost: int
    run_s: list[float]
    deployments: list[str]
    failure_rate: float


def rehearsed(
    conn: Connection,
    body: Mapping[str, Any],
    pace: Pace,
    now: datetime,
    *,
    defects: Sequence[float] = (),
    seed: int = SEED,
    max_ratio: float = MAX_RATIO,
) -> dict[str, Any]:
    """What the deployment would come to, as JSON. Raises what `create` would raise, and for defects that are
    no percentages."""
    if len(defects) > MOST_DEFECTS:
        raise invalid("defect", len(defects), f"at most {MOST_DEFECTS}", code="too_many")
    for percent in defects:
        if not 0 < percent <= 100:
            raise invalid("defect", percent, "more than 0 and at most 100 percent", code="out_of_range")
    prepared = prepare(conn, body, salt=seed)
    config, release, count = prepared.config, prepared.release, prepared.count
    if not count.total:
        raise nobody(release, count, body)
    past = _past(conn, release, now)
    model = Model(
        heard_s=past.heard_s or [pace.idle_s * (n + 0.5) / 100 for n in range(100)],
        run_s=past.run_s or DEFAULT_RUN_S,
        failure_rate=past.failure_rate,
        lost_share=past.lost / max(1, past.lost + len(past.heard_s)) if past.heard_s else 0.0,
        asks_again_s=float(pace.waiting_s),
        max_parallel=config.max_parallel,
    )
    world = _world(config, release.version, count, now)
    played = rehearse(world, model, now=now, seed=seed, defects=tuple(defects) or DEFECTS)
    return {
        **_times(count, played),
        "bytes": _bytes(conn, prepared, max_ratio),
        "requests_per_s": _requests(history.active(conn), count, played, pace),
        "gate": [_trip(trip, world) for trip in played.trips],
        "runs": played.runs,
        "based_on": _based_on(past, model),
        "assumes": list(_assumes(past, config, world, model)),
    }


# --- gathering ---------------------------------------------------------------------------------------------


def _past(conn: Connection, release: Any, now: datetime) -> _Past:
    ages = [max(0.0, (now - at).total_seconds()) for at in history.contacts(conn)]
    heard = [age for age in ages if age < LOST_AFTER.total_seconds()]
    ids = history.past(conn, release.product, release.kind)
    # The middle one: a bad release that stopped itself says little about the next.
    rates = [
        sum(ends.get(state, 0) for state in FAILURES) / sum(ends.values())
        for ends in history.ends(conn, ids).values()
    ]
    return _Past(
        heard_s=heard,
        lost=len(ages) - len(heard),
        run_s=history.durations(conn, ids) if ids else [],
        deployments=ids,
        failure_rate=median(rates) if rates else 0.0,
    )


def _world(config: DeploymentConfig, version: str, count: Count, now: datetime) -> World:
    """The deployment as it would be a moment after its creation."""
    begins = max(now, config.starts_at or now)
    return World(
        deployment=DeploymentId("rehearsal"),
        version=version,
        generation=1,
        status=DeploymentStatus.SCHEDULED,
        phases=tuple(
            Phase(
                number=number,
                name=new.config.name or f"phase {number + 1}",
                tally=Tally(waiting=new.waiting),
                soak=new.config.soak,
                wait=new.config.wait,
                gate=new.config.gate,
            )
            for number, new in enumerate(count.phases)
        ),
        failure_rule=config.failure_rule,
        starts_at=config.starts_at,
        ends_at=begins + timedelta(minutes=config.lifetime_minutes),
    )


def _bytes(conn: Connection, prepared: Prepared, max_ratio: float) -> dict[str, Any]:
    """What would travel to whom, the way that each would get it now (`core.ways`), by what devices run;
    `full`: the same without deltas, packed where a device takes that."""
    release = prepared.release
    fulls = {row.device_type: row for row in releases.artifacts_of(conn, release.id) if row.kind == "full"}
    sent: Counter[tuple[str, str, Way, int]] = Counter()
    full = 0
    for crowd in _needing(conn, prepared, sorted(fulls)):
        image, base = fulls[crowd.device_type], crowd.image_sha256 if release.kind == "image" else None
        chosen = decision(conn, release.id, release.product, image, base, crowd.means, max_ratio)
        sent[crowd.device_type, crowd.version or "", chosen.cost.way, chosen.cost.bytes] += crowd.devices
        full += chosen.full.bytes * crowd.devices
    rows = [
        {"device_type": kind, "runs": runs or None, "devices": count, "by": way.value, "bytes_each": each}
        for (kind, runs, way, each), count in sorted(sent.items(), key=lambda row: (-row[1], row[0]))
    ]
    total = sum(each * count for (*_, each), count in sent.items())
    return {"total": total, "full": full, "from": rows[:20]}


def _needing(conn: Connection, prepared: Prepared, types: list[str]) -> list[Crowd]:
    """The targets, counted by what they run and give."""
    release = prepared.release
    scope = select.scope(conn, None, prepared.selector, set(prepared.listed))
    counted = pieces.crowds(conn, types, members.inside(conn, scope), release.kind)
    return [crowd for crowd in counted if crowd.version != release.version]


# --- telling -----------------------------------------------------------------------------------------------


def _times(count: Count, played: Rehearsal) -> dict[str, Any]:
    shown = count.view()
    for phase, times in zip(shown["phases"], played.phases, strict=True):
        phase["opens_s"] = _spread(times.opens_s)
        phase["through_s"] = _spread(times.through_s)
    shown["duration_s"] = _spread(played.duration_s)
    shown["completes_percent"] = round(100 * played.completes, 1)
    return shown


def _spread(found: Spread | None) -> dict[str, float] | None:
    return None if found is None else {"p50": round(found.p50, 1), "p90": round(found.p90, 1)}


def _requests(active: int, count: Count, played: Rehearsal, pace: Pace) -> dict[str, float]:
    """Polls of the fleet at rest; polls while the deployment waits for its devices, who ask more often; and
    reports in the busiest stretch. The peak is the last two together."""
    idle = active / pace.idle_s
    waiting = (active - count.total) / pace.idle_s + count.total / pace.waiting_s
    reports = played.ends_per_s * REPORTS
    found = {"at_rest": idle, "polls": waiting, "reports": reports, "peak": waiting + reports}
    return {name: round(value, 1) for name, value in found.items()}


def _trip(trip: Trip, world: World) -> dict[str, Any]:
    return {
        "defect_percent": trip.defect_percent,
        "stops_percent": round(100 * trip.trips, 1),
        "phase": None if trip.phase is None else world.phases[trip.phase].name,
        "after_s": _spread(trip.after_s),
        "offered": _spread(trip.offered),
        "hurt": _spread(trip.hurt),
    }


def _based_on(past: _Past, model: Model) -> dict[str, Any]:
    return {
        "contacts": len(past.heard_s) + past.lost,
        "updates": len(past.run_s),
        "deployments": past.deployments,
        "failure_rate_percent": round(100 * model.failure_rate, 2),
        "not_expected_back_percent": round(100 * model.lost_share, 2),
    }


def _assumes(past: _Past, config: DeploymentConfig, world: World, model: Model) -> Iterable[str]:
    """What stands in for a past that is not there, and what is left out."""
    if not past.heard_s:
        yield "no device was heard in the last 30 days: every device is taken to ask as often as it is told"
    if not past.run_s:
        shortest, longest = DEFAULT_RUN_S[0] / 60, DEFAULT_RUN_S[-1] / 60
        yield (
            "no update of this product has ended yet: one is taken to last "
            f"{shortest:g} to {longest:g} minutes, and no good one to fail"
        )
    if model.lost_share:
        yield (
            f"{100 * model.lost_share:.1f} % of the devices were not heard for 30 days: they are not "
            "expected to ask, and times are until every phase is through without them"
        )
    if any(phase.gate is Gate.MANUAL for phase in world.phases):
        yield "an operator promotes every manual phase as soon as the one before has soaked"
    if config.window is not None:
        yield "times count hours inside the maintenance window as if it were always open"
    yield "no doorbell: devices hear of the deployment at their polls, with it they come sooner"
