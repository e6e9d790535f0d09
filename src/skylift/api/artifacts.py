"""What a release is made of, over HTTP: its images and its bill of materials. Uploads are streamed; downloads
leave by sendfile."""

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from skylift.api.auth import ActingOnRelease, Operator, Viewer, anybody, needs, of_release
from skylift.api.context import Context, context_of
from skylift.api.releases import ReleaseId, known
from skylift.core.errors import Kind, Rejected, invalid
from skylift.engine import publish, signing, unblob
from skylift.engine.access import Role as Rank
from skylift.engine.blobs import too_large
from skylift.engine.publish import Arrival, NewRelease
from skylift.store import releases
from skylift.store.db import Connection

router = APIRouter(tags=["releases and trust"])
# What is said of a release that is made with its image.
OF_NEW = ("version", "kind", "notes", "security_version")
FLAGS = ("other_chip", "seal")
ONCE = ("release", "product", "device_type", "sha256", *FLAGS, *OF_NEW)
BLOB = re.compile("[0-9a-f]{64}", re.ASCII)
CYCLONEDX = "application/vnd.cyclonedx+json"
_BILL = {"requestBody": {"required": True, "content": {CYCLONEDX: {"schema": {"type": "object"}}}}}


@router.get("/api/artifacts")
def artifacts(
    request: Request, who: Viewer, release: Annotated[str, Query(pattern="^rel_[0-9a-z]{1,40}$")]
) -> Any:
    """The files of one release."""
    with context_of(request).database.read() as conn:
        known(conn, release)
        found = releases.artifacts_of(conn, release)
    return {"items": [publish.artifact_view(row) for row in found], "next": None}


async def upload(request: Request) -> Response:
    """`POST /api/artifacts?release=&device_type=&sha256=&other_chip=&seal=`: the body is the image, streamed
    to disk. With `product=` in the place of `release=` the release is made with it, or not at all: of the
    version and the security version that the image says, unless `version=` and `security_version=` do.
    Without `device_type=` it is the one whose chip the image is for. With `seal=true` it was the last one."""
    context = context_of(request)
    who, arrival, kind = await asyncio.to_thread(_before_upload, request, context)
    query = request.query_params
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else None
    if announced is not None and announced > context.max_image:
        raise too_large(announced, context.max_image)
    intake = context.blobs.intake(context.max_image)
    try:
        async for chunk in request.stream():
            await asyncio.to_thread(intake.write, chunk)
        facts = await asyncio.to_thread(publish.check_bytes, kind, intake, query.get("sha256"), announced)
        await asyncio.to_thread(_check_place, context, arrival, facts)
        stored = await asyncio.to_thread(unblob.keep, context.database, intake, context.clock())
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it: the upload was cut, and leaves nothing behind
    finally:
        intake.drop()

    def deed(conn: Connection) -> Any:
        made = publish.take_in(conn, arrival, stored, facts, who.name, context.clock())
        if query.get("seal") == "true":
            signing.seal(conn, made.release_id, who.name, context.clock(), context.max_trust_file)
        return publish.artifact_view(made)

    return JSONResponse(await context.write_async(deed), status_code=201)


def _before_upload(request: Request, context: Context) -> tuple[Operator, Arrival, str]:
    """Who uploads what, and of which kind its bytes must be; asked before the first one is kept."""
    who = needs(Rank.OPERATOR, _of_upload)(request)
    query = request.query_params
    for field in query:
        if field not in ONCE:
            raise invalid(field[:40], query[field], "is not a parameter of an upload", code="unknown_field")
        if len(query.getlist(field)) > 1:
            raise invalid(field, query.getlist(field), "is given once")
    for field in FLAGS:
        if query.get(field, "false") not in ("true", "false"):
            raise invalid(field, query[field], "true or false")
    if ("release" in query) is ("product" in query):
        raise invalid("release", query.get("release", ""), "is needed, or product in its place")
    release = query["release"] if "release" in query else _new(query)
    for field in OF_NEW:
        if field in query and isinstance(release, str):
            raise invalid(field, query[field], "goes with product: the release is there already")
    arrival = Arrival(release, query.get("device_type"), query.get("other_chip") == "true")
    with context.database.read() as conn:
        return who, arrival, publish.check_expected(conn, arrival)


def _new(query: QueryParams) -> NewRelease:
    security = query.get("security_version", "0")
    if not security.isascii() or not security.isdecimal() or len(security) > 10:
        raise invalid("security_version", security[:20], "a whole number from 0")
    return NewRelease(
        query["product"],
        query.get("version"),
        query.get("kind", "image"),
        query.get("notes", ""),
        int(security),
    )


def _check_place(context: Context, arrival: Arrival, facts: dict[str, Any]) -> None:
    with context.database.read() as conn:
        publish.place(conn, arrival, facts)


def _of_upload(request: Request, conn: Connection) -> str | None:
    return request.query_params.get("product") or of_release(request, conn)


async def blob(request: Request) -> Response:
    """`GET /api/blobs/{sha256}`: Range, ETag, 304, If-Range; the bytes leave by sendfile. Where an object
    store has them, the answer is a redirect to a URL that opens for some minutes."""
    context = context_of(request)
    sha256 = request.path_params["sha256"]
    await asyncio.to_thread(anybody, request, context)
    if not BLOB.fullmatch(sha256) or not await asyncio.to_thread(context.blobs.has, sha256):
        raise Rejected(
            "unknown_blob",
            f"blob is {sha256[:70]!r}: there is no such blob",
            kind=Kind.NOT_FOUND,
            field="blob",
            value=sha256[:70],
            rule="the SHA-256 of bytes that are kept here",
        )
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
        stored = await asyncio.to_thread(unblob.keep, context.database, intake, context.clock())
    except ClientDisconnect:
        return Response(status_code=400)
    finally:
        intake.drop()

    def deed(conn: Connection) -> Any:
        publish.attach_sbom(conn, release_id, stored.sha256, stored.size, bill, who.name, context.clock())
        return known(conn, release_id)

    return JSONResponse(await context.write_async(deed), status_code=201)


def _check_draft(context: Context, release_id: str) -> None:
    with context.database.read() as conn:
        publish.check_draft(conn, release_id)


@router.get("/api/releases/{release_id}/sbom", response_class=Response)
def sbom(request: Request, release_id: ReleaseId, who: Viewer) -> Response:
    """The release's bill of materials, byte for byte as it was attached; its digest is what was signed."""
    context = context_of(request)
    with context.database.read() as conn:
        found = known(conn, release_id)["sbom"]
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
