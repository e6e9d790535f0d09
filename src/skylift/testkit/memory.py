"""What a fleet remembers: every acknowledged report of every device, a few bytes each.

An acknowledged report is a promise of the server's; at the end the memory is laid beside what the server has
(`testkit.judge`). A million devices cost 10 bytes each, and 2 more for every deployment they met.
"""

from array import array
from dataclasses import dataclass, field

from skylift.core.lifecycle import FINAL, OPEN, UpdateState

ORDER = tuple(UpdateState)
BIT = {state: 1 << number for number, state in enumerate(ORDER)}
_DONE = 1 << len(ORDER)  # complete, acknowledged, and not withdrawn
DOUBT = 1  # the last request got no answer: what the server knows is not known


def rank(state: UpdateState) -> int:
    """How far an update has come."""
    return len(OPEN) if state in FINAL else OPEN.index(state)


def states(bits: int) -> list[UpdateState]:
    return [state for state in ORDER if bits & BIT[state]]


@dataclass
class Past:
    """One deployment, as the devices saw it."""

    deployment: str
    bits: "array[int]"  # by device: the states that reports were answered with
    offers: int = 0
    reports: int = 0
    known_already: int = 0  # answered "known already"
    offered_again: set[int] = field(default_factory=set)  # although complete and acknowledged
    odd: list[str] = field(default_factory=list)  # "recorded", but answered with another state


class Memory:
    """Of `count` devices, by number."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.past: dict[str, Past] = {}
        self.versions: list[str] = []
        self.runs = array("B", [0]) * count  # an index of `versions`: what the device runs
        self.told = array("B", [0]) * count  # ... and what it told the server last, acknowledged
        self.flags = array("B", [0]) * count

    def deployment(self, deployment: str) -> Past:
        found = self.past.get(deployment)
        if found is None:
            found = self.past[deployment] = Past(deployment, array("H", [0]) * self.count)
        return found

    def version(self, version: str) -> int:
        """Its index."""
        if version not in self.versions:
            self.versions.append(version)
        return self.versions.index(version)

    def offered(self, number: int, deployment: str) -> bool:
        """The device was told of the deployment; whether it had completed it before."""
        past = self.deployment(deployment)
        past.offers += 1
        if past.bits[number] & _DONE:
            past.offered_again.add(number)
            return True
        return False

    def acknowledged(
        self, number: int, deployment: str, said: UpdateState, *, recorded: bool, state: UpdateState
    ) -> None:
        """The server answered a report with 200."""
        past = self.deployment(deployment)
        past.reports += 1
        past.known_already += not recorded
        past.bits[number] |= BIT[state]
        if recorded and state is not said:
            past.bits[number] |= BIT[said]
            past.odd.append(f"device {number} said {said}, answered recorded and {state}")
        if state is UpdateState.COMPLETE:
            past.bits[number] |= _DONE
        elif state in FINAL:
            past.bits[number] &= ~_DONE

    def furthest(self, deployment: str, number: int) -> UpdateState | None:
        """The furthest state the device was answered with."""
        return max(states(self.past[deployment].bits[number]), key=rank, default=None)

    @property
    def reports(self) -> int:
        return sum(past.reports for past in self.past.values())
