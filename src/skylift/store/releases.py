"""Releases and their artifacts."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from skylift.store.tables import artifacts, releases

DRAFT = "draft"  # artifacts may be added
SIGNING = "signing"  # sealed: gathers signatures
PUBLISHED = "published"
WITHDRAWING = "withdrawing"  # offered to nobody any more; its product's next role will be without it
WITHDRAWN = "withdrawn"  # no device installs it any more


def insert(conn: Connection, **values: Any) -> None:
    conn.execute(sa.insert(releases).values(**values))


def find(conn: Connection, release_id: str) -> "Row[Any] | None":
    return conn.execute(sa.select(releases).where(releases.c.id == release_id)).first()


def by_version(conn: Connection, version: str, product: str | None = None) -> "list[Row[Any]]":
    """Releases of this version, of one product or of all."""
    question = sa.select(releases).where(releases.c.version == version)
    if product is not None:
        question = question.where(releases.c.product == product)
    return list(conn.execute(question))


def page(
    conn: Connection, *, limit: int, before: str | None = None, product: str | None = None
) -> "list[Row[Any]]":
    """Newest first (ids sort by birth)."""
    question = sa.select(releases).order_by(releases.c.id.desc()).limit(limit)
    if before is not None:
        question = question.where(releases.c.id < before)
    if product is not None:
        question = question.where(releases.c.product == product)
    return list(conn.execute(question))


def of_status(conn: Connection, product: str, status: str) -> "list[Row[Any]]":
    """The product's releases of this status."""
    wanted = (releases.c.product == product, releases.c.status == status)
    return list(conn.execute(sa.select(releases).where(*wanted).order_by(releases.c.id)))


def recent_images(conn: Connection, product: str, limit: int) -> "list[Row[Any]]":
    """The product's latest published image releases."""
    question = (
        sa.select(releases)
        .where(releases.c.product == product, releases.c.kind == "image", releases.c.status == PUBLISHED)
        .order_by(releases.c.published_at.desc(), releases.c.id.desc())
        .limit(limit)
    )
    return list(conn.execute(question))


def newest_images(conn: Connection) -> list[str]:
    """The latest published image release of every product."""
    named = (releases.c.kind == "image", releases.c.status == PUBLISHED)
    ranked = sa.select(
        releases.c.id,
        sa.func.row_number()
        .over(
            partition_by=releases.c.product, order_by=(releases.c.published_at.desc(), releases.c.id.desc())
        )
        .label("place"),
    ).where(*named)
    found = ranked.subquery()
    return list(conn.execute(sa.select(found.c.id).where(found.c.place == 1).order_by(found.c.id)).scalars())


def set_status(conn: Connection, release_id: str, status: str, published_at: datetime | None = None) -> None:
    values: dict[str, Any] = {"status": status}
    if published_at is not None:
        values["published_at"] = published_at
    conn.execute(sa.update(releases).where(releases.c.id == release_id).values(**values))


def set_security_version(conn: Connection, release_id: str, number: int) -> None:
    conn.execute(sa.update(releases).where(releases.c.id == release_id).values(security_version=number))


def set_sbom(conn: Connection, release_id: str, sbom: dict[str, Any]) -> None:
    conn.execute(sa.update(releases).where(releases.c.id == release_id).values(sbom=sbom))


def delete(conn: Connection, release_id: str) -> None:
    conn.execute(sa.delete(releases).where(releases.c.id == release_id))


def blobs_of(conn: Connection, release: "Row[Any]") -> set[str]:
    """The digests of all that it is made of."""
    bill = {release.sbom["sha256"]} if release.sbom else set()
    return {artifact.sha256 for artifact in artifacts_of(conn, release.id)} | bill


# --- artifacts -------------------------------------------------------------------------------------


def insert_artifact(conn: Connection, **values: Any) -> None:
    conn.execute(sa.insert(artifacts).values(**values))


def find_artifact(conn: Connection, artifact_id: str) -> "Row[Any] | None":
    return conn.execute(sa.select(artifacts).where(artifacts.c.id == artifact_id)).first()


def artifacts_of(conn: Connection, release_id: str) -> "list[Row[Any]]":
    return list(
        conn.execute(
            sa.select(artifacts)
            .where(artifacts.c.release_id == release_id)
            .order_by(artifacts.c.kind.desc(), artifacts.c.device_type, artifacts.c.base_version)
        )
    )


def full_artifact(conn: Connection, release_id: str, device_type: str) -> "Row[Any] | None":
    """The release's full image for a device type."""
    return conn.execute(
        sa.select(artifacts).where(
            artifacts.c.release_id == release_id,
            artifacts.c.device_type == device_type,
            artifacts.c.kind == "full",
        )
    ).first()


def delta_artifact(
    conn: Connection, release_id: str, device_type: str, base_sha256: str
) -> "Row[Any] | None":
    """The release's delta from exactly this image."""
    return conn.execute(
        sa.select(artifacts).where(
            artifacts.c.release_id == release_id,
            artifacts.c.device_type == device_type,
            artifacts.c.kind == "delta",
            artifacts.c.base_sha256 == base_sha256,
        )
    ).first()


def last_facts(conn: Connection, product: str, device_type: str) -> "dict[str, Any] | None":
    """What the newest sealed image for this device type says of itself, or None."""
    question = (
        sa.select(artifacts.c.facts)
        .join(releases, releases.c.id == artifacts.c.release_id)
        .where(releases.c.product == product, releases.c.status != DRAFT, releases.c.kind == "image")
        .where(artifacts.c.device_type == device_type, artifacts.c.kind == "full")
        .order_by(artifacts.c.created_at.desc(), artifacts.c.id.desc())
        .limit(1)
    )
    return conn.execute(question).scalar()


def types_of(conn: Connection, product: str) -> list[str]:
    """The device types that this product has had sealed images for."""
    question = (
        sa.select(artifacts.c.device_type)
        .join(releases, releases.c.id == artifacts.c.release_id)
        .where(releases.c.product == product, releases.c.status != DRAFT, releases.c.kind == "image")
        .where(artifacts.c.kind == "full")
        .distinct()
    )
    return sorted(conn.execute(question).scalars())


def is_image(conn: Connection, device_type: str, sha256: str) -> bool:
    """Whether these bytes are a full image for this type."""
    question = sa.select(sa.literal(1)).where(
        artifacts.c.sha256 == sha256, artifacts.c.device_type == device_type, artifacts.c.kind == "full"
    )
    return conn.execute(question.limit(1)).first() is not None


def blob_is_named(conn: Connection, sha256: str) -> bool:
    """Whether any artifact has these bytes, or any release's bill of materials."""
    bill = sa.type_coerce(releases.c.sbom, sa.Text).contains(f'"sha256":"{sha256}"')
    for named in (artifacts.c.sha256 == sha256, bill):
        if conn.execute(sa.select(sa.literal(1)).where(named).limit(1)).first() is not None:
            return True
    return False
