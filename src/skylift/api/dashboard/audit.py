"""The audit trail: who changed what, from what to what."""

from starlette.responses import Response

from skylift.api.dashboard.visit import Visit
from skylift.api.people import change_view
from skylift.api.people import export as export_all
from skylift.core.errors import Kind, Rejected, invalid
from skylift.store import events

PAGE = 50
MOST = 64  # characters of a filter


def _chosen(visit: Visit) -> dict[str, str | None]:
    return {name: visit.query.get(name, "").strip()[:MOST] or None for name in ("actor", "action", "subject")}


def page(visit: Visit) -> Response:
    under = visit.query.get("under", "")
    if under and (not under.isascii() or not under.isdecimal() or len(under) > 18):
        raise invalid("under", under[:20], "the number of a change")
    chosen = _chosen(visit)
    with visit.context.database.read() as conn:
        found = events.changes(conn, limit=PAGE, under=int(under) if under else None, **chosen)
    more = found[-1].pk if len(found) == PAGE else None
    return visit.page("audit.html", rows=[change_view(row) for row in found], chosen=chosen, more=more)


def export(visit: Visit) -> Response:
    """All of it, as CSV or JSON."""
    form = visit.request.path_params["form"]
    if form not in ("csv", "json"):
        raise Rejected("not_found", "There is no such page.", kind=Kind.NOT_FOUND)
    return export_all(visit.context, form, _chosen(visit))
