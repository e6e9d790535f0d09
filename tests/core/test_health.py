"""Health: one verdict of what a device says, and what operators may bound."""

from typing import Any

import pytest

from skylift.core.errors import Rejected
from skylift.core.health import MetricBound, check_metrics, is_unhealthy
from skylift.core.rollout import parse
from skylift.core.world import FailureGate

HOT = (MetricBound("temperature", max=80.0), MetricBound("battery", min=20.0))


@pytest.mark.parametrize(
    ("healthy", "metrics", "unhealthy"),
    [
        (None, {}, False),
        (True, {}, False),
        (False, {}, True),
        (None, {"temperature": 80.0}, False),
        (None, {"temperature": 80.1}, True),
        (True, {"temperature": 90.0}, True),  # what it thinks of itself is not the last word
        (None, {"battery": 19.9, "temperature": 10.0}, True),
        (None, {"battery": 20.0}, False),
        (None, {"humidity": 1e9}, False),
    ],
)
def test_one_verdict_of_what_a_device_says(
    healthy: bool | None, metrics: dict[str, float], unhealthy: bool
) -> None:
    assert is_unhealthy(healthy, metrics, HOT) is unhealthy


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("hot", "health_metrics is 'hot'"),
        ([{"max": 3}], "with a name"),
        ([{"name": "t"}], "max or min is needed"),
        ([{"name": "t", "max": "high"}], "health_metrics[0].max is 'high'"),
        ([{"name": "t", "max": float("nan")}], "health_metrics[0].max is nan"),
        ([{"name": "t", "max": True}], "health_metrics[0].max is True"),
        ([{"name": "a b", "max": 1}], "health_metrics[0].name is 'a b'"),
        ([{"name": "t", "max": 1, "mean": 2}], "health_metrics[0].mean is 2"),
        ([{"name": f"t{n}", "max": 1} for n in range(9)], "at most 8"),
    ],
)
def test_a_bound_that_is_none_is_refused_by_name(given: Any, names: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse({"release": "rel_1", "target_devices": "all", "gate": "statistical", "health_metrics": given})
    assert names in str(caught.value)


def test_metrics_are_few_and_finite() -> None:
    assert check_metrics({"temperature": 3.5}) == {"temperature": 3.5}
    for wrong in ({f"m{n}": 1.0 for n in range(9)}, {"t": float("inf")}, {"../t": 1.0}):
        with pytest.raises(Rejected):
            check_metrics(wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gate", "vibes"),
        ("gate", 1),
        ("false_alarm_rate", 0),
        ("false_alarm_rate", 0.6),
        ("expected_failure_percent", 0),
        ("expected_failure_percent", 51),
        ("expected_failure_percent", "1"),
    ],
)
def test_a_gate_out_of_range_names_field_value_and_rule(field: str, value: Any) -> None:
    with pytest.raises(Rejected) as caught:
        parse({"release": "rel_1", "target_devices": "all", field: value})
    assert str(caught.value).startswith(f"{field} is {value!r}: ")


def test_the_gate_is_a_threshold_unless_asked_for() -> None:
    config = parse({"release": "rel_1", "target_devices": "all"})
    assert config.failure_rule.gate is FailureGate.THRESHOLD
    asked = parse(
        {
            "release": "rel_1",
            "target_devices": "all",
            "gate": "statistical",
            "false_alarm_rate": 0.01,
            "expected_failure_percent": 0.2,
            "health_metrics": [{"name": "temperature", "max": 80}],
        }
    )
    rule = asked.failure_rule
    assert (rule.gate, rule.false_alarm_rate, rule.expected_percent) == (FailureGate.STATISTICAL, 0.01, 0.2)
    assert asked.health_metrics == (MetricBound("temperature", max=80.0),)


def test_bounds_without_the_gate_that_looks_at_them_are_a_contradiction() -> None:
    with pytest.raises(Rejected, match="only gate: statistical"):
        parse({"release": "r", "target_devices": "all", "health_metrics": [{"name": "t", "max": 1}]})
