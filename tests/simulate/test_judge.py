"""The judge must see what it is there to see: each wrong is made by hand and found."""

from datetime import UTC, datetime, timedelta

import pytest

from skylift.core.lifecycle import UpdateState
from skylift.testkit.judge import Story, clean, lost
from skylift.testkit.memory import Memory

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DEPLOYMENT = "dep_1"
SOAK = timedelta(seconds=1)
PHASES = 6
WALK = ("pending", "downloading", "installing", "validating", "complete")


@pytest.fixture
def memory() -> Memory:
    return Memory(3)


@pytest.fixture
def story() -> Story:
    return flawless()


def flawless(*, until: int = PHASES, walk: tuple[str, ...] = WALK, row: str = "complete") -> Story:
    """One device, in the first phase; the other phases are through after it. `until`: phases that opened."""
    told = Story(3, (SOAK,) * PHASES)
    for number in range(until):
        told.phase("phase_opened", number, NOW + number * SOAK)
        if number == 0:
            for state in walk:
                told.update(1, UpdateState(state), 0)
        told.phase("phase_through", number, NOW + number * SOAK)
    told.row(1, UpdateState(row), 1)
    return told


def acknowledge(memory: Memory, said: str, *, recorded: bool = True, state: str | None = None) -> None:
    memory.acknowledged(1, DEPLOYMENT, UpdateState(said), recorded=recorded, state=UpdateState(state or said))


def test_a_flawless_deployment_has_nothing_wrong(memory: Memory, story: Story) -> None:
    for state in WALK[1:]:
        acknowledge(memory, state)
    acknowledge(memory, "downloading", recorded=False, state="complete")
    assert lost(memory, DEPLOYMENT, story) == []
    assert story.doubled == set()
    assert story.phases_wrong(whole=True) == 0


def test_a_deployment_under_way_has_nothing_wrong_either(memory: Memory) -> None:
    story = flawless(until=2)
    assert story.phases_wrong(whole=False) == 0
    assert story.phases_wrong(whole=True), "complete with phases that never opened"


def test_a_lost_report_is_seen(memory: Memory, story: Story) -> None:
    acknowledge(memory, "rolled_back")
    assert lost(memory, DEPLOYMENT, story)


def test_a_row_behind_what_was_acknowledged_is_seen(memory: Memory) -> None:
    acknowledge(memory, "complete")
    assert lost(memory, DEPLOYMENT, flawless()) == []
    assert lost(memory, DEPLOYMENT, flawless(row="installing"))


def test_a_report_recorded_as_something_else_is_seen(memory: Memory) -> None:
    acknowledge(memory, "installing", state="complete")
    assert memory.past[DEPLOYMENT].odd


def test_a_device_moved_twice_or_retried_is_seen(story: Story) -> None:
    story.update(1, UpdateState.COMPLETE, 0)
    assert story.doubled == {1}
    again = flawless()
    again.row(1, UpdateState.COMPLETE, 2)
    assert again.doubled == {1}


def test_a_device_told_to_install_what_it_had_proved_is_seen(memory: Memory) -> None:
    assert not memory.offered(1, DEPLOYMENT)
    acknowledge(memory, "complete")
    assert memory.offered(1, DEPLOYMENT)
    assert memory.past[DEPLOYMENT].offered_again == {1}


def test_a_device_that_fell_back_after_it_had_completed_may_be_told_again(memory: Memory) -> None:
    acknowledge(memory, "complete")
    acknowledge(memory, "rolled_back")
    assert not memory.offered(1, DEPLOYMENT)


def test_a_phase_before_its_time_is_seen() -> None:
    told = Story(1, (SOAK, SOAK))
    told.phase("phase_opened", 0, NOW)
    told.phase("phase_through", 0, NOW)
    told.phase("phase_opened", 1, NOW + SOAK - timedelta(microseconds=1))
    assert told.phases_wrong(whole=False) == 1


def test_nobody_soaks_in_an_empty_phase() -> None:
    told = Story(1, (SOAK, SOAK))
    for kind, number in (("phase_opened", 0), ("phase_through", 0), ("phase_opened", 1)):
        told.phase(kind, number, NOW, size=number)
    assert told.phases_wrong(whole=False) == 0


def test_a_phase_that_opened_twice_is_seen(story: Story) -> None:
    story.phase("phase_opened", 1, NOW + timedelta(hours=1))
    assert story.phases_wrong(whole=True)
    assert story.phases_wrong(whole=False)


def test_an_offer_before_its_phase_is_seen(story: Story) -> None:
    early = Story(1, (SOAK,))
    early.update(0, UpdateState.PENDING, 0)
    assert early.phases_wrong(whole=False)


def test_a_phase_that_ended_with_a_device_on_its_way_is_seen() -> None:
    assert flawless(walk=WALK[:-1]).phases_wrong(whole=True)
    assert not flawless(walk=(*WALK[:-1], "failed")).phases_wrong(whole=True)


def test_every_wrong_makes_a_verdict_unclean() -> None:
    good = {"reports_lost": 0, "devices_doubled": 0, "phases_wrong": 0, "counters_equal": True, "refused": 0}
    assert clean(good)
    for name in ("reports_lost", "devices_doubled", "phases_wrong", "refused", "versions_wrong"):
        assert not clean({**good, name: 1})
    assert not clean({**good, "counters_equal": False})
