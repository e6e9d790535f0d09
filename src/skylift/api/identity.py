"""Devices' certificates, and the authorities behind them."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skylift.api import views
from skylift.api.auth import Acting, Admin, Viewer, device_named
from skylift.api.context import context_of
from skylift.api.deployments import Cursor, Limit
from skylift.api.device import shown
from skylift.api.devices import DeviceId
from skylift.api.idempotency import answer_once
from skylift.engine import enroll as enrolling
from skylift.engine import identity
from skylift.engine.identity import MAX_REQUEST, MAX_SIGNATURE
from skylift.store import devices
from skylift.store.db import Connection

router = APIRouter(tags=["identity"])
PEM = "application/x-pem-file"


class CertificateBody(BaseModel):
    """A certificate request (PEM) signed by the new key; `proof`: the present key's signature of it."""

    model_config = ConfigDict(extra="forbid")

    csr: str = Field(min_length=1, max_length=MAX_REQUEST)
    proof: str = Field(default="", max_length=MAX_SIGNATURE)


class CertificateAnswer(BaseModel):
    """The certificate (PEM), and until when it is good."""

    certificate: str
    issued_at: str
    expires_at: str


@router.post(
    "/api/devices/{device_id}/certificate",
    summary="Get the device's certificate, or the next one",
    response_model=CertificateAnswer,
)
def certificate(request: Request, device_id: DeviceId, body: CertificateBody) -> Response:
    """By the device itself. The same request again is answered the same: a lost answer costs nothing."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        device = device_named(conn, request, device_id, needed=False)
        now = context.clock()
        return shown(identity.certify(conn, context.authorities, device, body.csr, body.proof, now))

    return JSONResponse(context.write(deed))


@router.post("/api/devices/{device_id}:revoke")
def revoke(request: Request, device_id: DeviceId, who: Acting) -> Any:
    """It was stolen: token and certificate are refused from now on, and its key never comes back."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        enrolling.revoke(conn, device_id, who.name, context.clock(), context.deadlines)
        return views.device_list(conn, [enrolling.find(conn, device_id)])[0]

    return answer_once(request, context, who.name, None, 200, deed)


# --- claims -----------------------------------------------------------------------------------------


@router.get("/api/claims")
def claims(request: Request, who: Acting, limit: Limit = 100, cursor: Cursor = None) -> Any:
    """Claims, without their tokens."""
    with context_of(request).database.read() as conn:
        found = devices.claims_page(conn, limit=limit, after=cursor or "")
    items = [claim_view(one) for one in found]
    return {"items": items, "next": found[-1].id if len(found) == limit else None}


def claim_view(one: devices.Claim) -> dict[str, Any]:
    return {
        "id": one.id,
        "device_type": one.device_type,
        "uses_left": one.uses_left,
        "expires_at": views.instant(one.expires_at),
        "revoked_at": views.instant(one.revoked_at),
        "created_at": views.instant(one.created_at),
        "created_by": one.created_by,
    }


@router.post("/api/claims/{claim_id}:revoke")
def revoke_claim(
    request: Request, claim_id: Annotated[str, Path(pattern="^clm_[0-9a-z]{1,40}$")], who: Acting
) -> Any:
    """Nobody gets in by it any more; who is in stays in."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        return claim_view(enrolling.revoke_claim(conn, claim_id, who.name, context.clock()))

    return context.write(deed)


# --- authorities ------------------------------------------------------------------------------------


@router.get("/api/authorities")
def authorities(request: Request, who: Viewer) -> Any:
    """Who vouches for devices' keys, and how many devices depend on each alone."""
    context = context_of(request)
    with context.database.read() as conn:
        items = identity.authorities_view(conn, context.authorities, context.clock())
    return {"items": items, "next": None}


@router.post("/api/authorities:rotate")
def rotate(request: Request, who: Admin) -> Any:
    """A new one issues from now on; the old ones stay trusted until they are retired."""
    context = context_of(request)
    number = context.authorities.newest + 1

    def deed(conn: Connection) -> Any:
        identity.rotate(conn, context.authorities, number, who.name, context.clock())
        return {"items": identity.authorities_view(conn, context.authorities, context.clock()), "next": None}

    return answer_once(request, context, who.name, None, 200, deed)


class RetireBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    force: bool = False


@router.post("/api/authorities/{number}:retire")
def retire(
    request: Request, number: Annotated[int, Path(ge=1, le=999_999)], body: RetireBody, who: Admin
) -> Any:
    """Trust it no more. `force`: although devices still depend on it, because its key was stolen."""
    context = context_of(request)

    now = context.clock()
    context.write(lambda c: identity.retire(c, context.authorities, number, body.force, who.name, now))
    context.authorities.retire(number)
    with context.database.read() as conn:
        items = identity.authorities_view(conn, context.authorities, now)
    return {"items": items, "next": None}


@router.get("/api/authorities/bundle.pem", response_class=Response)
def bundle(request: Request) -> Response:
    """Public: the authorities' certificates, for a proxy that verifies devices."""
    return Response(context_of(request).authorities.bundle(), media_type=PEM)


@router.get("/api/authorities/crl.pem", response_class=Response)
def crl(request: Request) -> Response:
    """Public: every authority's revocation list; made anew at most once a second."""
    return Response(context_of(request).revocations(), media_type=PEM)
