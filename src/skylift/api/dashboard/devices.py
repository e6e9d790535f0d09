"""Devices: any number of them by query, one of them in time, and the first of them enrolled."""

from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from skylift.api import sheet, views
from skylift.api.dashboard import search
from skylift.api.dashboard.visit import Visit, server_of
from skylift.api.fleet import fleet
from skylift.api.problems import STATUS
from skylift.core.errors import Rejected, invalid
from skylift.core.query import MAX_LENGTH, parse
from skylift.engine import enroll as deeds
from skylift.store import devices as stored
from skylift.store import events, looks, releases, updates

PAGE = 50
EVENTS = 100
COLUMNS = {
    "device_type": "Type",
    "current_version": "Version",
    "config_version": "Configuration",
    "labels": "Labels",
    "last_seen": "Last heard",
    "status": "Status",
    "deployment": "Updating",
    "enrolled_at": "Enrolled",
    "image_sha256": "Image",
}
USUAL = ("device_type", "current_version", "labels", "last_seen", "deployment")
COOKIE = "skylift_columns"
EXPORTED = ("device_id", *COLUMNS)


def _asked(visit: Visit) -> tuple[str, str]:
    text, status = visit.query.get("q", "").strip(), visit.query.get("status", "active")
    if len(text) > MAX_LENGTH:
        raise invalid("q", text, f"at most {MAX_LENGTH} characters")
    if status not in search.STATUSES:
        raise invalid("status", status[:20], f"one of {', '.join(search.STATUSES)}")
    return text, status


def _columns(visit: Visit) -> tuple[str, ...]:
    kept = visit.request.cookies.get(COOKIE)
    chosen = tuple(name for name in COLUMNS if name in (kept or "").split("."))
    return USUAL if kept is None else chosen


def page(visit: Visit) -> Response:
    text, status = _asked(visit)
    wrong, answer, found, rows = "", 200, search.Found([], None), []
    with visit.context.database.read() as conn:
        try:
            after = visit.query.get("after", "")[:64]
            found = search.find(conn, text, status, after=after, limit=PAGE)
            rows = views.device_list(conn, found.devices)
        except Rejected as e:
            wrong, answer = str(e), STATUS[e.kind]
    return visit.page(
        "devices.html",
        answer,
        rows=rows,
        found=found,
        q=text,
        status=status,
        wrong=wrong,
        all_columns=COLUMNS,
        columns=_columns(visit),
        fleet=fleet(visit.context),
        most=search.MOST_ROWS,
    )


def columns(visit: Visit) -> Response:
    """Which columns this browser shows, from now on."""
    chosen = [name for name in visit.lists.get("column", []) if name in COLUMNS]
    query = {name: visit.form[name][:MAX_LENGTH] for name in ("q", "status") if visit.form.get(name)}
    answer = visit.go("/devices", **query)
    answer.set_cookie(COOKIE, ".".join(chosen), max_age=31_536_000, path="/ui", httponly=True, samesite="lax")
    return answer


def complete(visit: Visit) -> Response:
    """What could stand next in the filter; for the page's script."""
    counted = fleet(visit.context)
    values: dict[str, list[str]] = {
        "device_type": sorted({kind for kind, *_ in counted.versions}),
        "current_version": sorted({version for _, version, _ in counted.versions if version}),
    }
    with visit.context.database.read() as conn:
        labels = looks.labels_of_some(conn)
    values |= {f"label.{name}": sorted(found)[:50] for name, found in sorted(labels.items())}
    stays, words = search.complete(visit.query.get("q", "")[:MAX_LENGTH], values)
    return JSONResponse({"stays": stays, "words": words})


def export(visit: Visit) -> Response:
    """Everything the filter finds, as CSV, however much: streamed."""
    text, status = _asked(visit)
    parse(text or "device_id = any")  # a filter nobody can read is said before a byte is sent
    headers = {"Content-Disposition": 'attachment; filename="skylift-devices.csv"'}
    lines = sheet.lines(EXPORTED, _exported(visit, text, status))
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


def _exported(visit: Visit, text: str, status: str) -> Iterator[dict[str, Any]]:
    for found in search.every(visit.context.database, text, status):
        yield from (views.device(device, seen) for device, seen in found)


# --- one device --------------------------------------------------------------------------------------


def show(visit: Visit, wrong: str = "", status: int = 200) -> Response:
    """Who it is, what it runs, and everything that happened to it."""
    before = visit.query.get("before", "")
    if before and (not before.isascii() or not before.isdecimal() or len(before) > 18):
        raise invalid("before", before[:20], "the number of an event")
    with visit.context.database.read() as conn:
        found = deeds.find(conn, visit.request.path_params["device"])
        seen = stored.last_seen(conn, [found.pk]).get(found.pk)
        happened = events.of_device(conn, found.pk, before=int(before) if before else None, limit=EVENTS)
        history = updates.of_device(conn, found.pk, limit=20)
    versions = {row.deployment_id: row.version for row in history}
    return visit.page(
        "device.html",
        status,
        device=views.device(found, seen),
        events=happened,
        history=history,
        versions=versions,
        wrong=wrong,
        more=happened[-1].pk if len(happened) == EVENTS else None,
    )


def change(visit: Visit) -> Response:
    """A label set or taken away; or the device is out for good."""
    name, form = visit.request.path_params["device"], visit.form
    context = visit.context
    try:
        match form.get("what"):
            case "label":
                labels = {form.get("label", "").strip(): form.get("value", "").strip() or None}
                context.write(lambda conn: deeds.set_labels(conn, name, labels, visit.name, visit.now))
            case "decommission":
                if form.get("confirm", "").strip() != name:
                    raise invalid("confirm", form.get("confirm", "")[:40], f"type {name} to take it out")
                context.write(
                    lambda conn: deeds.decommission(conn, name, visit.name, visit.now, context.deadlines)
                )
            case what:
                raise invalid("what", what, "is no change of a device")
    except Rejected as e:
        return show(visit, str(e), STATUS[e.kind])
    return visit.go(f"/devices/{name}")


# --- the first device --------------------------------------------------------------------------------


def enroll_page(visit: Visit, wrong: str = "", status: int = 200, claim: str = "") -> Response:
    given = visit.form or visit.query
    kinds = sorted({kind for kind, *_ in fleet(visit.context).versions})
    with visit.context.database.read() as conn:
        newest = releases.page(conn, limit=1)
    return visit.page(
        "enroll.html",
        status,
        wrong=wrong,
        claim=claim,
        product=newest[0].product if newest else "sensor",
        kind=given.get("device_type", "").strip()[:64],
        uses=given.get("uses", "1"),
        hours=given.get("hours", "24"),
        kinds=kinds,
        server=server_of(visit.request),
    )


def enroll(visit: Visit) -> Response:
    """A claim; it and the lines that use it are shown this once."""
    form, context = visit.form, visit.context
    kind = form.get("device_type", "").strip()
    try:
        if not kind:
            raise invalid(
                "device_type", "", "is needed: what your devices call their kind, such as sensor-v2"
            )
        uses, hours = form.get("uses", "1"), form.get("hours", "24")
        if not uses.isascii() or not uses.isdecimal() or len(uses) > 9:
            raise invalid("uses", uses[:20], "a whole number")
        if not hours.isascii() or not hours.isdecimal() or len(hours) > 5:
            raise invalid("hours", hours[:20], "a whole number of hours")
        _, claim = context.write(
            lambda conn: deeds.make_claim(conn, kind, int(uses), float(hours), visit.name, visit.now)
        )
    except Rejected as e:
        return enroll_page(visit, str(e), STATUS[e.kind])
    return enroll_page(visit, claim=claim)
