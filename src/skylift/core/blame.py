"""What do the devices that failed have in common? `blame(counts, whole) -> Findings`.

For every attribute and value (device type, former version, a label, a group) stands how many devices with it
failed. A cohort is suspect where that many failures would hardly fall on so many devices by chance: Fisher's
exact test, one-sided (the hypergeometric tail), times the number of cohorts that were looked at (Bonferroni).
Its lift is its failure rate divided by the rate of everybody else; `lift_at_least` is the lower end of a 95 %
interval, corrected for the number of cohorts too: given how many failed, the share of them that is inside is
binomial (the ratio of two Poisson rates, Przyborowski and Wilenski 1940). Where no cohort passes, the
answer is that nothing separates them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf, lgamma, log, log1p

CHANCE = 0.01  # above this, corrected, a cohort is not blamed
CONFIDENCE = 0.05  # of the interval of the lift
MIN_FAILED = 3  # failures in a cohort before anybody speaks of a pattern
MOST = 10  # findings worth showing


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many failed."""

    failed: int
    total: int

    @property
    def rate(self) -> float:
        return self.failed / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Suspect:
    """A cohort that fails more than the others. `chance`: of a pattern as strong anywhere, by luck alone."""

    attribute: str
    value: str
    inside: Share
    outside: Share
    lift: float
    lift_at_least: float
    chance: float


@dataclass(frozen=True, slots=True)
class Findings:
    """The suspects, the strongest first; `looked_at` cohorts; one sentence."""

    suspects: tuple[Suspect, ...]
    looked_at: int
    sentence: str


def blame(counts: Mapping[tuple[str, str], Share], whole: Share) -> Findings:
    """The cohorts (attribute, value) that separate the failed of `whole` from the rest."""
    # A cohort of everybody separates nobody; the correction counts all that could have been blamed.
    looked_at = {name: share for name, share in counts.items() if 0 < share.total < whole.total}
    found = []
    for (attribute, value), inside in sorted(looked_at.items()):
        outside = Share(whole.failed - inside.failed, whole.total - inside.total)
        if inside.failed < MIN_FAILED or inside.rate <= outside.rate:
            continue
        chance = min(1.0, len(looked_at) * tail(inside, whole))
        if chance <= CHANCE:
            lift, at_least = lifts(inside, outside, len(looked_at))
            found.append(Suspect(attribute, value, inside, outside, lift, at_least, chance))
    found.sort(key=lambda one: (one.chance, -one.lift, one.attribute, one.value))
    suspects = tuple(found[:MOST])
    return Findings(suspects, len(looked_at), _sentence(suspects, len(looked_at), whole))


def tail(inside: Share, whole: Share) -> float:
    """The chance that at least as many of the `whole.failed` failures fall on `inside.total` devices."""
    top = min(inside.total, whole.failed)
    all_ways = _choose(whole.total, whole.failed)
    total = 0.0
    for k in range(inside.failed, top + 1):
        ways = _choose(inside.total, k) + _choose(whole.total - inside.total, whole.failed - k)
        term = exp(ways - all_ways)
        total += term
        if term < total * 1e-12:  # the terms only shrink from here on: above the mean
            break
    return min(1.0, total)


def lifts(inside: Share, outside: Share, looked_at: int) -> tuple[float, float]:
    """The lift, and what it is at least. Where nobody else failed, half a failure is taken for none."""
    lift = inside.rate / (max(outside.failed, 0.5) / outside.total)
    at_least = _share_at_least(inside.failed, inside.failed + outside.failed, CONFIDENCE / looked_at)
    return lift, min(lift, at_least / (1 - at_least) * outside.total / inside.total)


def _share_at_least(part: int, of: int, error: float) -> float:
    """The smallest share with which `part` of `of` or more still come with a chance of `error` (Clopper and
    Pearson's lower end), by halving."""
    low, high = 0.0, part / of
    for _ in range(50):
        middle = (low + high) / 2
        if _binomial_tail(part, of, middle) < error:
            low = middle
        else:
            high = middle
    return low


def _binomial_tail(part: int, of: int, share: float) -> float:
    """The chance of `part` or more of `of`; `part` is above the mean, so the terms only shrink."""
    total = 0.0
    for k in range(part, of + 1):
        term = exp(_choose(of, k) + k * log(share) + (of - k) * log1p(-share))
        total += term
        if term < total * 1e-12:
            break
    return total


def _choose(n: int, k: int) -> float:
    """The logarithm of the number of ways; minus infinity where there are none."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) if 0 <= k <= n else -inf


def _sentence(suspects: tuple[Suspect, ...], looked_at: int, whole: Share) -> str:
    if not whole.failed:
        return f"none of {whole.total} decided devices failed"
    if not suspects:
        return (
            f"nothing separates the {whole.failed} failed of {whole.total} decided devices from the rest: "
            f"none of {looked_at} cohorts stands out by more than chance"
        )
    first = suspects[0]
    return (
        f"{first.attribute} {first.value}: {first.inside.failed} of {first.inside.total} failed "
        f"({100 * first.inside.rate:.1f} %), of the others {first.outside.failed} of {first.outside.total} "
        f"({100 * first.outside.rate:.1f} %): lift {first.lift:.1f}, at least {first.lift_at_least:.1f}; "
        f"by chance at most {first.chance:.1g}, all {looked_at} cohorts considered"
    )
