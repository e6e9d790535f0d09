"""The statistical gate: is this bad luck, or a bad release? `stops(world) -> Breach | None`.

A sequential test that may be looked at after every report. It stops a deployment whose release fails in no
more than the expected share of devices with a chance of at most `false_alarm_rate`, over the deployment's
whole life and all its phases; worse releases are stopped the sooner, the worse they are.

Its evidence is a number that begins at 1 and, for a good release, is as likely to shrink as to grow (a
nonnegative supermartingale): the weighted mean of

- the failures of all opened phases together, against the expected rate (weight 1/2);
- the failures of each phase by itself, so that what begins late is not drowned in what went well (1/4);
- matched sets, in which one updated device stands beside three of the control group (1/4): where exactly
  one of the four went silent or unhealthy, it is the updated one in 1 of 4 sets by chance.

Each part is the likelihood ratio of "a share of the devices has a defect" against "none has", averaged over
the shares in `DEFECTS`. By Ville's inequality a good release brings the mean to 1/a with a chance of at most
a. Every device that was offered the update counts as good until it is known as bad: so no order in which
reports arrive, and no silence, can make a good release look worse. The assumptions, the sources and the road
not taken are in docs/decisions/gate.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import exp, inf, log, log1p

from skylift.core.failure import Breach, breach
from skylift.core.world import FailureGate, Matched, Phase, PhaseState, World

DEFECTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9)  # the shares of devices with a defect it looks for
DEFAULT_MIN_DEVICES = 5  # a verdict on fewer convinces nobody, whatever the arithmetic
CONTROLS = 3  # devices of the control group beside each updated one
TOGETHER, PHASES, MATCHED = 0.5, 0.25, 0.25  # the weights; they add up to 1

_LARGEST = log(1e9)  # more than this nobody reads


@dataclass(frozen=True, slots=True)
class Weight:
    """One part of the evidence: its weight, the log of its likelihood ratio, and what it speaks of."""

    share: float
    log_ratio: float
    of: Phase | Matched | None  # None: all opened phases together

    @property
    def log(self) -> float:
        return log(self.share) + self.log_ratio


def stops(world: World) -> Breach | None:
    """The reason to stop this deployment, by either rule, or None."""
    opened = _opened(world)
    for phase in opened:
        if found := breach(phase, world.failure_rule):
            return found
    if world.failure_rule.gate is not FailureGate.STATISTICAL or not enough(world):
        return None
    parts = list(_parts(world))
    total = _log_sum(part.log for part in parts)
    if total < -log(world.failure_rule.false_alarm_rate):
        return None
    return Breach(_sentence(world, max(parts, key=lambda part: part.log), total))


def note(world: World) -> str:
    """Where the test stands, in one sentence; empty for a plain threshold."""
    if world.failure_rule.gate is not FailureGate.STATISTICAL:
        return ""
    bad, offered = _failures(world), _offered(world)
    seen, stops_at = evidence(world), 1 / world.failure_rule.false_alarm_rate
    return (
        f"statistical gate: {bad} of {offered} devices offered failed or rolled back, "
        f"{world.failure_rule.expected_percent:g} % expected; evidence {seen:.3g}, stops at {stops_at:.3g}"
    )


def evidence(world: World) -> float:
    """The weighted mean: 1 says nothing, 20 is a chance of at most 1 in 20. Capped at 1e9."""
    return exp(min(_LARGEST, _log_sum(part.log for part in _parts(world))))


def log_ratio(bad: int, of: int, expected: float) -> float:
    """The log of the mixture's likelihood ratio for `bad` of `of` devices. With a defect in a share q of the
    devices, one fails with 1 - (1 - expected)(1 - q): a good device speaks with the factor 1 - q."""
    return _log_sum(bad * worse + (of - bad) * fine for worse, fine in _speaks(expected)) - log(len(DEFECTS))


@lru_cache(64)
def _speaks(expected: float) -> tuple[tuple[float, float], ...]:
    """Per share of `DEFECTS`, the logs of the factors a bad and a good device speak with."""
    return tuple((log((1 - (1 - expected) * (1 - q)) / expected), log1p(-q)) for q in DEFECTS)


def _parts(world: World) -> Iterator[Weight]:
    expected = world.failure_rule.expected_percent / 100
    yield Weight(TOGETHER, log_ratio(_failures(world), _offered(world), expected), None)
    for phase in world.phases:
        tally = phase.tally
        closed = phase.state is PhaseState.CLOSED
        ratio = 0.0 if closed else log_ratio(tally.failures, tally.offered, expected)
        yield Weight(PHASES / len(world.phases), ratio, phase)
    sets = world.matched
    by_chance = 1 / (1 + CONTROLS)
    yield Weight(MATCHED, log_ratio(sets.updated, sets.updated + sets.control, by_chance), sets)


def enough(world: World) -> bool:
    """Whether enough devices are decided for a verdict."""
    asked = world.failure_rule.min_devices
    everyone = sum(phase.tally.size for phase in world.phases)
    needed = max(1, min(DEFAULT_MIN_DEVICES if asked is None else asked, everyone))
    return sum(phase.tally.decided for phase in _opened(world)) >= needed


def _opened(world: World) -> list[Phase]:
    return [phase for phase in world.phases if phase.state is not PhaseState.CLOSED]


def _failures(world: World) -> int:
    return sum(phase.tally.failures for phase in _opened(world))


def _offered(world: World) -> int:
    return sum(phase.tally.offered for phase in _opened(world))


def _log_sum(logs: Iterable[float]) -> float:
    """The log of the sum of what these are the logs of."""
    terms = list(logs)
    largest = max(terms, default=-inf)
    return largest + log(sum(exp(term - largest) for term in terms)) if largest > -inf else -inf


def _sentence(world: World, strongest: Weight, total: float) -> str:
    once_in = exp(min(_LARGEST, total))
    chance = f"by chance at most once in {once_in:,.0f} deployments"
    match strongest.of:
        case Matched(updated, control):
            return (
                f"in {updated} of {updated + control} matched sets the device that went silent or unhealthy "
                f"was the updated one, 1 in {1 + CONTROLS} expected: {chance}"
            )
        case Phase() as phase:
            where, bad, of = f"{phase.name}: ", phase.tally.failures, phase.tally.offered
            reason = phase.tally.top_reason
        case None:
            where, bad, of = "", _failures(world), _offered(world)
            reason = max(_opened(world), key=lambda phase: phase.tally.failures).tally.top_reason
    cause = f"; top reason: {reason}" if reason else ""
    return (
        f"{where}{bad} of {of} devices failed or rolled back ({100 * bad / of:.1f} %), "
        f"{world.failure_rule.expected_percent:g} % expected: {chance}{cause}"
    )
