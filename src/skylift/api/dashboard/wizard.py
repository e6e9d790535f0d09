"""A new deployment, step by step on one page: release, devices, phases, gate; then what it would come to,
on a time line, with the rehearsal's answer; then the start.

The whole form travels in the address: a preview is a page like any other, a session that ends in the middle
loses nothing, and a link shows a colleague what is about to happen.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse, Response

from skylift.api.dashboard import draw
from skylift.api.dashboard.visit import Visit
from skylift.api.problems import STATUS
from skylift.core.errors import Rejected, invalid
from skylift.engine import deployments as deeds
from skylift.engine.access import Role
from skylift.engine.rehearse import rehearsed
from skylift.store import groups, releases
from skylift.store.db import Connection

CONFIRM_ABOVE = 1_000  # devices: whoever starts that types the version's name
FIELDS = (
    "release",
    "to",
    "devices",
    "phases",
    "soak",
    "wait",
    "threshold",
    "gate",
    "action",
    "parallel",
    "starts",
)
FLAGS = ("manual", "mandatory")
DEFAULTS = {
    "to": "all",
    "phases": "1, 10, 50, 100",
    "soak": "60",
    "wait": "30",
    "threshold": "5",
    "gate": "threshold",
    "action": "pause",
}


def _fields(given: "QueryParams | Mapping[str, str]") -> dict[str, str]:
    found = {name: given.get(name, DEFAULTS.get(name, "")).strip() for name in FIELDS}
    return found | {name: "1" if given.get(name) else "" for name in FLAGS}


def _number(field: str, text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as e:
        raise invalid(field, text[:40], "a number") from e


def body_of(fields: Mapping[str, str], chosen: list[str]) -> dict[str, Any]:
    """The form as the configuration that API and CLI send; bounds and contradictions are the engine's."""
    body: dict[str, Any] = {"release": fields["release"]}
    match fields["to"]:
        case "all":
            body["target_devices"] = "all"
        case "groups":
            body["target_groups"] = chosen
        case "devices":
            body["target_devices"] = fields["devices"].replace(",", " ").split()
        case other:
            raise invalid("to", other[:20], "one of all, groups, devices")
    times = {"min_minutes": _number("soak", fields["soak"]), "wait_minutes": _number("wait", fields["wait"])}
    given = {name: value for name, value in times.items() if value is not None}
    ends = [_number("phases", part.strip().rstrip("%").strip()) for part in fields["phases"].split(",")]
    body["phases"] = [
        {"percent": end, "gate": "manual" if fields["manual"] and n else "auto", **given}
        for n, end in enumerate(ends)
    ]
    body |= {
        "failure_threshold_percent": _number("threshold", fields["threshold"]),
        "gate": fields["gate"],
        "failure_action": fields["action"],
        "mandatory": bool(fields["mandatory"]),
    }
    if fields["parallel"]:
        if not fields["parallel"].isascii() or not fields["parallel"].isdecimal():
            raise invalid("parallel", fields["parallel"][:20], "a whole number")
        body["max_parallel"] = int(fields["parallel"])
    if fields["starts"]:
        body["starts_at"] = _instant(fields["starts"])
    return {name: value for name, value in body.items() if value is not None}


def _instant(text: str) -> str:
    """A browser's `datetime-local`, which the page says is UTC."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).isoformat()
    except ValueError as e:
        raise invalid("starts", text[:40], "a time such as 2026-11-28T08:00") from e


# --- pages -------------------------------------------------------------------------------------------


def page(visit: Visit) -> Response:
    """The form; with `preview`, what it would come to."""
    given = visit.request.query_params
    return _show(visit, _fields(given), given.getlist("group"), preview=bool(given.get("preview")))


def _show(
    visit: Visit,
    fields: dict[str, str],
    chosen: list[str],
    *,
    preview: bool,
    wrong: str = "",
    status: int = 200,
) -> Response:
    found = None
    with visit.context.database.read() as conn:
        published = [
            row
            for row in releases.page(conn, limit=200)
            if row.status == "published" and visit.may("operator", row.product)
        ]
        known = groups.page(conn, limit=500)
        if not fields["release"] and published:
            fields["release"] = published[0].id
    if preview and not wrong:
        try:
            body = body_of(fields, chosen)
            with visit.context.database.ask() as conn:
                checkin = visit.context.checkin
                found = rehearsed(conn, body, checkin.pace, visit.now, max_ratio=checkin.max_ratio)
        except Rejected as e:
            wrong, status = str(e), STATUS[e.kind]
    release = next((row for row in published if row.id == fields["release"]), None)
    kept = [*fields.items(), *(("group", name) for name in chosen)]
    return visit.page(
        "deployment-new.html",
        status,
        f=fields,
        chosen=chosen,
        releases=published,
        groups=known,
        found=found,
        steps=_steps(found) if found else [],
        wrong=wrong,
        release=release,
        confirm=bool(found and found["devices"] > CONFIRM_ABOVE),
        second=_needs_second(visit, found),
        kept=[(name, value) for name, value in kept if value],
        address=urlencode([(name, value) for name, value in kept if value]),
    )


def _needs_second(visit: Visit, found: Mapping[str, Any] | None) -> int | None:
    """Above how many devices it takes a second person, where this one does."""
    above = visit.context.approval_above
    return above if above is not None and found is not None and found["devices"] > above else None


def _steps(found: Mapping[str, Any]) -> list[draw.Step]:
    """The rehearsal's phases as the time line shows them: at its median."""

    def seconds(spread: Mapping[str, float] | None) -> float | None:
        return spread["p50"] if spread else None

    return [
        draw.Step(
            phase["name"],
            phase["devices"],
            seconds(phase["opens_s"]),
            seconds(phase["through_s"]),
            60 * phase["min_minutes"],
        )
        for phase in found["phases"]
    ]


def create(visit: Visit) -> Response:
    """Start it. Above a thousand devices only with the release's version, typed."""
    fields, chosen = _fields(visit.form), visit.lists.get("group", [])
    context, above = visit.context, visit.context.approval_above
    try:
        body = body_of(fields, chosen)
        with context.database.ask() as conn:
            prepared = deeds.prepare(conn, body)
        visit.must(Role.OPERATOR, prepared.release.product)
        if (
            prepared.count.total > CONFIRM_ABOVE
            and visit.form.get("confirm", "").strip() != prepared.release.version
        ):
            raise invalid(
                "confirm",
                visit.form.get("confirm", "")[:40],
                f"type {prepared.release.version} to send it to {prepared.count.total:,} devices",
            )
        made = context.write(
            lambda conn: deeds.insert(conn, prepared, visit.name, visit.now, approval_above=above)
        )
    except Rejected as e:
        return _show(visit, fields, chosen, preview=True, wrong=str(e), status=STATUS[e.kind])
    return visit.go(f"/deployments/{made}", done="create")


def count(visit: Visit) -> Response:
    """How many devices the form as it stands would touch; for the page's script, while somebody types."""
    given = visit.request.query_params
    try:
        body = body_of(_fields(given), given.getlist("group"))
        with visit.context.database.ask() as conn:
            found = _counted(conn, body)
    except Rejected as e:
        return JSONResponse({"text": str(e), "ok": False})
    return JSONResponse({"text": found, "ok": True})


def _counted(conn: Connection, body: Mapping[str, Any]) -> str:
    found = deeds.preview(conn, body)
    sizes = " + ".join(f"{phase['devices']:,}" for phase in found["phases"][:8])
    more = " + …" if len(found["phases"]) > 8 else ""
    skipped = f"; {found['skipped']:,} are there already or have no image in it" if found["skipped"] else ""
    return f"{found['devices']:,} devices: {sizes}{more}{skipped}"
