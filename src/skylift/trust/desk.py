"""At the signer's desk: what would this signature say? Checked and shown before a key is touched.

The signer trusts its own copies of the root and the delegations, not the server: the pending file must be the
next version of the role, keep everything that is published, and add images only below the role's own paths.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from skylift.core.errors import Rejected, TrustError, invalid
from skylift.core.ids import check_name, check_version
from skylift.core.lifecycle import Reason
from skylift.trust import files
from skylift.trust.ceremony import product_keys
from skylift.trust.keys import KeySigner
from skylift.trust.roles import PRODUCT, target_path

_DIGEST = re.compile("[0-9a-f]{64}", re.ASCII)
CLOCKS_DIFFER = timedelta(days=1)  # the server's and the desk's


@dataclass(frozen=True)
class Proposal:
    """A half-signed role, compared with what is published."""

    role: str
    metadata: "Metadata[Targets]"
    added: dict[str, TargetFile]
    keyids: frozenset[str]

    @classmethod
    def read(
        cls, role: str, pending: bytes, published: bytes | None, root: Path, targets: Path, now: datetime
    ) -> "Proposal":
        """Raises `TrustError` when the file would say anything else than it should."""
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
        for path, image in before.items():
            if signed.targets.get(path) != image:
                raise _no(f"it changes or drops {path}, which is published")
        added = {path: image for path, image in signed.targets.items() if path not in before}
        for path, image in added.items():
            _check_image(role, path, image)
        holders = product_keys(delegations).get(role)
        if holders is None:
            raise _no(f"{role} is not a product of this desk")
        return cls(role, metadata, added, frozenset(key.keyid for key in holders))

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

    def has(self, sha256: str) -> bool:
        """Whether it adds exactly these bytes."""
        return any(image.hashes.get("sha256") == sha256 for image in self.added.values())

    def sign(self, signer: KeySigner) -> dict[str, Any]:
        """One signature, as the server takes it."""
        if signer.public_key.keyid not in self.keyids:
            raise invalid("key", signer.public_key.keyid[:16], f"is not a release key of {self.role}")
        made = signer.sign(self.metadata.signed_bytes)
        return {"version": self.metadata.signed.version, "keyid": made.keyid, "sig": made.signature}


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
