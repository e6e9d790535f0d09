"""How large and how odd a metadata file may be, decided before python-tuf parses or verifies anything of it.

Whoever owns the line, or an online key, may send any JSON: deep, wide, with the same name twice, with numbers
that no C program can hold. What our servers publish keeps to the byte rule and is small; a file beyond these
bounds is refused unparsed, or at the latest after one plain parse. Nothing here is a verdict on signatures.

`strict` also refuses every escape but `\\n`: our files have no others, so a name that only looks like another
one cannot even be spelled. The conformance suite's repositories are read without it.
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
DIGITS = 15  # of a number: what a double, and so every JSON reader, holds exactly
TEXT = 4096  # characters of one string: a public key has 180

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ESCAPE = re.compile(rb"\\[^n]", re.DOTALL)


def check(name: str, body: bytes, strict: bool = True) -> None:
    """Raises `TrustError` for a file that nobody honest would send."""
    if not body.isascii():
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
    if not isinstance(found, dict) or found.keys() != {"signatures", "signed"}:
        raise _no(name, "is not a signed file")
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
    if len(digits.lstrip("-")) > DIGITS:
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
