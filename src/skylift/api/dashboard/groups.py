"""Groups: lists, and queries that stay live, looked at before they are made."""

from starlette.responses import Response

from skylift.api.dashboard import search
from skylift.api.dashboard.visit import Visit
from skylift.api.problems import STATUS
from skylift.core.errors import Rejected, invalid
from skylift.engine import groups as deeds
from skylift.store import groups

SHOWN = 20  # members on a page
PAGE = 100


def page(visit: Visit, wrong: str = "", status: int = 200) -> Response:
    """All groups; with `preview`, who a query would find now."""
    given = visit.form or visit.query
    query, found, total = given.get("query", "").strip(), None, 0
    with visit.context.database.read() as conn:
        rows = groups.page(conn, limit=PAGE, after=visit.query.get("after", "")[:40])
    if visit.query.get("preview") and query:
        try:
            with visit.context.database.ask() as conn:
                found = search.find(conn, query, "active", after="", limit=SHOWN)
                total = deeds.size_of(conn, query)
        except Rejected as e:
            wrong, status = str(e), STATUS[e.kind]
    more = rows[-1].id if len(rows) == PAGE else None
    return visit.page(
        "groups.html", status, rows=rows, query=query, name=given.get("name", "")[:64], wrong=wrong,
        found=found, total=total, devices=given.get("devices", ""), more=more,
    )  # fmt: skip


def change(visit: Visit) -> Response:
    """A new group."""
    form = visit.form
    name, query = form.get("name", "").strip(), form.get("query", "").strip()
    named = form.get("devices", "").replace(",", " ").split()
    try:
        if query and named:
            raise invalid("query", query, "a query or a list of devices, not both")
        made = visit.context.write(
            lambda conn: deeds.create(
                conn, name, query or None, None if query else named, visit.name, visit.now
            )
        )
    except Rejected as e:
        return page(visit, str(e), STATUS[e.kind])
    return visit.go(f"/groups/{made}")


def show(visit: Visit, wrong: str = "", status: int = 200) -> Response:
    with visit.context.database.ask() as conn:
        group = deeds.find(conn, visit.request.path_params["group"][:64])
        size = deeds.size(conn, group)
        if group.kind == "query":
            some = search.find(conn, group.query or "", "active", after="", limit=SHOWN).devices
        else:
            some = groups.some(conn, group.id, SHOWN)
    return visit.page("group.html", status, group=group, size=size, some=some, wrong=wrong)


def change_one(visit: Visit) -> Response:
    """Members in and out, or the group away."""
    name, form, context = visit.request.path_params["group"][:64], visit.form, visit.context
    named = form.get("devices", "").replace(",", " ").split()
    try:
        match form.get("what"):
            case "add":
                context.write(lambda conn: deeds.change_members(conn, name, named, [], visit.name, visit.now))
            case "remove":
                context.write(lambda conn: deeds.change_members(conn, name, [], named, visit.name, visit.now))
            case "delete":
                context.write(lambda conn: deeds.delete(conn, name, visit.name, visit.now))
                return visit.go("/groups")
            case what:
                raise invalid("what", what, "is no change of a group")
    except Rejected as e:
        return show(visit, str(e), STATUS[e.kind])
    return visit.go(f"/groups/{name}")
