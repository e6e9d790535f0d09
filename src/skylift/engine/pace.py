"""When a device should ask again: soon when something waits for it, later when the server is busy.

Every answer is drawn from around its mean, so that devices that were switched on together drift apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import random

SPREAD = 0.1  # either way
GROUP = 500  # writes that wait: one group commit's worth counts as one more of what is bearable
LAG_S = 0.1  # of the event loop: the same
WORST = 10.0
SMOOTH = 0.3


class Load:
    """How busy this server is: 1 (not at all) to 10 (devices should come that much less often)."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._waiting = waiting
        self._lag_s = 0.0

    def note_lag(self, seconds: float) -> None:
        """How late the event loop was just now."""
        self._lag_s += SMOOTH * (seconds - self._lag_s)

    def __call__(self) -> float:
        return min(WORST, 1 + self._waiting() / GROUP + self._lag_s / LAG_S)


def idle() -> float:
    """The load of a server that has nothing else to do."""
    return 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds until the next check: when idle, when a deployment wants the device soon, when it is at it."""

    idle_s: int = 300
    waiting_s: int = 60
    busy_s: int = 30
    load: Callable[[], float] = idle
    spread: float = SPREAD

    def idle(self) -> int:
        return self._draw(self.idle_s)

    def waiting(self) -> int:
        return self._draw(self.waiting_s)

    def busy(self) -> int:
        return self._draw(self.busy_s)

    def _draw(self, seconds: int) -> int:
        spread = 1 - self.spread + 2 * self.spread * random()  # noqa: S311 - spreads a herd, keeps no secret
        return max(1, round(seconds * spread * self.load()))
