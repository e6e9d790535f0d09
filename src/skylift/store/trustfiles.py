"""Signed files as published, half-signed ones, and what each device's order says."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.tables import director_orders, trust_files, trust_pending


@dataclass(frozen=True, slots=True)
class TrustFile:
    """One published file; `body` is exactly what was signed."""

    repo: str
    role: str
    version: int
    body: bytes
    published_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """One half-signed file."""

    role: str
    version: int
    body: bytes
    release_ids: list[str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OrderRow:
    """What a device's order says; `order` is {} where it is to do nothing."""

    device_pk: int
    version: int
    timestamp_version: int
    order: dict[str, Any]
    issued_at: datetime
    timestamp_at: datetime


def put(conn: Connection, file: TrustFile) -> None:
    """A new version; versions are never replaced."""
    conn.execute(
        sa.insert(trust_files).values(
            repo=file.repo,
            role=file.role,
            version=file.version,
            body=file.body,
            published_at=file.published_at,
            expires_at=file.expires_at,
        )
    )


def get(conn: Connection, repo: str, role: str, version: int) -> TrustFile | None:
    row = conn.execute(
        sa.select(trust_files).where(
            trust_files.c.repo == repo, trust_files.c.role == role, trust_files.c.version == version
        )
    ).first()
    return TrustFile(*row) if row else None


def latest(conn: Connection, repo: str, role: str) -> TrustFile | None:
    row = conn.execute(
        sa.select(trust_files)
        .where(trust_files.c.repo == repo, trust_files.c.role == role)
        .order_by(trust_files.c.version.desc())
        .limit(1)
    ).first()
    return TrustFile(*row) if row else None


def versions(conn: Connection, repo: str) -> dict[str, int]:
    """The newest version of every role of a repository."""
    rows = conn.execute(
        sa.select(trust_files.c.role, sa.func.max(trust_files.c.version))
        .where(trust_files.c.repo == repo)
        .group_by(trust_files.c.role)
    )
    return {role: int(version) for role, version in rows}


def newest_files(conn: Connection, repo: str) -> list[TrustFile]:
    """The newest file of every role."""
    found = (latest(conn, repo, role) for role in sorted(versions(conn, repo)))
    return [file for file in found if file is not None]


def every(conn: Connection) -> list[TrustFile]:
    """Every file ever published, in that order."""
    order = (trust_files.c.published_at, trust_files.c.repo, trust_files.c.role, trust_files.c.version)
    return [TrustFile(*row) for row in conn.execute(sa.select(trust_files).order_by(*order))]


# --- half-signed -----------------------------------------------------------------------------------


def pending(conn: Connection, role: str) -> Pending | None:
    row = conn.execute(sa.select(trust_pending).where(trust_pending.c.role == role)).first()
    return Pending(*row) if row else None


def all_pending(conn: Connection) -> list[Pending]:
    return [Pending(*row) for row in conn.execute(sa.select(trust_pending).order_by(trust_pending.c.role))]


def set_pending(conn: Connection, waiting: Pending) -> None:
    """Replace the role's half-signed file."""
    drop_pending(conn, waiting.role)
    conn.execute(
        sa.insert(trust_pending).values(
            role=waiting.role,
            version=waiting.version,
            body=waiting.body,
            release_ids=waiting.release_ids,
            created_at=waiting.created_at,
        )
    )


def drop_pending(conn: Connection, role: str) -> None:
    conn.execute(sa.delete(trust_pending).where(trust_pending.c.role == role))


# --- orders ----------------------------------------------------------------------------------------


def order_of(conn: Connection, device_pk: int) -> OrderRow | None:
    row = conn.execute(sa.select(director_orders).where(director_orders.c.device_pk == device_pk)).first()
    return OrderRow(*row) if row else None


def distinct_orders(conn: Connection) -> list[dict[str, Any]]:
    """What orders say, each once; reads all of them: not for every day."""
    return [row[0] for row in conn.execute(sa.select(director_orders.c.order).distinct())]


def set_order(conn: Connection, row: OrderRow) -> None:
    """Insert or replace what a device's order says."""
    values = {
        "version": row.version,
        "timestamp_version": row.timestamp_version,
        "order": row.order,
        "issued_at": row.issued_at,
        "timestamp_at": row.timestamp_at,
    }
    changed = conn.execute(
        sa.update(director_orders).where(director_orders.c.device_pk == row.device_pk).values(**values)
    )
    if changed.rowcount == 0:
        conn.execute(sa.insert(director_orders).values(device_pk=row.device_pk, **values))
