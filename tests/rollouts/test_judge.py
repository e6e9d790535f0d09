"""The judge of the kill benches must see what it is there to see: each wrong is made by hand and found."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from skylift.core.lifecycle import UpdateState
from skylift.testkit.fleet import Acknowledged, Fleet
from skylift.testkit.judge import History, Phases, devices_doubled, phases_wrong, reports_lost

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DEPLOYMENT = "dep_1"
PHASES = Phases(6, timedelta(seconds=1))


@pytest.fixture
def fleet() -> Fleet:
    return Fleet("http://nowhere.invalid", "claim", 1)


@pytest.fixture
def told() -> Any:
    """A flawless deployment: one device, in the first phase, complete; the other phases empty."""
    past = History(defaultdict(set), defaultdict(int), [], [], {})
    at = NOW
    for number in range(PHASES.number):
        tell_phase(past, "phase_opened", number, at)
        if number == 0:
            for state in ("pending", "downloading", "installing", "validating", "complete"):
                tell_update(past, state, number)
        tell_phase(past, "phase_through", number, at)
        at += PHASES.soak
    past.rows["sim-00000"] = SimpleNamespace(state="complete", attempt=1)
    return past


def tell_phase(past: Any, kind: str, number: int, at: datetime) -> None:
    past.phases.append((kind, number, at))
    past.story.append(("", kind, number))


def tell_update(past: Any, state: str, phase: int) -> None:
    past.reached["sim-00000"].add(state)
    past.entered["sim-00000", state] += 1
    past.story.append(("sim-00000", state, phase))


def acknowledge(fleet: Fleet, said: str, *, recorded: bool = True, state: str | None = None) -> None:
    stands = UpdateState(state or said)
    fleet.devices[0].reports.append(
        Acknowledged("sim-00000", DEPLOYMENT, 1, UpdateState(said), recorded, stands)
    )


def test_a_flawless_deployment_has_nothing_wrong(fleet: Fleet, told: Any) -> None:
    for state in ("downloading", "installing", "validating", "complete"):
        acknowledge(fleet, state)
    acknowledge(fleet, "downloading", recorded=False, state="complete")
    past = {DEPLOYMENT: told}
    assert reports_lost(fleet, past) == 0
    assert devices_doubled(fleet, past) == 0
    assert phases_wrong(told, PHASES) == 0


def test_a_lost_report_is_seen(fleet: Fleet, told: Any) -> None:
    acknowledge(fleet, "rolled_back")
    assert reports_lost(fleet, {DEPLOYMENT: told})


def test_a_row_behind_what_was_acknowledged_is_seen(fleet: Fleet, told: Any) -> None:
    acknowledge(fleet, "complete")
    told.rows["sim-00000"] = SimpleNamespace(state="installing", attempt=1)
    assert reports_lost(fleet, {DEPLOYMENT: told})


def test_a_device_moved_twice_or_retried_or_told_again_is_seen(fleet: Fleet, told: Any) -> None:
    told.entered["sim-00000", "complete"] += 1
    assert devices_doubled(fleet, {DEPLOYMENT: told}) == 1
    told.entered["sim-00000", "complete"] -= 1
    told.rows["sim-00000"] = SimpleNamespace(state="complete", attempt=2)
    assert devices_doubled(fleet, {DEPLOYMENT: told}) == 1
    told.rows["sim-00000"] = SimpleNamespace(state="complete", attempt=1)
    fleet.devices[0].offered_again_after_done = 1
    assert devices_doubled(fleet, {DEPLOYMENT: told}) == 1


def test_a_phase_before_its_time_is_seen(told: Any) -> None:
    kind, number, at = told.phases[2]
    told.phases[2] = (kind, number, at - timedelta(seconds=1))
    assert phases_wrong(told, PHASES)


def test_a_phase_that_opened_twice_is_seen(told: Any) -> None:
    tell_phase(told, "phase_opened", 1, NOW + timedelta(hours=1))
    assert phases_wrong(told, PHASES)


def test_an_offer_before_its_phase_and_a_phase_that_ended_too_soon_are_seen(told: Any) -> None:
    told.story.insert(0, ("sim-00000", "pending", 3))
    assert phases_wrong(told, PHASES)
    del told.story[0]
    told.story.remove(("sim-00000", "complete", 0))
    assert phases_wrong(told, PHASES)
