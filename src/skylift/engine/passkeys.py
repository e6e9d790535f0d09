"""Passkeys: a second factor that cannot be typed into the wrong page (WebAuthn, by py_webauthn).

A key belongs to the name under which the browser knows this server. Every challenge is for one user and one
purpose, good for five minutes, and used once: only the last one given counts.
"""

import hashlib
import json
import secrets
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from skylift.core.errors import Kind, Rejected, invalid
from skylift.engine.sealed import Seal
from skylift.store import events, passkeys, people
from skylift.store.db import Connection
from skylift.store.passkeys import Passkey
from skylift.store.people import User

GOOD_FOR = timedelta(minutes=5)
MAX_KEYS = 10


def _challenge(conn: Connection, seal: Seal, user: User, purpose: str, now: datetime) -> tuple[bytes, str]:
    """(a new challenge, what the browser brings back with the answer)."""
    made = secrets.token_bytes(32)
    people.change(conn, user.id, challenge=hashlib.sha256(made).hexdigest())
    half = {"user": user.id, "challenge": made.hex(), "at": now.timestamp()}
    return made, seal.close(json.dumps(half), purpose)


def _taken(conn: Connection, seal: Seal, half: str, purpose: str, now: datetime) -> tuple[User, bytes]:
    """The user and the challenge of this half, which cannot be used again."""
    try:
        found: dict[str, Any] = json.loads(seal.read(half, purpose))
    except Exception as e:
        raise _stale() from e
    user, challenge = people.find(conn, found["user"]), bytes.fromhex(found["challenge"])
    fresh = 0 <= now.timestamp() - found["at"] <= GOOD_FOR.total_seconds()
    digest = hashlib.sha256(challenge).hexdigest()
    if user is None or not fresh or not people.use_challenge(conn, user.id, digest):
        raise _stale()
    return user, challenge


def _stale() -> Rejected:
    sentence = "that took too long, or was done before: begin again"
    return Rejected("stale_challenge", sentence, kind=Kind.FORBIDDEN)


def offer(conn: Connection, seal: Seal, user: User, origin: str, now: datetime) -> dict[str, Any]:
    """What a browser needs to make a key for this user."""
    from webauthn import generate_registration_options, options_to_json
    from webauthn.helpers import base64url_to_bytes
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    known = passkeys.of_user(conn, user.id)
    if len(known) >= MAX_KEYS:
        raise invalid("passkeys", len(known), f"at most {MAX_KEYS}")
    challenge, half = _challenge(conn, seal, user, "passkey to make", now)
    options = generate_registration_options(
        rp_id=_host(origin),
        rp_name="Skylift",
        user_name=user.name,
        user_id=user.id.encode(),
        challenge=challenge,
        exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(key.id)) for key in known],
    )
    return {"half": half, "options": json.loads(options_to_json(options))}


def keep(
    conn: Connection, seal: Seal, user: User, half: str, answer: str, name: str, origin: str, now: datetime
) -> None:
    """The key that a browser made; from now on a sign-in needs it, or a code."""
    from webauthn import verify_registration_response
    from webauthn.helpers import bytes_to_base64url

    label = name.strip() or "passkey"
    if len(label) > 64 or not label.isprintable():
        raise invalid("name", name[:40], "at most 64 printable characters")
    owner, challenge = _taken(conn, seal, half, "passkey to make", now)
    if owner.id != user.id:
        raise _stale()
    try:
        made = verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=_host(origin),
            expected_origin=origin,
        )
    except Exception as e:
        raise invalid("passkey", "what the browser made", f"does not verify: {e}") from e
    key_id = bytes_to_base64url(made.credential_id)
    if passkeys.find(conn, key_id) is not None:
        raise invalid("passkey", key_id[:16], "is somebody's already")
    public = bytes_to_base64url(made.credential_public_key)
    passkeys.insert(conn, Passkey(key_id, user.id, label, public, made.sign_count, now, None))
    events.record(conn, user.name, "user.passkey", user.id, {"added": label}, now)


def ask(conn: Connection, seal: Seal, user: User, origin: str, now: datetime) -> dict[str, Any]:
    """What a browser needs to prove that it has one of this user's keys."""
    from webauthn import generate_authentication_options, options_to_json
    from webauthn.helpers import base64url_to_bytes
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    challenge, half = _challenge(conn, seal, user, "passkey to sign in", now)
    known = passkeys.of_user(conn, user.id)
    options = generate_authentication_options(
        rp_id=_host(origin),
        challenge=challenge,
        allow_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(key.id)) for key in known],
    )
    return {"half": half, "options": json.loads(options_to_json(options))}


def proved(
    conn: Connection, seal: Seal, half: str, answer: str, origin: str, now: datetime, owner: list[User]
) -> User:
    """Whose key this is the proof of; their password was proved when the half was made. `owner`: gets the
    user as soon as it is known, also where the proof is none."""
    from webauthn import verify_authentication_response
    from webauthn.helpers import base64url_to_bytes

    user, challenge = _taken(conn, seal, half, "passkey to sign in", now)
    owner.append(user)
    try:
        key_id = str(json.loads(answer)["id"])
    except (ValueError, KeyError, TypeError) as e:
        raise _wrong() from e
    key = passkeys.find(conn, key_id)
    if key is None or key.user_id != user.id:
        raise _wrong()
    try:
        done = verify_authentication_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=_host(origin),
            expected_origin=origin,
            credential_public_key=base64url_to_bytes(key.public_key),
            credential_current_sign_count=key.sign_count,
        )
    except Exception as e:
        raise _wrong() from e
    passkeys.used(conn, key.id, done.new_sign_count, now)
    return user


def _wrong() -> Rejected:
    return Rejected("wrong_credentials", "the passkey does not prove it", kind=Kind.UNAUTHENTICATED)


def drop(conn: Connection, user: User, key_id: str, now: datetime) -> None:
    """One key less."""
    key = passkeys.find(conn, key_id)
    if key is None or key.user_id != user.id:
        raise Rejected("unknown_passkey", "passkey: there is no such key of yours", kind=Kind.NOT_FOUND)
    passkeys.delete(conn, key_id)
    events.record(conn, user.name, "user.passkey", user.id, {"removed": key.name}, now)


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""
