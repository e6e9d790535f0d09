"""Releases, artifacts and trust, over HTTP. Uploads are streamed; downloads leave by sendfile."""

import asyncio
import base64
import binascii
import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from skylift.api.auth import (
    ActingOnRelease,
    ActingOnRole,
    ActingSomewhere,
    Admin,
    Operator,
    Viewer,
    anybody,
    needs,
    of_release,
)
from skylift.api.context import Context, context_of
from skylift.api.deployments import Cursor, Limit
from skylift.api.idempotency import answer_once
from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.ids import check_name, check_nonce
from skylift.engine import enroll, gathering, publish, serving, signing
from skylift.engine import withdraw as taking_back
from skylift.engine.access import Role as Rank
from skylift.engine.director import missing
from skylift.engine.gathering import Signature
from skylift.engine.publish import NewRelease
from skylift.store import releases, trustfiles
from skylift.store.db import Connection
from skylift.store.devices import Device

router = APIRouter(tags=["releases and trust"])
ReleaseId = Annotated[str, Path(pattern="^rel_[0-9a-z]{1,40}$")]
Role = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Waiting = Annotated[str, Path(pattern="^((image|director):)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
BLOB = re.compile("[0-9a-f]{64}", re.ASCII)
MAX_CEREMONY = 256 << 10
CYCLONEDX = "application/vnd.cyclonedx+json"
_BILL = {"requestBody": {"required": True, "content": {CYCLONEDX: {"schema": {"type": "object"}}}}}


class ReleaseBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    product: str = Field(min_length=1, max_length=64)
    version: str = Field(min_length=1, max_length=64)
    kind: str = Field(default="image", max_length=16)
    # PostgreSQL's text cannot hold a null.
    notes: str = Field(default="", max_length=publish.MAX_NOTES, pattern="^[^\\x00]*$")
    security_version: int = Field(default=0, ge=0, lt=2**31)


@router.post("/api/releases", status_code=201)
def create(request: Request, body: ReleaseBody, who: ActingSomewhere) -> Response:
    """A draft release."""
    who.must(Rank.OPERATOR, body.product)
    context = context_of(request)
    new = NewRelease(**body.model_dump())

    def deed(conn: Connection) -> Any:
        return _view(conn, publish.create(conn, new, who.name, context.clock()))

    return answer_once(request, context, who.name, body.model_dump(), 201, deed)


def _view(conn: Connection, release_id: str) -> dict[str, Any]:
    found = releases.find(conn, release_id)
    if found is None:
        raise signing.unknown_release(release_id)
    return publish.view(conn, found)


@router.get("/api/releases")
def page(
    request: Request,
    who: Viewer,
    limit: Limit = 50,
    cursor: Cursor = None,
    product: Annotated[str | None, Query(max_length=64, pattern="^[A-Za-z0-9._-]*$")] = None,
) -> Any:
    """Newest first."""
    with context_of(request).database.read() as conn:
        rows = releases.page(conn, limit=limit, before=cursor, product=product)
        items = [publish.view(conn, row) for row in rows]
    return {"items": items, "next": rows[-1].id if len(rows) == limit else None}


@router.get("/api/releases/{release_id}")
def show(request: Request, release_id: ReleaseId, who: Viewer) -> Any:
    """One release: images, signatures gathered, deltas."""
    with context_of(request).database.read() as conn:
        return _view(conn, release_id)


@router.get("/api/releases/{release_id}/ways")
def ways(request: Request, release_id: ReleaseId, who: Viewer) -> Any:
    """How its bytes travel: `now`, for every image that devices run, what each would be offered and what that
    costs; `made`, its deltas and packed images, whatever became of them; and how devices got it, by way, with
    the reasons why not otherwise."""
    context = context_of(request)
    with context.database.read() as conn:
        _view(conn, release_id)
        release = releases.find(conn, release_id)
        return {
            "release": release_id,
            "now": serving.table(conn, release, context.checkin.max_ratio),
            "made": serving.made(conn, release_id),
            **serving.travelled(conn, release_id),
        }


@router.post("/api/releases/{release_id}:seal")
def seal(request: Request, release_id: ReleaseId, who: ActingOnRelease) -> Any:
    """No more artifacts: it waits for its signatures."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        signing.seal(conn, release_id, who.name, context.clock(), context.max_trust_file)
        return _view(conn, release_id)

    return context.write(deed)


class WithdrawBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=300)


@router.post("/api/releases/{release_id}:withdraw")
def withdraw(request: Request, release_id: ReleaseId, body: WithdrawBody, who: ActingOnRelease) -> Any:
    """Take it back: its deployments are aborted, none is made any more; devices refuse it when two release
    keys have signed the product's role without it."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        ended = taking_back.withdraw(
            conn, release_id, body.reason, who.name, context.clock(), context.deadlines
        )
        return {**_view(conn, release_id), "aborted": ended}

    found = context.write(deed)
    context.poke()
    return found


# --- artifacts -------------------------------------------------------------------------------------


@router.get("/api/artifacts")
def artifacts(
    request: Request, who: Viewer, release: Annotated[str, Query(pattern="^rel_[0-9a-z]{1,40}$")]
) -> Any:
    """The files of one release."""
    with context_of(request).database.read() as conn:
        _view(conn, release)
        found = releases.artifacts_of(conn, release)
    return {"items": [publish.artifact_view(row) for row in found], "next": None}


async def upload(request: Request) -> Response:
    """`POST /api/artifacts?release=&device_type=&sha256=&other_chip=`: the body is the image, streamed to
    disk. With `product=` in the place of `release=` the draft is made too, of the version that the image
    says; without `device_type=` it is the one whose chip the image is for."""
    context = context_of(request)
    who, kind = await asyncio.to_thread(_before_upload, request, context)
    query = request.query_params
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else None
    if announced is not None and announced > context.max_image:
        raise Rejected(
            "too_large",
            f"body is {announced} bytes: this server takes {context.max_image} at most",
            kind=Kind.TOO_LARGE,
            field="body",
            value=announced,
            rule=f"at most {context.max_image} bytes",
        )
    intake = context.blobs.intake(context.max_image)
    try:
        async for chunk in request.stream():
            await asyncio.to_thread(intake.write, chunk)
        facts = await asyncio.to_thread(publish.check_bytes, kind, intake, query.get("sha256"), announced)
        stored = await asyncio.to_thread(intake.keep)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it: the upload was cut, and leaves nothing behind
    finally:
        intake.drop()

    def deed(conn: Connection) -> Any:
        release = query.get("release") or publish.from_image(
            conn, query["product"], facts, who.name, context.clock()
        )
        made = publish.add_artifact(
            conn,
            release,
            query.get("device_type"),
            stored.sha256,
            stored.size,
            facts,
            who.name,
            context.clock(),
            query.get("other_chip") == "true",
        )
        return publish.artifact_view(releases.find_artifact(conn, made))

    return JSONResponse(await context.write_async(deed), status_code=201)


def _before_upload(request: Request, context: Context) -> tuple[Operator, str]:
    """Who uploads, into a release of which kind; asked before the first byte is kept."""
    who = needs(Rank.OPERATOR, _of_upload)(request)
    query = request.query_params
    for field in ("release", "product", "device_type"):
        if len(query.getlist(field)) > 1:
            raise invalid(field, query.getlist(field), "is given once")
    if ("release" in query) is ("product" in query):
        raise invalid("release", query.get("release", ""), "is needed, or product in its place")
    if "device_type" in query:
        check_name("device_type", query["device_type"])
    if "product" in query:
        check_name("product", query["product"])
        return who, "image"
    with context.database.read() as conn:
        if "device_type" in query:
            return who, publish.check_open(conn, query["release"], query["device_type"]).kind
        return who, publish.check_draft(conn, query["release"]).kind


def _of_upload(request: Request, conn: Connection) -> str | None:
    return request.query_params.get("product") or of_release(request, conn)


async def blob(request: Request) -> Response:
    """`GET /api/blobs/{sha256}`: Range, ETag, 304, If-Range; the bytes leave by sendfile. Where an object
    store has them, the answer is a redirect to a URL that opens for some minutes."""
    context = context_of(request)
    sha256 = request.path_params["sha256"]
    await asyncio.to_thread(anybody, request, context)
    if not BLOB.fullmatch(sha256) or not await asyncio.to_thread(context.blobs.has, sha256):
        raise Rejected("unknown_blob", f"blob is {sha256[:70]!r}: there is no such blob", kind=Kind.NOT_FOUND)
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    known = (part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(","))
    if any(tag in (etag, "*") for tag in known):
        return Response(status_code=304, headers=headers)
    elsewhere = await asyncio.to_thread(context.blobs.url, sha256, request.method)
    if elsewhere is not None:  # 307 keeps the method; whoever follows brings Range along, and no token
        told = {"Location": elsewhere, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return Response(status_code=307, headers=told)
    path = context.blobs.path(sha256)
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


# --- bills of materials ----------------------------------------------------------------------------


@router.post("/api/releases/{release_id}/sbom", status_code=201, openapi_extra=_BILL)
async def attach_sbom(request: Request, release_id: ReleaseId, who: ActingOnRelease) -> Response:
    """A CycloneDX document in JSON, of a draft release; the last one counts. It is signed with the images."""
    context = context_of(request)
    await asyncio.to_thread(_check_draft, context, release_id)
    intake = context.blobs.intake(publish.MAX_SBOM)
    try:
        async for chunk in request.stream():
            await asyncio.to_thread(intake.write, chunk)
        bill = await asyncio.to_thread(publish.check_sbom, intake)
        stored = await asyncio.to_thread(intake.keep)
    except ClientDisconnect:
        return Response(status_code=400)
    finally:
        intake.drop()

    def deed(conn: Connection) -> Any:
        publish.attach_sbom(conn, release_id, stored.sha256, stored.size, bill, who.name, context.clock())
        return _view(conn, release_id)

    return JSONResponse(await context.write_async(deed), status_code=201)


def _check_draft(context: Context, release_id: str) -> None:
    with context.database.read() as conn:
        publish.check_draft(conn, release_id)


@router.get("/api/releases/{release_id}/sbom", response_class=Response)
def sbom(request: Request, release_id: ReleaseId, who: Viewer) -> Response:
    """The release's bill of materials, byte for byte as it was attached; its digest is what was signed."""
    context = context_of(request)
    with context.database.read() as conn:
        found = _view(conn, release_id)["sbom"]
    if found is None:
        raise Rejected(
            "no_sbom",
            f"release is {release_id!r}: it has no bill of materials",
            kind=Kind.NOT_FOUND,
            field="release",
            value=release_id,
            rule="a release with a bill of materials",
        )
    with context.blobs.local(found["sha256"]) as path:
        return Response(path.read_bytes(), media_type=CYCLONEDX, headers={"ETag": f'"{found["sha256"]}"'})


# --- trust -----------------------------------------------------------------------------------------


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
        raise Rejected(
            "nothing_to_sign",
            f"role is {role!r}: nothing waits for signatures",
            kind=Kind.NOT_FOUND,
            field="role",
            value=role,
            rule="a role that waits",
        )
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
