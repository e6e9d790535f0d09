"""User names and passwords against the hashes of a users file: bcrypt, Apache's MD5, SHA-1."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import bcrypt

from skylift.gateway.access import BasicAuth, Fault
from skylift.gateway.helper.asked import CREDENTIAL, HASHES, Kept, Said, refusal

KEPT_S, MOST_KEPT = 300.0, 10_000
AT_ONCE = 4  # hashes that are computed at one time: who guesses takes no more of the machine
MAX_PASSWORD = 1024
NOBODYS = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10)).decode()  # an unknown name takes as long


@dataclass
class Passwords:
    """What was right is right again for a while, without its costly hash."""

    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _kept: Kept[bytes, bool] = field(default_factory=lambda: Kept(MOST_KEPT))
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def decide(self, policy: BasicAuth, headers: Mapping[str, str]) -> Said:
        given = _given(headers.get("authorization", ""))
        if given is None:
            return refusal(policy.refusals.answer(Fault.MISSING), headers)
        name, password = given
        hashed = next((user.value for user in policy.users if user.name == name), None)
        if not await self._right(password, hashed or NOBODYS) or hashed is None:
            return refusal(policy.refusals.answer(Fault.UNKNOWN), headers)
        return Said(headers=((CREDENTIAL, name),))

    async def _right(self, password: bytes, hashed: str) -> bool:
        mark = hmac.digest(self._secret, hashed.encode() + b"\0" + password, "sha256")
        if self._kept.get(mark, time.monotonic()):
            return True
        async with self._turns:
            right = await asyncio.to_thread(verify, password, hashed)
        if right:
            self._kept.put(mark, True, time.monotonic() + KEPT_S)
        return right


def _given(header: str) -> tuple[str, bytes] | None:
    scheme, _, word = header.strip().partition(" ")
    try:
        raw = base64.b64decode(word.strip(), validate=True) if scheme.lower() == "basic" else b""
        name, colon, password = raw.partition(b":")
        shown = name.decode()
    except (ValueError, binascii.Error):
        return None
    return (shown, password) if colon and len(password) <= MAX_PASSWORD else None


def verify(password: bytes, hashed: str) -> bool:
    """Whether the password is the hash's; an unknown kind of hash is nobody's."""
    known = next((check for prefix, check in _KINDS.items() if hashed.startswith(prefix)), None)
    return known is not None and known(password, hashed)


def _bcrypt(password: bytes, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(password[:72], hashed.encode())  # as every bcrypt: 72 bytes count
    except ValueError:
        return False


def _sha(password: bytes, hashed: str) -> bool:
    digest = base64.b64encode(hashlib.sha1(password, usedforsecurity=False).digest()).decode()
    return hmac.compare_digest(digest, hashed.removeprefix("{SHA}"))


def _apr1(password: bytes, hashed: str) -> bool:
    _, _, salt, wanted = hashed.split("$", 3) if hashed.count("$") == 3 else ("", "", "", "")
    return bool(wanted) and hmac.compare_digest(apr1(password, salt.encode()[:8]), wanted)


_LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TRIPLES = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))


def apr1(password: bytes, salt: bytes) -> str:
    """Apache's variant of the MD5 crypt: a thousand rounds, and digits in an order of their own."""

    def md5(data: bytes) -> bytes:
        return hashlib.md5(data, usedforsecurity=False).digest()

    inner = md5(password + salt + password)
    text = password + b"$apr1$" + salt + (inner * (len(password) // 16 + 1))[: len(password)]
    length = len(password)
    while length:
        text += b"\0" if length & 1 else password[:1]
        length >>= 1
    digest = md5(text)
    for turn in range(1000):
        parts = password if turn & 1 else digest
        parts += (salt if turn % 3 else b"") + (password if turn % 7 else b"")
        digest = md5(parts + (digest if turn & 1 else password))
    groups = [(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in _TRIPLES]
    return "".join(_digits(value, count) for value, count in [*groups, (digest[11], 2)])


def _digits(value: int, count: int) -> str:
    return "".join(_LETTERS[value >> 6 * place & 63] for place in range(count))


_CHECKS = (_bcrypt, _bcrypt, _bcrypt, _apr1, _sha)
_KINDS: Mapping[str, Callable[[bytes, str], bool]] = dict(zip(HASHES, _CHECKS, strict=True))
