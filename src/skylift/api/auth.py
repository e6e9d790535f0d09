"""Who is asking: a bearer token is a device's, an operator's, or nobody's.

Tokens are looked up by their SHA-256: the comparison is the database's, on a hash of 256 random bits, so its
timing tells nothing of a token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from skylift.api.context import Context, context_of
from skylift.core.errors import Kind, Rejected
from skylift.engine.access import Role, operator, reaches, role_named, token_hash, unknown_token
from skylift.store import devices
from skylift.store.access import OperatorToken
from skylift.store.db import Connection
from skylift.store.devices import Device


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts, and as what."""

    name: str
    role: Role


def bearer(request: Request) -> str:
    """The token, or `Rejected` (unauthenticated)."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Rejected("no_token", "Authorization: Bearer with a token is needed", kind=Kind.UNAUTHENTICATED)
    return token.strip()


def device_by_token(conn: Connection, token: str) -> Device | None:
    """The active device with this token."""
    found = devices.by_token(conn, token_hash(token))
    return found if found is not None and found.status == devices.ACTIVE else None


def device_named(conn: Connection, request: Request, device_id: str) -> Device:
    """The device that asks, which must be the one it names."""
    found = device_by_token(conn, bearer(request))
    if found is None:
        raise unknown_token()
    if found.device_id != device_id:
        raise Rejected(
            "foreign_token",
            f"device_id is {device_id!r}: the token belongs to another device",
            kind=Kind.FORBIDDEN,
            field="device_id",
            value=device_id,
            rule="the device whose token this is",
        )
    return found


def _operator(request: Request, context: Context) -> Operator:
    with context.database.read() as conn:
        found = operator(conn, bearer(request), context.clock())
    if found is None:
        raise unknown_token()
    return _within(found, request)


def _within(found: OperatorToken, request: Request) -> Operator:
    """The operator, where the token's scopes hold what is asked for."""
    if not reaches(found.scopes, request.url.path):
        raise Rejected(
            "scope_missing",
            f"scopes is {', '.join(found.scopes or ())}: this token reaches no further",
            kind=Kind.FORBIDDEN,
            field="scopes",
            value=", ".join(found.scopes or ()),
            rule="a token for this part of the API",
        )
    return Operator(found.name, role_named(found.role))


def needs(role: Role) -> Callable[[Request], Operator]:
    """A dependency: an operator of at least this role."""

    def check(request: Request) -> Operator:
        found = _operator(request, context_of(request))
        if found.role < role:
            raise Rejected(
                "role_too_low",
                f"role is {found.role.name.lower()}: {role.name.lower()} is needed",
                kind=Kind.FORBIDDEN,
                field="role",
                value=found.role.name.lower(),
                rule=f"at least {role.name.lower()}",
            )
        return found

    return check


Viewer = Annotated[Operator, Depends(needs(Role.VIEWER))]
Acting = Annotated[Operator, Depends(needs(Role.OPERATOR))]
Admin = Annotated[Operator, Depends(needs(Role.ADMIN))]


def anybody(request: Request, context: Context) -> Device | Operator:
    """A device or an operator; for downloads."""
    token = bearer(request)
    with context.database.read() as conn:
        device = device_by_token(conn, token)
        if device is not None:
            return device
        found = operator(conn, token, context.clock())
    if found is None:
        raise unknown_token()
    return _within(found, request)
