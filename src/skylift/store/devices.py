"""Devices: who they are, what they say they run, when they were last heard.

No decision is made here; the engine's modules ask and tell. Tokens come in as SHA-256 hex, never in clear.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.bucket import device_hash
from skylift.store.bulk import Statement
from skylift.store.tables import Document, Instant, claims, devices, group_members, health, seen

ACTIVE = "active"
DECOMMISSIONED = "decommissioned"
_CHUNK = 500  # bound parameters in one statement: SQLite's oldest limit is 999


@dataclass(frozen=True, slots=True)
class Device:
    """One row of `devices`. `deployment_id` and `attempt` are its open slot."""

    pk: int
    device_id: str
    device_type: str
    h: int
    token_hash: str
    current_version: str | None
    config_version: str | None
    image_sha256: str | None
    labels: Mapping[str, str]
    status: str
    enrolled_at: datetime
    deployment_id: str | None
    attempt: int | None


_COLUMNS = tuple(devices.c)


def _device(row: Sequence[Any]) -> Device:
    return Device(*row)


_FIND = sa.select(*_COLUMNS).where(devices.c.device_id == sa.bindparam("device_id"))
_BY_TOKEN = sa.select(*_COLUMNS).where(devices.c.token_hash == sa.bindparam("token_hash"))


def find_device(conn: Connection, device_id: str) -> Device | None:
    """The device of this name, decommissioned ones too."""
    row = conn.execute(_FIND, {"device_id": device_id}).first()
    return _device(row) if row else None


def by_pk(conn: Connection, pk: int) -> Device | None:
    row = conn.execute(sa.select(*_COLUMNS).where(devices.c.pk == pk)).first()
    return _device(row) if row else None


def by_pks(conn: Connection, pks: Sequence[int]) -> dict[int, Device]:
    """The devices of these keys that exist."""
    found: dict[int, Device] = {}
    for at in range(0, len(pks), _CHUNK):
        question = sa.select(*_COLUMNS).where(devices.c.pk.in_(pks[at : at + _CHUNK]))
        found.update((row.pk, _device(row)) for row in conn.execute(question))
    return found


def by_token(conn: Connection, token_hash: str) -> Device | None:
    """The device whose token has this SHA-256."""
    row = conn.execute(_BY_TOKEN, {"token_hash": token_hash}).first()
    return _device(row) if row else None


def by_ids(conn: Connection, device_ids: Sequence[str]) -> dict[str, Device]:
    """The devices of these names that exist."""
    found: dict[str, Device] = {}
    for at in range(0, len(device_ids), _CHUNK):
        names = device_ids[at : at + _CHUNK]
        for row in conn.execute(sa.select(*_COLUMNS).where(devices.c.device_id.in_(names))):
            found[row.device_id] = _device(row)
    return found


def insert(
    conn: Connection,
    *,
    device_id: str,
    device_type: str,
    token_hash: str,
    labels: Mapping[str, str],
    now: datetime,
) -> Device:
    """A new active device. The names' and the token's uniqueness is the table's: ask first."""
    conn.execute(
        devices.insert().values(
            device_id=device_id,
            device_type=device_type,
            h=device_hash(device_id),
            token_hash=token_hash,
            labels=dict(labels),
            status=ACTIVE,
            enrolled_at=now,
        )
    )
    made = find_device(conn, device_id)
    if made is None:
        raise AssertionError("inserted a line above, in this transaction")
    return made


_INSERT_MANY = Statement(
    """
    INSERT INTO devices
        (device_id, device_type, h, token_hash, current_version, labels, status, enrolled_at)
    SELECT * FROM {rows}
    """,
    ("text", "text", "bigint", "text", "text", "text", "text", "bigint"),
)


def insert_many(
    conn: Connection,
    given: Sequence[tuple[str, str, str, str, Mapping[str, str]]],
    now: datetime,
) -> None:
    """New active devices, straight on the driver: (device_id, device_type, token_hash, current_version,
    labels). For fleets that are brought over whole, and for simulated ones."""
    at, document = Instant(), Document()
    instant = at.process_bind_param(now, conn.dialect)
    rows = [
        (name, kind, device_hash(name), token, version,
         document.process_bind_param(dict(labels), conn.dialect), ACTIVE, instant)
        for name, kind, token, version, labels in given
    ]  # fmt: skip
    _INSERT_MANY.run(conn, rows)


def page(
    conn: Connection,
    *,
    limit: int,
    after: str = "",
    device_type: str | None = None,
    status: str | None = None,
    current_version: str | None = None,
    within: sa.ColumnElement[bool] | None = None,
) -> list[Device]:
    """Up to `limit` devices in the order of their names, beginning behind `after`."""
    question = sa.select(*_COLUMNS).where(devices.c.device_id > after)
    if device_type is not None:
        question = question.where(devices.c.device_type == device_type)
    if status is not None:
        question = question.where(devices.c.status == status)
    if current_version is not None:
        question = question.where(devices.c.current_version == current_version)
    if within is not None:
        question = question.where(within)
    return [_device(row) for row in conn.execute(question.order_by(devices.c.device_id).limit(limit))]


def count(conn: Connection, *, status: str | None = None) -> int:
    """How many devices there are. Reads an index from end to end: for people, not for polls."""
    question = sa.select(sa.func.count()).select_from(devices)
    if status is not None:
        question = question.where(devices.c.status == status)
    return int(conn.execute(question).scalar_one())


def by_version(conn: Connection, device_types: Collection[str]) -> dict[tuple[str, str], int]:
    """(device type, version it runs) -> how many active devices; one pass over these types."""
    question = (
        sa.select(devices.c.device_type, devices.c.current_version, sa.func.count())
        .where(devices.c.device_type.in_(sorted(device_types)), devices.c.current_version.is_not(None))
        .where(devices.c.status == ACTIVE)
        .group_by(devices.c.device_type, devices.c.current_version)
    )
    return {(kind, version): count for kind, version, count in conn.execute(question)}


def set_facts(
    conn: Connection,
    device_pk: int,
    current_version: str | None,
    config_version: str | None,
    image_sha256: str | None,
) -> None:
    """What the device says it runs."""
    conn.execute(
        devices.update()
        .where(devices.c.pk == device_pk)
        .values(current_version=current_version, config_version=config_version, image_sha256=image_sha256)
    )


_FINISH_MANY = Statement(
    """
    UPDATE devices SET deployment_id = NULL, attempt = NULL,
        current_version = b, config_version = c, image_sha256 = d
    FROM {rows} WHERE pk = a
    """,
    ("bigint", "text", "text", "text"),
)


def finish_many(conn: Connection, done: Sequence[tuple[int, str | None, str | None, str | None]]) -> None:
    """Devices (by key) whose update is complete: their slot is free, and this is what they run: versions of
    image and configuration, digest of the image."""
    _FINISH_MANY.run(conn, done)


def set_labels(conn: Connection, device_pk: int, labels: Mapping[str, str]) -> None:
    conn.execute(devices.update().where(devices.c.pk == device_pk).values(labels=dict(labels)))


def decommission(conn: Connection, device_pk: int) -> None:
    """The device is out: it keeps its row, name and history, loses its slot and its place in groups."""
    conn.execute(
        devices.update()
        .where(devices.c.pk == device_pk)
        .values(status=DECOMMISSIONED, deployment_id=None, attempt=None)
    )
    conn.execute(group_members.delete().where(group_members.c.device_pk == device_pk))


# --- last contact -----------------------------------------------------------------------------------


# WHERE true: SQLite would take ON for a join's.
_TOUCH = Statement(
    """
    INSERT INTO seen (device_pk, at) SELECT * FROM {rows} WHERE true
    ON CONFLICT (device_pk) DO UPDATE SET at = excluded.at WHERE seen.at < excluded.at
    """,
    ("bigint", "bigint"),
)


def touch(conn: Connection, contacts: Mapping[int, datetime]) -> None:
    """Records last contacts (device_pk -> instant); never backwards. Thousands a second come in."""
    at = Instant()
    _TOUCH.run(conn, [(pk, at.process_bind_param(contacts[pk], conn.dialect)) for pk in sorted(contacts)])


def last_seen(conn: Connection, device_pks: Sequence[int]) -> dict[int, datetime]:
    """When these devices were last heard, where they were."""
    found: dict[int, datetime] = {}
    for at in range(0, len(device_pks), _CHUNK):
        pks = device_pks[at : at + _CHUNK]
        question = sa.select(seen.c.device_pk, seen.c.at).where(seen.c.device_pk.in_(pks))
        found.update((row.device_pk, row.at) for row in conn.execute(question))
    return found


_HEALTH = Statement(
    """
    INSERT INTO health (device_pk, at, healthy, metrics) SELECT * FROM {rows} WHERE true
    ON CONFLICT (device_pk) DO UPDATE
    SET at = excluded.at, healthy = excluded.healthy, metrics = excluded.metrics WHERE health.at < excluded.at
    """,
    ("bigint", "bigint", "boolean", "text"),
)


def note_health(
    conn: Connection, said: Mapping[int, tuple[datetime, bool | None, Mapping[str, float]]]
) -> None:
    """Records what devices said of their health (device_pk -> instant, verdict, metrics); never backwards."""
    instant, document = Instant(), Document()
    rows = [
        (
            pk,
            instant.process_bind_param(at, conn.dialect),
            healthy,
            document.process_bind_param(dict(metrics), conn.dialect),
        )
        for pk, (at, healthy, metrics) in sorted(said.items())
    ]
    _HEALTH.run(conn, rows)


def health_of(conn: Connection, device_pk: int) -> Any:
    """The row (at, healthy, metrics) of the device's last word, or None."""
    question = sa.select(health.c.at, health.c.healthy, health.c.metrics)
    return conn.execute(question.where(health.c.device_pk == device_pk)).first()


# --- claims: how a device gets in -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of `claims`, without its token. `device_type` None: any."""

    id: str
    device_type: str | None
    uses_left: int
    expires_at: datetime
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None


_CLAIM = (
    claims.c.id,
    claims.c.device_type,
    claims.c.uses_left,
    claims.c.expires_at,
    claims.c.created_at,
    claims.c.created_by,
    claims.c.revoked_at,
)


def add_claim(conn: Connection, claim: Claim, token_hash: str) -> None:
    conn.execute(
        claims.insert().values(
            id=claim.id,
            token_hash=token_hash,
            device_type=claim.device_type,
            uses_left=claim.uses_left,
            expires_at=claim.expires_at,
            created_at=claim.created_at,
            created_by=claim.created_by,
        )
    )


def find_claim(conn: Connection, token_hash: str) -> Claim | None:
    row = conn.execute(sa.select(*_CLAIM).where(claims.c.token_hash == token_hash)).first()
    return Claim(*row) if row else None


def claim_named(conn: Connection, claim_id: str) -> Claim | None:
    row = conn.execute(sa.select(*_CLAIM).where(claims.c.id == claim_id)).first()
    return Claim(*row) if row else None


def revoke_claim(conn: Connection, claim_id: str, now: datetime) -> None:
    """Nobody gets in by it any more; the first time counts."""
    question = claims.update().where(claims.c.id == claim_id, claims.c.revoked_at.is_(None))
    conn.execute(question.values(revoked_at=now))


def use_claim(conn: Connection, claim_id: str) -> bool:
    """Takes one use; False where none was left."""
    taken = conn.execute(
        claims.update()
        .where(claims.c.id == claim_id, claims.c.uses_left > 0)
        .values(uses_left=claims.c.uses_left - 1)
    )
    return taken.rowcount == 1


def claims_page(conn: Connection, *, limit: int, after: str = "") -> list[Claim]:
    question = sa.select(*_CLAIM).where(claims.c.id > after).order_by(claims.c.id).limit(limit)
    return [Claim(*row) for row in conn.execute(question)]


def reenroll(
    conn: Connection,
    device_pk: int,
    device_type: str,
    token_hash: str,
    labels: Mapping[str, str],
    now: datetime,
) -> None:
    """A decommissioned device comes back under its name."""
    conn.execute(
        devices.update()
        .where(devices.c.pk == device_pk)
        .values(
            device_type=device_type,
            token_hash=token_hash,
            labels=dict(labels),
            status=ACTIVE,
            enrolled_at=now,
        )
    )
