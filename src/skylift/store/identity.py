"""Devices' own keys and certificates. Only public parts come here.

`device_keys` is what a report needs: the key that must have signed it, and how far that key's sequence has
come. `certificates` is history: every one ever issued, and when and why it was taken back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.bulk import Question, Statement
from skylift.store.tables import certificates, device_keys, devices


class DeviceKey(NamedTuple):
    """A device's key. `previous` is good until the first signature by `public`; `sequence` is the highest
    number that a signed report of this device bore."""

    device_pk: int
    public: str
    previous: str | None
    sequence: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """One row of `certificates`."""

    serial: str
    device_pk: int
    authority: int
    public: str
    fingerprint: str
    pem: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    reason: str


_KEYS = Question(f"SELECT {', '.join(DeviceKey._fields)} FROM device_keys WHERE device_pk IN {{keys}}")


def keys_of(conn: Connection, device_pks: Sequence[int]) -> dict[int, DeviceKey]:
    """The keys of these devices, where they have one."""
    return {row[0]: DeviceKey(*row) for row in _KEYS.ask(conn, device_pks)}


def key_of(conn: Connection, device_pk: int) -> DeviceKey | None:
    return keys_of(conn, [device_pk]).get(device_pk)


def set_key(conn: Connection, key: DeviceKey) -> None:
    """Put down, or replace."""
    values = {"public": key.public, "previous": key.previous, "sequence": key.sequence}
    changed = conn.execute(
        sa.update(device_keys).where(device_keys.c.device_pk == key.device_pk).values(**values)
    )
    if changed.rowcount == 0:
        conn.execute(sa.insert(device_keys).values(device_pk=key.device_pk, **values))


def drop_key(conn: Connection, device_pk: int) -> None:
    conn.execute(sa.delete(device_keys).where(device_keys.c.device_pk == device_pk))


_HEARD = Statement(
    "UPDATE device_keys SET sequence = b, previous = CASE WHEN c = 1 THEN NULL ELSE previous END"
    " FROM {rows} WHERE device_pk = a",
    ("bigint", "bigint", "bigint"),
)


def heard(conn: Connection, said: Sequence[tuple[int, int, bool]]) -> None:
    """(device_pk, sequence, whether the newest key signed: then the one before is good no more)."""
    _HEARD.run(conn, [(pk, number, int(newest)) for pk, number, newest in said])


_ADVANCED = Statement(
    "UPDATE device_keys SET sequence = b, previous = CASE WHEN public = c THEN NULL ELSE previous END"
    " FROM {rows} WHERE device_pk = a AND sequence <= b AND (public = c OR previous = c)",
    ("bigint", "bigint", "text"),
)


def advance(conn: Connection, said: Sequence[tuple[int, int, str]]) -> None:
    """(device_pk, sequence, the key that signed): never backwards, and nothing of a key that is gone."""
    _ADVANCED.run(conn, said)


# --- certificates -----------------------------------------------------------------------------------


def add(conn: Connection, made: Certificate) -> None:
    conn.execute(
        sa.insert(certificates).values(
            serial=made.serial,
            device_pk=made.device_pk,
            authority=made.authority,
            public=made.public,
            fingerprint=made.fingerprint,
            pem=made.pem,
            issued_at=made.issued_at,
            expires_at=made.expires_at,
            revoked_at=made.revoked_at,
            reason=made.reason,
        )
    )


def current(conn: Connection, device_pk: int, public: str) -> Certificate | None:
    """The newest certificate of this key of the device's that was not taken back."""
    row = conn.execute(
        sa.select(certificates)
        .where(
            certificates.c.device_pk == device_pk,
            certificates.c.public == public,
            certificates.c.revoked_at.is_(None),
        )
        .order_by(certificates.c.issued_at.desc(), certificates.c.serial)
        .limit(1)
    ).first()
    return Certificate(*row) if row else None


def by_fingerprint(conn: Connection, fingerprint: str) -> Certificate | None:
    row = conn.execute(sa.select(certificates).where(certificates.c.fingerprint == fingerprint)).first()
    return Certificate(*row) if row else None


def revoke(conn: Connection, device_pk: int, reason: str, now: datetime, but: Sequence[str] = ()) -> int:
    """Take back the device's certificates, but for those with these serials; how many."""
    question = sa.update(certificates).where(
        certificates.c.device_pk == device_pk,
        certificates.c.revoked_at.is_(None),
        certificates.c.serial.not_in(but),
    )
    return conn.execute(question.values(revoked_at=now, reason=reason)).rowcount


def mark_stolen(conn: Connection, device_pk: int) -> None:
    """Whatever its certificates were taken back for: the device is in other hands."""
    question = sa.update(certificates).where(certificates.c.device_pk == device_pk)
    conn.execute(question.values(reason="stolen"))


def is_stolen(conn: Connection, public: str) -> bool:
    """Whether a certificate for this key was taken back because the key is in other hands."""
    question = (
        sa.select(sa.literal(1))
        .where(certificates.c.public == public, certificates.c.reason == "stolen")
        .limit(1)
    )
    return conn.execute(question).first() is not None


def holder(conn: Connection, public: str) -> int | None:
    """Whose key this is, or was: one key is never two devices'."""
    question = sa.select(certificates.c.device_pk).where(certificates.c.public == public).limit(1)
    found = conn.execute(question).scalar()
    return None if found is None else int(found)


class Line(NamedTuple):
    """What a revocation list says of one certificate."""

    authority: int
    serial: str
    revoked_at: datetime
    reason: str


def revoked(conn: Connection, now: datetime) -> list[Line]:
    """Those taken back that have not run out: what a revocation list must name."""
    question = (
        sa.select(
            certificates.c.authority,
            certificates.c.serial,
            certificates.c.revoked_at,
            certificates.c.reason,
        )
        .where(certificates.c.revoked_at.is_not(None), certificates.c.expires_at > now)
        .order_by(certificates.c.revoked_at, certificates.c.serial)
    )
    return [Line(*row) for row in conn.execute(question)]


def living(conn: Connection, authority: int, now: datetime) -> int:
    """How many active devices have a good certificate of this authority, and none of another."""
    other = certificates.alias()
    newer = (
        sa.select(sa.literal(1))
        .where(
            other.c.device_pk == certificates.c.device_pk,
            other.c.authority != authority,
            other.c.revoked_at.is_(None),
            other.c.expires_at > now,
        )
        .exists()
    )
    question = (
        sa.select(sa.func.count(sa.distinct(certificates.c.device_pk)))
        .join(devices, devices.c.pk == certificates.c.device_pk)
        .where(
            certificates.c.authority == authority,
            certificates.c.revoked_at.is_(None),
            certificates.c.expires_at > now,
            devices.c.status == "active",
            ~newer,
        )
    )
    return int(conn.execute(question).scalar_one())
