"""How fast a deployment goes, as far as somebody has watched it: devices a minute, and when that is over."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

WINDOW_S = 120.0  # what happened longer ago says little about now
LEAST_S = 3.0  # watched for less than that, nothing is said


@dataclass
class Speed:
    """Looks at one deployment, each with its time."""

    _looks: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, at: float, found: dict[str, Any]) -> None:
        """One look; `at` in seconds."""
        decided = _decided(found["totals"])
        if self._looks and decided < self._looks[-1][1]:
            self._looks.clear()  # a retry, or a cohort left out: what was counted before is no measure
        self._looks.append((at, decided))
        while self._looks[-1][0] - self._looks[0][0] > WINDOW_S:
            self._looks.popleft()

    @property
    def per_s(self) -> float | None:
        """Devices decided in a second; None before anything can be said."""
        if len(self._looks) < 2:
            return None
        (began, before), (at, now) = self._looks[0], self._looks[-1]
        return (now - before) / (at - began) if at - began >= LEAST_S else None

    def words(self, found: dict[str, Any]) -> str:
        """12 devices a minute; phase 2 is decided in about 3 min."""
        phase = current(found)
        if found["status"] != "running" or phase is None or (speed := self.per_s) is None:
            return ""
        tally = phase["tally"]
        left = phase["size"] - _decided(tally)
        said = f"{60 * speed:.3g} devices a minute"
        if left <= 0:
            return said
        if speed <= 0:
            return f"{said}; {phase['name']} waits for {left} devices"
        return f"{said}; {phase['name']} is decided in about {lasting(left / speed)}"


def current(found: dict[str, Any]) -> dict[str, Any] | None:
    """The phase that is at work: the last one opened."""
    opened: list[dict[str, Any]] = [phase for phase in found["phases"] if phase["state"] != "closed"]
    return opened[-1] if opened else None


def _decided(tally: dict[str, Any]) -> int:
    return int(tally["complete"] + tally["failed"] + tally["rolled_back"])


def lasting(seconds: float) -> str:
    """40 s, 12 min, 3.5 h, 2 days."""
    for limit, unit, each in ((90.0, "s", 1), (90 * 60.0, "min", 60), (36 * 3600.0, "h", 3600)):
        if seconds < limit:
            return f"{seconds / each:.2g} {unit}" if unit == "h" else f"{seconds / each:.0f} {unit}"
    return f"{seconds / 86400:.2g} days"
