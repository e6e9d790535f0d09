"""Devices come and go: claims, enrollment, labels, decommissioning.

A device makes its own token and sends it with a claim; only the hash is kept. The same enrollment again is
answered like the first: an answer that got lost costs nothing.
"""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from hmac import compare_digest
from secrets import token_bytes

from skylift.core.deadlines import Deadlines
from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.ids import check_name, mint
from skylift.core.lifecycle import OPEN, Mover, Reason, UpdateState
from skylift.engine import identity, moves, waiting
from skylift.engine.access import MIN_TOKEN, token_hash
from skylift.store import devices, events, updates
from skylift.store.db import Connection
from skylift.store.devices import Claim, Device

MAX_LABELS = 64
MAX_LABEL = 200
MAX_CLAIM_USES = 1_000_000
MAX_CLAIM_HOURS = 24 * 365.0


def make_claim(
    conn: Connection, device_type: str | None, uses: int, hours: float, actor: str, now: datetime
) -> tuple[Claim, str]:
    """A claim and its token, which is shown this once."""
    if device_type is not None:
        check_name("device_type", device_type)
    if not 1 <= uses <= MAX_CLAIM_USES:
        raise invalid("uses", uses, f"between 1 and {MAX_CLAIM_USES}")
    if not 0 < hours <= MAX_CLAIM_HOURS:
        raise invalid("expires_in_hours", hours, f"above 0, at most {MAX_CLAIM_HOURS:g}")
    token = "clm_" + secrets.token_urlsafe(24)
    claim = Claim(
        mint("clm", now, token_bytes(5)), device_type, uses, now + timedelta(hours=hours), now, actor
    )
    devices.add_claim(conn, claim, token_hash(token))
    said = {"device_type": device_type, "uses": uses, "expires_at": claim.expires_at.isoformat()}
    events.record(conn, actor, "claim.create", claim.id, said, now)
    return claim, token


def enroll(
    conn: Connection,
    claim_token: str,
    device_id: str,
    device_type: str,
    token: str,
    labels: Mapping[str, str],
    now: datetime,
) -> bool:
    """A device with a claim; whether it is new."""
    _check(device_id, device_type, token, labels)
    known = devices.find_device(conn, device_id)
    if known is not None and known.status == devices.ACTIVE:
        if compare_digest(known.token_hash, token_hash(token)) and known.device_type == device_type:
            return False
        raise _taken(device_id)
    claim = _good(devices.find_claim(conn, token_hash(claim_token)), device_type, now)
    if not devices.use_claim(conn, claim.id):
        raise _refused("claim", "is used up")
    _admit(conn, known, device_id, device_type, token, labels, f"claim:{claim.id}", now)
    return True


def _good(claim: Claim | None, device_type: str, now: datetime) -> Claim:
    """The claim, if it still lets such a device in. Only who holds its token is told what is wrong."""
    if claim is None:
        raise _refused("claim", "there is no such claim")
    if claim.revoked_at is not None:
        raise _refused("claim", f"was revoked at {claim.revoked_at:%Y-%m-%d %H:%M} UTC")
    if claim.expires_at <= now:
        raise _refused("claim", f"expired at {claim.expires_at:%Y-%m-%d %H:%M} UTC")
    if claim.device_type not in (None, device_type):
        raise _refused("device_type", f"the claim is for {claim.device_type}")
    return claim


def revoke_claim(conn: Connection, claim_id: str, actor: str, now: datetime) -> Claim:
    """Nobody gets in by it any more. Again: nothing changes."""
    devices.revoke_claim(conn, claim_id, now)
    found = devices.claim_named(conn, claim_id)
    if found is None:
        raise Rejected(
            "unknown_claim",
            f"claim is {claim_id!r}: there is no such claim",
            kind=Kind.NOT_FOUND,
            field="claim",
            value=claim_id,
            rule="names a claim",
        )
    events.record(conn, actor, "claim.revoke", claim_id, {}, now)
    return found


def register(
    conn: Connection,
    device_id: str,
    device_type: str,
    token: str,
    labels: Mapping[str, str],
    actor: str,
    now: datetime,
) -> None:
    """A device that an operator lets in by name, with the token it will use."""
    _check(device_id, device_type, token, labels)
    known = devices.find_device(conn, device_id)
    if known is not None and known.status == devices.ACTIVE:
        raise _taken(device_id)
    _admit(conn, known, device_id, device_type, token, labels, actor, now)


def _check(device_id: str, device_type: str, token: str, labels: Mapping[str, str]) -> None:
    check_name("device_id", device_id)
    check_name("device_type", device_type)
    if not MIN_TOKEN <= len(token) <= 256 or not token.isascii() or not token.isprintable():
        raise invalid("token", f"{len(token)} characters", f"{MIN_TOKEN} to 256 printable ASCII characters")
    check_labels(labels)


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises `Rejected` for a label that no query could name, or too many."""
    if len(labels) > MAX_LABELS:
        raise invalid("labels", len(labels), f"at most {MAX_LABELS}")
    for name, value in labels.items():
        check_name("labels", name)
        if len(value) > MAX_LABEL or not value.isprintable():
            raise invalid(f"labels.{name}", value, f"at most {MAX_LABEL} printable characters")


def _admit(
    conn: Connection,
    known: Device | None,
    device_id: str,
    device_type: str,
    token: str,
    labels: Mapping[str, str],
    by: str,
    now: datetime,
) -> None:
    holder = devices.by_token(conn, token_hash(token))
    if holder is not None and (known is None or holder.pk != known.pk):
        raise Rejected(
            "token_taken",
            "token: another device has it",
            kind=Kind.CONFLICT,
            field="token",
            rule="a token of the device's own, such as 32 random bytes",
        )
    if known is not None:  # it was decommissioned: it comes back under its name, with its history
        devices.reenroll(conn, known.pk, device_type, token_hash(token), labels, now)
        pk = known.pk
    else:
        pk = devices.insert(
            conn,
            device_id=device_id,
            device_type=device_type,
            token_hash=token_hash(token),
            labels=labels,
            now=now,
        ).pk
    events.say(conn, "enrolled", {"device_type": device_type, "by": by}, now, device_pk=pk)
    waiting.moved(conn, frozenset(), waiting.of(conn, devices.by_pk(conn, pk)))


def _taken(device_id: str) -> Rejected:
    return Rejected(
        "device_exists",
        f"device_id is {device_id!r}: enrolled already, with another token or type",
        kind=Kind.CONFLICT,
        field="device_id",
        value=device_id,
        rule="a device that is not enrolled",
    )


def _refused(field: str, rule: str) -> Rejected:
    return Rejected("claim_refused", f"{field}: {rule}", kind=Kind.FORBIDDEN, field=field, rule=rule)


def find(conn: Connection, device_id: str) -> Device:
    """The device, or `Rejected` (not found)."""
    check_name("device", device_id)
    found = devices.find_device(conn, device_id)
    if found is None:
        raise Rejected(
            "unknown_device",
            f"device is {device_id!r}: there is no such device",
            kind=Kind.NOT_FOUND,
            field="device",
            value=device_id,
            rule="names a device",
        )
    return found


def set_labels(
    conn: Connection, device_id: str, labels: Mapping[str, str | None], actor: str, now: datetime
) -> None:
    """Merge: a value sets, null removes."""
    device = find(conn, device_id)
    merged = {**device.labels, **labels}
    kept = {name: value for name, value in merged.items() if value is not None}
    check_labels(kept)
    was = waiting.of(conn, device)
    devices.set_labels(conn, device.pk, kept)
    waiting.moved(conn, was, waiting.of(conn, replace(device, labels=kept)))
    before = {"labels": dict(device.labels)}
    events.record(conn, actor, "device.labels", device_id, {"labels": kept}, now, before=before)


def decommission(conn: Connection, device_id: str, actor: str, now: datetime, deadlines: Deadlines) -> None:
    """Out: its token and its certificate are refused, its open update ends, its history stays. Again: nothing
    changes."""
    device = find(conn, device_id)
    if device.status == devices.ACTIVE:
        _leave(conn, device, "decommissioned", actor, now, deadlines)


def revoke(conn: Connection, device_id: str, actor: str, now: datetime, deadlines: Deadlines) -> None:
    """It is in other hands: out like a decommissioned device, and the key it had never comes back, not even
    with a claim. Also of a device that is out already."""
    device = find(conn, device_id)
    if device.status == devices.ACTIVE:
        _leave(conn, device, "stolen", actor, now, deadlines)
        return
    identity.leave(conn, device.pk, "stolen", now)
    events.record(conn, actor, "device.revoke", device_id, {}, now)


def _leave(
    conn: Connection, device: Device, reason: str, actor: str, now: datetime, deadlines: Deadlines
) -> None:
    if device.deployment_id is not None:
        update = updates.find(conn, device.deployment_id, device.pk)
        if update is not None and update.state in OPEN:
            _end(conn, update, now, deadlines)
    waiting.moved(conn, waiting.of(conn, device), frozenset())
    devices.decommission(conn, device.pk)
    identity.leave(conn, device.pk, reason, now)
    said, action = ("revoked", "revoke") if reason == "stolen" else ("decommissioned", "decommission")
    events.say(conn, said, {"by": actor}, now, device_pk=device.pk)
    before = {"status": device.status, "labels": dict(device.labels)}
    after = {"status": devices.DECOMMISSIONED}
    events.record(conn, actor, f"device.{action}", device.device_id, after, now, before=before)


def _end(conn: Connection, update: updates.Update, now: datetime, deadlines: Deadlines) -> None:
    early = update.state in (UpdateState.PENDING, UpdateState.DOWNLOADING)
    to = UpdateState.CANCELED if early else UpdateState.FAILED
    why = moves.Why(Reason.ABORTED, "the device was decommissioned")
    moves.move(conn, update, to, now, deadlines, mover=Mover.SERVER, why=why)
