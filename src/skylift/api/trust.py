"""Trust over HTTP: the ceremony, what waits for signatures, and the repositories that devices read."""

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from skylift.api.auth import ActingOnRole, Admin, Viewer, anybody
from skylift.api.context import context_of
from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.ids import check_nonce
from skylift.engine import enroll, gathering, signing
from skylift.engine.director import missing
from skylift.engine.gathering import Signature
from skylift.store import trustfiles
from skylift.store.db import Connection
from skylift.store.devices import Device

router = APIRouter(tags=["releases and trust"])
Role = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Waiting = Annotated[str, Path(pattern="^((image|director):)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
MAX_CEREMONY = 256 << 10


@router.get("/api/trust")
def trust_status(request: Request, who: Viewer) -> Any:
    """Every role with its days left; what is half signed."""
    context = context_of(request)
    with context.database.read() as conn:
        return gathering.status(conn, context.clock())


@router.get("/api/trust/online-keys")
def online_keys(request: Request, who: Viewer) -> Any:
    """The public parts of the server's own keys."""
    return context_of(request).online.public()


class CeremonyBody(BaseModel):
    """Signed public files, base64."""

    model_config = ConfigDict(extra="forbid")

    image_root: str = Field(max_length=MAX_CEREMONY)
    director_root: str = Field(max_length=MAX_CEREMONY)
    targets: str = Field(max_length=MAX_CEREMONY)


@router.post("/api/trust/ceremony")
def take_ceremony(request: Request, body: CeremonyBody, who: Admin) -> Any:
    """Take in roots and delegations; each is verified first."""
    context = context_of(request)
    given = {name: _decode(name, value) for name, value in body.model_dump().items()}

    def deed(conn: Connection) -> Any:
        signing.take_ceremony(conn, context.online, given, who.name, context.clock(), context.max_trust_file)
        return gathering.status(conn, context.clock())

    return context.write(deed)


def _decode(field: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as e:
        raise invalid(field, value[:20], "is not base64") from e


class ProposalBody(BaseModel):
    """A signed, half-signed or unsigned public file, base64."""

    model_config = ConfigDict(extra="forbid")

    body: str = Field(max_length=MAX_CEREMONY)


@router.put("/api/trust/pending/{role}")
def propose(request: Request, role: Waiting, body: ProposalBody, who: Admin) -> Any:
    """The next root (`image:root`, `director:root`) or the next delegations (`image:targets`): they wait for
    their signatures, and are published with what they belong to."""
    context = context_of(request)
    given = _decode("body", body.body)
    return context.write(
        lambda conn: gathering.propose(
            conn, context.online, role, given, who.name, context.clock(), context.max_trust_file
        )
    )


@router.post("/api/trust/pending/{role}:renew")
def renew(request: Request, role: Role, who: ActingOnRole) -> Any:
    """A product's role once more, unsigned, for another 90 days."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        signing.renew(conn, role, who.name, context.clock())
        waiting = trustfiles.pending(conn, role)
        if waiting is None:
            raise AssertionError("renewed a line above, in this transaction")
        return gathering.pending_view(conn, waiting)

    return context.write(deed)


@router.get("/api/trust/roots/{repo}/{version}")
def known_root(
    request: Request,
    repo: Annotated[str, Path(pattern="^(image|director)$")],
    version: Annotated[int, Path(ge=1, lt=2**31)],
    who: Viewer,
) -> Response:
    """A root as it was published; a desk follows the chain from its own."""
    with context_of(request).database.read() as conn:
        found = trustfiles.get(conn, repo, "root", version)
    if found is None:
        raise missing(f"{version}.root.json")
    return _metadata(found.body, immutable=True)


@router.get("/api/trust/pending/{role}")
def pending(request: Request, role: Waiting, who: Viewer) -> Response:
    """A half-signed file, as it is to be signed."""
    with context_of(request).database.read() as conn:
        found = trustfiles.pending(conn, role)
    if found is None:
        raise gathering.nothing_to_sign(role)
    return Response(found.body, media_type="application/json")


class SignatureBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, lt=2**31)
    keyid: str = Field(pattern="^[0-9a-f]{64}$")
    sig: str = Field(pattern="^[0-9a-f]{16,1024}$")


@router.post("/api/trust/pending/{role}/signatures")
def add_signature(request: Request, role: Waiting, body: SignatureBody, who: ActingOnRole) -> Any:
    """One offline signature; at the threshold the role and its releases are published."""
    context = context_of(request)
    signature = Signature(body.keyid, body.sig)
    return context.write(
        lambda conn: gathering.sign(
            conn, context.online, role, body.version, signature, who.name, context.clock()
        )
    )


# --- the repositories devices read -------------------------------------------------------------------


def image_file(request: Request) -> Response:
    """`GET /image/{filename}`: public, as signed. Versioned files never change."""
    from skylift.engine.repos import image

    context = context_of(request)
    filename = request.path_params["filename"]
    body = image(context.database, context.online, filename, context.clock())
    return _metadata(body, immutable=filename != "timestamp.json")


def director_file(request: Request) -> Response:
    """`GET /director/{device_id}/{filename}`: that device's orders, for it and for operators."""
    from skylift.engine.repos import order

    context = context_of(request)
    device_id = request.path_params["device_id"]
    asking = anybody(request, context)
    if isinstance(asking, Device) and asking.device_id != device_id:
        raise Rejected(
            "foreign_token",
            f"device_id is {device_id!r}: the token belongs to another device",
            kind=Kind.FORBIDDEN,
            field="device_id",
            value=device_id,
            rule="the device whose token this is",
        )
    with context.database.read() as conn:
        device = enroll.find(conn, device_id)
    filename = request.path_params["filename"]
    nonces = request.query_params.getlist("nonce")
    if len(nonces) > 1:
        raise invalid("nonce", nonces, "at most once")
    nonce = check_nonce("nonce", nonces[0]) if nonces else None
    return _metadata(order(context.database, context.online, device, filename, context.clock(), nonce), False)


def _metadata(body: bytes, immutable: bool) -> Response:
    cache = "public, max-age=31536000, immutable" if immutable else "no-cache"
    return Response(body, media_type="application/json", headers={"Cache-Control": cache})
