"""Images from a browser: in pieces by the page's script, which goes on where a line broke; or, without a
script, as one form."""

from collections.abc import Callable
from shutil import copyfileobj
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message

from skylift.api.context import Context, context_of
from skylift.api.dashboard.visit import (
    Visit,
    check_csrf,
    check_origin,
    failed,
    go,
    on_release,
    somewhere,
    visit_of,
)
from skylift.core.errors import Rejected, invalid
from skylift.core.ids import check_name
from skylift.engine import publish, unblob
from skylift.engine.access import Role
from skylift.engine.blobs import Intake, too_large
from skylift.engine.publish import Arrival, NewRelease

PIECE = 512 << 10  # half of what a request may carry by default
_FORM = 64 << 10  # of a form around its file


def begin(visit: Visit) -> Response:
    """`release`, `device_type`, `name`, `size`: where the upload goes on, and in pieces of which size."""
    form = visit.form
    release, device_type = form.get("release", ""), form.get("device_type", "").strip()
    size = form.get("size", "")
    if not size.isascii() or not size.isdecimal() or len(size) > 15:
        raise invalid("size", size[:20], "a number of bytes")
    _check(visit, Arrival(release, device_type or None))
    upload, here = visit.context.uploads.begin(
        visit.name, release, device_type, form.get("name", "")[:200], int(size)
    )
    return JSONResponse({"id": upload.id, "offset": here, "piece": min(PIECE, visit.context.max_body)})


def piece(visit: Visit) -> Response:
    """The next bytes, behind `offset`."""
    offset = visit.query.get("offset", "")
    if not offset.isascii() or not offset.isdecimal() or len(offset) > 15:
        raise invalid("offset", offset[:20], "a number of bytes")
    uploads = visit.context.uploads
    upload = uploads.find(visit.request.path_params["upload"], visit.name)
    return JSONResponse({"offset": uploads.add(upload, int(offset), visit.body)})


def end(visit: Visit) -> Response:
    """All is there: checked, kept, and an image of the release; or refused for what it is."""
    uploads = visit.context.uploads
    upload = uploads.find(visit.request.path_params["upload"], visit.name)
    intake = uploads.into(upload, visit.context.blobs)
    try:
        made = _keep(visit, intake, Arrival(upload.release, upload.device_type or None), upload.size)
    except Rejected:
        uploads.forget(upload)  # bytes that are wrong do not get right by coming again
        raise
    uploads.forget(upload)
    return JSONResponse({"artifact": made.id, "sha256": made.sha256, "facts": made.facts})


def _check(visit: Visit, arrival: Arrival) -> str:
    """Of which kind the bytes must be that this person may send there."""
    with visit.context.database.read() as conn:
        new = arrival.release
        visit.must(
            Role.OPERATOR, publish.check_draft(conn, new).product if isinstance(new, str) else new.product
        )
        return publish.check_expected(conn, arrival)


def _keep(visit: Visit, intake: Intake, arrival: Arrival, size: int | None) -> Any:
    """The artifact that these bytes are now."""
    context = visit.context
    try:
        facts = publish.check_bytes(_check(visit, arrival), intake, None, size)
        with context.database.read() as conn:
            publish.place(conn, arrival, facts)
        stored = unblob.keep(context.database, intake, visit.now)
    finally:
        intake.drop()
    return context.write(lambda conn: publish.take_in(conn, arrival, stored, facts, visit.name, visit.now))


# --- without a script --------------------------------------------------------------------------------


async def whole(request: Request) -> Response:
    """A form with a file: who sends it is known before a byte is taken in."""
    return await _form(request, on_release, _take, f"/ui/releases/{request.path_params['release']}")


async def from_image(request: Request) -> Response:
    """A form with a product and a file: the draft is what the image says of itself."""
    return await _form(request, somewhere, _take_new, "/ui/releases/new")


async def _form(
    request: Request,
    of: Callable[[Visit, Role], None],
    take: Callable[[Request, FormData], Response],
    back: str,
) -> Response:
    try:
        check_origin(request)
        visit = await run_in_threadpool(visit_of, request)
        if visit is None:
            return go("/sign-in", next=back, ended="1")
        await run_in_threadpool(of, visit, Role.OPERATOR)
        bounded = _bounded(request, context_of(request))
        async with bounded.form(max_files=1, max_fields=10) as form:
            return await run_in_threadpool(take, request, form)
    except Exception as e:  # noqa: BLE001 - a page says it
        return failed(request, e)


def _bounded(request: Request, context: Context) -> Request:
    """The request, its body counted as it comes."""
    seen, limit = 0, context.max_image + _FORM

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise too_large(seen, context.max_image)
        return message

    return Request(request.scope, receive)


def _take(request: Request, form: FormData) -> Response:
    visit = visit_of(request, form)
    if visit is None:
        return go("/sign-in", ended="1")
    check_csrf(visit)
    release = request.path_params["release"]
    arrival = Arrival(release, visit.form.get("device_type", "").strip() or None)
    _keep(visit, _intake(visit, form), arrival, None)
    return go(f"/releases/{release}")


def _take_new(request: Request, form: FormData) -> Response:
    visit = visit_of(request, form)
    if visit is None:
        return go("/sign-in", ended="1")
    check_csrf(visit)
    product, device_type = (visit.form.get(name, "").strip() for name in ("product", "device_type"))
    arrival = Arrival(NewRelease(check_name("product", product), None), device_type or None)
    visit.must(Role.OPERATOR, product)
    return go(f"/releases/{_keep(visit, _intake(visit, form), arrival, None).release_id}")


def _intake(visit: Visit, form: FormData) -> Intake:
    file = form.get("image")
    if not isinstance(file, UploadFile) or not file.filename:
        raise invalid("image", "nothing", "a file is needed")
    intake = visit.context.blobs.intake(visit.context.max_image)
    copyfileobj(file.file, _Into(intake), 1 << 20)
    return intake


class _Into:
    """An intake as `copyfileobj` writes to it."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def write(self, chunk: bytes) -> int:
        self._intake.write(chunk)
        return len(chunk)
