"""May this device be offered something now? `decide(...)`, pure.

The rules:

1. A device's open update is its own until it ends: the same answer at every check, unless its deployment
   holds (paused: a device that has not begun waits) or ended (it is canceled).
2. A newer or more important deployment takes over a device that has not begun the older one; never one
   that is already downloading or later.
3. Without an open update the device belongs to the first live deployment, by priority and then newest
   first, that selects it, has something for its type, wants another version than it runs, has not had it
   before, and has opened the device's phase.
4. A device that is selected but whose phase is closed waits, and asks again soon.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from skylift.core.bucket import place
from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import DeploymentStatus, UpdateState
from skylift.core.window import Window
from skylift.core.world import PhaseState


@dataclass(frozen=True, slots=True)
class Step:
    """A phase as offers see it: the last place it holds, inclusive, and whether it has opened."""

    number: int
    upto: int
    state: PhaseState


@dataclass(frozen=True, slots=True)
class Live:
    """A deployment that is scheduled, running or paused."""

    id: DeploymentId
    version: str
    kind: str
    status: DeploymentStatus
    salt: int
    device_types: frozenset[str]
    steps: tuple[Step, ...]
    priority: int = 0
    window: Window | None = None


class Asking(NamedTuple):
    """The device at its check. `version` is of the deployment's kind: image or configuration."""

    h: int
    device_type: str
    current_version: str | None
    config_version: str | None

    def version(self, kind: str) -> str | None:
        return self.config_version if kind == "config" else self.current_version


@dataclass(frozen=True, slots=True)
class Offer:
    """Offer this deployment, counted in this phase; `instead_of` is a pending update it supersedes."""

    live: Live
    phase: int
    instead_of: DeploymentId | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The update the device already has: say it once more."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Selected, but not yet: a closed phase, a pause, a window."""

    why: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """No deployment wants this device."""


Decision = Offer | Again | Wait | Nothing


@dataclass(frozen=True, slots=True)
class OpenUpdate:
    """The device's open slot; `live` is None when its deployment has ended."""

    live: Live | None
    deployment: DeploymentId
    state: UpdateState


def decide(
    device: Asking,
    lives: Sequence[Live],
    current: OpenUpdate | None,
    selects: Callable[[Live], bool],
    had: Callable[[Live], bool],
    now: datetime,
) -> Decision:
    """`lives` by precedence (see `precedence`); `selects` and `had` look into the store, called at most once
    per deployment and only where everything cheaper has said yes."""
    if current is not None and (current.state is not UpdateState.PENDING or current.live is None):
        return Again()
    waiting: Wait | None = None
    for live in lives:
        if current is not None and live.id == current.deployment:
            break  # nothing with precedence wants it: its own update goes on
        verdict = _consider(device, live, selects, had, now)
        if isinstance(verdict, Offer):
            taken = current.deployment if current is not None else None
            return Offer(verdict.live, verdict.phase, instead_of=taken)
        waiting = waiting or verdict
    if current is not None and current.live is not None:
        return _hold(current.live, now) or Again()
    return waiting or Nothing()


def precedence(lives: Sequence[Live]) -> list[Live]:
    """Higher priority first, then newest first (ids sort by birth)."""
    return sorted(lives, key=lambda live: (live.priority, live.id), reverse=True)


def _consider(
    device: Asking, live: Live, selects: Callable[[Live], bool], had: Callable[[Live], bool], now: datetime
) -> Offer | Wait | None:
    if device.device_type not in live.device_types or device.version(live.kind) == live.version:
        return None
    step = _step_of(live, place(device.h, live.salt))
    if step is None or not selects(live):
        return None
    if live.status is DeploymentStatus.SCHEDULED or step.state is PhaseState.CLOSED:
        return Wait("its phase has not opened")  # nobody has had anything from a closed phase
    if had(live):
        return None
    return _hold(live, now) or Offer(live, step.number)


def _step_of(live: Live, at: int) -> Step | None:
    """The phase that holds this place: the first whose end is not before it."""
    return next((step for step in live.steps if at <= step.upto), None)


def _hold(live: Live, now: datetime) -> Wait | None:
    if live.status is DeploymentStatus.PAUSED:
        return Wait("the deployment is paused")
    if live.window is not None and not live.window.open_at(now):
        return Wait("outside the maintenance window")
    return None
