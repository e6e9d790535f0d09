"""How the device is, in a few numbers: what the statistical gate compares with devices that were not updated.

Free disk and memory, load and temperature where the system knows them, and what the configuration names: the
first number in a file, or in what a command says. What cannot be read is left out: a word of health is never
late for the sake of one sensor.
"""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from skylift.agent.config import Config, Metric
from skylift.core.health import MOST

MIB = 1 << 20
ZONES = Path("/sys/class/thermal")
MEMORY = Path("/proc/meminfo")
LONGEST = 4096  # bytes that are looked at for a number
COMMAND_S = 5.0
_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?")


def measure(config: Config) -> dict[str, float]:
    """Name -> value, as far as each can be had."""
    own: dict[str, Callable[[], float | None]] = {
        "disk_free_mb": lambda: _disk(config.state_dir),
        "memory_free_mb": _memory,
        "load": lambda: os.getloadavg()[0],
        "temperature": _temperature,
    }
    named = {metric.name: partial(_named, metric) for metric in config.metrics}
    found = {name: _had(ask) for name, ask in (own | named).items()}
    return {name: round(value, 3) for name, value in found.items() if value is not None}


def _had(ask: Callable[[], float | None]) -> float | None:
    try:
        value = ask()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return value if value is not None and abs(value) <= MOST else None


def _disk(folder: Path) -> float:
    """Of the file system that updates are written to; what only root may take is not free."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize / MIB


def _memory() -> float | None:
    found = re.search(r"^MemAvailable:\s+([0-9]+) kB", MEMORY.read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) / 1024


def _temperature() -> float | None:
    """Degrees Celsius of the hottest zone."""
    zones = (_had(partial(_zone, path)) for path in ZONES.glob("*/temp"))
    return max((zone for zone in zones if zone is not None), default=None)


def _zone(path: Path) -> float | None:
    thousandths = first_number(_start(path))
    return None if thousandths is None else thousandths / 1000


def _named(metric: Metric) -> float | None:
    text = _start(Path(metric.file)) if metric.file else _said(metric.command)
    value = first_number(text)
    return None if value is None else value * metric.scale


def first_number(text: str) -> float | None:
    """The first one in it, in decimal."""
    found = _NUMBER.search(text)
    return None if found is None else float(found[0])


def _start(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(LONGEST).decode("utf-8", "replace")


def _said(command: tuple[str, ...]) -> str:
    """What it says within its time; nothing where it fails. Whatever it started goes with it."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        list(command), stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, start_new_session=True
    ) as started:
        try:
            said, _ = started.communicate(timeout=COMMAND_S)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            raise
    return said[:LONGEST].decode("utf-8", "replace") if started.returncode == 0 else ""
