"""Signatures: the ceremony's files taken in, releases sealed, signatures gathered, roles published.

The server holds two online keys (snapshots and timestamps of the image repo; orders). What makes new code
trustworthy, the release keys, it never sees: it only counts signatures that verify. Everything it is handed
is verified before it is stored, and nothing is published that would not verify on a device.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from skylift.core.errors import Kind, Rejected, invalid
from skylift.engine import log
from skylift.engine.online import OnlineKeys
from skylift.store import events, outbox, releases, trustfiles
from skylift.store.db import Connection
from skylift.store.trustfiles import Pending, TrustFile
from skylift.trust import ceremony, files
from skylift.trust.files import Metadata, Root, Targets, valid_signature, verifies
from skylift.trust.keys import Key
from skylift.trust.keys import Signature as Signature  # what the API hands to `sign`
from skylift.trust.roles import DIRECTOR, IMAGE, PRODUCT, rule, target_path

# --- the ceremony's files ---------------------------------------------------------------------------


def take_ceremony(
    conn: Connection, online: OnlineKeys, given: Mapping[str, bytes], actor: str, now: datetime
) -> None:
    """Store new roots and delegations (`image_root`, `director_root`, `targets`). Files the server has
    already change nothing."""
    changed = _take_root(conn, IMAGE, given["image_root"], online.image.public_key, now)
    changed |= _take_root(conn, DIRECTOR, given["director_root"], online.director.public_key, now)
    changed |= _take_targets(conn, given["targets"], now)
    if changed:
        online.claim(conn, replace=True)  # the roots name them: checked above
        _publish_snapshot(conn, online, now)
        events.record(conn, actor, "trust.ceremony", "roots", trustfiles.versions(conn, IMAGE), now)


def _take_root(conn: Connection, repo: str, body: bytes, online: Key, now: datetime) -> bool:
    field = f"{repo}_root"
    offered = files.read(field, body, Root)
    signed = offered.signed
    known = trustfiles.latest(conn, repo, "root")
    if known is not None and known.body == body:
        return False
    whose = signed.unrecognized_fields.get("repository")
    if whose != repo:
        raise _untrusted(field, f"of {whose!r}", f"says that its repository is {repo!r}")
    expected = known.version + 1 if known else 1
    if signed.version != expected:
        raise _untrusted(field, f"version {signed.version}", f"version {expected} comes next")
    judges = [signed] if known is None else [files.read(field, known.body, Root).signed, signed]
    for judge in judges:
        _verify(field, judge, "root", offered)
    _check_form(field, body, offered, now)
    for role in ("root", *(["targets"] if repo == IMAGE else [])):
        needed, threshold = rule(repo, role).threshold, signed.roles[role].threshold
        if threshold < needed:
            raise _untrusted(field, f"{role} threshold {threshold}", f"at least {needed}")
    for role in ("snapshot", "timestamp", *(["targets"] if repo == DIRECTOR else [])):
        if signed.roles[role].keyids != [online.keyid]:
            raise _untrusted(field, role, "is held by this server's online key")
    _put(conn, repo, "root", signed.version, body, signed.expires, now)
    return True


def _take_targets(conn: Connection, body: bytes, now: datetime) -> bool:
    offered = files.read("targets", body, Targets)
    _verify("targets", root(conn), "targets", offered)  # files known already too: the root may be new
    known = trustfiles.latest(conn, IMAGE, "targets")
    if known is not None and known.body == body:
        return False
    if known is not None and offered.signed.version <= known.version:
        raise _untrusted("targets", f"version {offered.signed.version}", f"must be above {known.version}")
    _check_form("targets", body, offered, now)
    if offered.signed.targets:
        raise _untrusted("targets", "images", "the top-level targets only delegate")
    for product, holders in ceremony.product_keys(offered.signed).items():
        delegated = _delegated(offered.signed, product)
        if delegated.threshold < PRODUCT.threshold or len(holders) < PRODUCT.threshold:
            raise _untrusted("targets", product, f"at least {PRODUCT.threshold} release keys must sign")
    signed = offered.signed
    if known is not None:
        _keep_products(conn, files.read("targets", known.body, Targets).signed, signed, now)
    _put(conn, IMAGE, "targets", signed.version, body, signed.expires, now)
    return True


def _keep_products(conn: Connection, before: Targets, after: Targets, now: datetime) -> None:
    """No product is dropped, what is published stays signed by its keys, and what is half signed with keys
    that changed begins again."""
    keys_after = ceremony.product_keys(after)
    for product, keys_before in ceremony.product_keys(before).items():
        if product not in keys_after:
            raise _untrusted("targets", f"without {product}", "a product is never dropped")
        published = trustfiles.latest(conn, IMAGE, product)
        if published is not None and not verifies(
            after, product, files.read(product, published.body, Targets)
        ):
            raise _untrusted("targets", product, "what is published must stay signed by its release keys")
        waiting = trustfiles.pending(conn, product)
        if waiting is not None and list(keys_before) != list(keys_after[product]):
            _rebuild(conn, product, waiting.release_ids, now)


def _untrusted(field: str, value: str, rule_: str) -> Rejected:
    return Rejected(
        "untrusted", f"{field} is {value}: {rule_}", kind=Kind.CONFLICT, field=field, value=value, rule=rule_
    )


def _check_form(field: str, body: bytes, offered: "Metadata[Any]", now: datetime) -> None:
    """What the smallest device could not read, or no device would take any more."""
    if not files.follows_byte_rule(body, offered.signed_bytes):
        raise _untrusted(field, "not in the compact form", "must follow the byte rule")
    if offered.signed.expires <= now:
        raise _untrusted(field, f"good until {offered.signed.expires:%Y-%m-%d}", "has expired")


def _verify(field: str, judge: Root | Targets, role: str, offered: "Metadata[Any]") -> None:
    if not verifies(judge, role, offered):
        raise _untrusted(field, "not signed", f"needs its threshold of valid {role} signatures")


def root(conn: Connection) -> Root:
    """The image repo's root. Without a ceremony nothing works, and that is said."""
    known = trustfiles.latest(conn, IMAGE, "root")
    if known is None:
        raise Rejected(
            "no_ceremony",
            "trust is not set up: no roots; hold the key ceremony first (`skylift trust init`)",
            kind=Kind.CONFLICT,
            field="trust",
            rule="a key ceremony",
        )
    return files.read("root", known.body, Root).signed


def _delegations(conn: Connection) -> Targets:
    root(conn)
    known = trustfiles.latest(conn, IMAGE, "targets")
    if known is None:
        raise AssertionError("a root without targets: the ceremony stores both in one transaction")
    return files.read("targets", known.body, Targets).signed


def _delegated(targets: Targets, product: str) -> Any:
    if targets.delegations is None or product not in (targets.delegations.roles or {}):
        raise Rejected(
            "unknown_product",
            f"product is {product!r}: no release keys; add it with `skylift trust init --product {product}`",
            kind=Kind.CONFLICT,
            field="product",
            value=product,
            rule="a product with release keys",
        )
    return (targets.delegations.roles or {})[product]


def check_product(conn: Connection, product: str) -> None:
    """Raises `Rejected` unless release keys for this product are known."""
    _delegated(_delegations(conn), product)


# --- sealing and signing ----------------------------------------------------------------------------


def seal(conn: Connection, release_id: str, actor: str, now: datetime) -> None:
    """The release takes no more artifacts and waits for its signatures. Sealed again, it gets a new file to
    sign where the old one has waited for half of its life."""
    release = releases.find(conn, release_id)
    if release is None:
        raise unknown_release(release_id)
    if release.status == releases.SIGNING:
        stale = trustfiles.pending(conn, release.product)
        if stale is not None and now - stale.created_at > PRODUCT.life / 2:
            _rebuild(conn, release.product, stale.release_ids, now)
    if release.status != releases.DRAFT:
        return
    if not any(a.kind == "full" for a in releases.artifacts_of(conn, release_id)):
        raise invalid("release", release_id, "has no artifact to sign", code="no_artifacts")
    check_product(conn, release.product)
    waiting = trustfiles.pending(conn, release.product)
    others = waiting.release_ids if waiting else []
    _rebuild(conn, release.product, [*others, release_id], now)
    releases.set_status(conn, release_id, releases.SIGNING)
    events.record(conn, actor, "release.seal", release_id, {"product": release.product}, now)


def _rebuild(conn: Connection, product: str, release_ids: list[str], now: datetime) -> None:
    """The product's next role version, unsigned: what is published plus these releases. Signatures gathered
    so far are void, visibly: they were for other contents."""
    known = trustfiles.latest(conn, IMAGE, product)
    targets = dict(files.read(product, known.body, Targets).signed.targets) if known else {}
    for release_id in release_ids:
        release = releases.find(conn, release_id)
        if release is None:
            raise AssertionError(f"sealed release {release_id} is gone")
        for artifact in releases.artifacts_of(conn, release_id):
            if artifact.kind == "full":
                path = target_path(product, release.version, artifact.device_type)
                described = describe(release, artifact)
                targets[path] = files.target(path, artifact.size, artifact.sha256, described)
    version = known.version + 1 if known else 1
    body = files.sign(files.product_role(version, product, targets, now), [])
    trustfiles.set_pending(conn, Pending(product, version, body, release_ids, now))


def describe(release: Any, artifact: Any) -> dict[str, Any]:
    """What the release keys say about an image, beside its length and digest."""
    described = {
        "version": release.version,
        "hardware": [artifact.device_type],
        "security_version": release.security_version,
        "kind": release.kind,
    }
    return described | ({"sbom": release.sbom["sha256"]} if release.sbom else {})


def sign(
    conn: Connection,
    online: OnlineKeys,
    role: str,
    version: int,
    signature: Signature,
    actor: str,
    now: datetime,
) -> dict[str, Any]:
    """Add one signature to a half-signed role; publishes at the threshold. The view of `pending_view`, with
    `published`."""
    waiting = trustfiles.pending(conn, role)
    if waiting is None:
        raise Rejected("nothing_to_sign", f"role is {role!r}: nothing waits for signatures",
                       kind=Kind.NOT_FOUND, field="role", value=role, rule="a role that waits")  # fmt: skip
    if waiting.version != version:
        raise _untrusted("version", str(version), f"version {waiting.version} is what waits; sign that")
    metadata = files.read(role, waiting.body, Targets)
    if metadata.signed.expires <= now:
        raise _untrusted("version", str(version), "has expired unsigned; seal the release again")
    delegated = _delegated(_delegations(conn), role)
    if signature.keyid not in delegated.keyids:
        raise _untrusted("keyid", signature.keyid, f"is not one of {role}'s release keys")
    key = ceremony.product_keys(_delegations(conn))[role][delegated.keyids.index(signature.keyid)]
    if not valid_signature(key, signature, metadata.signed_bytes):
        raise _untrusted("sig", signature.signature[:16], f"is no signature of {role} version {version}")
    metadata.signatures[signature.keyid] = signature
    body = files.serialise(metadata)
    enough = len(metadata.signatures) >= delegated.threshold
    view = {"role": role, "version": version, "signatures": len(metadata.signatures),
            "threshold": delegated.threshold, "published": enough}  # fmt: skip
    events.record(conn, actor, "trust.sign", role, {"keyid": signature.keyid, **view}, now)
    if not enough:
        trustfiles.set_pending(conn, Pending(role, version, body, waiting.release_ids, waiting.created_at))
        return view
    _verify(role, _delegations(conn), role, metadata)
    _put(conn, IMAGE, role, version, body, metadata.signed.expires, now)
    trustfiles.drop_pending(conn, role)
    _publish_snapshot(conn, online, now)
    for release_id in waiting.release_ids:
        releases.set_status(conn, release_id, releases.PUBLISHED, now)
        outbox.put(conn, "deltas", {"release": release_id}, now)
    return view


def _put(
    conn: Connection, repo: str, role: str, version: int, body: bytes, expires: datetime, now: datetime
) -> None:
    trustfiles.put(conn, TrustFile(repo, role, version, body, now, expires))
    log.published(conn, repo, role, version, body, now)


def _publish_snapshot(conn: Connection, online: OnlineKeys, now: datetime) -> None:
    versions = trustfiles.versions(conn, IMAGE)
    number = versions.get("snapshot", 0) + 1
    listed = {role: v for role, v in versions.items() if role not in ("root", "snapshot", "timestamp")}
    snapshot = files.snapshot(IMAGE, number, listed, now)
    body = files.sign(snapshot, [online.image])
    _put(conn, IMAGE, "snapshot", number, body, snapshot.expires, now)
    _publish_timestamp(conn, online, number, body, now)


def _publish_timestamp(
    conn: Connection, online: OnlineKeys, snapshot_version: int, snapshot: bytes, now: datetime
) -> None:
    number = trustfiles.versions(conn, IMAGE).get("timestamp", 0) + 1
    online.check(conn)
    stamp = files.timestamp(IMAGE, number, snapshot_version, snapshot, now)
    _put(conn, IMAGE, "timestamp", number, files.sign(stamp, [online.image]), stamp.expires, now)


def freshen(conn: Connection, online: OnlineKeys, now: datetime) -> bool:
    """Sign the image repo's timestamp, and snapshot, anew when half of their life is over; whether it did."""
    stamp = trustfiles.latest(conn, IMAGE, "timestamp")
    snapshot = trustfiles.latest(conn, IMAGE, "snapshot")
    if stamp is None or snapshot is None:
        return False
    if snapshot.expires_at - now < rule(IMAGE, "snapshot").life / 2:
        _publish_snapshot(conn, online, now)
    elif stamp.expires_at - now < rule(IMAGE, "timestamp").life / 2:
        _publish_timestamp(conn, online, snapshot.version, snapshot.body, now)
    else:
        return False
    return True


def is_stale(conn: Connection, now: datetime) -> bool:
    """Whether `freshen` would do something; a read."""
    stamp = trustfiles.latest(conn, IMAGE, "timestamp")
    snapshot = trustfiles.latest(conn, IMAGE, "snapshot")
    if stamp is None or snapshot is None:
        return False
    return (
        stamp.expires_at - now < rule(IMAGE, "timestamp").life / 2
        or snapshot.expires_at - now < rule(IMAGE, "snapshot").life / 2
    )


# --- looking ----------------------------------------------------------------------------------------


def unknown_release(release_id: str) -> Rejected:
    return Rejected(
        "unknown_release",
        f"release is {release_id!r}: there is no such release",
        kind=Kind.NOT_FOUND,
        field="release",
        value=release_id,
        rule="names a release",
    )


def pending_view(conn: Connection, waiting: Pending) -> dict[str, Any]:
    """A half-signed file as people see it: what it is for, who signed, how many are missing."""
    metadata = files.read(waiting.role, waiting.body, Targets)
    delegated = _delegated(_delegations(conn), waiting.role)
    return {
        "role": waiting.role,
        "version": waiting.version,
        "releases": waiting.release_ids,
        "signed_by": sorted(metadata.signatures),
        "signatures": len(metadata.signatures),
        "threshold": delegated.threshold,
        "keyids": list(delegated.keyids),
    }


def status(conn: Connection, now: datetime) -> dict[str, Any]:
    """Every role with its version and days to its expiry, and what is half signed."""
    roles = [
        {
            "repo": file.repo,
            "role": file.role,
            "version": file.version,
            "expires_at": file.expires_at.isoformat(),
            "days_left": (file.expires_at - now).days,
            "renew": file.expires_at - now < rule(file.repo, file.role).life / 4,
        }
        for repo in (IMAGE, DIRECTOR)
        for file in trustfiles.newest_files(conn, repo)
    ]
    pending = [pending_view(conn, waiting) for waiting in trustfiles.all_pending(conn)]
    return {"ready": bool(roles), "roles": roles, "pending": pending}
