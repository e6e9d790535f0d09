"""Deployments: the list, the live page, the operator's verbs, what failures have in common."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

from skylift.api import views
from skylift.api.dashboard import live
from skylift.api.dashboard.visit import Visit
from skylift.api.problems import STATUS
from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.lifecycle import DeploymentStatus, UpdateState
from skylift.engine import verbs
from skylift.engine.checkin import order_again
from skylift.engine.explain import explain
from skylift.engine.leaving import leave_out
from skylift.engine.retry import retry
from skylift.engine.rollback import roll_back
from skylift.store import deployments, looks, updates
from skylift.store.db import Connection

PAGE = 50
EXPLAIN_AT_ONCE = 5_000  # failures are explained on the page itself while so few updates are decided
DONE = {
    "pause": "Paused: no more offers; devices that have begun go on.",
    "resume": "It goes on.",
    "approve": "Approved: it goes on.",
    "promote": "The next phase opens now.",
    "abort": "Aborted.",
    "retry": "Failed devices get another attempt.",
    "rollback": "The devices it updated are being sent back.",
    "create": "Created.",
}
# Which verbs a deployment in this state takes; the page's script follows it too.
VERBS: Mapping[str, tuple[str, ...]] = {
    "draft": ("resume", "abort"),
    "scheduled": ("pause", "abort"),
    "running": ("pause", "promote", "abort", "retry", "rollback"),
    "paused": ("resume", "abort", "retry", "rollback"),
    "approval": ("approve", "abort"),  # paused, until a second person says yes
    "complete": ("retry", "rollback"),
    "failed": ("rollback",),
    "aborted": ("rollback",),
}


def page(visit: Visit) -> Response:
    status, before = visit.query.get("status") or None, visit.query.get("before")
    if status is not None and status not in [s.value for s in DeploymentStatus]:
        raise invalid("status", status[:20], f"one of {', '.join(DeploymentStatus)}")
    with visit.context.database.read() as conn:
        rows = deployments.page(conn, limit=PAGE, before=before, status=status)
        totals = looks.totals(conn, [row.id for row in rows])
    more = rows[-1].id if len(rows) == PAGE else None
    return visit.page(
        "deployments.html", rows=rows, totals=totals, status=status or "", more=more,
        statuses=[s.value for s in DeploymentStatus],
    )  # fmt: skip


def show(visit: Visit, wrong: str = "", status: int = 200) -> Response:
    deployment = visit.request.path_params["deployment"]
    with visit.context.database.read() as conn:
        row = find(conn, deployment)
        seen = views.deployment(conn, row)
        chart = live.course(conn, seen, visit.now)
        tally = seen["totals"]
        decided = sum(tally[state] for state in ("complete", "failed", "rolled_back"))
        ill = tally["failed"] + tally["rolled_back"]
        found = explain(conn, row) if ill and decided <= EXPLAIN_AT_ONCE else None
    return visit.page(
        "deployment.html", status, d=seen, chart=chart, verbs=VERBS, why=found, wrong=wrong,
        state=live.state_of(seen),
        parts=live.parts(seen, chart), done=DONE.get(visit.query.get("done", ""), ""), names=live.PARTS,
    )  # fmt: skip


def find(conn: Connection, deployment: str) -> Any:
    row = deployments.find(conn, deployment[:60])
    if row is None:
        raise verbs.unknown(deployment[:60])
    return row


def why(visit: Visit) -> Response:
    """What the devices that failed have in common."""
    with visit.context.database.read() as conn:
        row = find(conn, visit.request.path_params["deployment"])
        found = explain(conn, row)
    return visit.page("why.html", d=row, why=found)


def devices(visit: Visit) -> Response:
    """Every device that was offered something, by name."""
    state = visit.query.get("state") or None
    if state is not None and state not in [s.value for s in UpdateState]:
        raise invalid("state", state[:20], f"one of {', '.join(UpdateState)}")
    with visit.context.database.read() as conn:
        row = find(conn, visit.request.path_params["deployment"])
        found = updates.page(conn, row.id, limit=PAGE, after=visit.query.get("after"), state=state)
    more = found[-1].device_id if len(found) == PAGE else None
    return visit.page(
        "deployment-devices.html", d=row, rows=found, state=state or "", more=more,
        states=[s.value for s in UpdateState],
    )  # fmt: skip


# --- verbs -------------------------------------------------------------------------------------------


def act(visit: Visit) -> Response:
    """One verb; the page again, with what came of it."""
    deployment, verb = visit.request.path_params["deployment"], visit.request.path_params["verb"]
    deed = _DEEDS.get(verb)
    if deed is None:
        raise Rejected("not_found", "There is no such page.", kind=Kind.NOT_FOUND)
    try:
        if verb in _BEFORE:
            _BEFORE[verb](visit, deployment)
        visit.context.write(lambda conn: deed(visit, conn, deployment))
    except Rejected as e:
        if e.kind is Kind.NOT_FOUND:
            raise
        return show(visit, str(e), STATUS[e.kind])
    return visit.go(f"/deployments/{deployment}", done=verb)


def _reason(visit: Visit) -> str:
    reason = visit.form.get("reason", "").strip()
    if len(reason) > 300:
        raise invalid("reason", reason[:40], "at most 300 characters")
    return reason


def _pause(visit: Visit, conn: Connection, deployment: str) -> None:
    verbs.pause(conn, deployment, visit.name, visit.now, _reason(visit))


def _resume(visit: Visit, conn: Connection, deployment: str) -> None:
    verbs.resume(conn, deployment, visit.name, visit.now, threshold_percent=_percent(visit, "threshold"))


def _leave_out(visit: Visit, deployment: str) -> None:
    """Before it is resumed: the cohort that it goes on without."""
    if without := visit.form.get("without", "").strip():
        leave_out(
            visit.context.database,
            deployment,
            (without,),
            visit.now,
            visit.context.deadlines,
            threshold_percent=_percent(visit, "threshold"),
        )


def _percent(visit: Visit, field: str) -> float | None:
    text = visit.form.get(field, "").strip()
    if not text:
        return None
    try:
        found = float(text)
    except ValueError as e:
        raise invalid(field, text[:20], "a number from 0 to 100") from e
    if not 0 <= found <= 100:  # also refuses nan
        raise invalid(field, text[:20], "a number from 0 to 100")
    return found


def _approve(visit: Visit, conn: Connection, deployment: str) -> None:
    verbs.approve(conn, deployment, visit.name, visit.now)


def _promote(visit: Visit, conn: Connection, deployment: str) -> None:
    verbs.promote(conn, deployment, visit.name, visit.now)


def _abort(visit: Visit, conn: Connection, deployment: str) -> None:
    verbs.abort(conn, deployment, visit.name, visit.now, visit.context.deadlines, _reason(visit))


def _retry(visit: Visit, deployment: str) -> None:
    now, context = visit.now, visit.context

    def again(conn: Connection, pk: int, dep: str, attempt: int) -> None:
        order_again(conn, pk, dep, attempt, now)

    retry(context.database, deployment, visit.name, now, context.deadlines, again)


def _done(visit: Visit, conn: Connection, deployment: str) -> None:
    """Nothing is left to do in the deed itself."""


def _rollback(visit: Visit, deployment: str) -> None:
    only = visit.form.get("only", "").strip() or None
    roll_back(visit.context.database, deployment, visit.name, visit.now, visit.context.deadlines, only)


_DEEDS: Mapping[str, Callable[[Visit, Connection, str], None]] = {
    "pause": _pause,
    "resume": _resume,
    "approve": _approve,
    "promote": _promote,
    "abort": _abort,
    "retry": _done,
    "rollback": _done,
}
# What takes a look over the fleet, or many small writes: before the deed, and not in its transaction.
_BEFORE: Mapping[str, Callable[[Visit, str], None]] = {
    "resume": _leave_out,
    "retry": _retry,
    "rollback": _rollback,
}
