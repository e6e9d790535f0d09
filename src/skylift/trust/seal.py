"""Sealed: secrets that the servers must be able to use, and that must not lie in clear in a database.

One-time codes' secrets, webhooks' signing secrets, addresses that are secrets. AES-256-GCM under a key that
lies beside the online keys: who reads the database alone reads none of them. What a secret is *for* (whose it
is) is authenticated with it, so that nobody moves one from row to row.
"""

import base64
import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from skylift.core.errors import Unavailable, invalid

PREFIX = "s1:"  # how a sealed text begins: the first form of them
KEY_BYTES, NONCE_BYTES = 32, 12


class Seal:
    """One key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.fingerprint = hashlib.sha256(b"skylift seal\0" + key).hexdigest()[:16]

    @classmethod
    def open(cls, folder: Path) -> "Seal":
        """The key in this folder; made at the first start. Of servers that start together one makes it."""
        path = folder / "seal.key"
        if not path.exists():
            _make(path)
        try:
            text = path.read_text()
            key = base64.b64decode(text, validate=False)
        except (OSError, ValueError) as e:
            raise invalid("keys_dir", str(path), f"cannot be read: {e}", code="bad_key") from e
        if len(key) != KEY_BYTES:
            raise invalid("keys_dir", str(path), f"must hold {KEY_BYTES} bytes as base64", code="bad_key")
        return cls(key)

    def close(self, secret: str, purpose: str) -> str:
        """The secret, sealed; `purpose` says whose it is."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        box = self._cipher.encrypt(nonce, secret.encode(), purpose.encode())
        return PREFIX + base64.b64encode(nonce + box).decode()

    def read(self, sealed: str, purpose: str) -> str:
        """The secret. `Unavailable` where it was sealed under another key, or for something else."""
        try:
            box = base64.b64decode(sealed.removeprefix(PREFIX), validate=True)
            nonce, box = box[:NONCE_BYTES], box[NONCE_BYTES:]
            return self._cipher.decrypt(nonce, box, purpose.encode()).decode()
        except (InvalidTag, ValueError) as e:
            raise Unavailable(f"the secret of {purpose} was sealed under another key than seal.key") from e


def is_sealed(text: str) -> bool:
    return text.startswith(PREFIX)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        _name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _name(temporary: Path, path: Path) -> None:
    """Whoever is first gives the name; the others take what is there."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(temporary, path)
