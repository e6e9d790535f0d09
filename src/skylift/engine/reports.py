"""A device's word about its update: judged by the lifecycle table, fenced by the attempt.

A repeat, or a report that time has overtaken, is answered kindly and changes nothing. An impossible one is
refused by name. `complete` must prove the image: where the device names a digest, it has to be the release's.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from skylift.core.deadlines import Deadlines
from skylift.core.errors import Kind, Rejected
from skylift.core.lifecycle import FAILURES, FINAL, Mover, Reason, UpdateState, Verdict, judge
from skylift.engine import waiting
from skylift.engine.moves import Why, move
from skylift.store import deployments, devices, events, releases, updates
from skylift.store.db import Connection
from skylift.store.devices import Device
from skylift.store.updates import Update


class Report(NamedTuple):
    """A status report, its form already checked at the edge."""

    deployment: str
    state: UpdateState
    attempt: int | None = None
    progress: int | None = None
    reason: Reason | None = None
    message: str = ""
    image_sha256: str | None = None
    security_floor: int | None = None  # what the device has confirmed
    signed_by: str = ""  # the key that signed it, as verified (`engine.proofs`); empty: none


class Recorded(NamedTuple):
    """Whether it changed anything, and where the update stands now; whose it is."""

    recorded: bool
    state: UpdateState
    device_pk: int
    moved: bool = False  # it was the first word of this stage


def record(conn: Connection, device: Device, report: Report, now: datetime, deadlines: Deadlines) -> Recorded:
    """Take the report down, in the caller's transaction."""
    update = updates.find(conn, report.deployment, device.pk)
    if update is None or (update.state in FINAL and deployments.find(conn, report.deployment) is None):
        raise Rejected(
            "unknown_update",
            f"deployment is {report.deployment!r}: {device.device_id} has no update in it",
            kind=Kind.NOT_FOUND,
            field="deployment",
            value=report.deployment,
            rule="names a deployment that was offered to this device",
        )
    if report.attempt is not None and report.attempt > update.attempt:
        raise Rejected(
            "unknown_attempt",
            f"attempt is {report.attempt}: the latest is {update.attempt}",
            kind=Kind.CONFLICT,
            field="attempt",
            value=report.attempt,
            rule=f"at most {update.attempt}",
        )
    if report.attempt is not None and report.attempt < update.attempt:
        return _late(conn, device, update, report, now)
    match judge(update.state, report.state):
        case Verdict.REPEAT:
            return _late(conn, device, update, report, now)
        case Verdict.REFRESH:
            return _refresh(conn, update, report, now, deadlines)
        case Verdict.MOVE:
            return _move(conn, device, update, report, now, deadlines)
        case _:
            raise Rejected(
                "impossible_move",
                f"state is {report.state.value!r}: the update stands at {update.state.value}",
                kind=Kind.CONFLICT,
                field="state",
                value=report.state.value,
                rule=f"a move the lifecycle allows from {update.state.value}",
            )


def _late(conn: Connection, device: Device, update: Update, report: Report, now: datetime) -> Recorded:
    if report.state is not update.state:
        data = {"state": report.state.value, "stands_at": update.state.value, "attempt": report.attempt}
        events.say(conn, "late_report", data, now, deployment_id=update.deployment_id, device_pk=device.pk)
    return Recorded(False, update.state, update.device_pk)


def _refresh(
    conn: Connection, update: Update, report: Report, now: datetime, deadlines: Deadlines
) -> Recorded:
    """The same stage again: progress, and the silence begins anew."""
    progress = update.progress if report.progress is None else report.progress
    updates.move(
        conn,
        update,
        update.state,
        progress=progress,
        updated_at=now,
        deadline_at=deadlines.at(update.state, now),
    )
    return Recorded(True, update.state, update.device_pk)


def _move(
    conn: Connection, device: Device, update: Update, report: Report, now: datetime, deadlines: Deadlines
) -> Recorded:
    reason = report.reason
    if report.state in FAILURES and reason is None:
        reason = Reason.INSTALL_ERROR if report.state is UpdateState.FAILED else Reason.BOOT_FAILED
    if report.state is UpdateState.COMPLETE:
        _prove(conn, device, update, report)
    why = Why(reason, report.message, report.progress, report.signed_by)
    # Who has completed an update may be waited for by its rollback; who takes that back is not.
    counts = UpdateState.COMPLETE in (update.state, report.state)
    was = waiting.of(conn, device, but=update.deployment_id) if counts else frozenset()
    moved = move(conn, update, report.state, now, deadlines, mover=Mover.DEVICE, why=why)
    if moved is None:  # somebody else was first: look again, once; a second loss is an outage's retry
        now_is = updates.find(conn, update.deployment_id, device.pk)
        return Recorded(False, now_is.state if now_is else update.state, device.pk)
    if report.state is UpdateState.COMPLETE:
        device = _runs(conn, device, update, report)
    if counts:
        waiting.moved(conn, was, waiting.of(conn, device, but=update.deployment_id))
    return Recorded(True, moved.state, device.pk, moved=True)


def _release_of(conn: Connection, update: Update) -> Any:
    deployment = deployments.find(conn, update.deployment_id)
    if deployment is None:
        raise AssertionError("an update without its deployment")
    return deployment


def _prove(conn: Connection, device: Device, update: Update, report: Report) -> None:
    """The digest the device says it runs must be the release's for its type."""
    if report.image_sha256 is None:
        return
    deployment = _release_of(conn, update)
    full = releases.full_artifact(conn, deployment.release_id, device.device_type)
    if full is None or full.sha256 != report.image_sha256:
        raise Rejected(
            "wrong_image",
            f"image_sha256 is {report.image_sha256!r}: not the image of {deployment.product} "
            f"{deployment.version} for {device.device_type}",
            kind=Kind.CONFLICT,
            field="image_sha256",
            value=report.image_sha256,
            rule="the digest of the image that was ordered",
        )


def _runs(conn: Connection, device: Device, update: Update, report: Report) -> Device:
    """The device, which now runs the release."""
    deployment = _release_of(conn, update)
    if deployment.kind == "config":
        versions = (device.current_version, deployment.version)
        image = device.image_sha256
    else:
        versions = (deployment.version, device.config_version)
        full = releases.full_artifact(conn, deployment.release_id, device.device_type)
        image = full.sha256 if full else report.image_sha256
    devices.set_facts(conn, device.pk, *versions, image)
    return replace(device, current_version=versions[0], config_version=versions[1])
