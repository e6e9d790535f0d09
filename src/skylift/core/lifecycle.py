"""The states of an update and of a deployment, and every move between them: two tables.

The names are persisted and on the wire: chosen once, kept for ten years. Docs' diagrams are drawn from
these tables. A report that asks for a move the table does not have changes nothing; which of the two
reasons (a repeat, or an impossibility) is `judge`'s answer.
"""

from enum import StrEnum


class UpdateState(StrEnum):
    """One device's run through one deployment."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    INSTALLING = "installing"
    VALIDATING = "validating"
    COMPLETE = "complete"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SKIPPED = "skipped"  # server only: already there, or not compatible
    CANCELED = "canceled"  # server only: the deployment ended before the device began

    __hash__ = str.__hash__  # as its word, which it equals; Enum's is made in Python, at each look


class Reason(StrEnum):
    """Why an update did not succeed: a closed list, beside a free `message`."""

    DOWNLOAD_ERROR = "download_error"
    HASH_MISMATCH = "hash_mismatch"
    SIGNATURE_INVALID = "signature_invalid"
    METADATA_EXPIRED = "metadata_expired"
    METADATA_ROLLBACK = "metadata_rollback"
    WRONG_HARDWARE = "wrong_hardware"
    BELOW_SECURITY_FLOOR = "below_security_floor"
    NO_SPACE = "no_space"
    BATTERY_LOW = "battery_low"
    INSTALL_ERROR = "install_error"
    BOOT_FAILED = "boot_failed"
    HEALTH_CHECK_FAILED = "health_check_failed"
    TIMEOUT = "timeout"
    ABORTED = "aborted"


class Mover(StrEnum):
    """Who may make a move."""

    DEVICE = "device"
    SERVER = "server"


S = UpdateState
OPEN = (S.PENDING, S.DOWNLOADING, S.INSTALLING, S.VALIDATING)
FINAL = (S.COMPLETE, S.FAILED, S.ROLLED_BACK, S.SKIPPED, S.CANCELED)
REPORTABLE = (S.DOWNLOADING, S.INSTALLING, S.VALIDATING, S.COMPLETE, S.FAILED, S.ROLLED_BACK)
COUNTED = (S.COMPLETE, S.FAILED, S.ROLLED_BACK)  # what the failure rate is made of
FAILURES = (S.FAILED, S.ROLLED_BACK)
OUTCOMES = (S.COMPLETE, *FAILURES)  # a device's last word; one with a key of its own signs it

# (from, to) -> who may. A device may jump forward: reports get lost, and what it says last is what is so.
UPDATE_MOVES: dict[tuple[UpdateState, UpdateState], frozenset[Mover]] = {
    **{
        (OPEN[i], OPEN[j]): frozenset({Mover.DEVICE})
        for i in range(len(OPEN))
        for j in range(i + 1, len(OPEN))
    },
    **{(state, S.COMPLETE): frozenset({Mover.DEVICE}) for state in OPEN},
    **{(state, S.FAILED): frozenset({Mover.DEVICE, Mover.SERVER}) for state in OPEN},  # server: silence
    **{(state, S.ROLLED_BACK): frozenset({Mover.DEVICE}) for state in OPEN},
    # A later fallback withdraws the success.
    (S.COMPLETE, S.ROLLED_BACK): frozenset({Mover.DEVICE}),
    # The deployment ended, or the device turned out to be there already.
    (S.PENDING, S.CANCELED): frozenset({Mover.SERVER}),
    (S.DOWNLOADING, S.CANCELED): frozenset({Mover.SERVER}),
    (S.PENDING, S.SKIPPED): frozenset({Mover.SERVER}),
    # Retry.
    (S.FAILED, S.PENDING): frozenset({Mover.SERVER}),
    (S.ROLLED_BACK, S.PENDING): frozenset({Mover.SERVER}),
}


class Verdict(StrEnum):
    """What a report comes to."""

    MOVE = "move"  # a row of the table: apply it
    REFRESH = "refresh"  # the same open state again: progress and deadline only
    REPEAT = "repeat"  # said before, or overtaken: change nothing, answer kindly
    REFUSED = "refused"  # no such move


def judge(current: UpdateState, asked: UpdateState, mover: Mover = Mover.DEVICE) -> Verdict:
    """What to do with `asked` when the update stands at `current`.

    Late and repeated reports are `REPEAT`: networks duplicate and reorder, and that is nobody's fault.
    """
    if mover in UPDATE_MOVES.get((current, asked), frozenset()):
        return Verdict.MOVE
    if current is asked:
        return Verdict.REFRESH if current in OPEN else Verdict.REPEAT
    if mover is Mover.DEVICE and asked in REPORTABLE:
        return Verdict.REPEAT if _overtaken(current, asked) else Verdict.REFUSED
    return Verdict.REFUSED


def _overtaken(current: UpdateState, asked: UpdateState) -> bool:
    """Whether `asked` is an earlier stage than `current`, or any report once the update is final."""
    if current in FINAL:
        return True
    return asked in OPEN and OPEN.index(asked) < OPEN.index(current)


class DeploymentStatus(StrEnum):
    """Where a deployment stands."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    ABORTED = "aborted"
    FAILED = "failed"


class PausedBy(StrEnum):
    """Who paused a deployment."""

    OPERATOR = "operator"
    FAILURE_THRESHOLD = "failure_threshold"
    APPROVAL = "approval"


D = DeploymentStatus
ENDED = (D.COMPLETE, D.ABORTED, D.FAILED)
DEPLOYMENT_MOVES: frozenset[tuple[DeploymentStatus, DeploymentStatus]] = frozenset(
    {
        (D.DRAFT, D.SCHEDULED),
        (D.DRAFT, D.ABORTED),
        (D.SCHEDULED, D.RUNNING),
        (D.SCHEDULED, D.PAUSED),
        (D.SCHEDULED, D.ABORTED),
        (D.RUNNING, D.PAUSED),
        (D.RUNNING, D.COMPLETE),
        (D.RUNNING, D.ABORTED),
        (D.RUNNING, D.FAILED),
        (D.PAUSED, D.RUNNING),
        (D.PAUSED, D.SCHEDULED),
        (D.PAUSED, D.ABORTED),
        # Retry reopens a finished deployment for its failed devices.
        (D.COMPLETE, D.RUNNING),
    }
)
