"""What a device says of its own health, and what counts as unhealthy: `is_unhealthy(said, bounds)`.

A device says `healthy` (its own verdict) and `metrics` (a few named numbers); a deployment may bound metrics.
One verdict per device comes of it, so that silence, crashes and a hot battery weigh alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from skylift.core.errors import invalid
from skylift.core.ids import check_name

MAX_METRICS = 8  # named by one device, or bounded by one deployment
MOST = 1e300  # of a bound, either way


@dataclass(frozen=True, slots=True)
class MetricBound:
    """A metric above `max` or below `min` is unhealthy; a metric a device does not report is not."""

    name: str
    max: float | None = None
    min: float | None = None

    def dump(self) -> dict[str, Any]:
        both = {"name": self.name, "max": self.max, "min": self.min}
        return {name: value for name, value in both.items() if value is not None}


def check_metrics(metrics: Mapping[str, float]) -> Mapping[str, float]:
    """`metrics`, if they are few, well named and finite."""
    if len(metrics) > MAX_METRICS:
        raise invalid("metrics", len(metrics), f"at most {MAX_METRICS}", code="too_many")
    for name, value in metrics.items():
        check_name("metrics", name)
        if not isfinite(value):
            raise invalid(f"metrics.{name}", value, "is not a finite number")
    return metrics


def is_unhealthy(healthy: bool | None, metrics: Mapping[str, float], limits: Sequence[MetricBound]) -> bool:
    """The device's own verdict, or a metric out of its bounds."""
    return healthy is False or any(
        (bound.max is not None and metrics[bound.name] > bound.max)
        or (bound.min is not None and metrics[bound.name] < bound.min)
        for bound in limits
        if bound.name in metrics
    )


def bounds(field: str, value: Any) -> tuple[MetricBound, ...]:
    """`[{"name", "max" and/or "min"}]` as an operator gave it, or `Rejected`."""
    if not isinstance(value, list | tuple):
        raise invalid(field, value, 'is not a list such as [{"name": "temperature", "max": 80}]')
    if len(value) > MAX_METRICS:
        raise invalid(field, len(value), f"at most {MAX_METRICS}", code="too_many")
    return tuple(_bound(f"{field}[{number}]", item) for number, item in enumerate(value))


def _bound(field: str, item: Any) -> MetricBound:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise invalid(field, item, "is not an object with a name")
    for name in item:
        if name not in ("name", "max", "min"):
            raise invalid(f"{field}.{name}", item[name], "is not a field of a bound", code="unknown_field")
    ends = {end: _end(f"{field}.{end}", item[end]) for end in ("max", "min") if item.get(end) is not None}
    if not ends:
        raise invalid(field, dict(item), "max or min is needed")
    return MetricBound(check_name(f"{field}.name", item["name"]), **ends)


def _end(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(field, value, "is not a number")
    if not abs(value) <= MOST:  # nor is NaN
        raise invalid(field, value, f"is not a number between -{MOST:g} and {MOST:g}")
    return float(value)
