"""Sign-in by OpenID Connect: somebody else's server says who it is (authorization code, PKCE, nonce).

What the browser carries between the two steps is sealed here and good for ten minutes. Of what comes back
nothing is believed but an ID token that the provider's published keys have signed for this client and this
very sign-in. A person is issuer and subject, never a name: whoever brings the name of a user who signs in
otherwise is refused. The role is what the provider's claim says, at every sign-in anew.
"""

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2
import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from skylift.core.errors import Kind, Rejected, Unavailable, invalid
from skylift.core.ids import check_name
from skylift.engine.access import role_named
from skylift.engine.sealed import Seal

LOG = structlog.get_logger("skylift.oidc")
ALGORITHMS = [
    "RS256",
    "PS256",
    "ES256",
    "RS384",
    "ES384",
    "RS512",
    "ES512",
    "EdDSA",
]  # no shared secrets
PURPOSE = "sign-in by OpenID Connect"
GOOD_FOR = timedelta(minutes=10)
LEEWAY_S = 60
PATIENCE_S = 10.0
MAX_ANSWER = 1 << 20
KEYS_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Provider:
    """Whom the settings name."""

    issuer: str
    client_id: str
    client_secret: str
    title: str
    scopes: str
    name_claim: str
    role_claim: str
    roles: tuple[tuple[str, str], ...]  # (value of the claim, role), the first that fits; "*" fits everybody
    redirect_uri: str

    def role_of(self, claims: Mapping[str, Any]) -> str | None:
        """What somebody with these claims may do here; None: nothing."""
        said = claims.get(self.role_claim)
        values = said if isinstance(said, list) else [said]
        return next((role for value, role in self.roles if value == "*" or value in values), None)


def roles_of(text: str) -> tuple[tuple[str, str], ...]:
    """`admins=admin, ops=operator, *=viewer`."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        value, equals, role = part.rpartition("=")
        if not equals or not value:
            raise invalid("oidc_roles", part, "value=role, such as ops=operator or *=viewer")
        role_named(role)
        found.append((value, role))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in there."""

    subject: str  # issuer and the provider's own id of them
    name: str
    role: str


class Oidc:
    """One provider. Its addresses and keys are fetched when they are needed, and kept for an hour."""

    def __init__(self, provider: Provider, seal: Seal) -> None:
        self.provider = provider
        self._seal = seal
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._fetched_at: datetime | None = None

    def begin(self, back: str, now: datetime) -> tuple[str, str]:
        """(address to send the browser to, what it keeps meanwhile)."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": self.provider.redirect_uri,
            "scope": self.provider.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "back": back, "at": now.timestamp()}
        address = self._where("authorization_endpoint", now)
        joined = "&" if urlsplit(address).query else "?"
        return f"{address}{joined}{urlencode(query)}", self._seal.close(json.dumps(kept), PURPOSE)

    def end(self, kept: str, answer: Mapping[str, str], now: datetime) -> tuple[Person, str]:
        """(who it is, where they wanted to go), from what the browser kept and brought back."""
        began = self._began(kept, now)
        if not hmac.compare_digest(answer.get("state", "").encode(), began["state"].encode()):
            raise _refused("the answer belongs to another sign-in")
        if answer.get("iss") not in (None, self.provider.issuer):
            raise _refused("the answer is from another provider")
        if "code" not in answer:
            said = answer.get("error_description") or answer.get("error") or "no code"
            raise _refused(f"{self.provider.title} says: {said[:200]}")
        claims = self._claims(self._token(answer["code"], began["verifier"], now), began["nonce"], now)
        return self._person(claims), str(began["back"])

    def _began(self, kept: str, now: datetime) -> dict[str, Any]:
        try:
            began: dict[str, Any] = json.loads(self._seal.read(kept, PURPOSE))
        except Unavailable as e:
            raise _refused("this browser has not begun to sign in; begin again") from e
        if not 0 <= now.timestamp() - began["at"] <= GOOD_FOR.total_seconds():
            raise _refused("that took more than ten minutes; begin again")
        return began

    def _token(self, code: str, verifier: str, now: datetime) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.provider.redirect_uri,
            "code_verifier": verifier,
        }
        basic = (self.provider.client_id, self.provider.client_secret)
        found = _ask("POST", self._where("token_endpoint", now), data=form, auth=basic)
        token = found.get("id_token")
        if not isinstance(token, str):
            raise _refused(f"{self.provider.title} gave no ID token")
        return token

    def _claims(self, token: str, nonce: str, now: datetime) -> dict[str, Any]:
        try:
            claims = self._verified(token, now)
        except (JoseError, ValueError) as e:
            raise _refused(f"the ID token does not verify: {e}") from e
        audience = claims.get("aud")
        meant = audience if isinstance(audience, list) else [audience]
        seconds = now.timestamp()
        for rule, holds in (
            ("iss", claims.get("iss") == self.provider.issuer),
            ("aud", self.provider.client_id in meant),
            ("azp", len(meant) == 1 or claims.get("azp") == self.provider.client_id),
            ("exp", isinstance(claims.get("exp"), int | float) and claims["exp"] + LEEWAY_S > seconds),
            ("iat", isinstance(claims.get("iat"), int | float) and claims["iat"] - LEEWAY_S <= seconds),
            ("nonce", hmac.compare_digest(str(claims.get("nonce")).encode(), nonce.encode())),
            ("sub", isinstance(claims.get("sub"), str) and 0 < len(claims["sub"]) <= 255),
        ):
            if not holds:
                raise _refused(f"the ID token's {rule} is wrong")
        return claims

    def _verified(self, token: str, now: datetime) -> dict[str, Any]:
        """By the keys as they were; by those of today where they may have been replaced."""
        try:
            return dict(jwt.decode(token, self._keyset(now), algorithms=ALGORITHMS).claims)
        except (JoseError, ValueError):
            with self._lock:
                self._fetched_at = None
            return dict(jwt.decode(token, self._keyset(now), algorithms=ALGORITHMS).claims)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        role = self.provider.role_of(claims)
        if role is None:
            raise _refused("nothing of what the provider says of you lets you in here")
        name = str(claims.get(self.provider.name_claim, ""))
        return Person(f"{claims['iss']} {claims['sub']}", check_name(self.provider.name_claim, name), role)

    # --- the provider's own pages --------------------------------------------------------------------

    def _where(self, name: str, now: datetime) -> str:
        self._refresh(now)
        found: str = self._known[name]
        return found

    def _keyset(self, now: datetime) -> KeySet:
        self._refresh(now)
        assert self._keys is not None
        return self._keys

    def _refresh(self, now: datetime) -> None:
        with self._lock:
            if self._fetched_at is not None and abs(now - self._fetched_at) < KEYS_FOR:
                return
            known = _ask("GET", self.provider.issuer.rstrip("/") + "/.well-known/openid-configuration")
            if known.get("issuer") != self.provider.issuer:
                raise Unavailable(f"oidc_issuer: it calls itself {str(known.get('issuer'))[:100]!r}")
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if not str(known.get(name, "")).startswith(("https://", "http://")):
                    raise Unavailable(f"oidc_issuer: says no {name}")
            try:
                keys = KeySet.import_key_set(_ask("GET", known["jwks_uri"]))  # type: ignore[arg-type] # it judges
            except (JoseError, ValueError, KeyError, TypeError) as e:
                raise Unavailable(f"oidc_issuer: its keys cannot be read: {e}") from e
            self._known, self._keys, self._fetched_at = known, keys, now


def _refused(why: str) -> Rejected:
    LOG.warning("sign-in refused", why=why)
    return Rejected("oidc_refused", f"not signed in: {why}", kind=Kind.FORBIDDEN)


def _ask(method: str, url: str, **options: Any) -> dict[str, Any]:
    """The JSON object at this address of the provider's. No redirects, and no more than a megabyte."""
    try:
        with (
            httpx2.Client(timeout=PATIENCE_S, headers={"Accept": "application/json"}) as client,
            client.stream(method, url, **options) as answer,
        ):
            body = b""
            for part in answer.iter_bytes():
                body += part
                if len(body) > MAX_ANSWER:
                    raise Unavailable(f"{urlsplit(url).netloc} says too much")
            found = json.loads(body) if answer.is_success else None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as e:
        raise Unavailable(f"the sign-in server {urlsplit(url).netloc} does not answer: {e}") from e
    if answer.status_code in (400, 401) and method == "POST":
        raise _refused(f"{urlsplit(url).netloc} refuses the code")
    if not isinstance(found, dict):
        raise Unavailable(f"the sign-in server {urlsplit(url).netloc} answers {answer.status_code}")
    return found
