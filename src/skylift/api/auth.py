"""Who is asking: a bearer token is a device's, an operator's, or nobody's.

Tokens are looked up by their SHA-256: the comparison is the database's, on a hash of 256 random bits, so its
timing tells nothing of a token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from skylift.api.context import Context, context_of
from skylift.api.hop import CERTIFICATE
from skylift.core.errors import Kind, Rejected
from skylift.engine.access import (
    Role,
    operator,
    reaches,
    role_anywhere,
    role_named,
    role_on,
    token_hash,
    unknown_token,
)
from skylift.engine.identity import by_certificate
from skylift.store import deployments, devices, releases
from skylift.store.access import OperatorToken
from skylift.store.db import Connection
from skylift.store.devices import Device


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts, and as what: everywhere, and on single products."""

    name: str
    role: Role
    products: Mapping[str, str] = field(default_factory=dict)

    def must(self, role: Role, product: str | None) -> None:
        """`Rejected` unless they may do that to this product."""
        held = role_on(self.role, self.products, product)
        if held < role:
            raise too_low(held, role, product)


def too_low(held: Role, needed: Role, product: str | None) -> Rejected:
    of = f" for {product}" if product else ""
    return Rejected(
        "role_too_low",
        f"role is {held.name.lower()}: {needed.name.lower()}{of} is needed",
        kind=Kind.FORBIDDEN,
        field="role",
        value=held.name.lower(),
        rule=f"at least {needed.name.lower()}",
    )


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
    return Operator(found.name, role_named(found.role), found.products or {})


ProductOf = Callable[[Request, Connection], str | None]


def needs(role: Role, of: ProductOf | None = None) -> Callable[[Request], Operator]:
    """A dependency: an operator of at least this role. `of`: the product it is about, for which some have a
    higher role than for the rest; without, only what they may do everywhere counts."""

    def check(request: Request) -> Operator:
        context = context_of(request)
        found = _operator(request, context)
        if found.role >= role or of is None:
            found.must(role, None)
            return found
        with context.database.read() as conn:
            found.must(role, of(request, conn))
        return found

    return check


def of_deployment(request: Request, conn: Connection) -> str | None:
    """The product of the deployment that the path names; None where there is none."""
    row = deployments.find(conn, request.path_params.get("deployment_id", ""))
    return str(row.product) if row is not None else None


def of_release(request: Request, conn: Connection) -> str | None:
    named = request.path_params.get("release_id") or request.query_params.get("release", "")
    row = releases.find(conn, named)
    return str(row.product) if row is not None else None


def of_path(request: Request, conn: Connection) -> str | None:
    """The path names it: the roles of a product's releases have its name."""
    found: str = request.path_params.get("product") or request.path_params["role"]
    return found


def somewhere(request: Request) -> Operator:
    """An operator of anything: what of, the body says, and the route asks (`Operator.must`)."""
    found = _operator(request, context_of(request))
    held = role_anywhere(found.role, found.products)
    if held < Role.OPERATOR:
        raise too_low(held, Role.OPERATOR, None)
    return found


Viewer = Annotated[Operator, Depends(needs(Role.VIEWER))]
Acting = Annotated[Operator, Depends(needs(Role.OPERATOR))]
Admin = Annotated[Operator, Depends(needs(Role.ADMIN))]
ActingSomewhere = Annotated[Operator, Depends(somewhere)]
ActingOn = Annotated[Operator, Depends(needs(Role.OPERATOR, of_deployment))]
ActingOnRelease = Annotated[Operator, Depends(needs(Role.OPERATOR, of_release))]
ActingOnRole = Annotated[Operator, Depends(needs(Role.OPERATOR, of_path))]
AdminOfProduct = Annotated[Operator, Depends(needs(Role.ADMIN, of_path))]


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
