"""Keys by the file that stands for them: a private key, or where the private key is.

`NAME.pem` holds a key (encrypted). `NAME.json` holds a URI and the public key: `hsm:` for a PKCS#11 token,
`awskms:`, `gcpkms:`, `azurekms:` and more for key services; securesystemslib opens them, each with its extra
installed, and the private key never leaves. Every command that takes a key's file takes either.
"""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, Key, Signer, SSlibKey

from skylift.core.errors import Rejected, invalid
from skylift.trust import keys, lazily

PIN_ENV = "SKYLIFT_HSM_PIN"


def load(path: Path, passphrase: bytes | None) -> Signer:
    """What signs with this key. Raises `Rejected` where the file, its library or its token is missing."""
    if path.suffix != ".json":
        return keys.load(path, passphrase)
    uri, known = _reference(path)
    try:
        lazily.signer(uri.partition(":")[0])
        return _Elsewhere(path.name, Signer.from_priv_key_uri(uri, known, _pin))
    except Exception as e:
        raise _unusable(path.name, e) from e


class _Elsewhere(Signer):
    """A key in a token or a key service; what goes wrong there is said in one line."""

    def __init__(self, name: str, signer: Signer) -> None:
        self._name = name
        self._signer = signer

    @property
    def public_key(self) -> Key:
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: Any = None) -> Signer:
        raise NotImplementedError("keys are opened by skylift.trust.keyring.load")

    def sign(self, payload: bytes) -> Any:
        try:
            made = self._signer.sign(payload)
            self.public_key.verify_signature(made, payload)  # by the key that we think it is
        except Exception as e:
            raise _unusable(self._name, e) from e
        return made


def public(path: Path, passphrase: bytes | None) -> Key:
    """The public part; a token need not be at hand."""
    return _reference(path)[1] if path.suffix == ".json" else keys.load(path, passphrase).public_key


def adopt(uri: str, pem: bytes | None, path: Path) -> Key:
    """Write the file that stands for a key which is elsewhere. `pem`: its public part; without it the token
    or key service is asked. An existing file is never overwritten."""
    if path.exists() or path.with_suffix(".pem").exists():
        raise invalid("name", path.stem, "there is such a key; keys are never overwritten", code="key_exists")
    scheme = uri.partition(":")[0]
    if scheme not in SIGNER_FOR_URI_SCHEME:
        raise invalid("uri", uri, f"begins with one of {', '.join(sorted(SIGNER_FOR_URI_SCHEME))}")
    try:
        if pem is not None:
            found: Key = SSlibKey.from_crypto(load_pem_public_key(pem), scheme=keys.SCHEME)
        else:
            uri, found = _asked(scheme, uri)
    except Rejected:
        raise
    except Exception as e:
        raise _unusable(uri, e) from e
    told = {"uri": uri, "public": keys.public_dict(found)}
    keys.from_public_dict("key", told["public"])  # the scheme, above all
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(json.dumps(told, indent=1) + "\n")
    return found


def _asked(scheme: str, uri: str) -> tuple[str, Key]:
    """The key's own URI and public part, from where it is."""
    rest = uri.partition(":")[2]
    if scheme == "hsm":
        number, _, query = rest.partition("?")
        label = dict(parse_qsl(query)).get("label")
        return _named(lazily.signer(scheme).import_(int(number) if number else None, label, _pin))
    if scheme == "awskms":
        return _named(lazily.signer(scheme).import_(rest, keys.SCHEME))
    raise invalid("uri", uri, "give its public key, a PEM file (--public)")


def _named(found: Any) -> tuple[str, Key]:
    uri, key = found
    return str(uri), key


def _pin(_: str) -> str:
    return os.environ.get(PIN_ENV, "")


def _reference(path: Path) -> tuple[str, Key]:
    try:
        body: Any = json.loads(path.read_bytes())
        uri = body["uri"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise invalid("key", str(path), "is no key's file: a URI and a public key", code="bad_key") from e
    return str(uri), keys.from_public_dict("key", body.get("public"))


def _unusable(name: str, error: Exception) -> Rejected:
    why = f"{type(error).__name__}: {error}".strip(": ")[:200]
    return invalid("key", name, f"cannot be used: {why}", code="bad_key")
