"""How large and how odd a metadata file may be, decided before python-tuf parses or verifies anything of it.

Whoever owns the line, or an online key, may send any JSON: deep, wide, with the same name twice, with numbers
that no C program can hold. What our servers publish keeps to the byte rule and is small; a file beyond these
bounds is refused unparsed, or at the latest after one plain parse. Nothing here is a verdict on signatures.

`strict` holds a file to the one form in which ours are written, the byte rule: ASCII, no escapes but `\\n`,
so that a name that only looks like another one cannot even be spelled; names in order; nothing between
tokens. It also refuses one public key under two names, which could sign for two people. What it takes a
microcontroller takes (`compact`), and the other way round. Other people's repositories are read without it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from skylift.core.errors import TrustError
from skylift.core.lifecycle import Reason

DEPTH = 16  # ours have seven
SIGNATURES = 64
ROOT_KEYS = 64
ROLES = 512  # delegated, one per product
DELEGATED_KEYS = 3 * ROLES
KEYS_OF_A_ROLE = 64
PATTERNS = 64  # path patterns, or hash prefixes, of one delegated role
IMAGES = 4096  # in one role
FILES = ROLES + 2  # in a snapshot
ROOTS = 256  # rotations of a root that are followed at once: a device that slept for years catches up
DIGITS = 15  # of a number: what a double, and so every JSON reader, holds exactly
TEXT = 4096  # characters of one string: a public key has 180

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ESCAPE = re.compile(rb"\\[^n]", re.DOTALL)


def check(name: str, body: bytes, strict: bool = True) -> None:
    """Raises `TrustError` for a file that nobody honest would send."""
    if strict and not body.isascii():
        raise _no(name, "has bytes that are not ASCII")
    if strict and _ESCAPE.search(body):
        raise _no(name, "has an escape that metadata does not use")
    _check_depth(name, body)
    try:
        found = json.loads(
            body,
            parse_int=_whole,
            parse_float=_nothing,
            parse_constant=_nothing,
            object_pairs_hook=_once,
        )
    except ValueError as e:
        raise _no(name, f"is not metadata: {e}") from e
    if not isinstance(found, dict) or not found.keys() >= {"signatures", "signed"}:
        raise _no(name, "is not a signed file")
    if strict and len(found) > 2:
        raise _no(name, "has more than its signatures and what is signed")
    if not isinstance(found["signed"], dict):
        raise _no(name, "is not a signed file")
    _at_most(name, "signatures", found["signatures"], SIGNATURES)
    for part, (kind, most) in _COUNTS.items():
        value = found["signed"].get(part)
        if value is not None:
            if not isinstance(value, kind):
                raise _no(name, f"has a wrong {part}")
            _at_most(name, part, value, most)
    _check_roles(name, found["signed"].get("roles"))
    _check_delegations(name, found["signed"].get("delegations"))
    if strict:
        _check_form(name, body, found)
        for holder in (found["signed"], found["signed"].get("delegations") or {}):
            _check_keys(name, holder.get("keys") or {})


def _check_form(name: str, body: bytes, found: Mapping[str, Any]) -> None:
    if json.dumps(found, sort_keys=True, separators=(",", ":")).encode() != body:
        raise _no(name, "is not written as metadata is")
    signatures = found["signatures"]
    for made in signatures if isinstance(signatures, list) else (None,):
        sig = made.get("sig") if isinstance(made, dict) else None
        if not isinstance(sig, str) or sig.lower() != sig:
            raise _no(name, "has a signature that is none")


def _check_keys(name: str, keys: Any) -> None:
    seen = set()
    for key in keys.values() if isinstance(keys, dict) else (None,):
        value = key.get("keyval") if isinstance(key, dict) else None
        public = value.get("public") if isinstance(value, dict) else None
        if not isinstance(public, str) or public in seen:
            raise _no(name, "has a key that is none, or one under two names")
        seen.add(public)


_COUNTS: dict[str, tuple[type, int]] = {
    "keys": (dict, ROOT_KEYS),
    "roles": (dict, 16),
    "meta": (dict, FILES),
    "targets": (dict, IMAGES),
    "delegations": (dict, 8),
}


def _check_depth(name: str, body: bytes) -> None:
    """By the brackets alone, before a parser goes down them."""
    depth = 0
    for bracket in _STRING.sub(b"", body).translate(None, _BUT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH:
            raise _no(name, f"is nested deeper than {DEPTH}")
    for found in _STRING.finditer(body):
        if found.end() - found.start() > TEXT + 2:
            raise _no(name, f"has a text of more than {TEXT} characters")


def _check_roles(name: str, roles: Mapping[str, Any] | None) -> None:
    for role in (roles or {}).values():
        _check_role(name, role)


def _check_role(name: str, role: Any) -> None:
    if not isinstance(role, dict):
        raise _no(name, "has a role that is none")
    _at_most(name, "keys of a role", role.get("keyids"), KEYS_OF_A_ROLE)
    for part in ("paths", "path_hash_prefixes"):
        _at_most(name, part, role.get(part), PATTERNS)


def _check_delegations(name: str, delegations: Mapping[str, Any] | None) -> None:
    if delegations is None:
        return
    _at_most(name, "delegated keys", delegations.get("keys"), DELEGATED_KEYS)
    roles = delegations.get("roles")
    _at_most(name, "delegated roles", roles, ROLES)
    for role in roles if isinstance(roles, list) else ():
        _check_role(name, role)
    succinct = delegations.get("succinct_roles")
    if isinstance(succinct, dict):
        _at_most(name, "keys of a role", succinct.get("keyids"), KEYS_OF_A_ROLE)


def _at_most(name: str, what: str, found: Any, most: int) -> None:
    if isinstance(found, dict | list) and len(found) > most:
        raise _no(name, f"has {len(found)} {what}, at most {most} are read")


def _whole(digits: str) -> int:
    if digits.startswith("-"):
        raise ValueError("a number below 0")
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _nothing(said: str) -> None:
    raise ValueError(f"{said[:20]} is no whole number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers may disagree about which of two equal names counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no(name: str, sentence: str) -> TrustError:
    return TrustError(Reason.SIGNATURE_INVALID, f"{name} {sentence}")
