"""The control group: who is compared with whom, and what comes of it."""

from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from skylift.engine.matching import CONTROLS, Matching
from skylift.store import devices, matches, tables

PHASES = [{"percent": 50, "min_minutes": 600}, {"percent": 100}]
STATISTICAL = {"gate": "statistical", "phases": PHASES, "lifetime_minutes": 5000}
POLL_S = 300
WATCH = {"seconds": 3 * POLL_S + 20}


class Watched:
    """A yard whose devices are heard of when a test says so."""

    def __init__(self, yard: Any) -> None:
        self.yard = yard
        self.matching = Matching(yard.database, POLL_S, Random(1))

    def heard(self, *names: str, **health: Any) -> None:
        """They ask something; with `health` they say how they are."""
        pks = [self.yard.device(name).pk for name in names]
        now = self.yard.clock()
        self.yard.write(lambda conn: devices.touch(conn, dict.fromkeys(pks, now)))
        if health:
            said = (now, health.get("healthy"), health.get("metrics", {}))
            self.yard.write(lambda conn: devices.note_health(conn, dict.fromkeys(pks, said)))

    def look(self, **forward: float) -> None:
        self.yard.clock.forward(**forward)
        self.matching(self.yard.clock())

    def rows(self, deployment: str) -> dict[int, set[str]]:
        """Per set (its updated device's key) the names of all its devices."""
        question = (
            sa.select(tables.matches.c.updated_pk, tables.devices.c.device_id)
            .join(tables.devices, tables.devices.c.pk == tables.matches.c.device_pk)
            .where(tables.matches.c.deployment_id == deployment)
        )
        found: dict[int, set[str]] = {}
        for updated, name in self.yard.read(lambda conn: conn.execute(question).all()):
            found.setdefault(updated, set()).add(name)
        return found

    def counted(self, deployment: str) -> tuple[int, int]:
        row = self.yard.row(deployment)
        assert self.yard.read(lambda conn: matches.count(conn, deployment)) == (
            row.sets_updated,
            row.sets_control,
        )
        return row.sets_updated, row.sets_control


@pytest.fixture
def watched(yard: Any) -> Watched:
    yard.release("1.0.0")
    yard.release("1.1.0")
    return Watched(yard)


def begun(watched: Watched, size: int = 40, **config: Any) -> tuple[str, list[str], list[str]]:
    """A deployment whose first half is complete and watched; (deployment, updated, the others)."""
    yard = watched.yard
    fleet = yard.fleet(size)
    watched.heard(*fleet)
    deployment = yard.running(**{**STATISTICAL, **config})
    updated = yard.checks(fleet, deployment)
    for name in updated:
        yard.end(name, deployment)
    watched.heard(*updated)
    watched.look(seconds=5)
    return deployment, updated, [name for name in fleet if name not in updated]


def test_beside_each_updated_device_stand_three_that_were_offered_nothing(watched: Watched) -> None:
    deployment, updated, others = begun(watched)
    sets = watched.rows(deployment)
    assert len(sets) == len(others) // CONTROLS
    members = [name for names in sets.values() for name in names]
    assert len(members) == len(set(members)), "a device takes part once"
    for names in sets.values():
        assert len(names & set(updated)) == 1
        assert len(names & set(others)) == CONTROLS
    watched.look(seconds=30)
    assert watched.rows(deployment) == sets  # again: nothing changes


def test_updated_devices_that_go_silent_stop_the_deployment(watched: Watched) -> None:
    deployment, updated, others = begun(watched, 120, expected_failure_percent=1)
    yard = watched.yard
    dead = set(updated[::2])
    watched.look(seconds=60)
    watched.heard(*[name for name in (*updated, *others) if name not in dead])
    watched.look(**WATCH)
    silent, control = watched.counted(deployment)
    assert silent >= 5
    assert control == 0
    yard.tick()
    assert yard.status(deployment) == "paused"
    assert yard.row(deployment).paused_by == "failure_threshold"
    assert (
        f"in {silent} of {silent} matched sets the device that went silent"
        in yard.row(deployment).status_reason
    )
    yard.must_hold()


def test_an_outage_silences_all_four_and_proves_nothing(watched: Watched) -> None:
    deployment, _, _ = begun(watched)
    watched.look(**WATCH)
    assert watched.counted(deployment) == (0, 0)
    watched.yard.tick()
    assert watched.yard.status(deployment) == "running"


def test_what_devices_say_of_themselves_counts_and_what_they_measure(watched: Watched) -> None:
    bounds = [{"name": "temperature", "max": 80}]
    deployment, updated, others = begun(watched, health_metrics=bounds)
    watched.look(seconds=60)
    sets = list(watched.rows(deployment).values())
    ill, hot, cool, none = ((names & set(updated)).pop() for names in sets[:4])
    watched.heard(*updated, *others)
    watched.heard(ill, healthy=False)
    watched.heard(hot, metrics={"temperature": 95.5})
    watched.heard(cool, healthy=True, metrics={"temperature": 40, "humidity": 1e6})
    watched.heard((sets[4] & set(others)).pop(), healthy=False)
    assert none
    watched.look(**WATCH)
    assert watched.counted(deployment) == (2, 1)


def test_a_word_from_before_the_watch_is_old_news(watched: Watched) -> None:
    yard = watched.yard
    fleet = yard.fleet(8)
    watched.heard(*fleet, healthy=False)
    deployment = yard.running(**STATISTICAL)
    for name in yard.checks(fleet, deployment):
        yard.end(name, deployment)
    watched.look(seconds=5)
    assert watched.rows(deployment)
    yard.clock.forward(seconds=60)
    watched.heard(*fleet)
    watched.look(**WATCH)
    assert watched.counted(deployment) == (0, 0)


def test_a_set_whose_control_was_offered_something_says_nothing(watched: Watched) -> None:
    deployment, updated, others = begun(watched)
    yard = watched.yard
    yard.promote(deployment)
    yard.tick()
    assert yard.checks(others, deployment) == others
    watched.heard(*others)  # and not one updated device
    watched.look(**WATCH)
    assert watched.counted(deployment) == (0, 0)
    assert updated


def test_a_fallback_is_a_failure_and_is_not_counted_twice(watched: Watched) -> None:
    deployment, updated, others = begun(watched)
    yard = watched.yard
    fell = (next(iter(watched.rows(deployment).values())) & set(updated)).pop()
    yard.report(fell, deployment, "rolled_back", reason="health_check_failed")
    yard.clock.forward(seconds=60)
    watched.heard(*(name for name in (*updated, *others) if name != fell))
    watched.look(**WATCH)
    assert watched.counted(deployment) == (0, 0)


def test_devices_long_silent_or_of_another_type_are_no_control(watched: Watched) -> None:
    yard = watched.yard
    fleet = yard.fleet(6)
    watched.heard(*fleet)
    yard.clock.forward(hours=2)
    strangers = [yard.enroll(f"x{n}", device_type="gateway-v1") for n in range(9)]
    watched.heard(*strangers)
    deployment = yard.running(**STATISTICAL)
    for name in yard.checks(fleet, deployment):
        yard.end(name, deployment)
    watched.look(seconds=5)
    assert watched.rows(deployment) == {}


def test_a_plain_threshold_watches_nobody(watched: Watched) -> None:
    deployment, _, _ = begun(watched, gate="threshold")
    assert watched.rows(deployment) == {}


def test_without_a_phase_that_waits_there_is_no_control_group(watched: Watched) -> None:
    deployment, _, _ = begun(watched, phases=[{"percent": 100}])
    assert watched.rows(deployment) == {}


def test_sets_of_a_cohort_that_was_left_out_are_taken_away(watched: Watched) -> None:
    deployment, updated, others = begun(watched, 120)
    yard = watched.yard
    yard.clock.forward(seconds=60)
    watched.heard(*others)
    watched.look(**WATCH)
    assert watched.counted(deployment)[0] >= 5
    yard.tick()
    assert yard.status(deployment) == "paused"
    for name in updated:
        yard.label(name, hw="rev-b")
    yard.resume(deployment, None, "label.hw=rev-b")
    assert watched.counted(deployment) == (0, 0)
    assert watched.rows(deployment) == {}
    yard.tick()
    assert yard.status(deployment) == "running"
    yard.must_hold()


def test_two_servers_begin_each_set_once(watched: Watched) -> None:
    deployment, _, _ = begun(watched)
    other = Matching(watched.yard.database, POLL_S, Random(2))
    before = watched.rows(deployment)
    other(watched.yard.clock())
    watched.look()
    assert watched.rows(deployment) == before


def test_the_statistical_gate_stops_a_deployment_and_says_why(yard: Any) -> None:
    yard.release("1.1.0")
    fleet = yard.fleet(60)
    deployment = yard.running(gate="statistical", failure_threshold_percent=30, all_at_once=True)
    ends = ["complete"] * 5 + ["failed"] * 3
    for name, end in zip(fleet, ends, strict=False):
        yard.end(name, deployment, end, "boot_failed" if end == "failed" else None)
        if yard.status(deployment) == "paused":
            break
    assert yard.status(deployment) == "paused"
    reason = yard.row(deployment).status_reason
    assert "failed or rolled back" in reason
    assert "1 % expected: by chance at most once in" in reason
    assert "top reason: boot_failed" in reason
    yard.resume(deployment, expect=40.0)
    yard.tick()
    assert yard.status(deployment) == "running"
    assert "40 % expected" in yard.row(deployment).notes[1]
    yard.must_hold()
