"""The overview: the fleet by version and health, what runs, what needs a person; and trust, role by role.

An empty server leads by the hand instead: keys, first release, first device, first deployment.
"""

from starlette.responses import Response

from skylift.api.dashboard.visit import Visit, server_of
from skylift.api.fleet import RUNNING, fleet
from skylift.api.fleet import needs as waiting_for_people
from skylift.engine import gathering, log, sample, witness
from skylift.store import deployments, looks, releases

WITNESSES = 20  # checkpoints as devices saw them; those of another log come first
VERSIONS = 8  # bars on the overview; the rest in one


def page(visit: Visit) -> Response:
    counted = fleet(visit.context)
    with visit.context.database.read() as conn:
        trust = gathering.status(conn, visit.now)
        newest = releases.page(conn, limit=5)
        running = [row for status in RUNNING for row in deployments.page(conn, limit=20, status=status)]
        recent = deployments.page(conn, limit=5)
        totals = looks.totals(conn, [row.id for row in (*running, *recent)])
        needs = list(waiting_for_people(conn, trust, visit.now))
        samples = sample.is_on(conn)
        fits = sorted(deployments.device_types(conn, newest[0].id)) if newest else []
    ready = {
        "roots": trust["ready"],
        "release": any(row.status == "published" for row in newest),
        "device": counted.devices > 0,
        "deployment": bool(recent),
    }
    return visit.page(
        "overview.html",
        fleet=counted,
        versions=counted.versions[:VERSIONS],
        others=sum(n for *_, n in counted.versions[VERSIONS:]),
        running=running,
        recent=[row for row in recent if row.status not in RUNNING],
        totals=totals,
        needs=needs,
        samples=samples,
        kind=fits[0] if fits else "sensor-v2",
        ready=ready,
        newest=newest,
        server=server_of(visit.request),
    )


def sample_fleet(visit: Visit) -> Response:
    """The sample fleet on or off."""
    form, context = visit.form, visit.context
    if form.get("what") == "off":
        context.write(lambda conn: sample.switch_off(conn, visit.name, visit.now, context.deadlines))
    else:
        kind = form.get("device_type", "").strip()
        context.write(lambda conn: sample.switch_on(conn, kind, visit.name, visit.now))
    return visit.go("/")


def trust(visit: Visit) -> Response:
    """Roles with their versions and expiries, what is half signed, the log, the server's own keys."""
    online = visit.context.online
    with visit.context.database.read() as conn:
        status = gathering.status(conn, visit.now)
        told = log.checkpoint(conn, online, 0, visit.now) if status["ready"] else None
        seen = witness.view(conn, WITNESSES)
    return visit.page("trust.html", trust=status, online=online.public(), log=told, witnessed=seen)
