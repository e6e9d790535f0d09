"""kill -9, at random, a hundred times, during a deployment over five hundred devices: what is lost?

A real `skylift serve` on SQLite, or several beside each other on one PostgreSQL, which is killed as any of
them is (`DURABLE`, as an operator runs it), with a signed release;
simulated devices that send each request to any of them, report through every stage and remember each report
that was acknowledged. At the end the devices' memory is laid beside the database and its durable events.
Nothing may be lost, nothing done twice, no phase opened before its time.

    python3 dev.py bench server-kill [--json] [--kills N] [--devices N] [--seed N]
    python3 dev.py bench server-kill --servers 3 --database postgresql --kills 300
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from random import Random
from typing import Any

from skylift.cli.exits import Leave
from skylift.testkit.behaviours import Behaviour
from skylift.testkit.fleet import Fleet, Pace
from skylift.testkit.identity import Identity
from skylift.testkit.image import build
from skylift.testkit.judge import clean, judge_fleet
from skylift.testkit.postgresql import DURABLE, Cluster
from skylift.testkit.server import Server, wait
from skylift.testkit.stage import DEVICE_TYPE, Failed, Stage

SOAK_MINUTES = 0.02
PHASES = (1, 5, 15, 35, 65, 100)
UP_S = (0.1, 1.3)  # how long the server lives after it listens again
SERVER = {  # devices are always about to ask; deadlines outlast the bench: silence is not its subject
    "SKYLIFT_CHECK_INTERVAL_S": "3",
    "SKYLIFT_CHECK_INTERVAL_WAITING_S": "2",
    "SKYLIFT_CHECK_INTERVAL_BUSY_S": "1",
}
PATIENCE_S = 600.0
THINK_S = (0.3, 2.5)
BEHAVIOURS = (
    Behaviour("well", 80, think_s=THINK_S),
    Behaviour("repeats", 12, think_s=THINK_S, repeats=2),
    Behaviour("late", 6, think_s=THINK_S, late=True),
    Behaviour("falls back", 2, think_s=THINK_S, ends={"rolled_back": 100}),
)


@dataclass
class Bench:
    """What is being measured."""

    stage: Stage
    draw: Random
    kills: int
    servers: int = 1
    cluster: Cluster | None = None
    until: float = inf  # by `time.monotonic`
    deployments: list[str] = field(default_factory=list)
    restarts_s: list[float] = field(default_factory=list)
    database_kills: int = 0
    phases: tuple[int, ...] = PHASES


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


async def run(bench: Bench, count: int, seed: int) -> Fleet:
    """The whole story; the fleet with its memory."""
    stage = bench.stage
    say("the server starts; ceremony, releases, enrollment")
    await asyncio.to_thread(prepare, bench)
    claim = stage.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", str(count))["claim"]
    fleet = Fleet(stage.urls, Identity(seed, count, BEHAVIOURS), pace=Pace(again_s=0.4, longest_check=3.0))
    await fleet.enroll(claim)
    deploy(bench)
    working = asyncio.create_task(fleet.run())
    for number in range(bench.kills):
        if time.monotonic() > bench.until:
            bench.kills = number
            break
        await asyncio.sleep(bench.draw.uniform(*UP_S))
        await asyncio.to_thread(next_deployment, bench)
        await asyncio.to_thread(kill_and_restart, bench)
        if (number + 1) % 10 == 0:
            await asyncio.to_thread(tell, bench, number + 1)
    say("no more kills: the deployment goes on to its end")
    await asyncio.to_thread(looked_up, bench)
    await asyncio.to_thread(stage.ended, bench.deployments[-1], PATIENCE_S)
    fleet.stop()
    await working
    return fleet


def prepare(bench: Bench) -> None:
    stage = bench.stage
    stage.settings.update(SERVER)
    stage.serve("--mqtt", "off", servers=bench.servers)
    stage.ceremony()


def deploy(bench: Bench) -> None:
    """The next version to everybody, in phases with short soaks."""
    stage, version = bench.stage, f"1.{len(bench.deployments) + 1}.0"
    stage.release(build(stage.home / f"{version}.pyz", version), version)
    body = {
        "firmware_version": version,
        "target_devices": "all",
        "failure_threshold_percent": 50,
        "failure_min_devices": 20,
        "phases": [{"percent": end, "min_minutes": SOAK_MINUTES, "wait_minutes": 60} for end in bench.phases],
    }
    bench.deployments.append(stage.client.post("/api/deployments", body)["id"])


def next_deployment(bench: Bench) -> None:
    """Kills fall into a deployment, never beside one: the next one, should they outlast it."""
    found = looked_up(bench)
    if found["status"] == "complete":
        deploy(bench)
    elif found["status"] not in ("scheduled", "running"):
        raise Failed(f"the deployment is {found['status']}: {found['status_reason']}")


def looked_up(bench: Bench) -> dict[str, Any]:
    """The deployment under way, once a server answers: behind a kill of the database none does."""

    def look() -> dict[str, Any] | None:
        try:
            return bench.stage.deployment(bench.deployments[-1])
        except Leave:
            return None

    found: dict[str, Any] = wait(look, "a server answers", PATIENCE_S)
    return found


def kill_and_restart(bench: Bench) -> None:
    """Any of them; the database is one."""
    process = bench.draw.choice([*bench.stage.servers, *([bench.cluster] if bench.cluster else [])])
    if isinstance(process, Cluster):
        process.crash()
        process.start()
        bench.database_kills += 1
        return
    restart(bench, process)


def restart(bench: Bench, server: Server) -> None:
    server.kill()
    started = time.monotonic()
    server.start()
    bench.restarts_s.append(time.monotonic() - started)


def tell(bench: Bench, number: int) -> None:
    found = looked_up(bench)
    opened = sum(phase["state"] != "closed" for phase in found["phases"])
    say(
        f"  {number:3} kills: deployment {len(bench.deployments)}, "
        f"{opened} of {len(bench.phases)} phases open, "
        f"{found['totals']['complete']} devices complete"
    )


def _percents(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def main() -> int:
    """0 only if nothing was lost, doubled or opened wrongly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=inf, help="no kill after so long")
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--phases", type=_percents, default=PHASES, help="percents, as 10,100")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the last line of stdout is one JSON object")
    given = parser.parse_args()
    if given.servers > 1 and given.database == "sqlite":
        parser.error(f"--servers is {given.servers}: several servers need --database postgresql")
    with ExitStack() as stack:
        stage = Stage(Path(tempfile.mkdtemp(prefix="skylift-kill-")))
        stack.callback(stage.close)
        url = f"sqlite:///{stage.home / 'data' / 'skylift.db'}"
        cluster = None
        if given.database == "postgresql":
            cluster = Cluster.make(**DURABLE)
            stack.callback(cluster.stop)
            url = cluster.url(cluster.fresh())
            stage.settings["SKYLIFT_DATABASE_URL"] = url
        return measure(given, stage, url, cluster)


def measure(given: argparse.Namespace, stage: Stage, url: str, cluster: Cluster | None) -> int:
    """The story, then the verdict."""
    started = time.monotonic()
    bench = Bench(stage, Random(given.seed), given.kills, given.servers, cluster, phases=given.phases)
    bench.until = started + given.minutes * 60
    try:
        fleet = asyncio.run(run(bench, given.devices, given.seed))
    except Failed as e:
        for server in stage.servers:
            say(f"{server.data.name}:\n{server.log.read_text(errors='replace')[-3000:]}")
        say(f"the bench failed: {e}")
        return 1
    for server in stage.servers:
        server.kill()
    restarts = sorted(bench.restarts_s) or [0.0]
    found: dict[str, Any] = {"database": given.database, "servers": given.servers, "kills": bench.kills}
    found["database_kills"] = bench.database_kills
    found |= judge_fleet(url, fleet)
    findings = found.pop("findings")
    found["restart_s_median"] = round(restarts[len(restarts) // 2], 2)
    found["seconds"] = round(time.monotonic() - started, 1)
    for name, value in found.items():
        say(f"  {name:24} {value}")
    for sentence in findings:
        say(f"  found: {sentence}")
    print(json.dumps(found) if given.json else "", flush=True)
    return 0 if clean(found) else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
