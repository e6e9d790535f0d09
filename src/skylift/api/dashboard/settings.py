"""Settings: who may sign in, and which tokens programs hold."""

from datetime import timedelta

from starlette.responses import Response

from skylift.api.dashboard.visit import Visit, go
from skylift.api.problems import STATUS
from skylift.core.errors import Rejected, invalid
from skylift.engine import access as tokens
from skylift.engine import people as deeds
from skylift.store import access, people

DAYS = ("30", "90", "365", "")


def page(visit: Visit, wrong: str = "", status: int = 200, made: str = "") -> Response:
    with visit.context.database.read() as conn:
        users, held = people.everybody(conn), access.tokens(conn)
    return visit.page(
        "settings.html", status, users=users, tokens=held, wrong=wrong, made=made, now=visit.now,
        scopes=tuple(tokens.SCOPES), days=DAYS,
    )  # fmt: skip


def change(visit: Visit) -> Response:
    """One change; a new token is shown this once, on the page that answers."""
    try:
        made = _change(visit)
    except Rejected as e:
        return page(visit, str(e), STATUS[e.kind])
    return page(visit, made=made) if made else go("/settings")


def _change(visit: Visit) -> str:
    form, write, who, now = visit.form, visit.context.database.write, visit.name, visit.now
    name = form.get("name", "").strip()
    match form.get("what"):
        case "add-user":
            hashed = deeds.hash_password(form.get("password", ""))
            write(lambda conn: deeds.add(conn, name, form.get("role", ""), hashed, who, now))
        case "role":
            write(lambda conn: deeds.set_role(conn, name, form.get("role", ""), who, now))
        case "product-role":
            product, held = form.get("product", "").strip(), form.get("role") or None
            write(lambda conn: deeds.set_product_role(conn, name, product, held, who, now))
        case "disable" | "enable" as what:
            write(lambda conn: deeds.set_disabled(conn, name, what == "disable", who, now))
        case "password":
            hashed = deeds.hash_password(form.get("password", ""))
            write(lambda conn: deeds.set_password(conn, name, hashed, who, now))
        case "add-token":
            days = form.get("days", "")
            if days not in DAYS:
                raise invalid("days", days[:10], "one of the offered")
            until = now + timedelta(days=int(days)) if days else None
            scopes = visit.lists.get("scope") or None
            role = form.get("role", "")
            _, token = write(lambda conn: tokens.make_token(conn, name, role, who, now, until, scopes=scopes))
            return token
        case "revoke":
            write(lambda conn: tokens.revoke(conn, form.get("id", ""), who, now))
        case what:
            raise invalid("what", what, "is no change of the settings")
    return ""
