"""Signatures gathered: what waits for them, and what is published together, in which order.

A product's next role is built here (`signing`); roots and delegations are built at a desk, for only it knows
the new keys, and handed in by `propose`. Each waits, visibly half signed, until its threshold has signed. New
delegations may name a key that has yet to sign the product's role, a new root keys that have yet to sign the
delegations: such files wait for each other and are published in one transaction, so that at no moment a
device finds a repository that does not verify.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from skylift.core.errors import Kind, Rejected
from skylift.core.telling import Told
from skylift.engine import signing
from skylift.engine.online import OnlineKeys
from skylift.store import channels, events, outbox, releases, trustfiles
from skylift.store.db import Connection
from skylift.store.trustfiles import Pending
from skylift.trust import ceremony, files
from skylift.trust.compact import ROLE_MAX
from skylift.trust.files import Metadata, Root, Targets, valid_signature, verifies
from skylift.trust.keys import Key
from skylift.trust.keys import Signature as Signature  # what the API hands to `sign`
from skylift.trust.roles import (
    DIRECTOR,
    DIRECTOR_ROOT,
    IMAGE,
    IMAGE_ROOT,
    IMAGE_TARGETS,
    ROOTS,
    TOP_LEVEL,
    rule,
)

Judge = tuple[Root | Targets, str]  # who says which keys may sign, and under which role's name


@dataclass(frozen=True)
class Standing:
    """The image repository's offline files, as they are published or would be."""

    root: "Metadata[Root]"
    targets: "Metadata[Targets]"
    products: dict[str, "Metadata[Targets]"]

    def holds(self) -> bool:
        """Whether a device would take them."""
        return verifies(self.root.signed, "targets", self.targets) and all(
            verifies(self.targets.signed, product, role) for product, role in self.products.items()
        )


# --- proposals --------------------------------------------------------------------------------------


def propose(
    conn: Connection,
    online: OnlineKeys,
    role: str,
    body: bytes,
    actor: str,
    now: datetime,
    most: int = ROLE_MAX,
) -> dict[str, Any]:
    """Take in the next root or the next delegations, signed or not, of at most so many bytes when they are
    signed: they replace what waited there. The view of `pending_view`, with `published`."""
    offered: Metadata[Any]
    if role in ROOTS:
        offered = files.read(role, body, Root)
        signing.check_root(conn, ROOTS[role], offered, online, now)
    elif role == IMAGE_TARGETS:
        offered = files.read(role, body, Targets)
        signing.check_targets(conn, offered, now)
    else:
        raise nothing_to_sign(role)
    given = list(offered.signatures.values())
    offered.signatures.clear()
    holders = {key.keyid for judge in _judges(conn, role, offered) for key in _keys_of(*judge)}
    signing.check_size(role, len(files.serialise(offered)) + signing.SIGNED * len(holders), most)
    before = trustfiles.pending(conn, role)
    if before is not None:
        waiting = _read(before)
        if waiting.signed_bytes == offered.signed_bytes:  # the same again: nobody's signature is lost
            offered.signatures.update(waiting.signatures)
    for signature in given:
        _add(conn, role, offered, signature)
    version = offered.signed.version
    trustfiles.set_pending(conn, Pending(role, version, files.serialise(offered), [], now))
    events.record(conn, actor, "trust.propose", role, {"version": version}, now)
    return _settled(conn, online, role, offered, actor, now)


def sign(
    conn: Connection,
    online: OnlineKeys,
    role: str,
    version: int,
    signature: Signature,
    actor: str,
    now: datetime,
) -> dict[str, Any]:
    """Add one signature to a half-signed file; publishes at the threshold. The view of `pending_view`, with
    `published`."""
    waiting = trustfiles.pending(conn, role)
    if waiting is None:
        raise nothing_to_sign(role)
    if waiting.version != version:
        raise signing.untrusted(
            "version", str(version), f"version {waiting.version} is what waits; sign that"
        )
    metadata = _read(waiting)
    if metadata.signed.expires <= now:
        raise signing.untrusted(
            "version", str(version), "has expired unsigned; seal the release again, or renew it"
        )
    _add(conn, role, metadata, signature)
    trustfiles.set_pending(conn, replace(waiting, body=files.serialise(metadata)))
    events.record(conn, actor, "trust.sign", role, {"keyid": signature.keyid, "version": version}, now)
    return _settled(conn, online, role, metadata, actor, now)


def _add(conn: Connection, role: str, metadata: "Metadata[Any]", signature: Signature) -> None:
    """Raises `Rejected` for a signature that counts nothing."""
    keys = {k.keyid: k for judge in _judges(conn, role, metadata) for k in _keys_of(*judge)}
    key = keys.get(signature.keyid)
    if key is None:
        raise signing.untrusted("keyid", signature.keyid, f"is not one of {role}'s keys")
    if not valid_signature(key, signature, metadata.signed_bytes):
        version = metadata.signed.version
        raise signing.untrusted(
            "sig", signature.signature[:16], f"is no signature of {role} version {version}"
        )
    metadata.signatures[signature.keyid] = signature


def _judges(conn: Connection, role: str, metadata: "Metadata[Any]") -> Iterator[Judge]:
    """By whom this file must be signed: a root by its predecessor's and its own holders; what is below by
    the keys of what waits above, where something does, or of what is published."""
    if role in ROOTS:
        known = trustfiles.latest(conn, ROOTS[role], "root")
        if known is not None:
            yield files.read(role, known.body, Root).signed, "root"
        yield metadata.signed, "root"
    elif role == IMAGE_TARGETS:
        yield _waiting_or_known(conn, IMAGE_ROOT, Root), "targets"
    else:
        yield _waiting_or_known(conn, IMAGE_TARGETS, Targets), role


def _waiting_or_known(conn: Connection, role: str, kind: Any) -> Any:
    waiting = trustfiles.pending(conn, role)
    if waiting is not None:
        return files.read(role, waiting.body, kind).signed
    return signing.root(conn) if kind is Root else signing.delegations(conn)


def _keys_of(judge: Root | Targets, role: str) -> list[Key]:
    if isinstance(judge, Root):
        return [judge.keys[keyid] for keyid in judge.roles[role].keyids]
    return list(ceremony.product_keys(judge).get(role, ()))


def _read(waiting: Pending) -> "Metadata[Any]":
    return files.read(waiting.role, waiting.body, Root if waiting.role in ROOTS else Targets)


def nothing_to_sign(role: str) -> Rejected:
    return Rejected(
        "nothing_to_sign",
        f"role is {role!r}: nothing waits for signatures",
        kind=Kind.NOT_FOUND,
        field="role",
        value=role,
        rule="a role that waits",
    )


# --- publishing -------------------------------------------------------------------------------------


def _settled(
    conn: Connection, online: OnlineKeys, role: str, metadata: "Metadata[Any]", actor: str, now: datetime
) -> dict[str, Any]:
    view = _view(conn, role, metadata)
    published = settle(conn, online, actor, now)
    return {**view, "published": role in published}


def settle(conn: Connection, online: OnlineKeys, actor: str, now: datetime) -> list[str]:
    """Publish what has its signatures and belongs together; the roles."""
    published = []
    director = trustfiles.pending(conn, DIRECTOR_ROOT)
    if director is not None and _signed(conn, director):
        _publish(conn, DIRECTOR, "root", _read(director), now)
        trustfiles.drop_pending(conn, director.role)
        published.append(director.role)
    waiting = {each.role: each for each in trustfiles.all_pending(conn)}
    for role, metadata in _next(conn, waiting):
        _publish(conn, IMAGE, role.removeprefix("image:"), metadata, now)
        trustfiles.drop_pending(conn, role)
        published.append(role)
        _releases_follow(conn, role, waiting[role], now)
    if published:
        online.claim_if_named(conn)
        _strip(conn)
        if published != [DIRECTOR_ROOT]:
            signing.publish_snapshot(conn, online, now)
        events.record(conn, actor, "trust.publish", published[0], {"roles": published}, now)
    return published


def _next(conn: Connection, waiting: dict[str, Pending]) -> list[tuple[str, "Metadata[Any]"]]:
    """The most of what waits that can be published at once; root first, products last."""
    known = Standing(
        files.read("root", _body(conn, "root"), Root),
        files.read("targets", _body(conn, "targets"), Targets),
        {
            file.role: files.read(file.role, file.body, Targets)
            for file in trustfiles.newest_files(conn, IMAGE)
            if file.role not in TOP_LEVEL
        },
    )
    ready = {role: _read(each) for role, each in waiting.items() if role != DIRECTOR_ROOT}
    if IMAGE_ROOT in ready and not _signed(conn, waiting[IMAGE_ROOT]):
        del ready[IMAGE_ROOT]
    for without in ((), (IMAGE_TARGETS,), (IMAGE_ROOT,), (IMAGE_ROOT, IMAGE_TARGETS)):
        chosen = {role: metadata for role, metadata in ready.items() if role not in without}
        targets = chosen.get(IMAGE_TARGETS, known.targets)
        products = {
            role: metadata
            for role, metadata in chosen.items()
            if ":" not in role and verifies(targets.signed, role, metadata)
        }
        after = Standing(chosen.get(IMAGE_ROOT, known.root), targets, {**known.products, **products})
        if after.holds():
            tops = [role for role in (IMAGE_ROOT, IMAGE_TARGETS) if role in chosen]
            return [(role, chosen[role]) for role in (*tops, *products)]
    return []


def _body(conn: Connection, role: str) -> bytes:
    signing.root(conn)  # or the sentence that there was no ceremony
    known = trustfiles.latest(conn, IMAGE, role)
    if known is None:
        raise AssertionError("a root without targets: the ceremony stores both in one transaction")
    return known.body


def _signed(conn: Connection, waiting: Pending) -> bool:
    metadata = _read(waiting)
    return all(verifies(judge, name, metadata) for judge, name in _judges(conn, waiting.role, metadata))


def _publish(conn: Connection, repo: str, role: str, metadata: "Metadata[Any]", now: datetime) -> None:
    body, version = files.serialise(metadata), metadata.signed.version
    signing.put(conn, repo, role, version, body, metadata.signed.expires, now)


def _releases_follow(conn: Connection, role: str, waiting: Pending, now: datetime) -> None:
    if ":" in role:
        return
    for release_id in waiting.release_ids:
        releases.set_status(conn, release_id, releases.PUBLISHED, now)
        outbox.put(conn, "deltas", {"release": release_id}, now)
        channels.of_release(conn, Told.PUBLISHED, release_id, now)
    for release in releases.of_status(conn, role, releases.WITHDRAWING):
        releases.set_status(conn, release.id, releases.WITHDRAWN)


def _strip(conn: Connection) -> None:
    """Signatures by keys that count no more, from what still waits."""
    for waiting in trustfiles.all_pending(conn):
        metadata = _read(waiting)
        keys = {key.keyid for judge in _judges(conn, waiting.role, metadata) for key in _keys_of(*judge)}
        for keyid in [keyid for keyid in metadata.signatures if keyid not in keys]:
            del metadata.signatures[keyid]
        trustfiles.set_pending(conn, replace(waiting, body=files.serialise(metadata)))


# --- looking ----------------------------------------------------------------------------------------


def pending_view(conn: Connection, waiting: Pending) -> dict[str, Any]:
    """A half-signed file as people see it: what it is for, who signed, how many are missing."""
    return {**_view(conn, waiting.role, _read(waiting)), "releases": waiting.release_ids}


def _view(conn: Connection, role: str, metadata: "Metadata[Any]") -> dict[str, Any]:
    judges = list(_judges(conn, role, metadata))
    payload, made = metadata.signed_bytes, metadata.signatures
    missing = max(judge.get_verification_result(name, payload, made).missing for judge, name in judges)
    return {
        "role": role,
        "version": metadata.signed.version,
        "signed_by": sorted(made),
        "signatures": len(made),
        "threshold": len(made) + missing,
        "keyids": list(dict.fromkeys(key.keyid for judge in judges for key in _keys_of(*judge))),
        "expires_at": metadata.signed.expires.isoformat(),
    }


def status(conn: Connection, now: datetime) -> dict[str, Any]:
    """Every role with its version and days to its expiry, and what is half signed. `state`: `good`, `renew`
    (a quarter of its life is left) or `expired`."""
    roles = [
        {
            "repo": file.repo,
            "role": file.role,
            "version": file.version,
            "expires_at": file.expires_at.isoformat(),
            "days_left": (file.expires_at - now).days,
            "renew": file.expires_at - now < rule(file.repo, file.role).life / 4,
            "state": _state(file.expires_at - now, rule(file.repo, file.role).life),
            "size": len(file.body),
            "by": "people" if signing.is_offline(file.repo, file.role) else "the server",
        }
        for repo in (IMAGE, DIRECTOR)
        for file in trustfiles.newest_files(conn, repo)
    ]
    pending = [pending_view(conn, waiting) for waiting in trustfiles.all_pending(conn)]
    return {"ready": bool(roles), "roles": roles, "pending": pending}


def _state(left: Any, life: Any) -> str:
    if left.total_seconds() <= 0:
        return "expired"
    return "renew" if left < life / 4 else "good"
