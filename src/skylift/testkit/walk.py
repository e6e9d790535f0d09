"""One device's way through one update: the words it says, in their order. Pure; the fleet says them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from skylift.core.lifecycle import Reason, UpdateState
from skylift.testkit.behaviours import SILENT, STAGES, Behaviour

_S = UpdateState
FAILURE_REASON = {_S.FAILED: Reason.INSTALL_ERROR.value, _S.ROLLED_BACK: Reason.HEALTH_CHECK_FAILED.value}


class Step(Enum):
    """What a device does beside reporting."""

    DOWNLOAD = auto()
    SILENCE = auto()  # nothing more, ever


@dataclass(frozen=True, slots=True)
class Word:
    """A report. `late`: said again after the end, as networks deliver."""

    state: UpdateState
    progress: int | None = None
    late: bool = False


Steps = tuple[Step | Word, ...]


@dataclass(slots=True)
class Flight:
    """An update under way: what was offered, and how far the device is. `before`: what it ran."""

    deployment: str
    attempt: int
    version: str
    sha256: str
    url: str
    steps: Steps
    at: int = 0
    said: int = 0
    before: int | None = None


def script(behaviour: Behaviour, end: str, progress: tuple[int, ...], *, download: bool) -> Steps:
    """Everything the device will do; `end`: complete, failed, rolled_back or silent."""
    return _script(behaviour.silent_at, behaviour.late, behaviour.withdraws, end, progress, download)


@lru_cache(maxsize=256)
def _script(
    silent_at: UpdateState, late: bool, withdraws: bool, end: str, progress: tuple[int, ...], download: bool
) -> Steps:
    return tuple(_steps(silent_at, late, withdraws, end, progress, download))


def _steps(
    silent_at: UpdateState, late: bool, withdraws: bool, end: str, progress: tuple[int, ...], download: bool
) -> Iterator[Step | Word]:
    for state in STAGES:
        if end == SILENT and state is silent_at:
            yield Step.SILENCE
            return
        if state is _S.DOWNLOADING:
            yield from (Word(state, percent) for percent in progress)
            if download:
                yield Step.DOWNLOAD
        else:
            yield Word(state)
        if state is _S.INSTALLING and end == _S.FAILED.value:
            break
    if end == SILENT:
        yield Step.SILENCE
        return
    yield Word(UpdateState(end))
    if late:
        yield from (Word(state, late=True) for state in STAGES)
    if withdraws and end == _S.COMPLETE.value:
        yield Word(_S.ROLLED_BACK)


def said(device_id: str, flight: Flight, word: Word, behaviour: Behaviour, now: float) -> dict[str, Any]:
    """The report as JSON; `now` in seconds since the epoch, before the device's clock is wrong about it."""
    state = word.state
    body: dict[str, Any] = {
        "device_id": device_id,
        "deployment": flight.deployment,
        "attempt": flight.attempt,
        "state": state.value,
    }
    if word.progress is not None:
        body["progress"] = word.progress
    if state in FAILURE_REASON:
        body["reason"] = behaviour.reason or FAILURE_REASON[state]
    if state is _S.COMPLETE:
        body |= {"image_sha256": flight.sha256, "version": flight.version}
    if behaviour.clock_offset_s:
        name = "completed_at" if state in (*FAILURE_REASON, _S.COMPLETE) else "started_at"
        wrong = min(max(now + behaviour.clock_offset_s, 0.0), 4e9)  # clocks count from 1970, to 2096 at most
        body[name] = datetime.fromtimestamp(wrong, UTC).isoformat()
    return body
