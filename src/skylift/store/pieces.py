"""Deltas and packed images: what is wanted, being made, there, or gone; and how devices were served by them.

A row is leased by who makes the file, like an effect of the outbox: a fencing token, and `due_at` moved to
where the lease ends. What is made is an artifact of its release too; both change in one transaction.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from skylift.core.ways import Means, Piece
from skylift.store.bulk import Statement
from skylift.store.devices import ACTIVE
from skylift.store.queries import Condition
from skylift.store.tables import Instant, artifacts, deployments, devices, means, pieces, releases, ways

WANTED, MAKING, MADE = "wanted", "making", "made"
REFUSED = "refused"  # not below the ratio
FAILED = "failed"
EVICTED = "evicted"
DELTA = "delta"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that could be made for a release; `base_*` are empty for its image, packed."""

    release_id: str
    device_type: str
    kind: str
    base_sha256: str = ""
    base_version: str = ""
    back: bool = False
    devices: int = 0


def want(conn: Connection, wanted: Sequence[Wanted], now: datetime) -> int:
    """Puts down what is not known yet; how many there were."""
    known = {(row.release_id, row.device_type, row.kind, row.base_sha256) for row in _known(conn, wanted)}
    new = [one for one in wanted if (one.release_id, one.device_type, one.kind, one.base_sha256) not in known]
    for one in new:
        conn.execute(
            pieces.insert().values(
                release_id=one.release_id,
                device_type=one.device_type,
                kind=one.kind,
                base_sha256=one.base_sha256,
                base_version=one.base_version,
                back=one.back,
                state=WANTED,
                devices=one.devices,
                due_at=now,
            )
        )
    return len(new)


def _known(conn: Connection, wanted: Sequence[Wanted]) -> "list[Row[Any]]":
    names = sorted({one.release_id for one in wanted})
    return list(conn.execute(sa.select(pieces).where(pieces.c.release_id.in_(names))))


def lease(conn: Connection, token: str, until: datetime, now: datetime) -> "Row[Any] | None":
    """Takes what serves most devices of all that is wanted, until `until`: of equals packed images first (a
    delta is measured by them), then ways forward. Who outlived a lease finds the token changed."""
    open_ = pieces.c.state.in_([WANTED, MAKING]) & (pieces.c.due_at <= now)
    packed_first = sa.case((pieces.c.kind == DELTA, 1), else_=0)
    order = (pieces.c.devices.desc(), packed_first, pieces.c.back, pieces.c.pk)
    question = sa.select(pieces).where(open_).order_by(*order).limit(1)
    if conn.dialect.name == "postgresql":
        question = question.with_for_update(skip_locked=True)
    row = conn.execute(question).first()
    if row is None:
        return None
    taken = {"state": MAKING, "lease": token, "due_at": until, "attempts": row.attempts + 1}
    conn.execute(pieces.update().where(pieces.c.pk == row.pk).values(**taken))
    return row


def is_due(conn: Connection, now: datetime) -> bool:
    """Whether `lease` would find something."""
    question = sa.select(sa.literal(1)).where(pieces.c.state.in_([WANTED, MAKING]), pieces.c.due_at <= now)
    return conn.execute(question.limit(1)).first() is not None


def renew(conn: Connection, pk: int, token: str, until: datetime) -> bool:
    """A lease goes on until then; False where it was lost."""
    held = (pieces.c.pk == pk) & (pieces.c.lease == token)
    return conn.execute(pieces.update().where(held).values(due_at=until)).rowcount == 1


def settle(conn: Connection, pk: int, token: str, state: str, **values: Any) -> bool:
    """The end of a lease that is still held; False where it was lost."""
    held = (pieces.c.pk == pk) & (pieces.c.lease == token)
    return conn.execute(pieces.update().where(held).values(state=state, lease=None, **values)).rowcount == 1


def change(conn: Connection, pks: Sequence[int], state: str, now: datetime) -> None:
    """Rows that nobody works on: evicted, or wanted again."""
    values = {"state": state, "due_at": now, "attempts": 0}
    conn.execute(pieces.update().where(pieces.c.pk.in_(list(pks)), pieces.c.lease.is_(None)).values(**values))


def serve(conn: Connection, counted: Mapping[int, int]) -> None:
    """How many devices each serves now."""
    for pk, count in counted.items():
        conn.execute(pieces.update().where(pieces.c.pk == pk).values(devices=count))


def in_state(conn: Connection, *states: str) -> "list[Row[Any]]":
    return list(conn.execute(sa.select(pieces).where(pieces.c.state.in_(states)).order_by(pieces.c.pk)))


def by_state(conn: Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """(kind, state) -> (how many, their bytes)."""
    size = sa.func.coalesce(sa.func.sum(pieces.c.size), 0)
    question = sa.select(pieces.c.kind, pieces.c.state, sa.func.count(), size)
    rows = conn.execute(question.group_by(pieces.c.kind, pieces.c.state))
    return {(kind, state): (int(n), int(total)) for kind, state, n, total in rows}


def of_release(conn: Connection, release_id: str) -> "list[Row[Any]]":
    order = (pieces.c.device_type, pieces.c.kind, pieces.c.devices.desc(), pieces.c.base_version, pieces.c.pk)
    return list(conn.execute(sa.select(pieces).where(pieces.c.release_id == release_id).order_by(*order)))


def of_delta(conn: Connection, release_id: str, device_type: str, base_sha256: str) -> "Row[Any] | None":
    """The delta from exactly this image, whatever became of it."""
    return conn.execute(
        sa.select(pieces).where(
            pieces.c.release_id == release_id,
            pieces.c.device_type == device_type,
            pieces.c.kind == DELTA,
            pieces.c.base_sha256 == base_sha256,
        )
    ).first()


def packed_of(conn: Connection, release_id: str, device_type: str) -> "list[Row[Any]]":
    """The image, packed: whatever became of it."""
    return list(
        conn.execute(
            sa.select(pieces).where(
                pieces.c.release_id == release_id,
                pieces.c.device_type == device_type,
                pieces.c.kind != DELTA,
            )
        )
    )


# --- what a device can be offered -------------------------------------------------------------------------


def offered(conn: Connection, release_id: str, device_type: str) -> list[Piece]:
    """What there is to make the release's image from."""
    return _pieces(conn, artifacts.c.release_id == release_id, artifacts.c.device_type == device_type)


def between(conn: Connection, product: str, device_type: str) -> list[Piece]:
    """Every delta between the product's images of this type."""
    named = sa.select(releases.c.id).where(releases.c.product == product)
    return _pieces(
        conn,
        artifacts.c.release_id.in_(named),
        artifacts.c.device_type == device_type,
        artifacts.c.kind == DELTA,
    )


def _pieces(conn: Connection, *conditions: sa.ColumnElement[bool]) -> list[Piece]:
    full = artifacts.alias("full_image")
    question = (
        sa.select(artifacts, full.c.sha256.label("target"), full.c.size.label("target_size"))
        .join(
            full,
            (full.c.release_id == artifacts.c.release_id)
            & (full.c.device_type == artifacts.c.device_type)
            & (full.c.kind == "full"),
        )
        .where(artifacts.c.kind != "full", *conditions)
        .order_by(artifacts.c.id)
    )
    return [
        Piece(
            row.kind,
            row.sha256,
            row.size,
            row.target,
            row.target_size,
            row.base_sha256,
            row.facts.get("memory") or 0,
            row.facts.get("scratch") or 0,
            tuple(row.facts.get("needs") or ()),
        )
        for row in conn.execute(question)
    ]


def lost(conn: Connection, sha256: str) -> None:
    """Files whose bytes are gone: they are wanted again."""
    for row in conn.execute(sa.select(pieces).where(pieces.c.sha256 == sha256, pieces.c.state == MADE)):
        remove_artifact(conn, row)
        conn.execute(pieces.update().where(pieces.c.pk == row.pk).values(state=WANTED, attempts=0))


def remove_artifact(conn: Connection, piece: "Row[Any]") -> None:
    """The file is offered to nobody any more."""
    conn.execute(
        artifacts.delete().where(
            artifacts.c.release_id == piece.release_id,
            artifacts.c.device_type == piece.device_type,
            artifacts.c.kind == piece.kind,
            artifacts.c.base_sha256 == piece.base_sha256,
        )
    )


# --- counted ------------------------------------------------------------------------------------------------

_USE = Statement(
    "UPDATE pieces SET used_at = b FROM {rows} WHERE sha256 = a AND (used_at IS NULL OR used_at < b)",
    ("text", "bigint"),
)


def count(conn: Connection, counted: Mapping[tuple[str, str, str], int]) -> None:
    """(deployment, way, reason) -> how often more. Deployments that are gone count for nobody."""
    names = sorted({deployment for deployment, _, _ in counted})
    found = conn.execute(
        sa.select(deployments.c.id, deployments.c.release_id).where(deployments.c.id.in_(names))
    )
    release_of = {row.id: row.release_id for row in found}
    summed: dict[tuple[str, str, str], int] = {}
    for (deployment, way, reason), n in counted.items():
        if (release := release_of.get(deployment)) is not None:
            summed[release, way, reason] = summed.get((release, way, reason), 0) + n
    for (release, way, reason), n in sorted(summed.items()):
        is_it = (ways.c.release_id == release) & (ways.c.way == way) & (ways.c.reason == reason)
        if not conn.execute(ways.update().where(is_it).values(n=ways.c.n + n)).rowcount:
            conn.execute(ways.insert().values(release_id=release, way=way, reason=reason, n=n))


def used(conn: Connection, at: Mapping[str, datetime]) -> None:
    """When files (by digest) were offered last."""
    instant = Instant()
    _USE.run(conn, [(sha, instant.process_bind_param(when, conn.dialect)) for sha, when in at.items()])


def counted(conn: Connection, release_id: str | None = None) -> dict[tuple[str, str], int]:
    """(way, reason) -> how often; of one release, or of all."""
    question = sa.select(ways.c.way, ways.c.reason, sa.func.sum(ways.c.n)).group_by(ways.c.way, ways.c.reason)
    if release_id is not None:
        question = question.where(ways.c.release_id == release_id)
    return {(way, reason): int(n) for way, reason, n in conn.execute(question)}


# --- what devices give --------------------------------------------------------------------------------------


def means_of(conn: Connection, device_pk: int) -> Means:
    row = conn.execute(sa.select(means).where(means.c.device_pk == device_pk)).first()
    return Means() if row is None else _means(row.memory, row.codecs)


def note_means(conn: Connection, device_pk: int, said: Means) -> None:
    """What a device says it gives; what it said before is gone."""
    values = {"memory": said.memory, "codecs": ",".join(sorted(said.codecs or ()))}
    if conn.execute(means.update().where(means.c.device_pk == device_pk).values(**values)).rowcount:
        return
    conn.execute(means.insert().values(device_pk=device_pk, **values))


def _means(memory: int | None, codecs: str | None) -> Means:
    if codecs is None:
        return Means()
    return Means(memory, frozenset(codecs.split(",")) if codecs else frozenset())


@dataclass(frozen=True, slots=True)
class Crowd:
    """Devices of one type that run the same image and give the same for an update."""

    device_type: str
    version: str | None
    image_sha256: str | None
    means: Means
    devices: int


def crowds(
    conn: Connection, device_types: Sequence[str], inside: Condition | None = None, kind: str = "image"
) -> list[Crowd]:
    """The active devices of these types, or those inside, counted by what matters here; one pass over them.
    `version`: of the release's kind."""
    version = devices.c.config_version if kind == "config" else devices.c.current_version
    columns = (devices.c.device_type, version, devices.c.image_sha256, means.c.memory, means.c.codecs)
    question = (
        sa.select(*columns, sa.func.count())
        .select_from(devices.outerjoin(means, means.c.device_pk == devices.c.pk))
        .where(devices.c.device_type.in_(list(device_types)))
        .where(devices.c.status == ACTIVE if inside is None else inside)
        .group_by(*columns)
    )
    return [
        Crowd(device_type, runs, sha256, _means(memory, codecs), count)
        for device_type, runs, sha256, memory, codecs, count in conn.execute(question)
    ]


def codecs_of(conn: Connection, device_types: Collection[str]) -> dict[str, set[frozenset[str]]]:
    """By device type: which sets of codecs its devices say they have."""
    question = (
        sa.select(devices.c.device_type, means.c.codecs)
        .join(means, means.c.device_pk == devices.c.pk)
        .where(devices.c.device_type.in_(sorted(device_types)))
        .distinct()
    )
    found: dict[str, set[frozenset[str]]] = {}
    for device_type, codecs in conn.execute(question):
        found.setdefault(device_type, set()).add(_means(0, codecs).codecs or frozenset())
    return found
