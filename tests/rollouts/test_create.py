"""Creating a deployment: who it would touch, what it writes, and what it refuses."""

from typing import Any

import pytest
import sqlalchemy as sa

from skylift.core.bucket import place
from skylift.core.errors import Rejected
from skylift.engine import deployments
from skylift.store import tables


def per_phase(yard: Any, **body: Any) -> list[int]:
    config = {"firmware_version": "1.1.0", "target_devices": "all", **body}
    counted = yard.read(lambda conn: deployments.preview(conn, config))
    return [phase["devices"] for phase in counted["phases"]]


def test_percentages_are_exact_shares_of_the_fleet_rounded_up(yard: Any) -> None:
    yard.fleet(24)
    yard.release("1.1.0")
    ends = [{"percent": end} for end in (10, 40, 100)]
    assert per_phase(yard, phases=ends) == [3, 7, 14]
    assert per_phase(yard, rollout_percentage=33) == [8, 8, 8, 0]
    assert per_phase(yard) == [3, 21]


def test_counts_hold_that_many_and_nobody_beyond_them(yard: Any) -> None:
    fleet = yard.fleet(20)
    yard.release("1.1.0")
    assert per_phase(yard, phases=[{"count": 2}, {"count": 5}]) == [2, 5]
    assert per_phase(yard, phases=[{"count": 2}, {"percent": 100}]) == [2, 18]
    assert per_phase(yard, phases=[{"count": 15}, {"count": 15}]) == [15, 5]
    deployment = yard.running(phases=[{"count": 2, "min_minutes": 0}, {"count": 5}])
    for name in yard.checks(fleet, deployment):
        yard.finish(name, deployment)
    yard.tick()
    rest = yard.checks(fleet, deployment)
    assert len(rest) == 5
    for name in rest:
        yard.finish(name, deployment)
    yard.carry_recounts()
    yard.tick()
    assert yard.status(deployment) == "complete"
    assert sorted(yard.runs.values()).count("1.0.0") == 13


def test_whoever_joins_a_phase_of_a_number_of_devices_later_does_not_make_it_larger(yard: Any) -> None:
    fleet = yard.fleet(20)
    yard.release("1.1.0")
    deployment = yard.running(phases=[{"count": 4, "min_minutes": 0}, {"count": 3}])
    late = yard.fleet(40, prefix="late")
    assert yard.world(deployment).phases[0].tally.waiting == 4
    begun = yard.checks([*late, *fleet], deployment)
    assert len(begun) == 4
    assert set(begun) & set(late), "a place is a place, whoever comes first"
    assert yard.world(deployment).phases[0].tally.waiting == 0
    for name in begun:
        yard.finish(name, deployment)
    yard.tick()
    assert len(yard.checks([*fleet, *late], deployment)) == 3
    yard.carry_recounts()
    assert [phase.tally.size for phase in yard.world(deployment).phases] == [4, 3]


def test_a_dry_run_counts_and_writes_nothing(yard: Any) -> None:
    yard.fleet(5)
    yard.enroll("other", device_type="camera")
    yard.enroll("there", "1.1.0")
    yard.release("1.1.0")
    before = yard.everything()
    config = {"firmware_version": "1.1.0", "target_devices": "all"}
    counted = yard.read(lambda conn: deployments.preview(conn, config))
    assert counted["devices"] == 5
    assert counted["skipped"] == 2
    assert yard.everything() == before


def test_creating_writes_a_row_per_phase_and_none_per_device(yard: Any) -> None:
    yard.fleet(50)
    yard.release("1.1.0")
    before = yard.everything()
    deployment = yard.create(rollout_percentage=20)
    after = yard.everything()
    grown = {name: len(after[name]) - len(before[name]) for name in after}
    assert {name: n for name, n in grown.items() if n} == {
        "deployments": 1,
        "phases": 5,
        "events": 1,
        "audit": 1,
        "outbox": 1,
    }
    assert sum(phase.tally.waiting for phase in yard.world(deployment).phases) == 50


def test_ids_given_by_the_operator_are_the_whole_target(yard: Any) -> None:
    fleet = yard.fleet(6)
    yard.release("1.1.0")
    deployment = yard.running(target_devices=fleet[:2], all_at_once=True)
    assert yard.checks(fleet, deployment) == fleet[:2]


def test_ids_and_groups_together_are_everybody_in_either(yard: Any) -> None:
    fleet = yard.fleet(6)
    yard.release("1.1.0")
    yard.group("lab", members=(fleet[2],))
    config = {"target_devices": fleet[:2], "target_groups": ["lab"], "all_at_once": True}
    body = {"firmware_version": "1.1.0", **config}
    deployment = yard.write(lambda conn: deployments.create(conn, body, "ada", yard.clock()))
    yard.tick()
    assert yard.checks(fleet, deployment) == fleet[:3]


def test_a_device_keeps_its_place_when_the_fleet_grows(yard: Any) -> None:
    fleet = yard.fleet(10)
    yard.release("1.1.0")
    deployment = yard.running(phases=[{"percent": 50}, {"percent": 100}])
    canaries = yard.checks(fleet, deployment)
    yard.fleet(50, prefix="new")
    yard.carry_recounts()
    salt, upto = yard.row(deployment).salt, first_end(yard, deployment)
    assert canaries == [name for name in fleet if place(yard.device(name).h, salt) <= upto]
    assert yard.checks(fleet, deployment) == canaries


def first_end(yard: Any, deployment: str) -> int:
    question = sa.select(tables.phases.c.upto).where(
        tables.phases.c.deployment_id == deployment, tables.phases.c.number == 0
    )
    return int(yard.read(lambda conn: conn.execute(question).scalar_one()))


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"target_groups": ["nobody-knows"]}, "unknown_group", "target_groups[0]"),
        ({"target_devices": ["d000", "ghost"]}, "unknown_device", "target_devices[1]"),
        ({"firmware_version": "9.9.9"}, "unknown_release", "firmware_version"),
        ({"firmware_version": "half-signed"}, "release_not_signed", "firmware_version"),
        ({"firmware_version": "twice"}, "invalid_value", "product"),
        ({"target_devices": ["there"]}, "no_devices", "target_devices"),
        ({"failure_threshold_percent": 101}, "out_of_range", "failure_threshold_percent"),
    ],
)
def test_a_refusal_names_field_value_and_rule_and_writes_nothing(
    yard: Any, body: dict[str, Any], code: str, field: str
) -> None:
    yard.fleet(2)
    yard.enroll("there", "1.1.0")
    yard.release("1.1.0")
    yard.release("half-signed", status="signing")
    yard.release("twice")
    yard.release("twice", product="other")
    before = yard.everything()
    with pytest.raises(Rejected) as caught:
        yard.create(**body)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.rule
    assert yard.everything() == before
