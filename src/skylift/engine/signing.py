"""What is to be signed: the ceremony's files taken in, releases sealed, product roles built; the timestamps.

The server holds two online keys (snapshots and timestamps of the image repo; orders). What makes new code
trustworthy, the release keys, it never sees: it only counts signatures that verify (`gathering`). Everything
it is handed is verified before it is stored, and nothing is published that would not verify on a device.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.telling import Told
from skylift.engine import log
from skylift.engine.online import OnlineKeys
from skylift.store import channels, events, releases, trustfiles
from skylift.store.db import Connection
from skylift.store.trustfiles import Pending, TrustFile
from skylift.trust import ceremony, files
from skylift.trust.compact import ROLE_MAX
from skylift.trust.files import Metadata, Root, Targets, verifies
from skylift.trust.roles import DIRECTOR, IMAGE, PRODUCT, rule, target_path

SIGNED = 240  # bytes of one signature in a file: its key's id, at most 72 bytes in hex, names and commas

# --- the ceremony's files ---------------------------------------------------------------------------


def take_ceremony(
    conn: Connection,
    online: OnlineKeys,
    given: Mapping[str, bytes],
    actor: str,
    now: datetime,
    most: int = ROLE_MAX,
) -> None:
    """Store new roots and delegations (`image_root`, `director_root`, `targets`), of at most so many bytes
    each. Files the server has already change nothing."""
    for name, body in given.items():
        check_size(name, len(body), most)
    changed = _take_root(conn, IMAGE, given["image_root"], online, now)
    changed |= _take_root(conn, DIRECTOR, given["director_root"], online, now)
    changed |= _take_targets(conn, given["targets"], now)
    if changed:
        online.claim(conn, replace=True)  # the roots name them: checked above
        _drop_overtaken(conn)
        publish_snapshot(conn, online, now)
        events.record(conn, actor, "trust.ceremony", "roots", trustfiles.versions(conn, IMAGE), now)


def _drop_overtaken(conn: Connection) -> None:
    """Proposals of a version that was published meanwhile."""
    for waiting in trustfiles.all_pending(conn):
        repo, colon, role = waiting.role.partition(":")
        known = trustfiles.latest(conn, repo, role) if colon else None
        if known is not None and waiting.version <= known.version:
            trustfiles.drop_pending(conn, waiting.role)


def _take_root(conn: Connection, repo: str, body: bytes, online: OnlineKeys, now: datetime) -> bool:
    field = f"{repo}_root"
    offered = files.read(field, body, Root)
    known = trustfiles.latest(conn, repo, "root")
    if known is not None and known.body == body:
        return False
    check_root(conn, repo, offered, online, now)
    _check_written(field, body, offered)
    signed = offered.signed
    judges = [signed] if known is None else [files.read(field, known.body, Root).signed, signed]
    for judge in judges:
        _verify(field, judge, "root", offered)
    put(conn, repo, "root", signed.version, body, signed.expires, now)
    return True


def check_root(
    conn: Connection, repo: str, offered: "Metadata[Root]", online: OnlineKeys, now: datetime
) -> None:
    """Raises `Rejected` unless this may be the repository's next root, whoever signed it."""
    field, signed = f"{repo}_root", offered.signed
    whose = signed.unrecognized_fields.get("repository")
    if whose != repo:
        raise untrusted(field, f"of {whose!r}", f"says that its repository is {repo!r}")
    known = trustfiles.latest(conn, repo, "root")
    expected = known.version + 1 if known else 1
    if signed.version != expected:
        raise untrusted(field, f"version {signed.version}", f"version {expected} comes next")
    check_form(field, offered, now)
    for role in ("root", *(["targets"] if repo == IMAGE else [])):
        needed, threshold = rule(repo, role).threshold, signed.roles[role].threshold
        if threshold < needed:
            raise untrusted(field, f"{role} threshold {threshold}", f"at least {needed}")
    for role in ("snapshot", "timestamp", *(["targets"] if repo == DIRECTOR else [])):
        if signed.roles[role].keyids != [online.ids()[repo]]:
            raise untrusted(field, role, "is held by this server's online key")


def _take_targets(conn: Connection, body: bytes, now: datetime) -> bool:
    offered = files.read("targets", body, Targets)
    _verify("targets", root(conn), "targets", offered)  # files known already too: the root may be new
    known = trustfiles.latest(conn, IMAGE, "targets")
    if known is not None and known.body == body:
        return False
    check_targets(conn, offered, now)
    _check_written("targets", body, offered)
    signed = offered.signed
    if known is not None:
        _keep_products(conn, files.read("targets", known.body, Targets).signed, signed, now)
    put(conn, IMAGE, "targets", signed.version, body, signed.expires, now)
    return True


def check_targets(conn: Connection, offered: "Metadata[Targets]", now: datetime) -> None:
    """Raises `Rejected` unless these may be the next delegations, whoever signed them."""
    signed, known = offered.signed, trustfiles.latest(conn, IMAGE, "targets")
    if known is not None and signed.version <= known.version:
        raise untrusted("targets", f"version {signed.version}", f"must be above {known.version}")
    check_form("targets", offered, now)
    if signed.targets:
        raise untrusted("targets", "images", "the top-level targets only delegate")
    for product, holders in ceremony.product_keys(signed).items():
        named = delegated(signed, product)
        if named.threshold < PRODUCT.threshold or len(holders) < PRODUCT.threshold:
            raise untrusted("targets", product, f"at least {PRODUCT.threshold} release keys must sign")
    if known is not None:
        before = ceremony.product_keys(files.read("targets", known.body, Targets).signed)
        for product in before.keys() - ceremony.product_keys(signed).keys():
            raise untrusted("targets", f"without {product}", "a product is never dropped")


def _keep_products(conn: Connection, before: Targets, after: Targets, now: datetime) -> None:
    """What is published stays signed by its keys, and what is half signed with keys that changed begins
    again."""
    keys_after = ceremony.product_keys(after)
    for product, keys_before in ceremony.product_keys(before).items():
        published = trustfiles.latest(conn, IMAGE, product)
        if published is not None and not verifies(
            after, product, files.read(product, published.body, Targets)
        ):
            raise untrusted("targets", product, "what is published must stay signed by its release keys")
        waiting = trustfiles.pending(conn, product)
        if waiting is not None and list(keys_before) != list(keys_after[product]):
            rebuild(conn, product, waiting.release_ids, now)


def untrusted(field: str, value: str, rule_: str) -> Rejected:
    return Rejected(
        "untrusted", f"{field} is {value}: {rule_}", kind=Kind.CONFLICT, field=field, value=value, rule=rule_
    )


def check_form(field: str, offered: "Metadata[Any]", now: datetime) -> None:
    """What the smallest device could not read, or no device would take any more."""
    try:
        files.serialise(offered)
    except AssertionError as e:
        raise untrusted(field, "not in the compact form", "must follow the byte rule") from e
    if offered.signed.expires <= now:
        raise untrusted(field, f"good until {offered.signed.expires:%Y-%m-%d}", "has expired")


def check_size(field: str, size: int, most: int) -> None:
    """What the smallest device could not hold is refused before anybody signs it."""
    if size > most:
        raise Rejected(
            "trust_file_too_large",
            f"{field} is {size} bytes with its signatures: at most {most}, which is what every device reads; "
            "withdraw old releases, or raise max_trust_file_bytes where no microcontroller is in the fleet",
            kind=Kind.CONFLICT,
            field=field,
            value=size,
            rule=f"at most {most} bytes",
        )


def _check_written(field: str, body: bytes, offered: "Metadata[Any]") -> None:
    if not files.follows_byte_rule(body, offered.signed_bytes):
        raise untrusted(field, "not in the compact form", "must follow the byte rule")


def _verify(field: str, judge: Root | Targets, role: str, offered: "Metadata[Any]") -> None:
    if not verifies(judge, role, offered):
        raise untrusted(field, "not signed", f"needs its threshold of valid {role} signatures")


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


def delegations(conn: Connection) -> Targets:
    root(conn)
    known = trustfiles.latest(conn, IMAGE, "targets")
    if known is None:
        raise AssertionError("a root without targets: the ceremony stores both in one transaction")
    return files.read("targets", known.body, Targets).signed


def delegated(targets: Targets, product: str) -> Any:
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
    delegated(delegations(conn), product)


# --- sealing and signing ----------------------------------------------------------------------------


def seal(conn: Connection, release_id: str, actor: str, now: datetime, most: int = ROLE_MAX) -> None:
    """The release takes no more artifacts and waits for its signatures; its product's role may have `most`
    bytes. Sealed again, it gets a new file to sign where the old one has waited for half of its life."""
    release = releases.find(conn, release_id)
    if release is None:
        raise unknown_release(release_id)
    if release.status == releases.SIGNING:
        stale = trustfiles.pending(conn, release.product)
        if stale is not None and now - stale.created_at > PRODUCT.life / 2:
            rebuild(conn, release.product, stale.release_ids, now)
    if release.status != releases.DRAFT:
        return
    if not any(a.kind == "full" for a in releases.artifacts_of(conn, release_id)):
        raise invalid("release", release_id, "has no artifact to sign", code="no_artifacts")
    check_product(conn, release.product)
    waiting = trustfiles.pending(conn, release.product)
    others = waiting.release_ids if waiting else []
    rebuild(conn, release.product, [*others, release_id], now)
    _check_role(conn, release.product, most)
    releases.set_status(conn, release_id, releases.SIGNING)
    channels.of_release(conn, Told.WAITING, release_id, now)
    events.record(conn, actor, "release.seal", release_id, {"product": release.product}, now)


def renew(conn: Connection, product: str, actor: str, now: datetime) -> None:
    """The product's next role, unsigned: what is published and what waits, good for another 90 days."""
    check_product(conn, product)
    waiting = trustfiles.pending(conn, product)
    if waiting is None and trustfiles.latest(conn, IMAGE, product) is None:
        raise Rejected(
            "nothing_to_renew",
            f"role is {product!r}: nothing of it is published yet",
            kind=Kind.CONFLICT,
            field="role",
            value=product,
            rule="a product with a published release",
        )
    rebuild(conn, product, waiting.release_ids if waiting else [], now)
    events.record(conn, actor, "trust.renew", product, {}, now)


def rebuild(conn: Connection, product: str, release_ids: list[str], now: datetime) -> None:
    """The product's next role version, unsigned: what is published, without what is being withdrawn, plus
    these releases. Signatures gathered so far are void, visibly: they were for other contents."""
    known = trustfiles.latest(conn, IMAGE, product)
    targets = dict(files.read(product, known.body, Targets).signed.targets) if known else {}
    for withdrawn in releases.of_status(conn, product, releases.WITHDRAWING):
        for path in [path for path in targets if path.split("/")[1] == withdrawn.version]:
            del targets[path]
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


def _check_role(conn: Connection, product: str, most: int) -> None:
    made = trustfiles.pending(conn, product)
    holders = len(ceremony.product_keys(delegations(conn))[product])
    check_size(f"role {product}", len(made.body if made else b"") + SIGNED * holders, most)


def describe(release: Any, artifact: Any) -> dict[str, Any]:
    """What the release keys say about an image, beside its length and digest."""
    described = {
        "version": release.version,
        "hardware": [artifact.device_type],
        "security_version": release.security_version,
        "kind": release.kind,
    }
    return described | ({"sbom": release.sbom["sha256"]} if release.sbom else {})


def put(
    conn: Connection, repo: str, role: str, version: int, body: bytes, expires: datetime, now: datetime
) -> None:
    trustfiles.put(conn, TrustFile(repo, role, version, body, now, expires))
    log.published(conn, repo, role, version, body, now)


def publish_snapshot(conn: Connection, online: OnlineKeys, now: datetime) -> None:
    versions = trustfiles.versions(conn, IMAGE)
    number = versions.get("snapshot", 0) + 1
    listed = {role: v for role, v in versions.items() if role not in ("root", "snapshot", "timestamp")}
    snapshot = files.snapshot(IMAGE, number, listed, now)
    body = files.sign(snapshot, [online.image])
    put(conn, IMAGE, "snapshot", number, body, snapshot.expires, now)
    _publish_timestamp(conn, online, number, body, now)


def _publish_timestamp(
    conn: Connection, online: OnlineKeys, snapshot_version: int, snapshot: bytes, now: datetime
) -> None:
    number = trustfiles.versions(conn, IMAGE).get("timestamp", 0) + 1
    online.check(conn)
    stamp = files.timestamp(IMAGE, number, snapshot_version, snapshot, now)
    put(conn, IMAGE, "timestamp", number, files.sign(stamp, [online.image]), stamp.expires, now)


def freshen(conn: Connection, online: OnlineKeys, now: datetime) -> bool:
    """Sign the image repo's timestamp, and snapshot, anew when half of their life is over; whether it did."""
    stamp = trustfiles.latest(conn, IMAGE, "timestamp")
    snapshot = trustfiles.latest(conn, IMAGE, "snapshot")
    if stamp is None or snapshot is None:
        return False
    if snapshot.expires_at - now < rule(IMAGE, "snapshot").life / 2:
        publish_snapshot(conn, online, now)
    elif stamp.expires_at - now < rule(IMAGE, "timestamp").life / 2:
        _publish_timestamp(conn, online, snapshot.version, snapshot.body, now)
    else:
        return False
    return True


def is_offline(repo: str, role: str) -> bool:
    """Whether people sign it."""
    return role == "root" or (repo == IMAGE and role not in ("snapshot", "timestamp"))


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
