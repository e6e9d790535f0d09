"""Operators' tokens, and the answers kept for repeated requests."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.tables import idempotency, operator_tokens


@dataclass(frozen=True, slots=True)
class OperatorToken:
    """One row, without the token."""

    id: str
    name: str
    role: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    scopes: list[str] | None = None
    products: dict[str, str] | None = None


_COLUMNS = (
    operator_tokens.c.id,
    operator_tokens.c.name,
    operator_tokens.c.role,
    operator_tokens.c.created_at,
    operator_tokens.c.expires_at,
    operator_tokens.c.revoked_at,
    operator_tokens.c.scopes,
    operator_tokens.c.products,
)


def by_token(conn: Connection, token_hash: str) -> OperatorToken | None:
    row = conn.execute(sa.select(*_COLUMNS).where(operator_tokens.c.token_hash == token_hash)).first()
    return OperatorToken(*row) if row else None


def find_token(conn: Connection, token_id: str) -> OperatorToken | None:
    row = conn.execute(sa.select(*_COLUMNS).where(operator_tokens.c.id == token_id)).first()
    return OperatorToken(*row) if row else None


def tokens(conn: Connection) -> list[OperatorToken]:
    return [OperatorToken(*row) for row in conn.execute(sa.select(*_COLUMNS).order_by(operator_tokens.c.id))]


def insert_token(conn: Connection, token: OperatorToken, token_hash: str) -> None:
    conn.execute(
        sa.insert(operator_tokens).values(
            id=token.id,
            token_hash=token_hash,
            name=token.name,
            role=token.role,
            created_at=token.created_at,
            expires_at=token.expires_at,
            scopes=token.scopes,
            products=token.products,
        )
    )


def revoke(conn: Connection, token_id: str, now: datetime) -> None:
    conn.execute(sa.update(operator_tokens).where(operator_tokens.c.id == token_id).values(revoked_at=now))


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer to a request that was made before."""

    request_sha256: str
    status: int
    body: Any


def kept(conn: Connection, actor: str, key: str) -> Kept | None:
    row = conn.execute(
        sa.select(idempotency.c.request_sha256, idempotency.c.status, idempotency.c.body).where(
            idempotency.c.actor == actor, idempotency.c.key == key
        )
    ).first()
    return Kept(*row) if row else None


def keep(conn: Connection, actor: str, key: str, kept: Kept, now: datetime) -> None:
    conn.execute(
        sa.insert(idempotency).values(
            actor=actor,
            key=key,
            request_sha256=kept.request_sha256,
            status=kept.status,
            body=kept.body,
            created_at=now,
        )
    )


def forget_kept(conn: Connection, before: datetime) -> None:
    conn.execute(sa.delete(idempotency).where(idempotency.c.created_at < before))
