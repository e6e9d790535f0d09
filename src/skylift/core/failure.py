"""The failure rule: when a phase is bad enough to stop, and the one sentence that says so.

rate = (failed + rolled_back) / (complete + failed + rolled_back), per phase. Stop when enough devices
are decided and the rate is above the threshold, or when the failures alone already exceed the threshold
of the whole phase, whatever the rest does: then the breach is certain. Exactly at the limit goes on.

With `gate: statistical` the early half of the rule is `core.gate`'s; the certain half stays, as its net.
"""

from dataclasses import dataclass
from fractions import Fraction

from skylift.core.world import FailureGate, FailureRule, Phase, Tally

DEFAULT_MIN_DEVICES = 20


@dataclass(frozen=True, slots=True)
class Breach:
    """Why a deployment must stop. The sentence is the same in UI, CLI, log and notification."""

    sentence: str


def min_devices(tally: Tally, rule: FailureRule) -> int:
    """How many devices must be decided before the rate says anything."""
    asked = DEFAULT_MIN_DEVICES if rule.min_devices is None else rule.min_devices
    return max(1, min(asked, tally.size))


def breach(phase: Phase, rule: FailureRule) -> Breach | None:
    """The breach of this phase, or None. Exact arithmetic: no rounding decides about a fleet."""
    tally = phase.tally
    limit = Fraction(str(rule.threshold_percent))  # the decimal number that was written, not its float
    enough = rule.gate is FailureGate.THRESHOLD and tally.decided >= min_devices(tally, rule)
    too_high = enough and tally.failures * 100 > limit * tally.decided
    certain = tally.failures * 100 > limit * tally.size
    if not (too_high or certain):
        return None
    return Breach(_sentence(phase, rule))


def rate_percent(tally: Tally) -> float | None:
    """The failure rate in percent, or None while nothing is decided."""
    return 100 * tally.failures / tally.decided if tally.decided else None


def _sentence(phase: Phase, rule: FailureRule) -> str:
    tally = phase.tally
    rate = rate_percent(tally) or 0.0
    devices = "device" if tally.decided == 1 else "devices"
    cause = f"; top reason: {tally.top_reason}" if tally.top_reason else ""
    return (
        f"{phase.name}: {tally.failures} of {tally.decided} decided {devices} failed or rolled back "
        f"({rate:.1f} %), above the threshold of {rule.threshold_percent:g} % "
        f"(phase of {tally.size}){cause}"
    )
