"""What an operator may ask for, and what is refused with field, value and rule."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.core.errors import Rejected
from skylift.core.rollout import DeploymentConfig, expand, parse
from skylift.core.window import Window

MINIMAL: dict[str, Any] = {"firmware_version": "2.4.0", "target_devices": "all"}


def ends(config: DeploymentConfig) -> list[float | None]:
    return [phase.percent for phase in expand(config)]


def test_the_users_seven_names_and_their_defaults() -> None:
    config = parse(MINIMAL)
    assert config.rollout_percentage == 100
    assert config.rollout_interval_minutes == 60
    assert config.failure_threshold_percent == 10
    assert config.mandatory is False
    assert config.target_groups == ()


def test_ten_percent_an_hour_makes_ten_phases_an_hour_apart() -> None:
    config = parse({**MINIMAL, "rollout_percentage": 10, "rollout_interval_minutes": 60})
    assert ends(config) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert all(phase.min_minutes == 60 for phase in expand(config))


def test_never_all_devices_at_once_by_default() -> None:
    assert ends(parse(MINIMAL)) == [10, 100]


def test_all_at_once_must_be_said_aloud() -> None:
    assert ends(parse({**MINIMAL, "all_at_once": True})) == [100]


@given(st.floats(0.01, 100) | st.integers(1, 100))
def test_phases_grow_and_end_at_the_whole_fleet(step: float) -> None:
    if 100 / step > 100:
        with pytest.raises(Rejected):
            parse({**MINIMAL, "rollout_percentage": step})
        return
    phases = [percent or 0 for percent in ends(parse({**MINIMAL, "rollout_percentage": step}))]
    assert phases == sorted(set(phases))
    assert phases[-1] == 100


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"failure_threshold_percent": 101}, "failure_threshold_percent"),
        ({"failure_threshold_percent": -1}, "failure_threshold_percent"),
        ({"failure_threshold_percent": "10"}, "failure_threshold_percent"),
        ({"failure_threshold_percent": float("nan")}, "failure_threshold_percent"),
        ({"failure_threshold_percent": 10**400}, "failure_threshold_percent"),
        ({"health_metrics": [{"name": "t", "max": 10**400}]}, "health_metrics[0].max"),
        ({"rollout_percentage": 0}, "rollout_percentage"),
        ({"rollout_percentage": True}, "rollout_percentage"),
        ({"mandatory": "yes"}, "mandatory"),
        ({"target_devices": "everything"}, "target_devices"),
        ({"target_devices": ["ok", "../etc"]}, "target_devices[1]"),
        ({"target_devices": []}, "target_devices"),
        ({"target_groups": ["g"]}, "target_groups"),
        ({"release": "rel_1"}, "release"),
        ({"speed": 3}, "speed"),
        ({"phases": [{"percent": 50}, {"percent": 40}, {"percent": 100}]}, "phases[1].percent"),
        ({"phases": [{"percent": 50}]}, "phases"),
        ({"phases": [{"percent": 50, "count": 3}]}, "phases[0]"),
        ({"phases": [{}]}, "phases[0]"),
        ({"phases": [{"percent": 100, "gate": "open"}]}, "phases[0].gate"),
        ({"phases": [{"percent": 100, "colour": 1}]}, "phases[0].colour"),
        ({"phases": "fast"}, "phases"),
        ({"all_at_once": True, "rollout_percentage": 10}, "all_at_once"),
        ({"starts_at": "tomorrow"}, "starts_at"),
        ({"starts_at": "2026-11-23T08:00:00"}, "starts_at"),
        ({"max_parallel": 0}, "max_parallel"),
        ({"window": {"start": "25:00", "end": "01:00"}}, "window.start"),
        ({"window": {"start": "01:00", "end": "01:00"}}, "window"),
        ({"failure_action": "panic"}, "failure_action"),
        ({"rollout_percentage": 0.5}, "phases"),
    ],
)
def test_bad_input_is_named_by_field_value_and_rule(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse({**MINIMAL, **change})
    assert caught.value.field == field
    assert caught.value.rule
    assert field.split("[")[0].split(".")[0] in str(caught.value)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(DeploymentConfig.__slots__)) | st.text(max_size=5), json))
def test_no_json_at_all_makes_anything_but_a_config_or_a_clear_refusal(body: dict[str, Any]) -> None:
    with suppress(Rejected):  # anything else it raises fails the test
        expand(parse(body))


def test_a_window_past_midnight_belongs_to_the_day_it_starts() -> None:
    window = Window.parse("window", {"start": "22:00", "end": "04:00", "days": ["mon"]})
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    assert window.open_at(monday.replace(hour=23))
    assert window.open_at(monday.replace(day=24, hour=3, minute=59))
    assert not window.open_at(monday.replace(day=24, hour=23))
    assert not window.open_at(monday.replace(hour=3))
    assert Window.parse("window", window.dump()) == window
