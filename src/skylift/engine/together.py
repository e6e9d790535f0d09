"""Reports that come together are taken down together: a few statements for hundreds of them.

What a device says in the ordinary course (the next stage, more of the same stage, complete) is judged as
always and written in bulk. Whatever is special (a failure, which may stop the deployment; a second report of
the same device; anything that is refused) goes one by one through `reports.record`, in a savepoint of its
own, after the others. The same rows come out either way; the tests hold both beside each other.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from skylift.core.deadlines import Deadlines
from skylift.core.errors import Rejected
from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import FAILURES, UpdateState, Verdict, judge
from skylift.engine import floors, reports, witness
from skylift.engine.access import unknown_token
from skylift.engine.behind import Progress
from skylift.engine.moves import MAX_MESSAGE
from skylift.engine.proofs import Proofs, Said
from skylift.engine.reports import Recorded
from skylift.store import apply, counters, deployments, devices, events, releases, speakers, updates
from skylift.store.db import Connection
from skylift.store.devices import Device
from skylift.store.speakers import Speaker
from skylift.store.updates import Update

S = UpdateState


@dataclass
class _Bulk:
    """What the plain ones come to: rows for each statement."""

    moved: list[updates.Moved] = field(default_factory=list)
    counted: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    done: list[tuple[int, str | None, str | None, str | None]] = field(default_factory=list)
    told: list[events.Told] = field(default_factory=list)
    wake: set[str] = field(default_factory=set)


class Reports:
    """The deed for many (`Database.submit_to`)."""

    def __init__(
        self, deadlines: Deadlines, proofs: Proofs | None = None, progress: Progress | None = None
    ) -> None:
        self._deadlines = deadlines
        self._proofs = proofs or Proofs()
        self._progress = progress  # None: it is written at once

    def __call__(self, conn: Connection, said: list[Said]) -> list[Any]:
        """`Recorded` for each, or the exception that refuses it."""
        found = speakers.look(conn, [(one.token_hash, one.report.deployment) for one in said])
        answers: list[Any] = [None] * len(said)
        known: list[tuple[int, Said, Speaker]] = []
        for number, (one, speaker) in enumerate(zip(said, found, strict=True)):
            if speaker is None or speaker.status != devices.ACTIVE or speaker.device_id != one.device_id:
                answers[number] = unknown_token()  # a stranger costs no more than the look
            else:
                known.append((number, one._replace(device_pk=speaker.pk), speaker))
        if known:
            numbers, some, whose = (list(column) for column in zip(*known, strict=True))
            for number, answer in zip(numbers, self._hear(conn, some, whose), strict=True):
                answers[number] = answer
        return answers

    def _hear(self, conn: Connection, said: list[Said], whose: list[Speaker]) -> list[Any]:
        judged = self._proofs.judge(said, [speaker.key for speaker in whose])
        said = judged.said
        updated = {speaker.update.deployment_id for speaker in whose if speaker.update is not None}
        deployed = {name: deployments.find(conn, name) for name in updated}
        images, live = _Images(conn), set(deployments.live_ids(conn))
        contested = {name for name in updated if live - {name}}  # others may wait for its devices
        answers: list[Any] = [judged.refused.get(number) for number in range(len(said))]
        bulk, seen = _Bulk(), set()
        for number, (one, speaker) in enumerate(zip(said, whose, strict=True)):
            update = speaker.update
            if answers[number] is not None or update is None or speaker.pk in seen:
                continue
            deployment = deployed[update.deployment_id]
            if deployment is None:
                continue
            seen.add(speaker.pk)  # what it says next is said of what this one leaves behind
            if _is_plain(one, update, contested):
                facts = _facts(one, speaker, deployment, images)
                if facts is not None:
                    answers[number] = self._take_down(bulk, one, update, facts)
        _write(conn, bulk)
        judged.write(conn)
        witness.hear(conn, [one for number, one in enumerate(said) if number not in judged.refused])
        for number, one in enumerate(said):
            if answers[number] is None:
                answers[number] = self._alone(conn, one)
        floors.note(conn, _confirmed(said, answers), said[0].now)
        return answers

    def _take_down(self, bulk: _Bulk, one: Said, update: Update, facts: "_Facts") -> Recorded:
        to, report, now = one.report.state, one.report, one.now
        if self._progress is not None:
            update = self._progress.take(update)
        progress = update.progress if report.progress is None else report.progress
        refresh = to is update.state
        if to is S.COMPLETE and report.progress is None:
            progress = 100
        message = report.message[:MAX_MESSAGE]
        moved = updates.Moved(
            update, to, progress, None if refresh else message, self._deadlines.at(to, now), now
        )
        if refresh and self._progress is not None and self._progress.note(moved):
            return Recorded(True, to, one.device_pk)
        bulk.moved.append(moved)
        if refresh:
            return Recorded(True, to, one.device_pk)
        bulk.counted[update.deployment_id, update.counted_in, update.state] -= 1
        bulk.counted[update.deployment_id, update.counted_in, to] += 1
        data = _moved(update.state, to, update.attempt, update.phase, message, report.signed_by)
        bulk.told.append(events.Told(now, update.deployment_id, one.device_pk, "update", data))
        if to is S.COMPLETE:
            bulk.done.append((one.device_pk, *facts))
            bulk.wake.add(update.deployment_id)
        return Recorded(True, to, one.device_pk, moved=True)

    def _alone(self, conn: Connection, one: Said) -> Any:
        with conn.begin_nested() as savepoint:
            try:
                device = devices.by_pk(conn, one.device_pk)
                if device is None or not _is_hers(one, device):
                    raise unknown_token()
                return reports.record(conn, device, one.report, one.now, self._deadlines)
            except Rejected as e:
                savepoint.rollback()
                return e


_Facts = tuple[str | None, str | None, str | None]  # versions of image and configuration, digest of the image


class _Images:
    """The digest of a release's image for a type; each asked for once."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._known: dict[tuple[str, str], str | None] = {}

    def of(self, release_id: str, device_type: str) -> str | None:
        key = (release_id, device_type)
        if key not in self._known:
            full = releases.full_artifact(self._conn, release_id, device_type)
            self._known[key] = full.sha256 if full else None
        return self._known[key]


@lru_cache(maxsize=256)
def _moved(was: UpdateState, to: UpdateState, attempt: int, phase: int, message: str, signed_by: str) -> str:
    data: dict[str, Any] = {"from": was.value, "state": to.value, "attempt": attempt, "phase": phase}
    if message:
        data["message"] = message
    if signed_by:
        data["signed_by"] = signed_by
    return events.written(data)


def _is_hers(one: Said, device: Device) -> bool:
    return device.status == devices.ACTIVE and device.token_hash == one.token_hash


# The ordinary course, which stops nothing and refuses nothing.
_PLAIN = frozenset(
    (was, to)
    for was in UpdateState
    for to in UpdateState
    if judge(was, to) in (Verdict.MOVE, Verdict.REFRESH) and not {was, to} & set(FAILURES)
)


def _is_plain(one: Said, update: Update, contested: set[DeploymentId]) -> bool:
    report = one.report
    return (
        (update.state, report.state) in _PLAIN
        and report.attempt in (None, update.attempt)
        and not (report.state is S.COMPLETE and update.deployment_id in contested)
    )


def _facts(one: Said, device: Speaker, deployment: Any, images: _Images) -> _Facts | None:
    """What the device runs after this report; None where it proves the wrong image."""
    if one.report.state is not S.COMPLETE:
        return device.current_version, device.config_version, device.image_sha256
    image = images.of(deployment.release_id, device.device_type)
    proof = one.report.image_sha256
    if proof is not None and proof != image:
        return None
    if deployment.kind == "config":
        return device.current_version, deployment.version, device.image_sha256
    return deployment.version, device.config_version, image or proof


def _confirmed(said: Sequence[Said], answers: Sequence[Any]) -> dict[int, int]:
    """Device -> its security floor, of the reports that were not refused."""
    return {
        one.device_pk: one.report.security_floor
        for one, answer in zip(said, answers, strict=True)
        if isinstance(answer, Recorded) and one.report.security_floor is not None
    }


def _write(conn: Connection, bulk: _Bulk) -> None:
    updates.move_many(conn, bulk.moved)
    for (deployment, phase, state), by in bulk.counted.items():
        if by:
            counters.bump(conn, deployment, phase, state, by)
    devices.finish_many(conn, bulk.done)
    events.say_many(conn, bulk.told)
    for deployment in bulk.wake:
        apply.wake(conn, deployment)
