"""Channels and deliveries as rows: where people are told, and every message on its way there.

A delivery is written, with its effect in the outbox, in the transaction of what it tells.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core import telling
from skylift.core.ids import mint
from skylift.core.telling import Told
from skylift.store import outbox
from skylift.store.tables import channels, deliveries, deployments, releases

EFFECT = "delivery"
WAITING, DELIVERED, GIVEN_UP = "waiting", "delivered", "given_up"
STATES = (WAITING, DELIVERED, GIVEN_UP)


@dataclass(frozen=True, slots=True)
class Channel:
    """One row of `channels`."""

    id: str
    name: str
    kind: str
    address: str
    sealed: str
    template: Any
    wants: list[str] | None
    created_at: datetime
    created_by: str
    disabled_at: datetime | None
    disabled_why: str
    failures: int
    quiet_until: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of `deliveries`, with its channel's name."""

    pk: int
    channel_id: str
    message_id: str
    type: str
    body: dict[str, Any]
    state: str
    attempts: int
    created_at: datetime
    tried_at: datetime | None
    answer: str
    channel: str


def everything(conn: Connection) -> list[Channel]:
    return [Channel(*row) for row in conn.execute(sa.select(*channels.c).order_by(channels.c.id))]


def find(conn: Connection, name: str) -> Channel | None:
    """By id or name."""
    named = sa.or_(channels.c.id == name, channels.c.name == name)
    row = conn.execute(sa.select(*channels.c).where(named)).first()
    return Channel(*row) if row else None


def insert(conn: Connection, made: Channel) -> None:
    conn.execute(sa.insert(channels).values({c.name: getattr(made, c.name) for c in channels.c}))


def change(conn: Connection, channel_id: str, **values: Any) -> None:
    conn.execute(sa.update(channels).where(channels.c.id == channel_id).values(**values))


def delete(conn: Connection, channel_id: str) -> None:
    """With its deliveries."""
    conn.execute(sa.delete(channels).where(channels.c.id == channel_id))


# --- telling -----------------------------------------------------------------------------------------


def tell(conn: Connection, told: Told, sentence: str, facts: Mapping[str, Any], now: datetime) -> None:
    """Tell every channel that wants to hear it, after the commit."""
    _send(conn, _listening(conn, told), told, sentence, facts, now)


def _listening(conn: Connection, told: Told) -> list[Channel]:
    return [
        found
        for found in everything(conn)
        if found.disabled_at is None and telling.is_wanted(found.wants, told)
    ]


def _send(
    conn: Connection,
    wanted: Sequence[Channel],
    told: Told,
    sentence: str,
    facts: Mapping[str, Any],
    now: datetime,
) -> None:
    if not wanted:
        return
    message_id = mint("msg", now, secrets.token_bytes(10))
    body = telling.message(told, sentence, now, facts)
    for channel in wanted:
        put(conn, channel.id, message_id, body, now)


def put(conn: Connection, channel_id: str, message_id: str, body: dict[str, Any], now: datetime) -> int:
    """One message to one channel; the delivery's number."""
    row = {"channel_id": channel_id, "message_id": message_id, "type": body["type"], "body": body,
           "state": WAITING, "attempts": 0, "created_at": now, "answer": ""}  # fmt: skip
    pk = conn.execute(sa.insert(deliveries).values(row)).inserted_primary_key
    assert pk is not None
    outbox.put(conn, EFFECT, {"delivery": pk[0]}, now)
    return int(pk[0])


def of_deployment(
    conn: Connection, kind: str, data: Mapping[str, Any], deployment_id: str, now: datetime
) -> None:
    """A deployment's event: tell whoever wants to hear of it, in the words of where it stands now."""
    told = telling.of_event(kind, data)
    wanted = _listening(conn, told) if told is not None else []
    if told is None or not wanted:
        return
    d = deployments.c
    columns = (d.product, d.version, d.status, d.status_reason, d.paused_by)
    row = conn.execute(sa.select(*columns).where(d.id == deployment_id)).first()
    if row is None:
        return
    is_phase = told in telling.CHATTER
    reason = telling.of_phase(told, data) if is_phase else row.status_reason
    facts = {
        "deployment": deployment_id,
        "product": row.product,
        "version": row.version,
        "status": row.status,
        "status_reason": row.status_reason,
        "paused_by": row.paused_by,
        "by": data.get("by"),
        "phase": data.get("phase"),
    }
    _send(conn, wanted, told, telling.standing(row.product, row.version, row.status, reason), facts, now)


_RELEASES: Mapping[Told, str] = {
    Told.WAITING: "waiting for its signatures",
    Told.PUBLISHED: "published",
    Told.WITHDRAWN: "withdrawn",
}


def of_release(conn: Connection, told: Told, release_id: str, now: datetime, reason: str = "") -> None:
    """What became of a release: tell whoever wants to hear of it."""
    row = conn.execute(
        sa.select(releases.c.product, releases.c.version).where(releases.c.id == release_id)
    ).one()
    facts = {"release": release_id, "product": row.product, "version": row.version}
    tell(conn, told, telling.standing(row.product, row.version, _RELEASES[told], reason), facts, now)


# --- deliveries --------------------------------------------------------------------------------------

_DELIVERY = (*deliveries.c, channels.c.name)


def delivery(conn: Connection, pk: int) -> Delivery | None:
    question = sa.select(*_DELIVERY).join(channels).where(deliveries.c.pk == pk)
    row = conn.execute(question).first()
    return Delivery(*row) if row else None


def page(
    conn: Connection,
    *,
    limit: int,
    before: int | None = None,
    channel: str | None = None,
    state: str | None = None,
) -> list[Delivery]:
    """The delivery log, newest first, in front of number `before`."""
    question = sa.select(*_DELIVERY).join(channels).order_by(deliveries.c.pk.desc()).limit(limit)
    if before is not None:
        question = question.where(deliveries.c.pk < before)
    if channel is not None:
        question = question.where(deliveries.c.channel_id == channel)
    if state is not None:
        question = question.where(deliveries.c.state == state)
    return [Delivery(*row) for row in conn.execute(question)]


def note(conn: Connection, pk: int, **values: Any) -> None:
    conn.execute(sa.update(deliveries).where(deliveries.c.pk == pk).values(**values))


def sweep(conn: Connection, before: datetime) -> int:
    """Forgets messages that were made before and are not on their way any more."""
    old = (deliveries.c.created_at < before) & (deliveries.c.state != WAITING)
    return conn.execute(sa.delete(deliveries).where(old)).rowcount
