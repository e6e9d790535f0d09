"""How simulated devices behave, as data: a table of behaviours with shares, from JSON, YAML or TOML.

A behaviour says what a device's network, clock and image do; never what the server should make of it. Times
are those of real life (seconds, hours); a simulation divides them by its speed.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from skylift.core.errors import invalid
from skylift.core.ids import check_name
from skylift.core.lifecycle import Reason, UpdateState

_S = UpdateState
SILENT = "silent"
ENDS = (_S.FAILED.value, _S.ROLLED_BACK.value, SILENT)
STAGES = (_S.DOWNLOADING, _S.INSTALLING, _S.VALIDATING)
SHARES_OFF_BY = 1e-6  # percentages with decimals do not add up to 100 exactly
MOST = 200  # behaviours: their number is a byte in the fleet's memory


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One kind of device. Percentages are of its devices or requests; `think_s` is between two words."""

    name: str = "well"
    share: float = 100.0  # percent of the fleet
    labels: Mapping[str, str] = field(default_factory=dict)
    think_s: tuple[float, float] = (20.0, 90.0)
    loss_percent: float = 0.0  # requests or answers that get lost
    repeats: int = 1  # how often everything is said
    late: bool = False  # says earlier stages again after the end
    clock_offset_s: float = 0.0  # its clock against ours
    ends: Mapping[str, float] = field(default_factory=dict)  # failed, rolled_back, silent: percent
    silent_at: UpdateState = _S.DOWNLOADING  # the stage before which silent ones fall silent
    reason: str = ""  # of failures; empty: the usual one
    away_hours: float = 0.0  # offline that long, then ...
    online_hours: float = 1.0  # ... online that long
    withdraws: bool = False  # a completed update falls back later: complete, then rolled_back

    def end(self, drawn: float) -> str:
        """How an update ends for a number drawn from [0, 1): `complete`, or a name of `ENDS`."""
        at = 0.0
        for end in ENDS:
            at += self.ends.get(end, 0.0)
            if drawn * 100 < at:
                return end
        return _S.COMPLETE.value


DEFAULT = (
    Behaviour("well", 84.0),
    Behaviour("flaky network", 5.0, loss_percent=15.0),
    Behaviour("slow", 3.0, think_s=(200.0, 900.0)),
    Behaviour("says everything twice", 2.0, repeats=2),
    Behaviour("late", 1.0, late=True),
    Behaviour("wrong clock", 2.0, clock_offset_s=-4 * 365 * 86_400.0),
    Behaviour("falls back after boot", 0.4, ends={"rolled_back": 100.0}),
    Behaviour("does not install", 0.3, ends={"failed": 100.0}),
    Behaviour("falls silent", 0.3, ends={"silent": 100.0}),
    Behaviour("offline for days", 1.0, away_hours=72.0, online_hours=6.0),
    Behaviour("hardware revision B", 1.0, labels={"hw": "B"}, ends={"rolled_back": 60.0}),
)


def read(path: Path) -> tuple[Behaviour, ...]:
    """The behaviours of a file; `Rejected` names field, value and rule."""
    try:
        text = path.read_text()
    except UnicodeDecodeError as e:
        raise invalid("--behaviours", path.name, "a text file in UTF-8") from e
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise invalid("--behaviours", path.name, f"ends in {', '.join(sorted(_READERS))}")
    return parse(reader(path.name, text))


def parse(found: Any) -> tuple[Behaviour, ...]:
    """`{"behaviours": [{"name": ..., "share": ...}, ...]}` or the list alone."""
    listed = found.get("behaviours") if isinstance(found, Mapping) else found
    if isinstance(found, Mapping):
        for name in found:
            if name != "behaviours":
                raise invalid(str(name), found[name], "is not a field: only behaviours", code="unknown_field")
    if not isinstance(listed, list) or not listed:
        raise invalid("behaviours", listed, "a list of at least one behaviour")
    if len(listed) > MOST:
        raise invalid("behaviours", len(listed), f"at most {MOST}", code="too_many")
    made = tuple(_behaviour(f"behaviours[{number}]", item) for number, item in enumerate(listed))
    total = sum(behaviour.share for behaviour in made)
    if abs(total - 100) > SHARES_OFF_BY:
        raise invalid("behaviours", f"{total:g} %", "the shares add up to 100")
    names = [behaviour.name for behaviour in made]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise invalid(f"behaviours[{number}].name", name, "is the name of an earlier one")
    return made


def _behaviour(where: str, item: Any) -> Behaviour:
    if not isinstance(item, Mapping):
        raise invalid(where, item, "is not an object")
    for name in item:
        if name not in _FIELDS:
            raise invalid(
                f"{where}.{name}", item[name], "is not a field of a behaviour", code="unknown_field"
            )
    for name in ("name", "share"):
        if name not in item:
            raise invalid(f"{where}.{name}", None, "is needed")
    return Behaviour(**{name: _FIELDS[name](f"{where}.{name}", value) for name, value in item.items()})


# --- one reader per field ------------------------------------------------------------------------------


def _number(low: float, high: float) -> Callable[[str, Any], float]:
    def read(field: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise invalid(field, value, "is not a number")
        if not low <= value <= high:
            raise invalid(field, value, f"between {low:g} and {high:g}", code="out_of_range")
        return float(value)

    return read


def _times(field: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10:
        raise invalid(field, value, "a whole number between 1 and 10")
    return value


def _yes(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid(field, value, "is not true or false")
    return value


def _name(field: str, value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 64 or not value.isprintable():
        raise invalid(field, value, "1 to 64 printable characters")
    return value


def _labels(field: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise invalid(field, value, "is not an object")
    return {
        check_name(f"{field}.{name}", str(name)): _name(f"{field}.{name}", text)
        for name, text in value.items()
    }


def _span(field: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise invalid(field, value, "two numbers: at least and at most")
    low, high = (_number(0, 1e7)(f"{field}[{number}]", item) for number, item in enumerate(value))
    if low > high:
        raise invalid(field, value, "at least comes before at most")
    return low, high


def _ends(field: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise invalid(field, value, "is not an object")
    for name in value:
        if name not in ENDS:
            raise invalid(f"{field}.{name}", value[name], f"one of {', '.join(ENDS)}", code="unknown_field")
    found = {name: _number(0, 100)(f"{field}.{name}", percent) for name, percent in value.items()}
    if sum(found.values()) > 100 + SHARES_OFF_BY:
        raise invalid(field, f"{sum(found.values()):g} %", "at most 100 together; the rest completes")
    return found


def _stage(field: str, value: Any) -> UpdateState:
    names = [stage.value for stage in STAGES]
    if value not in names:
        raise invalid(field, value, f"one of {', '.join(names)}")
    return UpdateState(value)


def _reason(field: str, value: Any) -> str:
    names = [reason.value for reason in Reason]
    if value not in names:
        raise invalid(field, value, f"one of {', '.join(names)}")
    return str(value)


_FIELDS: Mapping[str, Callable[[str, Any], Any]] = {
    "name": _name,
    "share": _number(0, 100),
    "labels": _labels,
    "think_s": _span,
    "loss_percent": _number(0, 95),  # above, nothing ever gets through
    "repeats": _times,
    "late": _yes,
    "clock_offset_s": _number(-1e9, 1e9),
    "ends": _ends,
    "silent_at": _stage,
    "reason": _reason,
    "away_hours": _number(0, 100_000),
    "online_hours": _number(0.01, 100_000),
    "withdraws": _yes,
}


# --- file formats --------------------------------------------------------------------------------------


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise invalid("--behaviours", name, f"must be JSON: {e}") from e


def _toml(name: str, text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise invalid("--behaviours", name, f"must be TOML: {e}") from e


def _yaml(name: str, text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as e:
        raise invalid(
            "--behaviours", name, "YAML needs PyYAML (skylift[gateway]); JSON and TOML do not"
        ) from e
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise invalid("--behaviours", name, f"must be YAML: {' '.join(str(e).split())}") from e


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    ".json": _json,
    ".toml": _toml,
    ".yaml": _yaml,
    ".yml": _yaml,
}
