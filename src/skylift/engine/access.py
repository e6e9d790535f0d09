"""Who may do what: operators' tokens and roles. Tokens are kept as SHA-256 only."""

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from secrets import token_bytes
from typing import Any

from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.ids import check_name, mint
from skylift.store import access, events
from skylift.store.access import Kept, OperatorToken
from skylift.store.db import Connection, Database

MIN_TOKEN = 16  # characters of a token somebody else made
# What a token can be bounded to: the parts of the API, by the first word of their paths.
SCOPES = {
    "deployments": ("deployments",),
    "devices": ("devices", "claims", "authorities", "fleet"),
    "groups": ("groups",),
    "people": ("tokens", "users", "audit", "channels", "deliveries"),
    "releases": ("releases", "artifacts", "blobs"),
    "trust": ("trust", "log"),
}


class Role(IntEnum):
    """Each may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


def token_hash(token: str) -> str:
    """What is stored of a token. It has 256 random bits: a plain hash cannot be searched for."""
    return hashlib.sha256(token.encode()).hexdigest()


def role_named(name: str) -> Role:
    try:
        return Role[name.upper()]
    except KeyError as e:
        raise invalid("role", name, "one of viewer, operator, admin") from e


def role_on(role: Role, products: Mapping[str, str] | None, product: str | None) -> Role:
    """What somebody may do to a product (None: to what belongs to none, or to all): the more of what they may
    do everywhere and what they may do to this one."""
    held = (products or {}).get(product) if product is not None else None
    return max(role, role_named(held)) if held is not None else role


def role_anywhere(role: Role, products: Mapping[str, str] | None) -> Role:
    """The most they may do to any product."""
    return max([role, *(role_named(held) for held in (products or {}).values())])


def make_token(
    conn: Connection,
    name: str,
    role: str,
    actor: str,
    now: datetime,
    expires_at: datetime | None = None,
    token: str | None = None,
    scopes: list[str] | None = None,
    products: dict[str, str] | None = None,
) -> tuple[str, str]:
    """(id, token) of a new operator's token; the token is shown this once. `scopes`: only these parts of the
    API; None: all. `products`: more than `role`, for these."""
    check_name("name", name)
    role_named(role)
    for product, held in (products or {}).items():
        check_name("products", product)
        role_named(held)
    for number, scope in enumerate(scopes or ()):
        if scope not in SCOPES:
            raise invalid(f"scopes[{number}]", scope, f"one of {', '.join(SCOPES)}")
    if scopes is not None and not scopes:
        raise invalid("scopes", scopes, "at least one; leave it out for all")
    if expires_at is not None and expires_at <= now:
        raise invalid("expires_at", expires_at.isoformat(), "must lie ahead")
    made = token or "op_" + secrets.token_urlsafe(32)
    token_id = mint("tok", now, token_bytes(5))
    row = OperatorToken(
        token_id, name, role, now, expires_at, None, sorted(set(scopes)) if scopes else None, products
    )
    access.insert_token(conn, row, token_hash(made))
    said = {
        "name": name,
        "role": role,
        "scopes": row.scopes,
        "products": products,
        "expires_at": str(expires_at or ""),
    }
    events.record(conn, actor, "token.create", token_id, said, now)
    return token_id, made


def first_token(database: Database, path: Path, given: str, now: datetime) -> None:
    """The first admin's token, where there is none yet: `given` or, left in the file `path`, one made here.

    Of several servers that start together one makes it. The file has another name until the row is there: a
    crash between them costs a second try, not a server nobody can enter.
    """
    fresh = path.with_name(f"{path.name}.new")
    with database.read() as conn:
        if not fresh.exists() and access.tokens(conn):
            return
    if given and len(given) < MIN_TOKEN:
        raise invalid("admin_token", f"{len(given)} characters", f"at least {MIN_TOKEN} characters")
    token = given or _in_file(fresh)

    def deed(conn: Connection) -> bool:
        if access.tokens(conn):
            return access.by_token(conn, token_hash(token)) is not None  # before a crash, by this server
        make_token(conn, "admin", "admin", "skylift", now, token=token)
        return True

    if database.write(deed) and not given:
        fresh.replace(path)
    else:
        fresh.unlink(missing_ok=True)


def _in_file(path: Path) -> str:
    """The token in this file; made and written where there is none."""
    if not path.exists():
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write("op_" + secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return path.read_text().strip()


def revoke(conn: Connection, token_id: str, actor: str, now: datetime) -> None:
    """The token is refused from now on."""
    found = access.find_token(conn, token_id)
    if found is None:
        raise Rejected(
            "unknown_token",
            f"token is {token_id!r}: there is no such token",
            kind=Kind.NOT_FOUND,
            field="token",
            value=token_id,
            rule="names a token",
        )
    access.revoke(conn, token_id, now)
    before = {"name": found.name, "role": found.role, "revoked": found.revoked_at is not None}
    events.record(conn, actor, "token.revoke", token_id, {"revoked": True}, now, before=before)


def operator(conn: Connection, token: str, now: datetime) -> OperatorToken | None:
    """The operator behind this token, if it is good now."""
    found = access.by_token(conn, token_hash(token))
    if found is None or found.revoked_at is not None:
        return None
    if found.expires_at is not None and found.expires_at <= now:
        return None
    return found


def reaches(scopes: list[str] | None, path: str) -> bool:
    """Whether a token with these scopes may ask for `/api/...`; paths outside the API are not bounded."""
    _, api, part = [*path.split("/", 3), "", ""][:3]
    if scopes is None or api != "api":
        return True
    return any(part.partition(":")[0] in SCOPES.get(scope, ()) for scope in scopes)


def unknown_token() -> Rejected:
    return Rejected(
        "unknown_token", "the token is not known, or not good any more", kind=Kind.UNAUTHENTICATED
    )


STRANGER = unknown_token().code


def is_kept(conn: Connection, actor: str, key: str) -> bool:
    """Whether a request under this key has been answered."""
    return access.kept(conn, actor, key) is not None


def once(
    conn: Connection,
    actor: str,
    key: str,
    request_sha256: str,
    status: int,
    deed: Callable[[Connection], Any],
    now: datetime,
    withheld: str | None = None,
) -> Kept:
    """The answer to a request under an idempotency key: made by `deed` the first time, repeated afterwards.

    The answer is kept in the transaction of the deed: there is no moment in which one is there without the
    other. The same key for another request is a conflict. Where the answer holds a token (its member
    `withheld`) that is not kept: the deed is not done again, and the repeat says so.
    """
    found = access.kept(conn, actor, key)
    if found is None:
        made = deed(conn)
        shown = {name: value for name, value in made.items() if name != withheld} if withheld else made
        access.keep(conn, actor, key, Kept(request_sha256, status, shown), now)
        return Kept(request_sha256, status, made)
    if found.request_sha256 != request_sha256:
        raise Rejected(
            "idempotency_conflict",
            f"Idempotency-Key is {key!r}: it was used for another request",
            kind=Kind.CONFLICT,
            field="Idempotency-Key",
            value=key,
            rule="a new key for a new request",
        )
    if withheld is not None:
        raise Rejected(
            "secret_not_kept",
            f"Idempotency-Key is {key!r}: it was done, as {found.body['id']}; its {withheld} was shown once",
            kind=Kind.CONFLICT,
            field="Idempotency-Key",
            value=key,
            rule="a new key for a new one; take back the other",
        )
    return found
