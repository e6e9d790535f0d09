"""TUF metadata as files: building, signing, reading, and the byte rule.

The byte rule: a file is exactly `{"signatures":[...],"signed":X}`, and X with its one escape `\\n` undone is
the canonical form that was signed. A microcontroller verifies that slice of the file and never serialises
JSON itself. It holds for ASCII, integers, and strings without `"` and `\\`; `serialise` asserts it for every
file, so nothing that breaks it is ever published.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from skylift.core.errors import invalid
from skylift.trust.roles import DIRECTOR, IMAGE, PRODUCT, rule

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)
MAX_FILE = 1 << 20
_COMPACT = JSONSerializer(compact=True)


def expiry(repo: str, role: str, now: datetime) -> datetime:
    """When a signature made now ends; whole seconds, as TUF writes them."""
    return now.astimezone(UTC).replace(microsecond=0) + rule(repo, role).life


def serialise(metadata: "Metadata[Any]") -> bytes:
    """The file's bytes. A file that breaks the byte rule is our bug and is never written."""
    raw = metadata.to_bytes(_COMPACT)
    if not follows_byte_rule(raw, metadata.signed_bytes):
        raise AssertionError(f"{metadata.signed.type} metadata breaks the byte rule")
    return raw


def follows_byte_rule(raw: bytes, canonical: bytes) -> bool:
    """Whether the signed slice of this file is its canonical form but for `\\n`."""
    marker = b'],"signed":'
    at = raw.find(marker)
    if not raw.startswith(b'{"signatures":[') or at < 0 or not raw.isascii():
        return False
    slice_ = raw[at + len(marker) : -1]
    return slice_.count(b"\\") == slice_.count(b"\\n") and slice_.replace(b"\\n", b"\n") == canonical


def sign(signed: S, signers: Iterable[Signer]) -> bytes:
    """The signed file."""
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return serialise(metadata)


def read(field: str, raw: bytes, kind: type[S]) -> "Metadata[S]":
    """The metadata in these bytes. Raises `Rejected` when they are not a `kind` file."""
    if len(raw) > MAX_FILE:
        raise invalid(field, f"{len(raw)} bytes", f"at most {MAX_FILE} bytes", code="bad_metadata")
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
        _ = metadata.signed_bytes  # what has no canonical form (a fraction) nobody can have signed
    except (DeserializationError, RepositoryError) as e:
        raise invalid(field, raw[:40], f"is not TUF metadata: {e}", code="bad_metadata") from e
    if not isinstance(metadata.signed, kind):
        raise invalid(field, metadata.signed.type, f"is not {kind.type} metadata", code="bad_metadata")
    return metadata


def verifies(judge: Root | Targets, role: str, offered: "Metadata[Any]") -> bool:
    """Whether `judge` delegates `role` to enough of the keys that signed this file."""
    try:
        judge.verify_delegate(role, offered.signed_bytes, offered.signatures)
    except (RepositoryError, ValueError):
        return False
    return True


def valid_signature(key: Key, signature: Signature, payload: bytes) -> bool:
    """Whether this key made this signature of these bytes."""
    try:
        key.verify_signature(signature, payload)
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True


# --- building ---------------------------------------------------------------------------------------


def root(version: int, keys: Mapping[str, Sequence[Key]], repo: str, now: datetime) -> Root:
    """A root that names these keys, with the table's thresholds, and says whose it is: the same people hold
    both repositories' roots, and a director's root names online keys where an image's names offline ones."""
    made = Root(
        version=version,
        expires=expiry(repo, "root", now),
        consistent_snapshot=True,
        unrecognized_fields={"repository": repo},
    )
    for role, holders in keys.items():
        for key in holders:
            made.add_key(key, role)
        made.roles[role].threshold = rule(repo, role).threshold
    return made


def delegations(version: int, products: Mapping[str, Sequence[Key]], now: datetime) -> Targets:
    """The image repo's top-level targets: one terminating role per product, nothing else."""
    keys = {key.keyid: key for holders in products.values() for key in holders}
    roles = {
        product: DelegatedRole(
            product,
            [key.keyid for key in holders],
            PRODUCT.threshold,
            terminating=True,
            paths=[f"{product}/*/*"],
        )
        for product, holders in products.items()
    }
    return Targets(
        version=version, expires=expiry(IMAGE, "targets", now), delegations=Delegations(keys, roles)
    )


def product_role(version: int, product: str, targets: Mapping[str, TargetFile], now: datetime) -> Targets:
    """A product's role: every image its release keys vouch for."""
    return Targets(version=version, expires=expiry(IMAGE, product, now), targets=dict(targets))


def target(path: str, length: int, digest: str, custom: Mapping[str, Any]) -> TargetFile:
    """One image: its path, length, SHA-256 and what the signature says about it."""
    return TargetFile(length, {"sha256": digest}, path, {"custom": dict(custom)})


def snapshot(
    repo: str, version: int, versions: Mapping[str, int], now: datetime, device_id: str | None = None
) -> Snapshot:
    """Which version of every role belongs together; a director's says for which device."""
    meta = {f"{role}.json": MetaFile(number) for role, number in versions.items()}
    expires = expiry(repo, "snapshot", now)
    return Snapshot(version=version, expires=expires, meta=meta, unrecognized_fields=_whose(device_id))


def timestamp(
    repo: str, version: int, snapshot_version: int, body: bytes, now: datetime, device_id: str | None = None
) -> Timestamp:
    """Which snapshot is the newest; a director's says for which device."""
    meta = MetaFile(snapshot_version, len(body), {"sha256": sha256(body).hexdigest()})
    return Timestamp(
        version=version,
        expires=expiry(repo, "timestamp", now),
        snapshot_meta=meta,
        unrecognized_fields=_whose(device_id),
    )


def order(
    version: int,
    device_id: str,
    ordered: Mapping[str, TargetFile],
    now: datetime,
    nonce: str | None = None,
    log: Mapping[str, Any] | None = None,
) -> Targets:
    """A director's targets for one device: at most one image, whose order it is, and the question it answers
    where the device sent a nonce. `log`: the checkpoint (size, root) that this signature vouches for too."""
    said: dict[str, Any] = {"device_id": device_id} | ({} if nonce is None else {"nonce": nonce})
    if log is not None:
        said["log"] = dict(log)
    return Targets(
        version=version,
        expires=expiry(DIRECTOR, "targets", now),
        targets=dict(ordered),
        unrecognized_fields=said,
    )


def _whose(device_id: str | None) -> dict[str, Any] | None:
    return None if device_id is None else {"device_id": device_id}


# --- signatures that travel ---------------------------------------------------------------------------


def add_signature(field: str, raw: bytes, signer: Signer) -> bytes:
    """The file with this key's signature."""
    metadata = read_any(field, raw)
    metadata.sign(signer, append=True)
    return serialise(metadata)


def signatures_of(field: str, raw: bytes) -> tuple[int, dict[str, str]]:
    """(The file's version, key id -> signature.)"""
    metadata = read_any(field, raw)
    return metadata.signed.version, {keyid: made.signature for keyid, made in metadata.signatures.items()}


def read_any(field: str, raw: bytes) -> "Metadata[Any]":
    """A root or targets, whichever it is."""
    return read(field, raw, Root if b'"_type":"root"' in raw else Targets)
