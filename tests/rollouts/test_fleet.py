"""Simulated devices of every manner against a real server process, over HTTP."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skylift.core.lifecycle import UpdateState
from skylift.testkit.fleet import Fleet, Manner, Pace
from skylift.testkit.image import build
from skylift.testkit.stage import DEVICE_TYPE, Stage, wait

pytestmark = pytest.mark.slow
GOOD = (Manner.WELL, Manner.REPEATS, Manner.LATE)
BAD = (Manner.FAILS, Manner.FALLS_BACK)
MANNERS = {
    Manner.WELL: 3,
    Manner.REPEATS: 2,
    Manner.LATE: 2,
    Manner.FAILS: 2,
    Manner.FALLS_BACK: 2,
    Manner.SILENT: 2,
}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "stage")
    made.home.mkdir()
    pace = {"CHECK_INTERVAL_S": "1", "CHECK_INTERVAL_WAITING_S": "1", "CHECK_INTERVAL_BUSY_S": "1"}
    made.settings.update({f"SKYLIFT_{name}": value for name, value in pace.items()})
    made.settings["SKYLIFT_PENDING_DEADLINE_S"] = "10"
    try:
        made.serve("--mqtt", "off")
        made.ceremony()
        made.release(build(made.home / "1.1.0.pyz", "1.1.0"), "1.1.0")
        yield made
    finally:
        made.close()


def deploy(stage: Stage, fleet: Fleet, manners: tuple[Manner, ...], **config: Any) -> str:
    ids = [device.device_id for device in fleet.devices if device.manner in manners]
    body = {"firmware_version": "1.1.0", "target_devices": ids, "all_at_once": True, **config}
    made: str = stage.client.post("/api/deployments", body)["id"]
    return made


def test_every_manner_comes_to_the_end_it_should(stage: Stage) -> None:
    claim = stage.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", "30")["claim"]
    pace = Pace(think=(0.01, 0.1), longest_check=0.5)
    fleet = Fleet(stage.facts["url"], claim, 30, seed=7, manners=MANNERS, pace=pace)

    async def story() -> dict[str, Any]:
        await fleet.enroll()
        good = deploy(stage, fleet, GOOD)
        bad = deploy(stage, fleet, BAD, failure_threshold_percent=100)
        silent = deploy(stage, fleet, (Manner.SILENT,), failure_threshold_percent=0)
        working = asyncio.create_task(fleet.run())
        ends = {
            "good": await asyncio.to_thread(stage.ended, good),
            "bad": await asyncio.to_thread(stage.ended, bad),
            "silent": await asyncio.to_thread(stage.ended, silent),
        }
        fleet.stop()
        await working
        return ends

    ends = asyncio.run(story())
    assert fleet.refused == []
    assert (ends["good"]["status"], ends["bad"]["status"]) == ("complete", "complete")
    assert ends["good"]["totals"]["complete"] == ends["good"]["devices"]
    counted = {manner: sum(device.manner is manner for device in fleet.devices) for manner in Manner}
    assert ends["bad"]["totals"]["failed"] == counted[Manner.FAILS]
    assert ends["bad"]["totals"]["rolled_back"] == counted[Manner.FALLS_BACK]
    assert ends["silent"]["status"] == "paused"
    assert "timeout" in ends["silent"]["status_reason"]
    said = [report for device in fleet.devices for report in device.reports]
    assert any(not report.recorded for report in said), "networks repeat themselves"
    assert all(report.recorded or report.state is not UpdateState.PENDING for report in said)
    assert not any(device.offered_again_after_done for device in fleet.devices)


def test_a_fleet_does_not_notice_that_the_server_was_killed(stage: Stage) -> None:
    claim = stage.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", "20")["claim"]
    fleet = Fleet(stage.facts["url"], claim, 20, seed=3, pace=Pace(think=(0.05, 0.4), longest_check=0.5))

    async def story() -> dict[str, Any]:
        await fleet.enroll()
        deployment = deploy(stage, fleet, (Manner.WELL,), failure_threshold_percent=100)
        working = asyncio.create_task(fleet.run())
        for _ in range(2):
            before = fleet.checks
            await asyncio.to_thread(wait, lambda n=before: fleet.checks > n + 20, "devices ask")
            await asyncio.to_thread(stage.kill_server)
            await asyncio.to_thread(stage.serve, "--mqtt", "off")
        found: dict[str, Any] = await asyncio.to_thread(stage.ended, deployment)
        fleet.stop()
        await working
        return found

    found = asyncio.run(story())
    assert found["totals"]["complete"] + found["totals"]["failed"] == 20
    assert fleet.outages > 0
    assert fleet.refused == []
