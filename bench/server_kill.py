"""kill -9, at random, a hundred times, during a deployment over five hundred devices: what is lost?

A real `skylift serve` on SQLite with a signed release; simulated devices that report through every stage and
remember each report the server acknowledged. At the end the devices' memory is laid beside the database and
its durable events. Nothing may be lost, nothing done twice, no phase opened before its time.

    python3 dev.py bench server-kill [--json] [--kills N] [--devices N] [--seed N]
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from skylift.core.lifecycle import FINAL, OPEN, UpdateState
from skylift.engine.checkin import recount
from skylift.store import deployments, devices, events, updates
from skylift.store.db import Connection, Database
from skylift.testkit.fleet import Fleet, Manner, Pace
from skylift.testkit.image import Behaviour, build
from skylift.testkit.stage import DEVICE_TYPE, Failed, Stage

SOAK_MINUTES = 0.02
PHASES = (1, 5, 15, 35, 65, 100)
UP_S = (0.1, 1.3)  # how long the server lives after it listens again
RELEASES = 3  # one deployment after the other, should the kills outlast the first
SERVER = {  # devices are always about to ask; deadlines outlast the bench: silence is not its subject
    "SKYLIFT_CHECK_INTERVAL_S": "3",
    "SKYLIFT_CHECK_INTERVAL_WAITING_S": "2",
    "SKYLIFT_CHECK_INTERVAL_BUSY_S": "1",
}
PATIENCE_S = 600.0
MANNERS = {Manner.WELL: 0.80, Manner.REPEATS: 0.12, Manner.LATE: 0.06, Manner.FALLS_BACK: 0.02}


@dataclass
class Bench:
    """What is being measured."""

    stage: Stage
    draw: Random
    kills: int
    deployments: list[str] = field(default_factory=list)
    restarts_s: list[float] = field(default_factory=list)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


async def run(bench: Bench, count: int, seed: int) -> Fleet:
    """The whole story; the fleet with its memory."""
    stage = bench.stage
    say("the server starts; ceremony, releases, enrollment")
    await asyncio.to_thread(prepare, stage)
    claim = stage.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", str(count))["claim"]
    fleet = Fleet(stage.facts["url"], claim, count, seed=seed, manners=MANNERS, pace=Pace(think=(0.3, 2.5)))
    await fleet.enroll()
    deploy(bench)
    working = asyncio.create_task(fleet.run())
    for number in range(bench.kills):
        await asyncio.sleep(bench.draw.uniform(*UP_S))
        await asyncio.to_thread(next_deployment, bench)
        await asyncio.to_thread(kill_and_restart, bench)
        if (number + 1) % 10 == 0:
            await asyncio.to_thread(tell, bench, number + 1)
    say("no more kills: the deployment goes on to its end")
    await asyncio.to_thread(stage.ended, bench.deployments[-1], PATIENCE_S)
    fleet.stop()
    await working
    return fleet


def prepare(stage: Stage) -> None:
    stage.settings.update(SERVER)
    stage.serve("--mqtt", "off")
    stage.ceremony()
    for number in range(1, RELEASES + 1):
        version = f"1.{number}.0"
        stage.release(build(stage.home / f"{version}.pyz", version, Behaviour.HEALTHY), version)


def deploy(bench: Bench) -> None:
    """The next version to everybody, in phases with short soaks."""
    body = {
        "firmware_version": f"1.{len(bench.deployments) + 1}.0",
        "target_devices": "all",
        "failure_threshold_percent": 50,
        "failure_min_devices": 20,
        "phases": [{"percent": end, "min_minutes": SOAK_MINUTES, "wait_minutes": 60} for end in PHASES],
    }
    bench.deployments.append(bench.stage.client.post("/api/deployments", body)["id"])


def next_deployment(bench: Bench) -> None:
    """Kills fall into a deployment, never beside one."""
    found = bench.stage.deployment(bench.deployments[-1])
    if found["status"] == "complete" and len(bench.deployments) < RELEASES:
        deploy(bench)
    elif found["status"] not in ("scheduled", "running"):
        raise Failed(f"the deployment is {found['status']}: {found['status_reason']}")


def kill_and_restart(bench: Bench) -> None:
    bench.stage.kill_server()
    started = time.monotonic()
    bench.stage.serve("--mqtt", "off")
    bench.restarts_s.append(time.monotonic() - started)


def tell(bench: Bench, number: int) -> None:
    found = bench.stage.deployment(bench.deployments[-1])
    opened = sum(phase["state"] != "closed" for phase in found["phases"])
    say(
        f"  {number:3} kills: deployment {len(bench.deployments)}, {opened} of {len(PHASES)} phases open, "
        f"{found['totals']['complete']} devices complete"
    )


# --- judging ------------------------------------------------------------------------------------------------


@dataclass
class History:
    """A deployment's durable events, and its rows, by device."""

    reached: dict[str, set[str]]  # device -> states it ever had
    entered: dict[tuple[str, str], int]  # (device, state) -> how often
    phases: list[tuple[str, int, Any]]  # (kind, phase, at), in their order
    story: list[tuple[str, str, int]]  # (device, state, phase) or ("", kind, phase), in their order
    rows: dict[str, Any]


def history(conn: Connection, deployment: str) -> History:
    rows: dict[str, Any] = {}
    while page := updates.page(conn, deployment, limit=500, after=max(rows, default=None)):
        rows |= {row.device_id: row for row in page}
    names = {row.device_pk: name for name, row in rows.items()}
    told = History(defaultdict(set), defaultdict(int), [], [], rows)
    after = 0
    while some := events.of_deployment(conn, deployment, after=after, limit=1000):
        after = some[-1].pk
        for event in some:
            _tell_event(told, names, event)
    return told


def _tell_event(told: History, names: dict[int, str], event: Any) -> None:
    if event.kind in ("phase_opened", "phase_through"):
        told.phases.append((event.kind, event.data["phase"], event.at))
        told.story.append(("", event.kind, event.data["phase"]))
    elif event.kind == "update":
        name, state = names[event.device_pk], event.data["state"]
        told.reached[name].add(state)
        told.entered[name, state] += 1
        told.story.append((name, state, event.data["phase"]))


def reports_lost(fleet: Fleet, told: dict[str, History]) -> int:
    """Acknowledged reports without their effect. A recorded one must be in the device's history; of one that
    was answered "known already" the state it was answered with must be there. And what the device said last
    is where its row stands."""
    lost = 0
    for device in fleet.devices:
        for report in device.reports:
            effect = report.said if report.recorded else report.state
            lost += effect.value not in told[report.deployment].reached[device.device_id]
        for deployment, furthest in _furthest(device).items():
            row = told[deployment].rows.get(device.device_id)
            lost += row is None or _rank(UpdateState(row.state)) < _rank(furthest)
    return lost


def _furthest(device: Any) -> dict[str, UpdateState]:
    found: dict[str, UpdateState] = {}
    for report in device.reports:
        known = found.get(report.deployment, UpdateState.PENDING)
        found[report.deployment] = max(known, report.state, key=_rank)
    return found


def _rank(state: UpdateState) -> int:
    return len(OPEN) if state in FINAL else OPEN.index(state)


def devices_doubled(fleet: Fleet, told: dict[str, History]) -> int:
    """Devices that were offered, moved or counted twice, or told to install what they had proved."""
    doubled = {device.device_id for device in fleet.devices if device.offered_again_after_done}
    for past in told.values():
        doubled |= {name for (name, _), times in past.entered.items() if times > 1}
        doubled |= {name for name, row in past.rows.items() if row.attempt > 1}
    return len(doubled)


def phases_wrong(told: History) -> int:
    """Phases opened twice, out of order, before the one before had ended and soaked, or whose devices were
    offered something earlier than that; and phases that ended with devices on their way."""
    wrong = 0
    expected = [(kind, n) for n in range(len(PHASES)) for kind in ("phase_opened", "phase_through")]
    wrong += [(kind, number) for kind, number, _ in told.phases] != expected
    through = {number: at for kind, number, at in told.phases if kind == "phase_through"}
    soak = timedelta(minutes=SOAK_MINUTES)
    for kind, number, at in told.phases:
        early = number - 1 not in through or at < through[number - 1] + soak
        wrong += kind == "phase_opened" and number > 0 and early
    opened: set[int] = set()
    on_their_way: dict[int, set[str]] = defaultdict(set)
    for name, what, phase in told.story:
        if what == "phase_opened":
            opened.add(phase)
        elif what == "phase_through":
            wrong += bool(on_their_way[phase])
        else:
            wrong += phase not in opened
            flying = on_their_way[phase]
            flying.discard(name) if UpdateState(what) in FINAL else flying.add(name)
    return wrong


def versions_wrong(conn: Connection, fleet: Fleet) -> int:
    """Devices that run something else than the server believes."""
    found = devices.by_ids(conn, [device.device_id for device in fleet.devices])
    return sum(found[device.device_id].current_version != device.version for device in fleet.devices)


def judge(bench: Bench, fleet: Fleet) -> dict[str, Any]:
    database = Database(f"sqlite:///{bench.stage.home / 'data' / 'skylift.db'}")
    try:
        with database.read() as conn:
            told = {deployment: history(conn, deployment) for deployment in bench.deployments}
            uneven = [deployment for deployment in bench.deployments if recount(conn, deployment)]
            statuses = [deployments.find(conn, deployment) for deployment in bench.deployments]
            mistaken = versions_wrong(conn, fleet)
    finally:
        database.close()
    complete = [row for row in statuses if row is not None and row.status == "complete"]
    return {
        "kills": bench.kills,
        "reports_lost": reports_lost(fleet, told),
        "devices_doubled": devices_doubled(fleet, told),
        "phases_wrong": sum(phases_wrong(past) for past in told.values()),
        "counters_equal": not uneven,
        "versions_wrong": mistaken,
        "refused": len(fleet.refused),
        "devices": len(fleet.devices),
        "deployments": len(bench.deployments),
        "deployments_complete": len(complete),
        "reports_acknowledged": sum(len(device.reports) for device in fleet.devices),
        "checks_answered": fleet.checks,
        "requests_unanswered": fleet.outages,
        "restart_s_median": round(sorted(bench.restarts_s)[len(bench.restarts_s) // 2], 2),
    }


def main() -> int:
    """0 only if nothing was lost, doubled or opened wrongly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the last line of stdout is one JSON object")
    given = parser.parse_args()
    started = time.monotonic()
    stage = Stage(Path(tempfile.mkdtemp(prefix="skylift-kill-")))
    bench = Bench(stage, Random(given.seed), given.kills)
    try:
        fleet = asyncio.run(run(bench, given.devices, given.seed))
        stage.kill_server()
        found = judge(bench, fleet) | {"seconds": round(time.monotonic() - started, 1)}
    except Failed as e:
        say(f"the bench failed: {e}\n{(stage.home / 'server.log').read_text(errors='replace')[-3000:]}")
        return 1
    finally:
        stage.close()
    for name, value in found.items():
        say(f"  {name:24} {value}")
    for sentence in fleet.refused[:5]:
        say(f"  refused: {sentence}")
    print(json.dumps(found) if given.json else "", flush=True)
    nothing = ("reports_lost", "devices_doubled", "phases_wrong", "versions_wrong", "refused")
    return int(any(found[name] for name in nothing) or not found["counters_equal"])


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
