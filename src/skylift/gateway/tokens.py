"""JSON Web Tokens on paper: what is in one, and whether it may pass.

`judge` makes Kong's checks in Kong's order; the native form and Traefik's use the same with other settings.
HMAC is verified here; RSA, ECDSA and EdDSA signatures by the function it is given (`World.verify`). A token
whose algorithm is `none` is never believed: no credential can name that algorithm.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from skylift.gateway.access import Fault, Jwt, JwtKey

ALGORITHMS = (
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
_HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
MAX_TOKEN = 16 * 1024  # bytes; headers of a data plane end at 60 KB, no issuer needs this much


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart, nothing verified."""

    text: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Believed:
    claims: Mapping[str, Any]
    key: JwtKey


@dataclass(frozen=True, slots=True)
class Doubted:
    """`about`: the claim or the value it is about."""

    fault: Fault
    about: str = ""


def read(text: str) -> Token | None:
    """A token's parts, or None where it is not one."""
    parts = text.split(".")
    if len(parts) != 3 or len(text) > MAX_TOKEN:
        return None
    header, claims = _object(parts[0]), _object(parts[1])
    if header is None or claims is None or not isinstance(header.get("alg"), str):
        return None
    return Token(text, header, claims)


def _object(part: str) -> dict[str, Any] | None:
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def make(claims: Mapping[str, Any], secret: bytes, algorithm: str = "HS256", **header: str) -> str:
    """An HMAC token, for examples and tests."""
    parts = [{"alg": algorithm, "typ": "JWT", **header}, dict(claims)]
    signed = ".".join(encoded(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), _HASHES[algorithm]))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def judge(
    policy: Jwt, texts: tuple[str, ...], now: float, verify: Callable[[str, JwtKey], bool]
) -> Believed | Doubted:
    """Whether the tokens a request carries let it pass. Several different ones never do."""
    if not texts:
        return Doubted(Fault.MISSING)
    if len(set(texts)) > 1:
        return Doubted(Fault.SEVERAL)
    token = read(texts[0])
    if token is None:
        return Doubted(Fault.MALFORMED)
    if token.header["alg"] not in ALGORITHMS:
        return Doubted(Fault.NO_ALGORITHM, token.header["alg"])
    name = token.claims.get(policy.key_claim, token.header.get(policy.key_claim))
    if not isinstance(name, str) or not name:
        return Doubted(Fault.NO_KEY_NAME, policy.key_claim)
    keys = [key for key in policy.keys if key.name == name]
    if not keys:
        return Doubted(Fault.UNKNOWN, name)
    keys = [key for key in keys if token.header["alg"] in key.algorithms]
    if not keys:
        return Doubted(Fault.WRONG_ALGORITHM, token.header["alg"])
    key = next((key for key in keys if _signed_by(token, key, verify)), None)
    if key is None:
        return Doubted(Fault.BAD_SIGNATURE)
    return _claims_fault(policy, token, key, now) or Believed(token.claims, key)


def _signed_by(token: Token, key: JwtKey, verify: Callable[[str, JwtKey], bool]) -> bool:
    if token.header["alg"] not in _HASHES:
        return verify(token.text, key)
    signed, _, signature = token.text.rpartition(".")
    digest = hmac.digest(key.secret, signed.encode(), _HASHES[token.header["alg"]])
    return bool(key.secret) and hmac.compare_digest(encoded(digest), signature)


def _claims_fault(policy: Jwt, token: Token, key: JwtKey, now: float) -> Doubted | None:
    claims = token.claims
    absent = sorted(claim for claim in policy.required if claim not in claims)
    if absent:
        return Doubted(Fault.CLAIM_MISSING, absent[0])
    for claim in ("exp", "nbf"):
        if claim not in policy.verify or claim not in claims:
            continue
        value = claims[claim]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Doubted(Fault.NOT_A_NUMBER, claim)
        if claim == "exp" and value + policy.leeway <= now:
            return Doubted(Fault.EXPIRED, claim)
        if claim == "nbf" and value - policy.leeway > now:
            return Doubted(Fault.NOT_YET, claim)
    if policy.maximum_expiration and claims.get("exp", now + policy.maximum_expiration + 1) - now > (
        policy.maximum_expiration
    ):
        return Doubted(Fault.TOO_LONG, "exp")
    audience = claims.get("aud", ())
    given = {audience} if isinstance(audience, str) else set(audience)
    if key.audiences and not given & set(key.audiences):
        return Doubted(Fault.WRONG_AUDIENCE, ", ".join(sorted(given)))
    return None
