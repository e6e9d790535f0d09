"""The statistical gate against a plain threshold: how many devices does a bad release hurt until it stops?

Thousands of deployments of one fleet, simulated event by event, each judged by the real planner after every
report. Devices ask at a random moment of a phase's time, take minutes for an update, fail with the fleet's
own base rate and, if the release has a defect in a share of the devices, by the defect. Both gates see the
same devices with the same luck. A device is hurt when it failed or fell back; what is on its way when a
deployment stops goes on to its end, as it does in a fleet.

False alarms are stops of releases without a defect. Gates are compared where they raise as many: on good
releases of their own the rate is found at which the statistical gate stops as often as the threshold
(`calibrated`), and on fresh ones both are counted. A third column has the gate as it is by default, which
states 5 % and stops fewer. A second table has devices that ask within five minutes instead of four hours:
most of a phase is on its way then before the first report comes, and only its size protects anybody.
Tables to stderr, JSON to stdout.

    python3 dev.py bench gate [--json] [--deployments N] [--seed N] [--calibrated]
"""

import argparse
import heapq
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import inf, sqrt
from random import Random
from statistics import fmean

from skylift.core import gate
from skylift.core.failure import DEFAULT_MIN_DEVICES
from skylift.core.lifecycle import DeploymentStatus
from skylift.core.planner import plan
from skylift.core.world import (
    EndPhase,
    FailureGate,
    FailureRule,
    Finish,
    OpenPhase,
    Pause,
    Phase,
    PhaseState,
    Stop,
    Tally,
    World,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FLEET = 2000
PHASES = (1, 10, 50, 100)  # percent, cumulative
BASE_PERCENT = 1.0  # what fails with a release that has no defect: empty batteries, lost links
ASKS_WITHIN = 240.0  # minutes of a phase in which its devices ask: they wake every four hours
TAKES = (5.0, 20.0)  # minutes for one update
WAITING, AT_IT, COMPLETE, FAILED = range(4)  # places in a phase's counts
DEFECTS = (0, 1, 2, 5, 10, 20, 50)  # percent of devices in which the release has a defect
HERD_DEFECTS, HERD_WITHIN = (0, 5, 20), 5.0
GOOD = 20  # times as many deployments of releases without a defect: stops of those are rare
LARGEST_RATE = 0.5  # that the gate can be asked for
FOUND = {ASKS_WITHIN: 0.0569, HERD_WITHIN: 0.166}  # what `calibrated` found


@dataclass(frozen=True)
class Outcome:
    """One deployment: whether it was stopped, and how many devices failed or fell back."""

    stopped: bool
    hurt: int


@dataclass(frozen=True)
class Luck:
    """What one deployment's devices will do, whatever the gate: (asks after, takes, fails) per phase; and the
    minutes of a phase in which they ask."""

    devices: tuple[tuple[tuple[float, float, bool], ...], ...]
    within: float


def draw_luck(draw: Random, defect: float, within: float = ASKS_WITHIN) -> Luck:
    fails = 1 - (1 - BASE_PERCENT / 100) * (1 - defect / 100)
    ends = [FLEET * percent // 100 for percent in PHASES]
    sizes = [end - begin for begin, end in zip((0, *ends), ends, strict=False)]
    return Luck(
        tuple(
            tuple((draw.uniform(0, within), draw.uniform(*TAKES), draw.random() < fails) for _ in range(n))
            for n in sizes
        ),
        within,
    )


class Life:
    """One deployment from its start to its end; time in minutes."""

    def __init__(self, rule: FailureRule, luck: Luck, every_report: bool = False) -> None:
        phases = tuple(
            Phase(i, f"phase {i + 1}", Tally(waiting=len(devices)), wait=timedelta(minutes=luck.within))
            for i, devices in enumerate(luck.devices)
        )
        self.luck, self.every_report = luck, every_report
        self.world = World("dep_x", "2.0", 1, DeploymentStatus.RUNNING, phases, rule)  # type: ignore[arg-type] # an id
        self.counts = [
            [len(devices), 0, 0, 0] for devices in luck.devices
        ]  # waiting, at it, complete, failed
        self.now = 0.0
        self.due: list[tuple[float, int, int, bool]] = []  # when, phase, device, whether it ends (or asks)

    def live(self) -> Outcome:
        stopped = self._step()
        while stopped is None:
            self.now, number, device, ends = heapq.heappop(self.due)
            if self._happens(number, device, ends) or self.every_report:
                stopped = self._step()
        on_their_way = sum(self.luck.devices[n][device][2] for _, n, device, ends in self.due if ends)
        return Outcome(stopped, sum(count[FAILED] for count in self.counts) + on_their_way)

    def _happens(self, number: int, device: int, ends: bool) -> bool:
        """Whether the planner can answer differently now: a device that asks, or one more that is fine behind
        the minimum sample, changes nothing (the test of the bench shows that)."""
        _, takes, fails = self.luck.devices[number][device]
        count = self.counts[number]
        if not ends:
            count[WAITING] -= 1
            count[AT_IT] += 1
            heapq.heappush(self.due, (self.now + takes, number, device, True))
            return False
        count[AT_IT] -= 1
        count[FAILED if fails else COMPLETE] += 1
        drained = not count[WAITING] and not count[AT_IT]
        return fails or drained or count[COMPLETE] + count[FAILED] <= DEFAULT_MIN_DEVICES

    def _look(self) -> World:
        phases = (
            replace(
                phase, tally=Tally(waiting=count[0], installing=count[1], complete=count[2], failed=count[3])
            )
            for phase, count in zip(self.world.phases, self.counts, strict=True)
        )
        return replace(self.world, phases=tuple(phases))

    def _set(self, number: int, **values: object) -> None:
        phases = list(self.world.phases)
        phases[number] = replace(phases[number], **values)  # type: ignore[arg-type] # a phase's own fields
        self.world = replace(self.world, phases=tuple(phases))

    def _step(self) -> bool | None:
        """Let the planner act until it waits; whether it was stopped, once it is over."""
        while True:
            now = BEGIN + timedelta(minutes=self.now)
            planned = plan(self._look(), now)
            for action in planned.actions:
                match action:
                    case Pause() | Stop():
                        return True
                    case Finish():
                        return False
                    case OpenPhase(number):
                        self._open(number, now)
                    case EndPhase(number):
                        self._set(number, state=PhaseState.THROUGH, finished_at=now)
                    case _:
                        raise AssertionError(action)
            if not planned.actions:
                if self.due:
                    return None
                if planned.wake_at is None:
                    raise AssertionError(planned.notes)
                self.now = (planned.wake_at - BEGIN) / timedelta(minutes=1)

    def _open(self, number: int, now: datetime) -> None:
        self._set(number, state=PhaseState.OPEN, opened_at=now)
        for device, (after, _, _) in enumerate(self.luck.devices[number]):
            heapq.heappush(self.due, (self.now + after, number, device, False))


def lives(
    rules: Sequence[FailureRule], defect: float, count: int, seed: int, within: float = ASKS_WITHIN
) -> list[list[Outcome]]:
    """Per rule the outcomes of `count` deployments; the same luck for every rule."""
    found: list[list[Outcome]] = [[] for _ in rules]
    for number in range(count):
        luck = draw_luck(Random(f"{seed}/{defect}/{number}"), defect, within)
        for outcomes, rule in zip(found, rules, strict=True):
            outcomes.append(Life(rule, luck).live())
    return found


# --- the same false alarms -----------------------------------------------------------------------------

THRESHOLD = FailureRule()
STATISTICAL = FailureRule(gate=FailureGate.STATISTICAL)
NEVER = replace(STATISTICAL, false_alarm_rate=1e-300)  # only its net stops anything


class Watched(Life):
    """A deployment on which only the evidence is watched: the most there was against it."""

    most = 0.0

    def _look(self) -> World:
        seen = super()._look()
        if gate.enough(seen):
            self.most = max(self.most, gate.evidence(seen))
        return seen


def calibrated(count: int, seed: int, within: float) -> float:
    """The stated rate at which the statistical gate stops as many of `count` good releases as the threshold.

    What it has seen against a release does not depend on the rate: so each is lived through once, and the
    rate is where as many of them lie above it as the threshold stopped. Where several have seen the same, as
    three failures among twenty, that may be fewer, never more.
    """
    alarms, against = 0, []
    for number in range(count):
        luck = draw_luck(Random(f"{seed}/calibration/{number}"), 0, within)
        alarms += Life(THRESHOLD, luck).live().stopped
        watched = Watched(NEVER, luck)
        against.append(inf if watched.live().stopped else watched.most)
    against.sort(reverse=True)
    above = [most for most in against[:alarms] if most > against[alarms]]
    rate = max(NEVER.false_alarm_rate, 1 / min(above, default=against[0] + 1))
    said = f"the threshold stopped {alarms}, a rate of {rate:.3g} stops {len(above)}"
    say(f"calibrated on {count} good releases: {said}")
    return min(LARGEST_RATE, rate * (1 + 1e-9))


def interval(stopped: int, of: int) -> str:
    """95 % of Wilson's, in percent."""
    z, share = 1.96, stopped / of
    middle, wide = share + z * z / (2 * of), z * sqrt(share * (1 - share) / of + (z / (2 * of)) ** 2)
    low, high = ((middle + side * wide) / (1 + z * z / of) for side in (-1, 1))
    return f"{stopped} of {of} ({100 * share:.2f} %, 95 % of {100 * max(0.0, low):.2f} to {100 * high:.2f})"


# --- the table -----------------------------------------------------------------------------------------


def table(
    defects: Sequence[int], count: Callable[[int], int], seed: int, within: float, rate: float
) -> dict[str, dict[str, float]]:
    """Per defect rate what the gates let happen; printed as it comes."""
    matched = replace(STATISTICAL, false_alarm_rate=rate)
    rules = {"threshold": THRESHOLD, "statistical": matched, "default": STATISTICAL}
    titles = ("threshold 10 %", f"statistical {100 * rate:.3g} %", "statistical 5 %")
    say(f"\ndevices ask within {within:g} minutes: mean of devices hurt, and deployments stopped")
    say(f"{'defect':>8} {'deployments':>12}" + "".join(f"   {title:>20}" for title in titles))
    found = {}
    for defect in defects:
        outcomes = lives(tuple(rules.values()), defect, count(defect), seed, within)
        row: dict[str, float] = {}
        for name, many in zip(rules, outcomes, strict=True):
            row[f"{name}_hurt"] = round(fmean(one.hurt for one in many), 3)
            row[f"{name}_stopped"] = round(fmean(one.stopped for one in many), 4)
        shown = "".join(f"   {row[f'{n}_hurt']:10.1f} {100 * row[f'{n}_stopped']:7.1f} %" for n in rules)
        say(f"{defect:>6} % {count(defect):>12}{shown}")
        if not defect:
            for name, many in zip(rules, outcomes, strict=True):
                say(f"{name:>12}: false alarms {interval(sum(one.stopped for one in many), len(many))}")
        found[str(defect)] = row
    return found


def compare(
    defects: Sequence[int], count: Callable[[int], int], seed: int, within: float, known: bool
) -> tuple[dict[str, dict[str, float]], float]:
    """The table where false alarms are equal, and the stated rate at which they are."""
    matched = FOUND[within] if known else calibrated(count(0), seed, within)
    return table(defects, count, seed, within, matched), matched


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="JSON is printed in any case; for symmetry")
    parser.add_argument(
        "--deployments", type=int, default=100, help=f"per defect rate; {GOOD} times as many without"
    )
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="take the rates that were found before: a quarter of the time",
    )
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    say(f"{FLEET} devices, phases {PHASES} %, base rate {BASE_PERCENT:g} %, seed {given.seed}")
    begun = time.monotonic()

    def count(defect: int) -> int:
        return int(given.deployments) * (1 if defect else GOOD)

    found, rate = compare(DEFECTS, count, given.seed, ASKS_WITHIN, given.calibrated)
    herd, herd_rate = compare(HERD_DEFECTS, count, given.seed, HERD_WITHIN, given.calibrated)
    say(f"{time.monotonic() - begun:.0f} s")
    none = found["0"]
    answer = {
        "gate": found,
        "gate_herd": herd,
        "false_alarms_threshold": none["threshold_stopped"],
        "false_alarms_statistical": none["statistical_stopped"],
        "false_alarms_default": none["default_stopped"],
        "rate_statistical": round(rate, 5),
        "rate_herd": round(herd_rate, 5),
        "rate_default": STATISTICAL.false_alarm_rate,
        "deployments": {str(defect): count(defect) for defect in DEFECTS},
        "seed": given.seed,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
