"""The fleet at a glance: devices by version and health, what runs, what needs a person.

For the overview and for `skylift top`: one count, one list of needs, one set of words.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from threading import Lock
from time import perf_counter
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from skylift.api import views
from skylift.api.auth import Viewer
from skylift.api.context import Context, context_of
from skylift.core.telling import expiring, standing
from skylift.engine import gathering
from skylift.store import deployments, looks, releases
from skylift.store.db import Connection
from skylift.store.looks import Heard

router = APIRouter(tags=["devices"])
RUNNING = ("running", "scheduled", "paused")
MOST = 20  # deployments of each of these that are shown
COST = 50  # the fleet is counted in at most one of so many parts of the time
FRESH_S = 3.0


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


def needs(conn: Connection, trust: dict[str, Any], now: datetime) -> Iterator[Need]:
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
        sentence = expiring(f"{role['repo']}/{role['role']}", role["days_left"])
        if role["days_left"] < 0:
            yield Need("expired", sentence, "/trust")
        elif role["renew"] and role["role"] not in ("snapshot", "timestamp"):
            yield Need("expires", sentence, "/trust")
    for row in releases.page(conn, limit=20):
        if row.status == "draft" and now - row.created_at < timedelta(days=30):
            yield Need(
                "draft", f"{row.product} {row.version} is a draft: upload and seal it", f"/releases/{row.id}"
            )


@router.get("/api/fleet")
def glance(request: Request, who: Viewer) -> Any:
    """Devices by version and last contact (counted a moment ago: `at`), live deployments with their phases,
    and what needs a person."""
    context = context_of(request)
    counted = fleet(context)
    with context.database.read() as conn:
        rows = [row for status in RUNNING for row in deployments.page(conn, limit=MOST, status=status)]
        live = [views.deployment(conn, row) for row in rows]
        waiting = list(needs(conn, gathering.status(conn, context.clock()), context.clock()))
    said = [{"what": need.what, "sentence": need.sentence, "page": f"/ui{need.href}"} for need in waiting]
    return {
        "at": views.instant(counted.at),
        "devices": counted.devices,
        "versions": [
            {"device_type": kind, "version": version, "devices": n} for kind, version, n in counted.versions
        ],
        "heard": {**asdict(counted.heard), "never": counted.never},
        "deployments": live,
        "needs": said,
    }
