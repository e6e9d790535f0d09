"""Telling people: where to, and the log of every message with what came of it."""

from starlette.responses import Response

from skylift.api.dashboard.visit import Visit, go
from skylift.api.problems import STATUS
from skylift.core.errors import Rejected, invalid
from skylift.core.telling import Told
from skylift.engine import channels as deeds
from skylift.store import channels

PAGE = 50
DONE = {
    "test": "It is on its way; the log below shows whether it arrives.",
    "replay": "It is on its way once more, under the same id.",
    "remove": "The channel is gone, with its log.",
}


def page(visit: Visit, wrong: str = "", status: int = 200, made: str = "") -> Response:
    state = visit.query.get("state") or None
    if state is not None and state not in channels.STATES:
        raise invalid("state", state[:20], f"one of {', '.join(channels.STATES)}")
    before = visit.query.get("before", "")
    if before and not (before.isascii() and before.isdecimal() and len(before) < 19):
        raise invalid("before", before[:20], "the number of a delivery")
    with visit.context.database.read() as conn:
        known = channels.everything(conn)
        log = channels.page(conn, limit=PAGE, before=int(before) if before else None, state=state)
    return visit.page(
        "channels.html", status, channels=known, log=log, wrong=wrong, made=made, now=visit.now,
        kinds=[told.value for told in Told if told is not Told.TEST],
        can_mail=visit.context.can_mail, state=state or "", states=channels.STATES,
        more=log[-1].pk if len(log) == PAGE else None, done=DONE.get(visit.query.get("done", ""), ""),
    )  # fmt: skip


def change(visit: Visit) -> Response:
    """One change; a new signing secret is shown this once, on the page that answers."""
    try:
        made, done = _change(visit)
    except Rejected as e:
        return page(visit, str(e), STATUS[e.kind])
    return page(visit, made=made) if made else go("/settings/channels", done=done)


def _change(visit: Visit) -> tuple[str, str]:
    form, context, who, now = visit.form, visit.context, visit.name, visit.now
    write, name = context.write, form.get("name", "").strip()
    match form.get("what"):
        case "add":
            new = deeds.NewChannel(
                name,
                form.get("kind", ""),
                form.get("address", "").strip(),
                form.get("template", "").strip() or None if form.get("kind") == "chat" else None,
                visit.lists.get("want") or None,
            )
            _, secret = write(lambda conn: deeds.add(conn, context.seal, new, context.can_mail, who, now))
            return secret, ""
        case "renew":
            return write(lambda conn: deeds.renew_secret(conn, context.seal, name, who, now)), ""
        case "disable" | "enable" as what:
            write(lambda conn: deeds.set_disabled(conn, name, what == "disable", who, now))
            return "", ""
        case "test":
            write(lambda conn: deeds.test(conn, name, who, now))
            return "", "test"
        case "remove":
            write(lambda conn: deeds.remove(conn, name, who, now))
            return "", "remove"
        case "replay":
            number = form.get("delivery", "")
            if not (number.isascii() and number.isdecimal() and len(number) < 19):
                raise invalid("delivery", number[:20], "the number of a delivery")
            write(lambda conn: deeds.replay(conn, int(number), who, now))
            return "", "replay"
        case what:
            raise invalid("what", what, "is no change of a channel")
