"""`agent.toml`, read once into a frozen value. Unknown names and wrong types are errors with their name."""

import re
import tomllib
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skylift.core.errors import Rejected, invalid
from skylift.core.ids import check_name, check_version


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One check. `kind`: http (`url`, expects 200), command (`command`, expects exit 0), mqtt (the broker
    answers), custom (`call`: `module:function` that returns true). `{port}` in a url is the image's port."""

    kind: str
    url: str = ""
    command: tuple[str, ...] = ()
    call: str = ""
    timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Metric:
    """A number the device reports of itself: the first one in a `file`, or in what a `command` says; times
    `scale`."""

    name: str
    file: str = ""
    command: tuple[str, ...] = ()
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Config:
    """One device. Times in seconds."""

    server: str
    device_id: str
    device_type: str
    state_dir: Path
    roots: Path
    claim: str = ""
    product: str = ""  # the one whose releases it takes; empty: that of the first update it confirms
    ca_file: str = ""
    mqtt: str = ""
    port: int = 0
    factory_image: str = ""
    factory_version: str = ""
    boot_attempts: int = 3
    poll_seconds: float = 0.0  # 0: as the server says
    health: tuple[HealthCheck, ...] = ()
    health_passes: int = 2  # in a row, before an image counts as healthy
    health_deadline_seconds: float = 60.0
    health_interval_seconds: float = 0.5
    download_deadline_seconds: float = 3600.0
    min_bytes_per_second: float = 256.0  # below it for a minute, a download is given up and resumed later
    delta_memory_bytes: int = 64 << 20  # a delta that takes more is not used
    build_time: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    require_log: bool = False  # also before a first checkpoint of the transparency log is pinned
    own_key: bool = False  # make a key of its own also without a claim; with one it always does
    metrics: tuple[Metric, ...] = ()  # beside disk, memory, load and temperature
    report_health_seconds: float = 86400.0  # how often, unasked, it says how it is; 0: never, nor asked


MOST_METRICS = 4  # with the four of its own as many as a server takes
MOST_SCALE = 1e12
_HEALTH_KINDS = {"http": "url", "command": "command", "mqtt": "", "custom": "call"}


def read(path: Path) -> Config:
    """The configuration in this file; its relative paths are relative to it. `Rejected` names the field."""
    try:
        body = tomllib.loads(path.read_text())
    except OSError as e:
        raise invalid("config", str(path), f"cannot be read: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise invalid("config", path.name, f"is not TOML: {e}") from e
    return parse(body, path.parent)


def parse(body: dict[str, Any], base: Path) -> Config:
    """The configuration in this table."""
    types = {field.name: field.type for field in fields(Config)}
    for name in body:
        if name not in types:
            raise invalid(name, body[name], "is not a field of agent.toml", code="unknown_field")
    for name in ("server", "device_id", "device_type", "state_dir", "roots"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise invalid(name, body.get(name), "is needed, as text")
    check_name("device_id", body["device_id"])
    check_name("device_type", body["device_type"])
    if not body["server"].startswith(("http://", "https://")):
        raise invalid("server", body["server"], "begins with https:// (or http:// in a lab)")
    if body.get("product"):
        check_name("product", body["product"])
    if body.get("factory_version"):
        check_version("factory_version", body["factory_version"])
    given = {name: _typed(name, value) for name, value in body.items()}
    for name, (low, high) in _BOUNDS.items():
        if not low <= given.get(name, low) <= high:  # not a number fails this, too
            raise invalid(name, given[name], f"between {low:g} and {high:g}")
    if given.get("mqtt") and not re.fullmatch(r"mqtts?://[^/:@]+(:[0-9]{1,5})?/?", given["mqtt"]):
        raise invalid("mqtt", given["mqtt"], "mqtt://host:port or mqtts://host:port")
    for name in ("state_dir", "roots"):
        given[name] = (base / body[name]).resolve()
    for name in ("factory_image", "ca_file"):
        if body.get(name):
            given[name] = str((base / body[name]).resolve())
    return Config(**given)


def _typed(name: str, value: Any) -> Any:
    default = getattr(_DEFAULTS, name, "")
    if name == "health":
        if not isinstance(value, list):
            raise invalid(name, value, "a list of checks")
        return tuple(_health(number, item) for number, item in enumerate(value))
    if name == "metrics":
        return _metrics(value)
    if name == "build_time":
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise invalid(name, value, "a time with its offset")
        return value
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise invalid(name, value, "true or false")
        return value
    if isinstance(default, float | int) and not isinstance(default, bool):
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise invalid(name, value, "a number, not negative")
        return type(default)(value)
    if not isinstance(value, str):
        raise invalid(name, value, "is not text")
    return value


_YEAR = 365 * 86400.0
_BOUNDS: dict[str, tuple[float, float]] = {
    "port": (0, 65535),
    "boot_attempts": (1, 100),
    "health_passes": (1, 1000),
    "poll_seconds": (0, _YEAR),
    "health_deadline_seconds": (0, _YEAR),
    "health_interval_seconds": (0, _YEAR),
    "download_deadline_seconds": (0, _YEAR),
    "min_bytes_per_second": (0, 1e12),
    "delta_memory_bytes": (0, 1 << 40),
    "report_health_seconds": (0, _YEAR),
}
_DEFAULTS = Config("", "", "", Path(), Path())


def _health(number: int, item: Any) -> HealthCheck:
    field = f"health[{number}]"
    if not isinstance(item, dict) or item.get("kind") not in _HEALTH_KINDS:
        raise invalid(f"{field}.kind", item, f"one of {', '.join(_HEALTH_KINDS)}")
    needed = _HEALTH_KINDS[item["kind"]]
    if needed and not item.get(needed):
        raise invalid(f"{field}.{needed}", None, f"is needed for kind {item['kind']}")
    allowed = {"kind", "timeout_seconds", needed}
    for name in item:
        if name not in allowed:
            raise invalid(f"{field}.{name}", item[name], f"is not a field of kind {item['kind']}")
    given = dict(item)
    seconds = given.get("timeout_seconds", 5.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 3600:
        raise invalid(f"{field}.timeout_seconds", seconds, "above 0, at most 3600")
    if "command" in given:
        if not isinstance(given["command"], list) or not all(isinstance(w, str) for w in given["command"]):
            raise invalid(f"{field}.command", given["command"], "a list of words")
        given["command"] = tuple(given["command"])
    return HealthCheck(**given)


def _metrics(value: Any) -> tuple[Metric, ...]:
    if not isinstance(value, list):
        raise invalid("metrics", value, "a list of numbers to report")
    if len(value) > MOST_METRICS:
        raise invalid("metrics", len(value), f"at most {MOST_METRICS}")
    made = tuple(_metric(f"metrics[{number}]", item) for number, item in enumerate(value))
    for number, metric in enumerate(made):
        if metric.name in {other.name for other in made[:number]}:
            raise invalid(f"metrics[{number}].name", metric.name, "is there already")
    return made


def _metric(field: str, item: Any) -> Metric:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise invalid(f"{field}.name", item, "is needed, as text")
    check_name(f"{field}.name", item["name"])
    for name in item:
        if name not in ("name", "file", "command", "scale"):
            raise invalid(f"{field}.{name}", item[name], "is not a field of a metric", code="unknown_field")
    file, command, scale = item.get("file", ""), item.get("command", []), item.get("scale", 1.0)
    if bool(file) == bool(command):
        raise invalid(field, item["name"], "exactly one of file and command is needed")
    if not isinstance(file, str):
        raise invalid(f"{field}.file", file, "is not text")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise invalid(f"{field}.command", command, "a list of words")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) <= MOST_SCALE:
        raise invalid(f"{field}.scale", scale, f"a number between -{MOST_SCALE:g} and {MOST_SCALE:g}")
    return Metric(item["name"], file, tuple(command), float(scale))


def roots(config: Config) -> tuple[bytes, bytes]:
    """(image root, director root) as the factory put them. No roots, no installation."""
    found = []
    for name in ("image.root.json", "director.root.json"):
        try:
            found.append((config.roots / name).read_bytes())
        except OSError as e:
            raise Rejected(
                "no_roots",
                f"roots is {str(config.roots)!r}: {name} is not there; without it nothing can be verified",
                field="roots",
                value=str(config.roots),
                rule="holds image.root.json and director.root.json (`skylift trust export --linux`)",
            ) from e
    return found[0], found[1]
