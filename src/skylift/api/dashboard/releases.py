"""Releases: a draft, its images, its seal, its signatures, and who runs it."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from skylift.api.dashboard import uploads
from skylift.api.dashboard.visit import Visit
from skylift.api.problems import STATUS
from skylift.core.errors import Rejected, invalid
from skylift.engine import gathering, publish, serving, signing
from skylift.engine.access import Role
from skylift.engine.publish import NewRelease
from skylift.store import looks, releases
from skylift.store.db import Connection

PAGE = 50


def page(visit: Visit) -> Response:
    before, product = visit.query.get("before"), visit.query.get("product") or None
    with visit.context.database.read() as conn:
        rows = releases.page(conn, limit=PAGE, before=before, product=product)
        signed = {row.id: publish.view(conn, row) for row in rows}
        ready = gathering.status(conn, visit.now)["ready"]
    return visit.page(
        "releases.html",
        rows=[signed[row.id] for row in rows],
        more=rows[-1].id if len(rows) == PAGE else None,
        product=product or "",
        ready=ready,
    )


def new(visit: Visit, wrong: str = "", status: int = 200) -> Response:
    given: Mapping[str, str] = visit.form or visit.query
    with visit.context.database.read() as conn:
        products = sorted({row.product for row in releases.page(conn, limit=200)})
        ready = gathering.status(conn, visit.now)["ready"]
    return visit.page("release-new.html", status, given=given, wrong=wrong, products=products, ready=ready)


def create(visit: Visit) -> Response:
    """A draft; its images come next."""
    form = visit.form
    try:
        security = form.get("security_version", "0") or "0"
        if not security.isascii() or not security.isdecimal() or len(security) > 10:
            raise invalid("security_version", security, "a whole number from 0")
        made = NewRelease(
            product=form.get("product", "").strip(),
            version=form.get("version", "").strip(),
            kind=form.get("kind", "image"),
            notes=form.get("notes", ""),
            security_version=int(security),
        )
        visit.must(Role.OPERATOR, made.product)
        release = visit.context.write(lambda conn: publish.create(conn, made, visit.name, visit.now))
    except Rejected as e:
        return new(visit, str(e), STATUS[e.kind])
    return visit.go(f"/releases/{release}")


def show(visit: Visit, wrong: str = "", status: int = 200) -> Response:
    with visit.context.database.read() as conn:
        found = view(conn, visit.request.path_params["release"])
        full = [a for a in found["artifacts"] if a["kind"] == "full"]
        made = serving.made(conn, found["id"])
        travelled = serving.travelled(conn, found["id"])
        types = [a["device_type"] for a in full]
        runs = looks.carrying(conn, found["version"], types, found["kind"]) if types else 0
    sizes = {a["device_type"]: a["size"] for a in full}
    return visit.page(
        "release.html",
        status,
        r=found,
        full=full,
        made=made,
        travelled=travelled,
        sizes=sizes,
        runs=runs,
        types=types,
        wrong=wrong,
        piece=uploads.PIECE,
    )


def view(conn: Connection, release_id: str) -> dict[str, Any]:
    """The release as people see it, or `Rejected` (not found)."""
    found = releases.find(conn, release_id)
    if found is None:
        raise signing.unknown_release(release_id[:60])
    return publish.view(conn, found)


def seal(visit: Visit) -> Response:
    """No more images: it waits for its signatures."""
    release = visit.request.path_params["release"]
    try:
        most = visit.context.max_trust_file
        visit.context.write(lambda conn: signing.seal(conn, release, visit.name, visit.now, most))
    except Rejected as e:
        return show(visit, str(e), STATUS[e.kind])
    return visit.go(f"/releases/{release}")
