"""What an operator asks for: `DeploymentConfig`, and the phases it expands to.

The user's seven names are fixed: `firmware_version` (or `release`), `target_devices`, `target_groups`,
`rollout_percentage`, `rollout_interval_minutes`, `failure_threshold_percent`, `mandatory`. The rest is
ours. `rollout_percentage` is the size of a batch: 10 with an interval of 60 makes ten phases an hour
apart. Never all devices at once by default: 100 (its default) still begins with a canary of 10 %, unless
`all_at_once` is said aloud or `phases` are given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, Literal

from skylift.core.errors import invalid
from skylift.core.health import MetricBound, bounds
from skylift.core.ids import check_name, check_version
from skylift.core.window import Window
from skylift.core.world import FailureAction, FailureGate, FailureRule, Gate

CANARY_PERCENT = 10.0
MAX_PHASES = 100
MAX_IDS = 100_000
MAX_GROUPS = 100
MAX_MINUTES = 525_600.0  # a year
DEFAULT_WAIT_MINUTES = 30.0  # how long a phase waits for its devices to ask
DEFAULT_LIFETIME_MINUTES = 7 * 24 * 60.0


@dataclass(frozen=True, slots=True)
class PhaseConfig:
    """One step: `percent` of the targets, cumulative, or `count` devices of its own; `min_minutes` soaks
    after it, `wait_minutes` is how long it waits for devices that do not ask."""

    percent: float | None = None
    count: int | None = None
    min_minutes: float = 60.0
    wait_minutes: float = DEFAULT_WAIT_MINUTES
    gate: Gate = Gate.AUTO
    name: str = ""

    @property
    def soak(self) -> timedelta:
        return timedelta(minutes=self.min_minutes)

    @property
    def wait(self) -> timedelta:
        return timedelta(minutes=self.wait_minutes)


@dataclass(frozen=True, slots=True)
class DeploymentConfig:
    """This release to these devices, this way. Times are minutes, percentages 0 to 100."""

    release: str = ""
    firmware_version: str = ""
    product: str = ""
    target_devices: tuple[str, ...] | Literal["all"] = ()
    target_groups: tuple[str, ...] = ()
    rollout_percentage: float = 100.0
    rollout_interval_minutes: float = 60.0
    failure_threshold_percent: float = 10.0
    mandatory: bool = False
    failure_min_devices: int | None = None
    failure_action: FailureAction = FailureAction.PAUSE
    gate: FailureGate = FailureGate.THRESHOLD
    false_alarm_rate: float = 0.05
    expected_failure_percent: float = 1.0
    health_metrics: tuple[MetricBound, ...] = ()
    phases: tuple[PhaseConfig, ...] = ()
    all_at_once: bool = False
    max_parallel: int | None = None
    window: Window | None = None
    starts_at: datetime | None = None
    lifetime_minutes: float = DEFAULT_LIFETIME_MINUTES
    wait_minutes: float = DEFAULT_WAIT_MINUTES
    priority: int = 0
    draft: bool = False
    skip_above_floor: bool = False

    @property
    def failure_rule(self) -> FailureRule:
        return FailureRule(
            self.failure_threshold_percent,
            self.failure_min_devices,
            self.failure_action,
            self.gate,
            self.false_alarm_rate,
            self.expected_failure_percent,
        )


def expand(config: DeploymentConfig) -> tuple[PhaseConfig, ...]:
    """The phases of this deployment: percentages cumulative and ending at 100, or the counts as given."""
    if config.phases:
        return config.phases
    step, soak, wait = config.rollout_percentage, config.rollout_interval_minutes, config.wait_minutes
    if step < 100:
        last = -(-100 // step)
        ends = [min(100.0, step * (i + 1)) for i in range(int(last))]
    else:
        ends = [100.0] if config.all_at_once else [CANARY_PERCENT, 100.0]
    return tuple(PhaseConfig(percent=end, min_minutes=soak, wait_minutes=wait) for end in ends)


def parse(body: Mapping[str, Any]) -> DeploymentConfig:
    """A config from a JSON object.

    Raises `Rejected` naming field, value and rule: for unknown names, wrong types, numbers out of range,
    contradictory phases, nobody to deploy to.
    """
    known = {field.name for field in fields(DeploymentConfig)}
    for name in body:
        if name not in known:
            raise invalid(name, body[name], "is not a field of a deployment", code="unknown_field")
    config = DeploymentConfig(**{name: _FIELDS[name](name, value) for name, value in body.items()})
    _consistent(config)
    return config


def _consistent(config: DeploymentConfig) -> None:
    if bool(config.release) == bool(config.firmware_version):
        raise invalid("release", config.release, "exactly one of release and firmware_version is needed")
    if not config.target_devices and not config.target_groups:
        raise invalid("target_devices", [], 'name devices, groups, or "all"', code="no_targets")
    if config.target_devices == "all" and config.target_groups:
        raise invalid("target_groups", list(config.target_groups), '"all" devices leaves nothing to a group')
    if config.all_at_once and (config.phases or config.rollout_percentage < 100):
        raise invalid("all_at_once", True, "contradicts phases and rollout_percentage below 100")
    if config.health_metrics and config.gate is not FailureGate.STATISTICAL:
        raise invalid("health_metrics", len(config.health_metrics), "only gate: statistical looks at them")
    _check_phases(expand(config))


def _check_phases(phases: tuple[PhaseConfig, ...]) -> None:
    if len(phases) > MAX_PHASES:
        raise invalid("phases", len(phases), f"at most {MAX_PHASES} phases")
    previous = 0.0
    for number, phase in enumerate(phases):
        field = f"phases[{number}].percent"
        if (phase.percent is None) == (phase.count is None):
            raise invalid(f"phases[{number}]", "percent and count", "exactly one of the two is needed")
        if phase.percent is not None:
            if phase.percent <= previous:
                raise invalid(field, phase.percent, f"percentages are cumulative: more than {previous:g}")
            previous = phase.percent
    last = phases[-1]
    if last.percent is not None and last.percent != 100:
        raise invalid("phases", last.percent, "the last phase ends at 100 percent")


# --- one reader per field ---------------------------------------------------------------------------


def _number(low: float, high: float) -> Any:
    def read(field: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(field, value, "is not a number")
        if isinstance(value, float) and not isfinite(value):  # of an integer of 400 digits it cannot say
            raise invalid(field, value, "is not a number")
        if not low <= value <= high:
            raise invalid(field, value, f"between {low:g} and {high:g}", code="out_of_range")
        return float(value)

    return read


def _integer(low: int, high: int, *, optional: bool = False) -> Any:
    def read(field: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(field, value, "is not a whole number")
        if not low <= value <= high:
            raise invalid(field, value, f"between {low} and {high}", code="out_of_range")
        return value

    return read


def _boolean(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid(field, value, "is not true or false")
    return value


def _name(field: str, value: Any) -> str:
    return check_name(field, _text(field, value))


def _version(field: str, value: Any) -> str:
    return check_version(field, _text(field, value))


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(field, value, "is not a text")
    return value


def _phase_name(field: str, value: Any) -> str:
    text = _text(field, value)
    if len(text) > 64 or not text.isprintable():
        raise invalid(field, value, "at most 64 printable characters")
    return text


def _names(most: int) -> Any:
    def read(field: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise invalid(field, value, "is not a list of names")
        if len(value) > most:
            raise invalid(field, len(value), f"at most {most} names", code="too_many")
        return tuple(dict.fromkeys(_name(f"{field}[{i}]", item) for i, item in enumerate(value)))

    return read


def _devices(field: str, value: Any) -> tuple[str, ...] | Literal["all"]:
    names: tuple[str, ...] | Literal["all"] = "all" if value == "all" else _names(MAX_IDS)(field, value)
    return names


def _choice(choices: type[Gate] | type[FailureAction] | type[FailureGate]) -> Any:
    def read(field: str, value: Any) -> Any:
        allowed = [choice.value for choice in choices]
        if value not in allowed:
            raise invalid(field, value, f"one of {', '.join(allowed)}")
        return choices(value)

    return read


def _instant(field: str, value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise invalid(field, value, "an ISO 8601 time with its offset, such as 2026-11-23T08:00:00Z")
    return at


def _window(field: str, value: Any) -> Window | None:
    return None if value is None else Window.parse(field, value)


_PHASE_FIELDS: Mapping[str, Any] = {
    "percent": _number(0.000001, 100),
    "count": _integer(1, 100_000_000),
    "min_minutes": _number(0, MAX_MINUTES),
    "wait_minutes": _number(0, MAX_MINUTES),
    "gate": _choice(Gate),
    "name": _phase_name,
}


def _phases(field: str, value: Any) -> tuple[PhaseConfig, ...]:
    if not isinstance(value, list | tuple):
        raise invalid(field, value, "is not a list of phases")
    return tuple(_phase(f"{field}[{number}]", item) for number, item in enumerate(value))


def _phase(field: str, value: Any) -> PhaseConfig:
    if not isinstance(value, Mapping):
        raise invalid(field, value, "is not an object")
    for name in value:
        if name not in _PHASE_FIELDS:
            raise invalid(f"{field}.{name}", value[name], "is not a field of a phase", code="unknown_field")
    given = {name: item for name, item in value.items() if item is not None}
    return PhaseConfig(**{name: _PHASE_FIELDS[name](f"{field}.{name}", item) for name, item in given.items()})


_FIELDS: Mapping[str, Any] = {
    "release": _name,
    "firmware_version": _version,
    "product": _name,
    "target_devices": _devices,
    "target_groups": _names(MAX_GROUPS),
    "rollout_percentage": _number(0.01, 100),
    "rollout_interval_minutes": _number(0, MAX_MINUTES),
    "failure_threshold_percent": _number(0, 100),
    "mandatory": _boolean,
    "failure_min_devices": _integer(1, 100_000_000, optional=True),
    "failure_action": _choice(FailureAction),
    "gate": _choice(FailureGate),
    "false_alarm_rate": _number(0.000001, 0.5),
    "expected_failure_percent": _number(0.01, 50),
    "health_metrics": bounds,
    "phases": _phases,
    "all_at_once": _boolean,
    "max_parallel": _integer(1, 100_000_000, optional=True),
    "window": _window,
    "starts_at": _instant,
    "lifetime_minutes": _number(0.01, MAX_MINUTES),
    "wait_minutes": _number(0, MAX_MINUTES),
    "priority": _integer(-1000, 1000),
    "draft": _boolean,
    "skip_above_floor": _boolean,
}
