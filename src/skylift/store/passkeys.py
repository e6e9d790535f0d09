"""Passkeys as rows. What one proves is decided in `engine.passkeys`."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.tables import passkeys


@dataclass(frozen=True, slots=True)
class Passkey:
    """One row."""

    id: str
    user_id: str
    name: str
    public_key: str
    sign_count: int
    created_at: datetime
    used_at: datetime | None


def of_user(conn: Connection, user_id: str) -> list[Passkey]:
    question = sa.select(*passkeys.c).where(passkeys.c.user_id == user_id).order_by(passkeys.c.created_at)
    return [Passkey(*row) for row in conn.execute(question)]


def find(conn: Connection, key_id: str) -> Passkey | None:
    row = conn.execute(sa.select(*passkeys.c).where(passkeys.c.id == key_id)).first()
    return Passkey(*row) if row else None


def insert(conn: Connection, made: Passkey) -> None:
    conn.execute(sa.insert(passkeys).values({c.name: getattr(made, c.name) for c in passkeys.c}))


def used(conn: Connection, key_id: str, sign_count: int, now: datetime) -> None:
    conn.execute(
        sa.update(passkeys).where(passkeys.c.id == key_id).values(sign_count=sign_count, used_at=now)
    )


def delete(conn: Connection, key_id: str) -> None:
    conn.execute(sa.delete(passkeys).where(passkeys.c.id == key_id))


def forget(conn: Connection, user_id: str) -> None:
    """All of a user's."""
    conn.execute(sa.delete(passkeys).where(passkeys.c.user_id == user_id))
