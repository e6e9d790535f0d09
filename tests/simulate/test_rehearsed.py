"""What a rehearsal says against what then happens: simulated devices on a real server process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from skylift.testkit.behaviours import Behaviour
from skylift.testkit.fleet import Fleet, Pace
from skylift.testkit.identity import Identity
from skylift.testkit.image import build
from skylift.testkit.stage import DEVICE_TYPE, Stage, wait

pytestmark = pytest.mark.slow
DEVICES = 100
WITHIN = 2.0  # the factor that is promised
SLACK_S = 4.0  # seconds scale: a loop that looks once a second, contacts written every five
INTERVALS = {"CHECK_INTERVAL_S": "4", "CHECK_INTERVAL_WAITING_S": "2", "CHECK_INTERVAL_BUSY_S": "1"}
PHASES = [{"percent": end, "min_minutes": 0.05, "wait_minutes": 1} for end in (20, 100)]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "stage")
    made.home.mkdir()
    made.settings.update({f"SKYLIFT_{name}": value for name, value in INTERVALS.items()})
    try:
        made.serve("--mqtt", "off")
        made.ceremony()
        for version in ("1.1.0", "1.2.0"):
            made.publish(build(made.home / f"{version}.pyz", version, size=20 << 10), version)
        yield made
    finally:
        made.close()


@asynccontextmanager
async def living(stage: Stage, behaviour: Behaviour) -> AsyncIterator[Fleet]:
    """A fleet that asks and works for as long as the block lasts."""
    uses = ("--uses", str(DEVICES))
    made = await asyncio.to_thread(stage.skylift, "device", "enroll", "--type", DEVICE_TYPE, *uses)
    fleet = Fleet(stage.facts["url"], Identity(9, DEVICES, (behaviour,)), pace=Pace(longest_check=4.0))
    assert await fleet.enroll(made["claim"]) == DEVICES
    working = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        fleet.stop()
        await working


async def deployed(stage: Stage, fleet: Fleet, version: str, threshold: float) -> dict[str, Any]:
    """The deployment at its end, with nobody on their way any more."""
    body = plan(version, threshold)
    made = await asyncio.to_thread(stage.client.post, "/api/deployments", body)
    await asyncio.to_thread(stage.ended, made["id"], 300.0)
    await asyncio.to_thread(wait, lambda: not fleet.flights, "nobody is on their way", 60.0)
    return stage.deployment(made["id"])


def plan(version: str, threshold: float) -> dict[str, Any]:
    return {
        "firmware_version": version,
        "target_devices": "all",
        "failure_threshold_percent": threshold,
        "phases": PHASES,
    }


def through_s(found: dict[str, Any], phase: int) -> float:
    """Seconds from the deployment's creation until the phase was through."""
    finished = datetime.fromisoformat(found["phases"][phase]["finished_at"])
    return (finished - datetime.fromisoformat(found["created_at"])).total_seconds()


def test_a_good_release_takes_as_long_as_the_rehearsal_says(stage: Stage) -> None:
    async def story() -> tuple[dict[str, Any], dict[str, Any]]:
        async with living(stage, Behaviour("well", think_s=(0.3, 1.2))) as fleet:
            assert (await deployed(stage, fleet, "1.1.0", 10))["status"] == "complete"
            said = await asyncio.to_thread(
                stage.client.post, "/api/deployments", plan("1.2.0", 10), rehearse="true"
            )
            return said, await deployed(stage, fleet, "1.2.0", 10)

    said, happened = asyncio.run(story())
    assert happened["status"] == "complete"
    assert said["based_on"]["updates"] == DEVICES
    assert said["based_on"]["contacts"] > DEVICES / 2
    assert said["completes_percent"] == 100
    assert said["devices"] == happened["devices"] == DEVICES
    for number in range(len(PHASES)):
        foretold, took = said["phases"][number]["through_s"]["p50"], through_s(happened, number)
        assert foretold <= took * WITHIN + SLACK_S
        assert took <= foretold * WITHIN + SLACK_S
    assert said["bytes"]["total"] <= said["bytes"]["full"]
    assert stage.client.get("/api/deployments")["items"][0]["id"] == happened["id"], (
        "rehearsing creates nothing"
    )


def test_a_bad_release_stops_where_the_rehearsal_says_and_hurts_as_many(stage: Stage) -> None:
    async def story() -> tuple[dict[str, Any], dict[str, Any]]:
        sick = Behaviour("sick", think_s=(0.3, 1.2), ends={"rolled_back": 40.0})
        async with living(stage, sick) as fleet:
            assert (await deployed(stage, fleet, "1.1.0", 100))["status"] == "complete"
            said = await asyncio.to_thread(
                stage.client.post, "/api/deployments", plan("1.2.0", 15), rehearse="true", defect="0.001"
            )
            return said, await deployed(stage, fleet, "1.2.0", 15)

    said, happened = asyncio.run(story())
    assert happened["paused_by"] == "failure_threshold"
    assert 25 < said["based_on"]["failure_rate_percent"] < 55
    assert said["completes_percent"] == 0
    (trip,) = said["gate"]
    assert trip["stops_percent"] == 100
    opened = [phase["name"] for phase in happened["phases"] if phase["state"] != "closed"]
    assert trip["phase"] == opened[-1]
    hurt = happened["totals"]["rolled_back"]
    assert trip["hurt"]["p50"] <= hurt * WITHIN + 3
    assert hurt <= trip["hurt"]["p90"] * WITHIN + 3
