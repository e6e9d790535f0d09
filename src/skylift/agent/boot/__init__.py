"""Boot control: the port to whatever chooses what boots. Each method says what it does not change.

`kind` is "image" or "config": a configuration has two slots and a trial like an image, so that a bad one
falls back the same way.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """What a slot holds; `sha256` is empty while it holds nothing whole."""

    sha256: str = ""
    version: str = ""
    size: int = 0
    tag: str = ""


@dataclass(frozen=True, slots=True)
class BootFacts:
    """What boot control knows of one kind. Tags name the run (deployment/attempt) that filled a slot."""

    running: str = ""  # the slot that was booted: "a" or "b"
    running_trial: bool = False
    trial_tag: str = ""
    confirmed_tag: str = ""
    fallen_tag: str = ""
    fallen_reason: str = ""


class BootControl(Protocol):
    """What the agent may ask of a boot loader."""

    def facts(self, kind: str) -> BootFacts:
        """What runs, what is armed, what fell back. Changes nothing."""

    def slot(self, kind: str, slot: str) -> SlotFacts:
        """What the slot holds. Changes nothing."""

    def idle_slot(self, kind: str) -> str:
        """The slot that may be written: never the one that runs, never the one to fall back to."""

    def forget(self, kind: str, slot: str) -> None:
        """The slot holds nothing bootable any more; before its first byte is overwritten. Does not change
        what the next boot takes."""

    def arm(self, kind: str, slot: str, holds: SlotFacts) -> None:
        """The next boots try this slot, a limited number of times. Does not change what is confirmed."""

    def confirm(self, kind: str) -> None:
        """The running trial is good: boot it from now on. Does not touch the other slot, which stays to fall
        back to."""

    def mark_bad(self, kind: str, reason: str) -> None:
        """The running trial is bad: the next boot takes the confirmed slot. Does not reboot."""

    def healthy(self) -> None:
        """What was booted works: start counting failed boots anew. Does not confirm a trial."""

    def acknowledge(self, kind: str) -> None:
        """The fallback has been reported: forget that it happened. Changes no slot."""
