"""Keys: P-256, as PKCS#8 PEM files, encrypted where a person holds them; signatures deterministic (RFC 6979).

Deterministic, so that the same state always makes the same bytes: an order that is signed again on demand
is the file that was signed before.
"""

import hashlib
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey

from skylift.core.errors import Rejected, invalid
from skylift.trust.p256 import N

SCHEME = "ecdsa-sha2-nistp256"
PASSPHRASE_ENV = "SKYLIFT_KEY_PASSPHRASE"  # noqa: S105 - the variable's name, not its value


class KeySigner(Signer):
    """A private key in memory."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self._public = SSlibKey.from_crypto(private.public_key(), scheme=SCHEME)

    @property
    def public_key(self) -> SSlibKey:
        return self._public

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """For certificates, which are not TUF's."""
        return self._private

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "KeySigner":
        raise NotImplementedError("keys are opened by skylift.trust.keys.load")

    def sign(self, payload: bytes) -> Signature:
        algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
        return Signature(self._public.keyid, self._private.sign(payload, algorithm).hex())


def generate() -> KeySigner:
    """A new key."""
    return KeySigner(ec.generate_private_key(ec.SECP256R1()))


def derive(seed: bytes) -> KeySigner:
    """The key that everybody has who knows the seed: for vectors and tests, never for people."""
    secret = int.from_bytes(hashlib.sha256(seed).digest(), "big") % (N - 1) + 1
    return KeySigner(ec.derive_private_key(secret, ec.SECP256R1()))


def save(signer: KeySigner, path: Path, passphrase: bytes | None) -> None:
    """Write the key to a new file that only its owner reads. An existing file is never overwritten, and a
    power cut leaves no half of one."""
    locked: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem = signer._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        _name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _name(temporary: Path, path: Path) -> None:
    """Give the written file its name; `Rejected` where there is one already."""
    try:
        os.link(temporary, path)
    except FileExistsError as e:
        rule = "the file exists; keys are never overwritten"
        raise invalid("key", path.name, rule, code="key_exists") from e
    except OSError:  # a file system without links, such as a USB stick's
        if path.exists():
            raise
        os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path, passphrase: bytes | None) -> KeySigner:
    """The key in this file. Raises `Rejected` for a missing or foreign file and a wrong passphrase."""
    try:
        pem = path.read_bytes()
    except OSError as e:
        raise invalid("key", str(path), f"cannot be read: {e.strerror}", code="bad_key") from e
    encrypted = b"ENCRYPTED" in pem
    if encrypted and not passphrase:
        raise invalid("key", path.name, f"is encrypted: a passphrase is needed ({PASSPHRASE_ENV})")
    try:
        key = load_pem_private_key(pem, passphrase if encrypted else None)
    except ValueError as e:
        raise invalid(
            "key", path.name, "is no private key, or the passphrase is wrong", code="bad_key"
        ) from e
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise invalid("key", path.name, f"is not a {SCHEME} key", code="bad_key")
    return KeySigner(key)


def load_or_make(path: Path) -> KeySigner:
    """The server's own key: made at first start, unencrypted, readable by its user alone. Of several servers
    that start together on one folder one makes it, and all load that."""
    if not path.exists():
        try:
            save(generate(), path, None)
        except Rejected as e:
            if e.code != "key_exists":
                raise
    return load(path, None)


def public_dict(key: Key) -> dict[str, object]:
    """A public key as TUF writes it, with its id."""
    return {"keyid": key.keyid, **key.to_dict()}


def from_public_dict(field: str, value: object) -> Key:
    """The public key of `public_dict`; its id must be its own."""
    if not isinstance(value, dict) or not isinstance(value.get("keyid"), str):
        raise invalid(field, value, "is not a public key", code="bad_key")
    body = {name: item for name, item in value.items() if name != "keyid"}
    try:
        key = Key.from_dict(value["keyid"], body)
    except (KeyError, ValueError, TypeError) as e:
        raise invalid(field, value["keyid"], "is not a public key", code="bad_key") from e
    if key.scheme != SCHEME:
        raise Rejected("bad_key", f"{field} is a {key.scheme} key: must be {SCHEME}", field=field)
    # python-tuf takes any id for any key: one that named another's key would take its place in a root.
    try:
        own = SSlibKey.from_crypto(load_pem_public_key(key.keyval["public"].encode()), scheme=SCHEME).keyid
    except ValueError as e:
        raise invalid(field, value["keyid"], "is not a public key", code="bad_key") from e
    if key.keyid != own:
        raise invalid(field, key.keyid, f"is not the id of this key, which is {own}", code="bad_key")
    return key
