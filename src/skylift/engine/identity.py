"""Which key is which device's: certificates issued, renewed, taken back.

A device brings a request that its new key has signed. The first key of a device is taken on its token; from
then on nobody changes it without the key before it, or a new enrollment. The same request again is answered
with the same certificate: an answer that got lost costs nothing. What an old key has signed counts until the
new one signs for the first time, so a device that never got the answer is not shut out.
"""

import hashlib
import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from skylift.core.errors import Kind, Rejected
from skylift.store import devices, events, facts, identity
from skylift.store.db import Connection, Database
from skylift.store.devices import Device
from skylift.store.identity import Certificate, DeviceKey
from skylift.trust.authority import DEVICE_LIFE, Revoked
from skylift.trust.authority import Authorities as Authorities  # what the API is handed
from skylift.trust.identity import MAX_REQUEST as MAX_REQUEST
from skylift.trust.identity import MAX_SIGNATURE as MAX_SIGNATURE
from skylift.trust.identity import Purpose, read_request, verifies

RENEW_AT = DEVICE_LIFE / 3  # left of its life: the agent renews from here on


def certify(
    conn: Connection, authorities: Authorities, device: Device, request: str, proof: str, now: datetime
) -> Certificate:
    """A certificate for the key of this request. `proof`: the signature of the request's bytes by the key the
    device has now; empty where it has none, or keeps it."""
    public = read_request("csr", request, device.device_id)
    if identity.is_stolen(conn, public):
        raise _refused("key_revoked", "csr", "its key was revoked as stolen", "a new key")
    if identity.holder(conn, public) not in (None, device.pk):
        raise _refused("key_taken", "csr", "another device has this key", "a key of the device's own")
    key = identity.key_of(conn, device.pk)
    have = identity.current(conn, device.pk, key.public) if key is not None else None
    if key is not None and key.public == public:
        if have is not None and not _is_due(authorities, have, now):
            return have
    else:
        _take_key(conn, device, key, public, request, proof)
    return _issue(conn, authorities, device, public, have, now)


def _take_key(
    conn: Connection, device: Device, key: DeviceKey | None, public: str, request: str, proof: str
) -> None:
    if key is None:
        identity.set_key(conn, DeviceKey(device.pk, public, None, 0))
        return
    signed = request.encode()
    if not any(verifies(k, Purpose.RENEWAL, signed, proof) for k in (key.public, key.previous) if k):
        raise _refused(
            "proof_needed",
            "proof",
            "the device has a key, and it has not signed this request",
            "a signature of the request by the device's present key; or decommission it and enroll it anew",
        )
    identity.set_key(conn, DeviceKey(device.pk, public, key.public, key.sequence))


def _issue(
    conn: Connection,
    authorities: Authorities,
    device: Device,
    public: str,
    have: Certificate | None,
    now: datetime,
) -> Certificate:
    identity.revoke(conn, device.pk, "superseded", now, [have.serial] if have else [])
    made = authorities.issue(device.device_id, public, now)
    row = Certificate(made.serial, device.pk, made.authority, public, made.fingerprint, made.pem,
                      made.issued_at, made.expires_at, None, "")  # fmt: skip
    identity.add(conn, row)
    said = {"serial": row.serial, "key": short(public), "expires_at": row.expires_at.isoformat()}
    events.say(conn, "certificate", said, now, device_pk=device.pk)
    return row


def supersede(conn: Connection, key: DeviceKey, now: datetime) -> None:
    """The device's new key has signed: certificates of the one before are good no more."""
    have = identity.current(conn, key.device_pk, key.public)
    identity.revoke(conn, key.device_pk, "superseded", now, [have.serial] if have else [])


def _is_due(authorities: Authorities, have: Certificate, now: datetime) -> bool:
    """Whether it is time for the next: a third is left, or another authority issues now."""
    return have.expires_at - now <= RENEW_AT or have.authority != authorities.newest


def _refused(code: str, field: str, why: str, rule: str) -> Rejected:
    return Rejected(code, f"{field}: {why}", kind=Kind.FORBIDDEN, field=field, rule=rule)


def short(public: str) -> str:
    """A key's name for people: the beginning of its SHA-256."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:16]


def by_certificate(conn: Connection, fingerprint: str, now: datetime) -> Device | None:
    """The active device whose good certificate this is."""
    found = identity.by_fingerprint(conn, fingerprint)
    if found is None or found.revoked_at is not None or found.expires_at <= now:
        return None
    device = devices.by_pk(conn, found.device_pk)
    return device if device is not None and device.status == devices.ACTIVE else None


def leave(conn: Connection, device_pk: int, reason: str, now: datetime) -> None:
    """The device goes: its key signs nothing any more, its certificates are on the list."""
    identity.revoke(conn, device_pk, reason, now)
    if reason == "stolen":
        identity.mark_stolen(conn, device_pk)
    identity.drop_key(conn, device_pk)


def view(conn: Connection, device_pk: int, now: datetime) -> dict[str, Any] | None:
    """A device's certificate as people see it; None where it has a token only."""
    key = identity.key_of(conn, device_pk)
    have = identity.current(conn, device_pk, key.public) if key is not None else None
    if key is None or have is None:
        return None
    return {
        "serial": have.serial,
        "subject": f"CN={_whose(conn, device_pk)}",
        "key": short(have.public),
        "authority": have.authority,
        "fingerprint": have.fingerprint,
        "issued_at": have.issued_at.isoformat(),
        "expires_at": have.expires_at.isoformat(),
        "days_left": (have.expires_at - now).days,
        "renews": have.expires_at - now <= RENEW_AT,
        "sequence": key.sequence,
    }


def _whose(conn: Connection, device_pk: int) -> str:
    device = devices.by_pk(conn, device_pk)
    return device.device_id if device else "?"


# --- authorities ------------------------------------------------------------------------------------

PASSPHRASE = "ca_passphrase"  # noqa: S105 - the fact's name: one made here, for every server on the database


def open_authorities(conn: Connection, folder: Path, passphrase: str, now: datetime) -> Authorities:
    """The authorities of this folder, locked with this passphrase. Without one it is made, and kept in the
    database, for the keys are in the folder: either without the other is worth nothing. Where another one
    locks them nothing is opened: `Rejected`."""
    kept = facts.get(conn, PASSPHRASE) or ""
    if not passphrase and not kept:
        kept = secrets.token_urlsafe(32)
        facts.put(conn, PASSPHRASE, kept)
    try:
        return Authorities.open(folder, passphrase or kept, now, former=kept)
    except Rejected as e:
        rule = (
            f"opens {e.value}, which another one locks; where that is lost, move the files device-ca-* out "
            "of keys_dir, and devices get certificates of a new authority"
        )
        why = "is set" if passphrase else "is not set, and the one that this database keeps is another"
        raise Rejected(
            "bad_key",
            f"ca_passphrase {why}: it must be the one that {rule}",
            field="ca_passphrase",
            rule=rule,
        ) from e


class Revocations:
    """The revocation lists, PEM. Anybody may ask: they are signed anew once a second, not each time."""

    def __init__(self, database: Database, authorities: Authorities, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._authorities = authorities
        self._clock = clock
        self._lock = threading.Lock()
        self._made: tuple[datetime, str] | None = None

    def __call__(self) -> str:
        now = self._clock()
        with self._lock:
            if self._made is None or not timedelta(0) <= now - self._made[0] < timedelta(seconds=1):
                with self._database.read() as conn:
                    self._made = now, revocations(conn, self._authorities, now)
            return self._made[1]


def revocations(conn: Connection, authorities: Authorities, now: datetime) -> str:
    """Signed at `now`. Their number is the second: it grows, whichever server makes them."""
    by_authority: dict[int, list[Revoked]] = {}
    lines = identity.revoked(conn, now)
    for line in lines:
        entry = Revoked(line.serial, line.revoked_at, line.reason)
        by_authority.setdefault(line.authority, []).append(entry)
    return authorities.revocations(by_authority, max(1, int(now.timestamp())), now)


def authorities_view(conn: Connection, authorities: Authorities, now: datetime) -> list[dict[str, Any]]:
    """Each authority, and how many devices depend on it alone."""
    every = authorities.all()
    return [
        {
            "authority": one.number,
            "issues": one is every[-1],
            "expires_at": one.expires_at.isoformat(),
            "days_left": (one.expires_at - now).days,
            "devices": identity.living(conn, one.number, now),
        }
        for one in every
    ]


def rotate(conn: Connection, authorities: Authorities, number: int, actor: str, now: datetime) -> None:
    """The new authority of this number issues from now on; the old ones stay trusted until they are retired.
    Made once, however often the deed is done."""
    authorities.make(number, now)
    events.record(conn, actor, "authority.rotate", str(number), {}, now)


def retire(
    conn: Connection, authorities: Authorities, number: int, force: bool, actor: str, now: datetime
) -> None:
    """Say that it is trusted no more; its files go when this is durable. Refused for the one that issues, and
    while devices depend on it alone, unless forced: its key was stolen."""
    authorities.check_idle(number)
    left = identity.living(conn, number, now)
    if left and not force:
        raise Rejected(
            "authority_in_use",
            f"authority is {number}: {left} devices have no certificate of a newer one yet",
            kind=Kind.CONFLICT,
            field="authority",
            value=number,
            rule="no device depends on it alone; or force, where its key was stolen",
        )
    events.record(conn, actor, "authority.retire", str(number), {"devices": left, "force": force}, now)
