"""The overview: the fleet by version and health, what runs, what needs a person; and trust, role by role.

An empty server leads by the hand instead: keys, first release, first device, first deployment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from time import perf_counter
from typing import Any

from starlette.responses import Response

from skylift.api.context import Context
from skylift.api.dashboard.visit import Visit, server_of
from skylift.core.telling import standing
from skylift.engine import gathering, log, sample, witness
from skylift.store import deployments, looks, releases
from skylift.store.db import Connection
from skylift.store.looks import Heard

RUNNING = ("running", "scheduled", "paused")
COST = 50  # the fleet is counted in at most one of so many parts of the time
FRESH_S = 3.0
WITNESSES = 20  # checkpoints as devices saw them; those of another log come first
VERSIONS = 8  # bars on the overview; the rest in one


@dataclass(frozen=True, slots=True)
class Fleet:
    """The fleet, counted at a moment."""

    at: datetime
    devices: int
    versions: list[tuple[str, str | None, int]]
    heard: Heard

    @property
    def never(self) -> int:
        told = self.heard.hour + self.heard.day + self.heard.month + self.heard.longer
        return max(0, self.devices - told)


class _Counted:
    """The latest count, for a while: a million devices are not counted for every page. One per server."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._fleet: Fleet | None = None
        self._of: Context | None = None
        self._until = 0.0

    def get(self, context: Context) -> Fleet:
        with self._lock:
            if self._fleet is None or self._of is not context or perf_counter() >= self._until:
                began, now = perf_counter(), context.clock()
                with context.database.read() as conn:
                    versions = sorted(looks.census(conn), key=lambda row: (-row[2], row[0], row[1] or ""))
                    found = Fleet(now, sum(n for *_, n in versions), versions, looks.heard(conn, now))
                self._fleet, self._of = found, context
                self._until = perf_counter() + max(FRESH_S, COST * (perf_counter() - began))
            return self._fleet


_COUNTED = _Counted()


def fleet(context: Context) -> Fleet:
    """The fleet as it was a moment ago."""
    return _COUNTED.get(context)


@dataclass(frozen=True, slots=True)
class Need:
    """Something that waits for a person: what, in a sentence, and where."""

    what: str
    sentence: str
    href: str


def page(visit: Visit) -> Response:
    counted = fleet(visit.context)
    with visit.context.database.read() as conn:
        trust = gathering.status(conn, visit.now)
        newest = releases.page(conn, limit=5)
        running = [row for status in RUNNING for row in deployments.page(conn, limit=20, status=status)]
        recent = deployments.page(conn, limit=5)
        totals = looks.totals(conn, [row.id for row in (*running, *recent)])
        needs = list(_needs(conn, trust, visit.now))
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


def _needs(conn: Connection, trust: dict[str, Any], now: datetime) -> Iterator[Need]:
    for row in deployments.page(conn, limit=20, status="paused"):
        yield Need(
            "paused",
            standing(row.product, row.version, row.status, row.status_reason),
            f"/deployments/{row.id}",
        )
    for waiting in trust["pending"]:
        missing = waiting["threshold"] - waiting["signatures"]
        keys = "signature is" if missing == 1 else "signatures are"
        said = f"{waiting['role']} version {waiting['version']}: {missing} more {keys} needed"
        first = waiting["releases"][0] if waiting["releases"] else ""
        yield Need("half signed", said, f"/releases/{first}" if first else "/trust")
    for role in trust["roles"]:
        if role["days_left"] < 0:
            yield Need("expired", f"{role['repo']}/{role['role']} has expired", "/trust")
        elif role["renew"] and role["role"] not in ("snapshot", "timestamp"):
            yield Need(
                "expires", f"{role['repo']}/{role['role']} expires in {role['days_left']} days", "/trust"
            )
    for row in releases.page(conn, limit=20):
        if row.status == "draft" and now - row.created_at < timedelta(days=30):
            yield Need(
                "draft", f"{row.product} {row.version} is a draft: upload and seal it", f"/releases/{row.id}"
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
