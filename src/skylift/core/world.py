"""What the planner looks at, and what it may ask for: frozen nouns.

A `World` holds tallies per phase, never devices, so a plan costs O(phases) for ten devices or ten
million. A `Plan` names the generation it was based on and applies only if that is still current.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import DeploymentStatus, PausedBy


@dataclass(frozen=True, slots=True)
class Tally:
    """How many devices of one phase stand where.

    `waiting`: eligible, not yet offered anything (no row exists for them). The rest are counts of update
    rows by state. `top_reason`: the most frequent failure reason, for the stop's sentence.
    """

    waiting: int = 0
    pending: int = 0
    downloading: int = 0
    installing: int = 0
    validating: int = 0
    complete: int = 0
    failed: int = 0
    rolled_back: int = 0
    skipped: int = 0
    canceled: int = 0
    top_reason: str = ""

    @property
    def in_flight(self) -> int:
        return self.pending + self.downloading + self.installing + self.validating

    @property
    def failures(self) -> int:
        return self.failed + self.rolled_back

    @property
    def decided(self) -> int:
        return self.complete + self.failures

    @property
    def offered(self) -> int:
        """Devices that were offered the update and count."""
        return self.in_flight + self.decided

    @property
    def size(self) -> int:
        """Devices that count: skipped and canceled stay outside."""
        return self.waiting + self.in_flight + self.decided


class Gate(StrEnum):
    """How the next phase opens."""

    AUTO = "auto"
    MANUAL = "manual"


class PhaseState(StrEnum):
    """A phase's life: closed -> open -> through. It is never closed again: thresholds only grow."""

    CLOSED = "closed"
    OPEN = "open"
    THROUGH = "through"


class FailureAction(StrEnum):
    """What a breach does."""

    PAUSE = "pause"
    ABORT = "abort"
    ROLLBACK = "rollback"


class FailureGate(StrEnum):
    """How a phase that goes badly is told from bad luck: by its rate alone, or by a sequential test too."""

    THRESHOLD = "threshold"
    STATISTICAL = "statistical"


@dataclass(frozen=True, slots=True)
class FailureRule:
    """`threshold_percent`: above it the deployment stops. `min_devices`: decided devices needed before
    the rate is judged (None: min(20, phase size); 5 of the whole deployment for the statistical gate).
    `false_alarm_rate`: the chance that the statistical gate ever stops a release that fails in at most
    `expected_percent` of devices."""

    threshold_percent: float = 10.0
    min_devices: int | None = None
    action: FailureAction = FailureAction.PAUSE
    gate: FailureGate = FailureGate.THRESHOLD
    false_alarm_rate: float = 0.05
    expected_percent: float = 1.0


@dataclass(frozen=True, slots=True)
class Matched:
    """Sets of one updated device and three of the control group in which exactly one device went silent or
    unhealthy: how often it was the updated one, how often one of the control."""

    updated: int = 0
    control: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a deployment, as it stands. `number` counts from 0; `name` is for people ("phase 1")."""

    number: int
    name: str
    tally: Tally
    state: PhaseState = PhaseState.CLOSED
    soak: timedelta = timedelta(minutes=60)
    wait: timedelta = timedelta(minutes=30)
    gate: Gate = Gate.AUTO
    promoted: bool = False
    opened_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class World:
    """One deployment as the planner sees it. `ends_at`: when it stops waiting for devices that never ask.
    `approval_above`: to more devices it needs a second person; None: it does not, or has been approved."""

    deployment: DeploymentId
    version: str
    generation: int
    status: DeploymentStatus
    phases: tuple[Phase, ...]
    failure_rule: FailureRule = field(default_factory=FailureRule)
    matched: Matched = field(default_factory=Matched)
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    approval_above: int | None = None

    @property
    def size(self) -> int:
        """Devices that count, in all phases."""
        return sum(phase.tally.size for phase in self.phases)


@dataclass(frozen=True, slots=True)
class Start:
    """Scheduled -> running."""


@dataclass(frozen=True, slots=True)
class OpenPhase:
    """Devices whose place lies in this phase may be offered the update from now on."""

    number: int


@dataclass(frozen=True, slots=True)
class EndPhase:
    """Every device of the phase is decided (or has had its time to ask): the soak begins."""

    number: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Scheduled or running -> paused, with the sentence that says why."""

    by: PausedBy
    sentence: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Running -> failed; with `roll_back`, the devices already updated are sent back."""

    sentence: str
    roll_back: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """Running -> complete."""

    sentence: str


Action = Start | OpenPhase | EndPhase | Pause | Stop | Finish


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next. `notes` say what it waits for, shown verbatim in dashboard and CLI; `wake_at` is when
    to look again if nothing happens before (None: only an event can change the answer)."""

    based_on: int
    actions: tuple[Action, ...]
    notes: tuple[str, ...]
    wake_at: datetime | None
