"""People and their sessions as rows. What a password is worth is decided in `engine.people`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.tables import sessions, users


@dataclass(frozen=True, slots=True)
class User:
    """One row of `users`."""

    id: str
    name: str
    role: str
    password_hash: str | None
    totp_step: int
    failed: int
    blocked_until: datetime | None
    created_at: datetime
    created_by: str
    signed_in_at: datetime | None
    disabled_at: datetime | None
    totp_sealed: str | None
    totp_offered: str | None
    subject: str | None
    products: dict[str, str] | None
    challenge: str | None


@dataclass(frozen=True, slots=True)
class Session:
    """One row of `sessions`."""

    token_hash: str
    user_id: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    agent: str


_USER = tuple(column for column in users.c if column.name not in ("totp_secret", "totp_new"))


def by_name(conn: Connection, name: str) -> User | None:
    row = conn.execute(sa.select(*_USER).where(users.c.name == name)).first()
    return User(*row) if row else None


def find(conn: Connection, user_id: str) -> User | None:
    row = conn.execute(sa.select(*_USER).where(users.c.id == user_id)).first()
    return User(*row) if row else None


def everybody(conn: Connection) -> list[User]:
    return [User(*row) for row in conn.execute(sa.select(*_USER).order_by(users.c.name))]


def active_admins(conn: Connection) -> int:
    """Admins who could sign in."""
    question = sa.select(sa.func.count()).select_from(users)
    return int(
        conn.execute(question.where(users.c.role == "admin", users.c.disabled_at.is_(None))).scalar_one()
    )


def insert(conn: Connection, user: User) -> None:
    conn.execute(sa.insert(users).values({c.name: getattr(user, c.name) for c in _USER}))


def change(conn: Connection, user_id: str, **values: Any) -> None:
    conn.execute(sa.update(users).where(users.c.id == user_id).values(**values))


def by_subject(conn: Connection, subject: str) -> User | None:
    """Who signs in elsewhere under this id."""
    row = conn.execute(sa.select(*_USER).where(users.c.subject == subject)).first()
    return User(*row) if row else None


def use_challenge(conn: Connection, user_id: str, digest: str) -> bool:
    """Takes the challenge that was given last; False where this is another one, or it was used."""
    held = (users.c.id == user_id) & (users.c.challenge == digest)
    return conn.execute(sa.update(users).where(held).values(challenge=None)).rowcount == 1


def clear_codes(conn: Connection) -> list[tuple[str, str | None, str | None]]:
    """(user, secret, offered) of one-time codes that lie here in clear."""
    clear = users.c.totp_secret.is_not(None) | users.c.totp_new.is_not(None)
    rows = conn.execute(sa.select(users.c.id, users.c.totp_secret, users.c.totp_new).where(clear))
    return [(row.id, row.totp_secret, row.totp_new) for row in rows]


def use_step(conn: Connection, user_id: str, step: int) -> bool:
    """Marks a one-time code's step as used; False where it, or a later one, was used already."""
    taken = conn.execute(
        sa.update(users).where(users.c.id == user_id, users.c.totp_step < step).values(totp_step=step)
    )
    return taken.rowcount == 1


# --- sessions ----------------------------------------------------------------------------------------


def session(conn: Connection, token_hash: str) -> tuple[Session, User] | None:
    """The session with this hash and whose it is; whether it is still good is for the caller."""
    question = sa.select(*sessions.c, *_USER).join(users, users.c.id == sessions.c.user_id)
    row = conn.execute(question.where(sessions.c.token_hash == token_hash)).first()
    if row is None:
        return None
    cut = len(sessions.c)
    return Session(*row[:cut]), User(*row[cut:])


def sessions_of(conn: Connection, user_id: str) -> list[Session]:
    question = sa.select(*sessions.c).where(sessions.c.user_id == user_id)
    return [Session(*row) for row in conn.execute(question.order_by(sessions.c.seen_at.desc()))]


def open_session(conn: Connection, made: Session) -> None:
    conn.execute(sa.insert(sessions).values({c.name: getattr(made, c.name) for c in sessions.c}))


def touch(conn: Connection, token_hash: str, now: datetime) -> None:
    conn.execute(sa.update(sessions).where(sessions.c.token_hash == token_hash).values(seen_at=now))


def close_sessions(conn: Connection, user_id: str, but: Sequence[str] = ()) -> int:
    """End all of a user's sessions except those with these hashes; how many."""
    question = sa.delete(sessions).where(sessions.c.user_id == user_id, sessions.c.token_hash.not_in(but))
    return conn.execute(question).rowcount


def close_session(conn: Connection, token_hash: str) -> None:
    conn.execute(sa.delete(sessions).where(sessions.c.token_hash == token_hash))


def forget_sessions(conn: Connection, now: datetime) -> None:
    """Those that are over."""
    conn.execute(sa.delete(sessions).where(sessions.c.expires_at <= now))
