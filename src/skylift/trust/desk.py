"""At the signer's desk: what would this signature say? Checked and shown before a key is touched.

The signer trusts its own copies of the root and the delegations, not the server: the pending file must be the
next version of the role, keep everything that is published, and add images only below the role's own paths.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from skylift.core.errors import Rejected, TrustError, invalid
from skylift.core.ids import check_name, check_version
from skylift.core.lifecycle import Reason
from skylift.trust import files
from skylift.trust.books import Books, check_next_root
from skylift.trust.ceremony import product_keys
from skylift.trust.roles import PRODUCT, ROOTS, rule, target_path

_DIGEST = re.compile("[0-9a-f]{64}", re.ASCII)
CLOCKS_DIFFER = timedelta(days=1)  # the server's and the desk's


@dataclass(frozen=True)
class Proposal:
    """A half-signed role, compared with what is published."""

    role: str
    metadata: "Metadata[Targets]"
    added: dict[str, TargetFile]
    keyids: frozenset[str]
    dropped: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)  # version -> what the server says of it

    @classmethod
    def read(
        cls,
        role: str,
        pending: bytes,
        published: bytes | None,
        root: Path,
        targets: Path,
        now: datetime,
        withdraws: Collection[str] = (),
        coming: bytes | None = None,
    ) -> "Proposal":
        """Raises `TrustError` when the file would say anything else than it should. `withdraws`: versions
        that the signer means to withdraw; `coming`: delegations that wait, whose keys may sign with them."""
        delegations = _delegations(root, targets)
        metadata = files.read(role, pending, Targets)
        if not files.follows_byte_rule(pending, metadata.signed_bytes):
            raise _no("it breaks the byte rule")
        before: dict[str, TargetFile] = {}
        version = 0
        if published is not None:
            known = files.read(role, published, Targets)
            if not files.verifies(delegations, role, known):
                raise _no(f"the published {role} is not signed by its release keys")
            before, version = dict(known.signed.targets), known.signed.version
        signed = metadata.signed
        if signed.version != version + 1:
            raise _no(f"version {signed.version} waits, {version + 1} comes next")
        if signed.delegations is not None:
            raise _no("it delegates, which a product's role must not")
        if not now < signed.expires <= now + PRODUCT.life + CLOCKS_DIFFER:
            raise _no(f"good until {signed.expires:%Y-%m-%d}, not for the {PRODUCT.life.days} days to come")
        dropped = tuple(path for path in before if path not in signed.targets)
        for path, image in before.items():
            if signed.targets.get(path, image) != image:
                raise _no(f"it changes {path}, which is published")
            if path in dropped and (version_ := path.split("/")[1]) not in withdraws:
                raise _no(f"it drops {path}, which is published (meant so: --withdraws {version_})")
        added = {path: image for path, image in signed.targets.items() if path not in before}
        for path, image in added.items():
            _check_image(role, path, image)
        holders = product_keys(delegations).get(role)
        if holders is None:
            raise _no(f"{role} is not a product of this desk")
        signers = [key.keyid for key in holders]
        if coming is not None:
            later = product_keys(files.read("targets", coming, Targets).signed)
            signers += [key.keyid for key in later.get(role, ())]
        return cls(role, metadata, added, frozenset(signers), dropped)

    def lines(self) -> Iterator[str]:
        """What the signature will say, for people."""
        signed = self.metadata.signed
        yield f"{self.role} version {signed.version}, until {signed.expires:%Y-%m-%d}"
        for path, image in sorted(self.added.items()):
            custom: dict[str, Any] = image.unrecognized_fields.get("custom", {})
            yield (
                f"  adds {path}: {custom.get('kind')} {custom.get('version')} "
                f"for {', '.join(custom.get('hardware', ()))}, security_version "
                f"{custom.get('security_version')}, {image.length} bytes"
            )
            yield f"       sha256 {image.hashes.get('sha256')}"
            if "sbom" in custom:
                yield f"       bill of materials, sha256 {custom['sbom']}"
            if told := self.notes.get(str(custom.get("version"))):
                yield f"       notes (of the server, not signed): {told}"
        for path in self.dropped:
            yield f"  withdraws {path}: no device installs it any more"
        if not self.added and not self.dropped:
            yield "  nothing but a later date"

    def has(self, sha256: str) -> bool:
        """Whether it adds exactly these bytes."""
        return any(image.hashes.get("sha256") == sha256 for image in self.added.values())

    def sign(self, signer: Signer) -> dict[str, Any]:
        """One signature, as the server takes it."""
        if signer.public_key.keyid not in self.keyids:
            raise invalid("key", signer.public_key.keyid[:16], f"is not a release key of {self.role}")
        made = signer.sign(self.metadata.signed_bytes)
        return {"version": self.metadata.signed.version, "keyid": made.keyid, "sig": made.signature}


@dataclass(frozen=True)
class Review:
    """A root or delegations that wait, compared with what this desk knows."""

    role: str
    metadata: "Metadata[Any]"
    said: tuple[str, ...]

    @classmethod
    def read(cls, role: str, pending: bytes, books: Books, now: datetime) -> "Review":
        """Raises `TrustError` when the file is not what may come next."""
        metadata: Metadata[Any] = files.read(role, pending, Root if role in ROOTS else Targets)
        signed, repo = metadata.signed, ROOTS.get(role, "image")
        if not files.follows_byte_rule(pending, metadata.signed_bytes):
            raise _no("it breaks the byte rule")
        life = rule(repo, role.partition(":")[2]).life
        if not now < signed.expires <= now + life + CLOCKS_DIFFER:
            raise _no(f"good until {signed.expires:%Y-%m-%d}, not for the {life.days} days to come")
        if role in ROOTS:
            check_next_root(repo, books.root(repo), metadata)
            said = _of_root(repo, books.root(repo), signed)
        else:
            said = _of_targets(books, signed)
        return cls(
            role, metadata, (f"{role} version {signed.version}, until {signed.expires:%Y-%m-%d}", *said)
        )

    def lines(self) -> Iterator[str]:
        """What the signature will say, for people."""
        yield from self.said if len(self.said) > 1 else (*self.said, "  nothing but a later date")

    def sign(self, signer: Signer) -> dict[str, Any]:
        """One signature, as the server takes it; whether it counts is the server's to say."""
        made = signer.sign(self.metadata.signed_bytes)
        return {"version": self.metadata.signed.version, "keyid": made.keyid, "sig": made.signature}


def _of_root(repo: str, known: Root, offered: Root) -> Iterator[str]:
    for role, before in known.roles.items():
        after = offered.roles[role]
        if after.threshold < rule(repo, role).threshold:
            raise _no(f"{after.threshold} of its {role} keys would be enough")
        yield from _keys_changed(role, before.keyids, after.keyids)


def _of_targets(books: Books, offered: Targets) -> Iterator[str]:
    if offered.version != books.targets.version + 1:
        raise _no(f"version {offered.version} waits, {books.targets.version + 1} comes next")
    if offered.targets:
        raise _no("it names images, which only products' roles may")
    after = product_keys(offered)
    for product, holders in books.products.items():
        if product not in after:
            raise _no(f"it drops the product {product}")
        yield from _keys_changed(product, [k.keyid for k in holders], [k.keyid for k in after[product]])
    roles = offered.delegations.roles if offered.delegations else None
    for product, role in (roles or {}).items():
        if role.threshold < PRODUCT.threshold or role.paths != [f"{product}/*/*"] or not role.terminating:
            raise _no(f"it delegates {product} otherwise than to two keys and its own paths")
        if product not in books.products:
            yield f"  adds the product {product}, keys {', '.join(k.keyid[:8] for k in after[product])}"


def _keys_changed(role: str, before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    for keyid in [keyid for keyid in before if keyid not in after]:
        yield f"  {role}: key {keyid[:16]} goes"
    for keyid in [keyid for keyid in after if keyid not in before]:
        yield f"  {role}: key {keyid[:16]} comes"


def _delegations(root: Path, targets: Path) -> Targets:
    """The desk's own delegations, verified by the desk's own root."""
    try:
        top = files.read("image.root", root.read_bytes(), Root).signed
        delegations = files.read("image.targets", targets.read_bytes(), Targets)
    except OSError as e:
        raise invalid("keys", str(root.parent.parent), "holds no roots; is --keys the right desk?") from e
    if not files.verifies(top, "targets", delegations):
        raise _no("this desk's delegations are not signed by its targets keys")
    return delegations.signed


def _check_image(role: str, path: str, image: TargetFile) -> None:
    """Path and description say the same, in our alphabet: what is shown is what is signed."""
    custom = image.unrecognized_fields.get("custom")
    if not isinstance(custom, dict) or custom.keys() - {"sbom"} != {
        "version",
        "hardware",
        "security_version",
        "kind",
    }:
        raise _no(f"{path!r} is not described as an image should be")
    hardware, security = custom["hardware"], custom["security_version"]
    if not isinstance(hardware, list) or len(hardware) != 1 or type(security) is not int or security < 0:
        raise _no(f"{path!r} is not described as an image should be")
    if "sbom" in custom and not _DIGEST.fullmatch(str(custom["sbom"])):
        raise _no(f"{path!r} names a bill of materials by no digest")
    try:
        version = check_version("version", str(custom["version"]))
        told = target_path(role, version, check_name("hardware", str(hardware[0])))
    except Rejected as e:
        raise _no(f"{path!r}: {e}") from e
    if path != told or custom["kind"] not in ("image", "config") or image.hashes.keys() != {"sha256"}:
        raise _no(f"{path!r} does not say what its description says, {told!r}")


def _no(sentence: str) -> TrustError:
    return TrustError(Reason.SIGNATURE_INVALID, f"will not be signed: {sentence}")


def vouched(
    role: str, published: bytes, sha256: str, root: Path, targets: Path, under: str = ""
) -> str | None:
    """The path (beginning with `under`) for which the role's release keys vouch for these bytes, or None."""
    delegations = _delegations(root, targets)
    known = files.read(role, published, Targets)
    if not files.verifies(delegations, role, known):
        raise TrustError(Reason.SIGNATURE_INVALID, f"the published {role} is not signed by its release keys")
    images = known.signed.targets.items()
    fitting = (path for path, image in images if image.hashes.get("sha256") == sha256)
    return next((path for path in fitting if path.startswith(under)), None)
