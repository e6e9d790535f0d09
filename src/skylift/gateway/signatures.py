"""Signatures that need public keys: RSA, ECDSA and EdDSA, by joserfc. HMAC is `tokens`' own.

Key sets (`jwks`) are tried key by key; a set behind a URL is the data plane's to fetch, and not asked here.
"""

import json
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

from skylift.gateway.access import JwtKey

_KINDS: dict[str, Any] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}


def verify(token: str, key: JwtKey) -> bool:
    """Whether the token's signature is this key's."""
    try:
        keys = _keys(token, key)
        return any(_verifies(token, each, key.algorithms) for each in keys)
    except (JoseError, ValueError, KeyError, TypeError):
        return False


def _keys(token: str, key: JwtKey) -> list[Key]:
    if key.jwks:
        return list(KeySet.import_key_set(json.loads(key.jwks)).keys)
    if not key.public_key:
        return []
    made: Key = _KINDS[key.algorithms[0][:2]].import_key(key.public_key)
    return [made]


def _verifies(token: str, key: Key, algorithms: tuple[str, ...]) -> bool:
    try:
        jws.deserialize_compact(token, key, algorithms=list(algorithms))
    except (JoseError, ValueError):
        return False
    return True
