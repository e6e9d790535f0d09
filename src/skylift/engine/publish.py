"""Releases: made, filled with artifacts, offered. What is published is `engine.signing`'s.

An image arrives (`Arrival`) for a draft release, or as a new one that is made with it or not at all. Its
bytes are checked before they are kept: what the client announced, what the format says, what the release
already has. A refused or interrupted upload leaves nothing behind.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from secrets import token_bytes
from typing import Any

from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.ids import check_name, check_version, mint
from skylift.engine import described, gathering, signing, unblob
from skylift.engine.bill import check_bill
from skylift.engine.blobs import Intake, Stored
from skylift.firmware.image import check_config, inspect
from skylift.firmware.sbom import MAX_BYTES as MAX_SBOM_BYTES
from skylift.firmware.sbom import Bill
from skylift.store import events, releases, trustfiles
from skylift.store.db import Connection
from skylift.trust.roles import TOP_LEVEL, target_path

KINDS = ("image", "config")
MAX_CONFIG = 64 << 10
MAX_NOTES = 10_000
MAX_SBOM = MAX_SBOM_BYTES


@dataclass(frozen=True, slots=True)
class NewRelease:
    """What an operator says of a release."""

    product: str
    version: str | None  # None: as its image says
    kind: str = "image"
    notes: str = ""
    security_version: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """An image that is sent: for a draft release, by its id, or as a new one."""

    release: str | NewRelease
    device_type: str | None = None  # None: the one whose chip it fits
    other_chip: bool = False  # it may be for another chip than the release before


def create(conn: Connection, new: NewRelease, actor: str, now: datetime) -> str:
    """A draft release; its id."""
    check_version("version", new.version or "")
    check_new(conn, new)
    release_id = mint("rel", now, token_bytes(5))
    releases.insert(
        conn,
        id=release_id,
        product=new.product,
        version=new.version,
        kind=new.kind,
        notes=new.notes,
        security_version=new.security_version,
        status=releases.DRAFT,
        created_at=now,
        created_by=actor,
    )
    said = {"product": new.product, "version": new.version, "kind": new.kind}
    events.record(conn, actor, "release.create", release_id, said, now)
    return release_id


def check_new(conn: Connection, new: NewRelease) -> None:
    """Raises `Rejected` unless there can be such a release."""
    if check_name("product", new.product) in TOP_LEVEL:
        raise invalid("product", new.product, "is the name of a TUF role")
    if new.version is not None:
        check_version("version", new.version)
    if new.kind not in KINDS:
        raise invalid("kind", new.kind, f"one of {', '.join(KINDS)}")
    if len(new.notes) > MAX_NOTES:
        raise invalid("notes", f"{len(new.notes)} characters", f"at most {MAX_NOTES} characters")
    if "\0" in new.notes:
        raise invalid("notes", new.notes[:40], "has no null in it")
    if not 0 <= new.security_version < 1 << 31:
        raise invalid("security_version", new.security_version, "between 0 and 2147483647")
    signing.check_product(conn, new.product)
    if new.version is not None and releases.by_version(conn, new.version, new.product):
        raise Rejected(
            "duplicate_version",
            f"version is {new.version!r}: {new.product} has a release of that version already",
            kind=Kind.CONFLICT,
            field="version",
            value=new.version,
            rule="a version the product does not have yet",
        )


def delete(conn: Connection, release_id: str, actor: str, now: datetime) -> None:
    """Forget a draft: its version is free again; its bytes go later, where nobody else has them. What was
    sealed is withdrawn."""
    release = check_draft(conn, release_id)
    for sha256 in sorted(releases.blobs_of(conn, release)):
        unblob.unused(conn, sha256, now)
    releases.delete(conn, release_id)
    said = {"product": release.product, "version": release.version}
    events.record(conn, actor, "release.delete", release_id, said, now)


def check_draft(conn: Connection, release_id: str) -> Any:
    """The release, if it is not sealed yet."""
    release = releases.find(conn, release_id)
    if release is None:
        raise signing.unknown_release(release_id)
    if release.status != releases.DRAFT:
        raise Rejected(
            "release_sealed",
            f"release is {release.status}: it takes no more artifacts; make a new version",
            kind=Kind.CONFLICT,
            field="release",
            value=release_id,
            rule="a draft release",
        )
    return release


def check_open(conn: Connection, release_id: str, device_type: str) -> Any:
    """The draft release, if it may still get an artifact for this device type."""
    check_name("device_type", device_type)
    release = check_draft(conn, release_id)
    if releases.full_artifact(conn, release_id, device_type) is not None:
        raise Rejected(
            "duplicate_artifact",
            f"device_type is {device_type!r}: the release has an image for it already",
            kind=Kind.CONFLICT,
            field="device_type",
            value=device_type,
            rule="a device type the release does not have yet",
        )
    return release


def check_sbom(intake: Intake) -> Bill:
    """Judge a bill of materials before it is kept."""
    intake.digest()
    return check_bill(intake.path().read_bytes())


def attach_sbom(
    conn: Connection, release_id: str, sha256: str, size: int, bill: Bill, actor: str, now: datetime
) -> None:
    """The bill of a draft release; another one replaces it. Its digest is signed with every image."""
    if (before := check_draft(conn, release_id).sbom) is not None:
        unblob.unused(conn, before["sha256"], now)
    releases.set_sbom(conn, release_id, {"sha256": sha256, "size": size, **bill.shown()})
    said = {"sha256": sha256, "components": bill.components}
    events.record(conn, actor, "sbom.attach", release_id, said, now)


def check_bytes(kind: str, intake: Intake, announced: str | None, length: int | None) -> dict[str, Any]:
    """Judge an upload before it is kept; the facts read from the image."""
    found = intake.digest()
    if not found.size:
        raise invalid("body", "empty", "an image has at least one byte", code="empty_image")
    if length is not None and found.size != length:
        raise invalid("body", f"{found.size} bytes", f"{length} were announced", code="truncated")
    if announced is not None and announced.lower() != found.sha256:
        raise invalid("sha256", announced, f"the body's digest is {found.sha256}", code="hash_mismatch")
    if kind == "config":
        if found.size > MAX_CONFIG:
            raise invalid("body", f"{found.size} bytes", f"a configuration has at most {MAX_CONFIG}")
        return check_config(intake.path().read_bytes())
    return inspect(intake.path())


def check_expected(conn: Connection, arrival: Arrival) -> str:
    """Of which kind its bytes must be; asked before the first one. Raises `Rejected` where none would do."""
    if arrival.device_type is not None:
        check_name("device_type", arrival.device_type)
    if isinstance(arrival.release, NewRelease):
        check_new(conn, arrival.release)
        return arrival.release.kind
    if arrival.device_type is None:
        return str(check_draft(conn, arrival.release).kind)
    return str(check_open(conn, arrival.release, arrival.device_type).kind)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image belongs: for which device type of a release, new or there, and the security version that
    this has with it."""

    release: Any
    device_type: str
    security_version: int


def place(conn: Connection, arrival: Arrival, facts: dict[str, Any]) -> Place:
    """Where these bytes belong. Raises `Rejected` where they do not; writes nothing."""
    release: Any = arrival.release
    if isinstance(release, NewRelease):
        if release.version is None:
            release = replace(release, version=described.version_of(facts))
        check_new(conn, release)
    else:
        release = check_draft(conn, release)
    device_type = arrival.device_type
    if device_type is None:
        device_type = described.device_type_of(conn, release.product, facts)
    if not isinstance(release, NewRelease):
        check_open(conn, release.id, device_type)
    if release.kind == "image" and not arrival.other_chip:
        described.check_chip(releases.last_facts(conn, release.product, device_type), facts, device_type)
    return Place(release, device_type, described.security_version(release.security_version, facts))


def take_in(
    conn: Connection, arrival: Arrival, stored: Stored, facts: dict[str, Any], actor: str, now: datetime
) -> Any:
    """Name stored bytes as a release's image, and make the release where it is a new one; the artifact."""
    found = place(conn, arrival, facts)
    if isinstance(found.release, NewRelease):
        new = replace(found.release, security_version=found.security_version)
        release_id = create(conn, new, actor, now)
    else:
        release_id = found.release.id
        releases.set_security_version(conn, release_id, found.security_version)
    artifact_id = mint("art", now, token_bytes(5))
    releases.insert_artifact(
        conn,
        id=artifact_id,
        release_id=release_id,
        device_type=found.device_type,
        kind="full",
        sha256=stored.sha256,
        size=stored.size,
        facts=facts,
        created_at=now,
    )
    said = {"artifact": artifact_id, "device_type": found.device_type, "sha256": stored.sha256}
    events.record(conn, actor, "artifact.add", release_id, {**said, "size": stored.size}, now)
    return releases.find_artifact(conn, artifact_id)


@dataclass(frozen=True, slots=True)
class Offerable:
    """What a release has for a device: the full image, and how the image repo describes it (`OrderTarget`'s
    first four fields)."""

    full: Any
    product: str
    target: dict[str, Any]


def offerable(conn: Connection, release_id: str, device_type: str) -> Offerable | None:
    """None where the release is not published or has nothing for this type."""
    release = releases.find(conn, release_id)
    full = releases.full_artifact(conn, release_id, device_type)
    if release is None or full is None or release.status != releases.PUBLISHED:
        return None
    target = {
        "path": target_path(release.product, release.version, device_type),
        "length": full.size,
        "sha256": full.sha256,
        "custom": signing.describe(release, full),
    }
    return Offerable(full, release.product, target)


def view(conn: Connection, release: Any) -> dict[str, Any]:
    """A release as people see it."""
    shown = {
        "id": release.id,
        "product": release.product,
        "version": release.version,
        "kind": release.kind,
        "notes": release.notes,
        "security_version": release.security_version,
        "status": release.status,
        "created_at": release.created_at.isoformat(),
        "created_by": release.created_by,
        "published_at": release.published_at.isoformat() if release.published_at else None,
        "sbom": release.sbom,
        "artifacts": [artifact_view(a) for a in releases.artifacts_of(conn, release.id)],
    }
    if release.status in (releases.SIGNING, releases.WITHDRAWING):
        waiting = trustfiles.pending(conn, release.product)
        if waiting is not None:
            shown["signing"] = gathering.pending_view(conn, waiting)
    return shown


def artifact_view(artifact: Any) -> dict[str, Any]:
    """An artifact as people see it."""
    return {
        "id": artifact.id,
        "release": artifact.release_id,
        "device_type": artifact.device_type,
        "kind": artifact.kind,
        "sha256": artifact.sha256,
        "size": artifact.size,
        "base_sha256": artifact.base_sha256 or None,
        "base_version": artifact.base_version or None,
        "facts": artifact.facts,
        "url": f"/api/blobs/{artifact.sha256}",
    }
