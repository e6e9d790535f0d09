"""Simulated devices of every behaviour against a real server process, over HTTP."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skylift.testkit.behaviours import Behaviour
from skylift.testkit.fleet import Fleet, Pace
from skylift.testkit.identity import Identity
from skylift.testkit.image import build
from skylift.testkit.stage import DEVICE_TYPE, Stage, wait

pytestmark = pytest.mark.slow
THINK_S = (0.01, 0.1)
GOOD = (
    Behaviour("well", 15, think_s=THINK_S),
    Behaviour("repeats", 12, think_s=THINK_S, repeats=2),
    Behaviour("late", 12, think_s=THINK_S, late=True),
    Behaviour("flaky", 12, think_s=THINK_S, loss_percent=30),
    Behaviour("clock", 9, think_s=THINK_S, clock_offset_s=-1e8),
)
FAILS = Behaviour("fails", 12, think_s=THINK_S, ends={"failed": 100})
FALLS_BACK = Behaviour("falls back", 10, think_s=THINK_S, ends={"rolled_back": 100})
WITHDRAWS = Behaviour("withdraws", 8, think_s=THINK_S, withdraws=True)
SILENT = Behaviour("silent", 10, think_s=THINK_S, ends={"silent": 100})
BEHAVIOURS = (*GOOD, FAILS, FALLS_BACK, WITHDRAWS, SILENT)


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
        made.publish(build(made.home / "1.1.0.pyz", "1.1.0"), "1.1.0")
        yield made
    finally:
        made.close()


def deploy(stage: Stage, identity: Identity, behaviours: tuple[Behaviour, ...], **config: Any) -> str:
    ids = identity.named(*(behaviour.name for behaviour in behaviours))
    body = {"firmware_version": "1.1.0", "target_devices": ids, "all_at_once": True, **config}
    made: str = stage.client.post("/api/deployments", body)["id"]
    return made


def test_every_behaviour_comes_to_the_end_it_should(stage: Stage) -> None:
    claim = stage.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", "60")["claim"]
    identity = Identity(7, 60, BEHAVIOURS)
    fleet = Fleet(stage.facts["url"], identity, pace=Pace(again_s=0.1, longest_check=0.5))

    async def story() -> dict[str, Any]:
        assert await fleet.enroll(claim) == 60
        good = deploy(stage, identity, GOOD)
        bad = deploy(stage, identity, (FAILS, FALLS_BACK, WITHDRAWS), failure_threshold_percent=100)
        silent = deploy(stage, identity, (SILENT,), failure_threshold_percent=0)
        working = asyncio.create_task(fleet.run())
        ends = {
            "good": await asyncio.to_thread(stage.ended, good),
            "bad": await asyncio.to_thread(stage.ended, bad),
            "silent": await asyncio.to_thread(stage.ended, silent),
        }
        withdrawn = len(identity.named("falls back", "withdraws"))
        look = lambda: stage.deployment(bad)["totals"]["rolled_back"] == withdrawn  # noqa: E731
        await asyncio.to_thread(wait, look, "withdrawn successes are rolled back")
        ends["bad"] = stage.deployment(bad)
        fleet.stop()
        await working
        return ends

    ends = asyncio.run(story())
    assert fleet.refused == []
    assert fleet.met == {behaviour.name for behaviour in BEHAVIOURS}
    assert (ends["good"]["status"], ends["bad"]["status"]) == ("complete", "complete")
    assert ends["good"]["totals"]["complete"] == ends["good"]["devices"]
    assert ends["bad"]["totals"]["failed"] == len(identity.named("fails"))
    assert ends["silent"]["status"] == "paused"
    assert "timeout" in ends["silent"]["status_reason"]
    assert fleet.silent == len(identity.named("silent"))
    assert fleet.lost_on_purpose > 0
    assert any(past.known_already for past in fleet.memory.past.values()), "networks repeat themselves"
    assert not any(past.offered_again or past.odd for past in fleet.memory.past.values())


def test_a_whole_tenant_at_the_door_at_once_is_served_and_counted_right(stage: Stage) -> None:
    """As many connections as devices: they enroll in one burst, take their offers in one, report in one."""
    count = 300
    claim = stage.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", str(count))["claim"]
    identity = Identity(11, count, (Behaviour("well", think_s=(0.0, 0.01), repeats=2),))
    pace = Pace(again_s=0.1, longest_check=0.1)
    fleet = Fleet(stage.facts["url"], identity, pace=pace, connections=count)

    async def story() -> dict[str, Any]:
        assert await fleet.enroll(claim) == count
        deployment = deploy(stage, identity, identity.behaviours)
        working = asyncio.create_task(fleet.run())
        found: dict[str, Any] = await asyncio.to_thread(stage.ended, deployment)
        fleet.stop()
        await working
        return found

    found = asyncio.run(story())
    assert (found["status"], found["totals"]["complete"]) == ("complete", count)
    assert (fleet.refused, fleet.outages) == ([], 0)
    assert not any(past.offered_again or past.odd for past in fleet.memory.past.values())
    audit = stage.client.get(f"/api/deployments/{found['id']}/audit")
    assert (audit["equal"], audit["updates"]) == (True, count), audit["findings"]


def test_a_fleet_does_not_notice_that_the_server_was_killed(stage: Stage) -> None:
    claim = stage.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", "20")["claim"]
    identity = Identity(3, 20, (Behaviour("well", think_s=(0.05, 0.4)),))
    fleet = Fleet(stage.facts["url"], identity, pace=Pace(again_s=0.1, longest_check=0.5))

    async def story() -> dict[str, Any]:
        await fleet.enroll(claim)
        deployment = deploy(stage, identity, identity.behaviours, failure_threshold_percent=100)
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
