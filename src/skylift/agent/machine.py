"""What the agent does next: `next_step(facts) -> Step`. Pure, so that a power cut cannot confuse it.

Facts come from two files alone: the journal (how far the order in hand got) and boot control (what runs, what
is armed, what fell back). After any cut the same facts give the same step; doing a step twice is harmless.

| journal | boot control | step |
|---|---|---|
| any | a fallback nobody has reported | REPORT_FALLBACK |
| idle | a trial runs (the journal was lost) | TRY |
| idle | - | POLL |
| fetching | - | FETCH |
| ready | the order's slot is confirmed | FINISH |
| ready | the order's slot runs on trial | TRY |
| ready | the order's slot is armed | REBOOT |
| ready | the order's slot is not armed | ARM |
"""

from dataclasses import dataclass
from enum import StrEnum

from skylift.agent.boot import BootFacts
from skylift.agent.journal import Journal, Stage


class Step(StrEnum):
    """The agent's deeds."""

    POLL = "poll"  # ask the server
    FETCH = "fetch"  # fill the idle slot, verify the whole of it
    ARM = "arm"  # let the next boot try it
    REBOOT = "reboot"
    TRY = "try"  # health checks on the trial boot: confirm, or fall back
    FINISH = "finish"  # confirmed: raise the floor, report complete
    REPORT_FALLBACK = "report_fallback"


@dataclass(frozen=True, slots=True)
class Facts:
    """What both files say. `boot` is of the order's kind (image or configuration), or of either that fell."""

    journal: Journal
    boot: BootFacts
    unreported_fallback: bool = False


def next_step(facts: Facts) -> Step:
    """The first row of the table that fits."""
    journal, boot = facts.journal, facts.boot
    if facts.unreported_fallback:
        return Step.REPORT_FALLBACK
    if journal.stage is Stage.IDLE or journal.order is None:
        return Step.TRY if boot.running_trial else Step.POLL
    if journal.stage is Stage.FETCHING:
        return Step.FETCH
    tag = journal.order.tag
    if boot.confirmed_tag == tag:
        return Step.FINISH
    if boot.trial_tag == tag:
        return Step.TRY if boot.running_trial else Step.REBOOT
    return Step.ARM
