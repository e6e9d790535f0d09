"""What people are told, and in which words: one sentence for pages, terminal, mail, chat and webhooks."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from skylift.core.errors import invalid


class Told(StrEnum):
    """What somebody may want to hear of; persisted and on the wire."""

    CREATED = "deployment.created"
    APPROVAL = "deployment.approval"  # it waits for a second person
    APPROVED = "deployment.approved"
    STARTED = "deployment.started"
    STOPPED = "deployment.stopped"  # by its own gate
    PAUSED = "deployment.paused"  # by a person
    RESUMED = "deployment.resumed"
    RETRIED = "deployment.retried"
    COMPLETE = "deployment.complete"
    FAILED = "deployment.failed"
    ABORTED = "deployment.aborted"
    PHASE_OPENED = "phase.opened"
    PHASE_THROUGH = "phase.through"
    WAITING = "release.waiting"  # for signatures
    PUBLISHED = "release.published"
    WITHDRAWN = "release.withdrawn"
    EXPIRES = "trust.expires"  # a quarter of its life is left
    EXPIRED = "trust.expired"
    TEST = "channel.test"


CHATTER = frozenset({Told.PHASE_OPENED, Told.PHASE_THROUGH})  # only to who asks for it by name

_VERBS: Mapping[str, Told] = {
    "pause": Told.PAUSED,
    "resume": Told.RESUMED,
    "retry": Told.RETRIED,
    "abort": Told.ABORTED,
    "approve": Told.APPROVED,
}
_PLANNED: Mapping[str, Told] = {
    "scheduled": Told.CREATED,
    "draft": Told.CREATED,
    "running": Told.STARTED,
    "paused": Told.STOPPED,
    "complete": Told.COMPLETE,
    "failed": Told.FAILED,
}
_PHASES: Mapping[str, Told] = {"phase_opened": Told.PHASE_OPENED, "phase_through": Told.PHASE_THROUGH}


def of_event(kind: str, data: Mapping[str, Any]) -> Told | None:
    """What a deployment's event is to people; None: nothing to call anybody for."""
    if kind in _PHASES:
        return _PHASES[kind]
    if kind != "deployment":
        return None
    if "verb" in data:
        return _VERBS.get(data["verb"])
    if data.get("paused_by") == "approval":
        return Told.APPROVAL
    return _PLANNED.get(data.get("status", ""))


def standing(product: str, version: str, status: str, reason: str) -> str:
    """Where a deployment or a release stands: the one sentence."""
    return f"{product} {version} is {status}" + (f": {reason}" if reason else "")


def expiring(name: str, days_left: int) -> str:
    """How a role of `repository/role` stands that people must sign again."""
    return f"{name} has expired" if days_left < 0 else f"{name} expires in {days_left} days"


def of_phase(told: Told, data: Mapping[str, Any]) -> str:
    """What a phase did, as a reason."""
    if told is Told.PHASE_OPENED:
        return f"{data['name']} opened, {data['size']} devices"
    return f"{data['name']} is through"


# --- who wants to hear what --------------------------------------------------------------------------


def check_wants(wants: list[str] | None) -> list[str] | None:
    """Names of what there is to hear, or of families of it (`deployment`); None: everything but chatter."""
    if wants is None:
        return None
    families = {told.value.partition(".")[0] for told in Told}
    for number, name in enumerate(wants):
        if name not in families and name not in [told.value for told in Told]:
            raise invalid(f"wants[{number}]", name, f"one of {', '.join((*sorted(families), *Told))}")
    if not wants:
        raise invalid("wants", wants, "at least one; leave it out for everything but phases")
    return sorted(set(wants))


def is_wanted(wants: list[str] | None, told: Told) -> bool:
    if told is Told.TEST:
        return True
    if wants is None:
        return told not in CHATTER
    return told.value in wants or told.value.partition(".")[0] in wants


# --- what is sent ------------------------------------------------------------------------------------


def message(told: Told, sentence: str, at: datetime, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a webhook, in the form that Standard Webhooks recommends."""
    when = at.isoformat().replace("+00:00", "Z")
    return {"type": told.value, "timestamp": when, "data": {"sentence": sentence, **facts}}


def filled(template: Any, words: Mapping[str, str]) -> Any:
    """A chat's JSON with `{sentence}`, `{type}` and `{link}` put into its texts: after it was parsed, so that
    no word can end a text and begin something else."""
    match template:
        case str():
            for name, word in words.items():
                template = template.replace("{" + name + "}", word)
            return template
        case list():
            return [filled(part, words) for part in template]
        case dict():
            return {name: filled(part, words) for name, part in template.items()}
        case _:
            return template
