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
from skylift.api.hop import CERTIFICATE
from skylift.core.errors import Kind, Rejected
from skylift.engine.access import Role, operator, reaches, role_named, token_hash, unknown_token
from skylift.engine.identity import by_certificate
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


def _by_certificate(conn: Connection, request: Request, needed: bool) -> Device | None:
    """The device whose certificate was shown in TLS. Beside it a token is not needed; where there is one, it
    must be the same device's. None where none was shown, and none is `needed`."""
    context = context_of(request)
    fingerprint = request.scope.get(CERTIFICATE)
    if fingerprint is None:
        if needed and context.certificates_required:
            raise Rejected(
                "certificate_needed",
                "a client certificate is needed: this server takes no device without one",
                kind=Kind.UNAUTHENTICATED,
            )
        return None
    found = by_certificate(conn, fingerprint, context.clock())
    if found is None:
        raise Rejected(
            "unknown_certificate",
            "the client certificate is not known, or not good any more",
            kind=Kind.UNAUTHENTICATED,
        )
    if "authorization" in request.headers:
        by_token = device_by_token(conn, bearer(request))
        if by_token is None:
            raise unknown_token()
        if by_token.pk != found.pk:
            raise Rejected(
                "foreign_certificate",
                "the client certificate and the token belong to two devices",
                kind=Kind.FORBIDDEN,
            )
    return found


def device_named(conn: Connection, request: Request, device_id: str, needed: bool = True) -> Device:
    """The device that asks, which must be the one it names. `needed` False: without a certificate also where
    the server demands one (it is about to get its first)."""
    found = _by_certificate(conn, request, needed) or device_by_token(conn, bearer(request))
    if found is None:
        raise unknown_token()
    if found.device_id != device_id:
        what = "certificate" if CERTIFICATE in request.scope else "token"
        raise Rejected(
            f"foreign_{what}",
            f"device_id is {device_id!r}: the {what} belongs to another device",
            kind=Kind.FORBIDDEN,
            field="device_id",
            value=device_id,
            rule=f"the device whose {what} this is",
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
    with context.database.read() as conn:
        if CERTIFICATE in request.scope and (shown := _by_certificate(conn, request, True)) is not None:
            return shown
        token = bearer(request)
        device = device_by_token(conn, token)
        if device is not None:
            _by_certificate(conn, request, True)  # none was shown: refused where one is demanded
            return device
        found = operator(conn, token, context.clock())
    if found is None:
        raise unknown_token()
    return _within(found, request)
