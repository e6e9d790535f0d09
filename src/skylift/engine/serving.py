"""How an update's bytes are offered to one device, and the count of how they travelled.

The decision is `core.ways.decide`'s, over what there is at this moment: nobody waits for a delta. What the
device took, and what it passed over with which reason, comes with its report; why the server had no delta for
it is counted at the offer. Both are written behind: a crash loses the last seconds of counting, nothing else.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from skylift.core.ways import MAX_RATIO, Decision, Image, Means, Passed, Piece, Way, decide
from skylift.store import pieces, releases
from skylift.store.db import Connection, Database

_WHY = {
    pieces.REFUSED: Passed.NOT_SMALLER,
    pieces.EVICTED: Passed.EVICTED,
    pieces.FAILED: Passed.FAILED,
}


def decision(
    conn: Connection,
    release_id: str,
    product: str,
    full: Any,
    base_sha256: str | None,
    means: Means,
    max_ratio: float = MAX_RATIO,
) -> Decision:
    """How a device that runs `base_sha256` gets the release's image `full`."""
    there = pieces.offered(conn, release_id, full.device_type)
    others: list[Piece] = []
    missing = Passed.NOT_MADE
    if base_sha256 and all(piece.base_sha256 != base_sha256 for piece in there):
        missing = _missing(conn, release_id, full.device_type, base_sha256)
        if missing is not Passed.UNKNOWN_BASE and means.memory is not None:
            others = pieces.between(conn, product, full.device_type)
    target = Image(full.sha256, full.size)
    return decide(target, there, base_sha256, means, max_ratio, others, missing)


def _missing(conn: Connection, release_id: str, device_type: str, base_sha256: str) -> Passed:
    """Why there is no delta from this image."""
    row = pieces.of_delta(conn, release_id, device_type, base_sha256)
    if row is not None:
        return _WHY.get(row.state, Passed.NOT_MADE)
    return Passed.NOT_MADE if releases.is_image(conn, device_type, base_sha256) else Passed.UNKNOWN_BASE


def told(chosen: Decision) -> dict[str, Any]:
    """What the device reads of it: `delta` or `chain`, and `packed` to fall back to."""
    answer: dict[str, Any] = {}
    if chosen.cost.way is Way.DELTA:
        answer["delta"] = _file(chosen.cost.pieces[0])
    if chosen.cost.way is Way.CHAIN:
        answer["chain"] = [_file(piece) for piece in chosen.cost.pieces]
    if chosen.full.way is Way.PACKED:
        image = chosen.full.pieces[0]
        answer["packed"] = {"codec": image.kind, **_file(image)}
    return answer


def _file(piece: Piece) -> dict[str, Any]:
    found: dict[str, Any] = {
        "url": f"/api/blobs/{piece.sha256}",
        "sha256": piece.sha256,
        "size": piece.size,
    }
    if piece.base_sha256:
        found["base_sha256"] = piece.base_sha256
    more = {"memory": piece.memory, "scratch": piece.scratch, "needs": list(piece.needs)}
    return found | {name: value for name, value in more.items() if value}


# --- counted ----------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Counts in memory until `flush`. `told` hears each at once: (way, reason)."""

    database: Database
    clock: Callable[[], datetime]
    told: Callable[[str, str], None] = lambda way, reason: None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _counted: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _used: dict[str, datetime] = field(default_factory=dict)

    def offered(self, deployment: str, chosen: Decision) -> None:
        """At a first offer: why there is no delta in it, and which files it names."""
        now = self.clock()
        with self._lock:
            for piece in (*chosen.cost.pieces, *chosen.full.pieces):
                self._used[piece.sha256] = now
        if chosen.cost.way not in (Way.DELTA, Way.CHAIN) and (why := chosen.passed.get(Way.DELTA)):
            self.note(deployment, Way.DELTA, why)

    def note(self, deployment: str, way: Way, reason: Passed | None = None) -> None:
        """A device took this way, or passed it over."""
        said = reason.value if reason else ""
        key = (deployment, way.value, said)
        with self._lock:
            self._counted[key] = self._counted.get(key, 0) + 1
        self.told(way.value, said)

    def flush(self) -> None:
        """Write it down. What cannot be written now stays for the next time."""
        with self._lock:
            counted, self._counted = self._counted, {}
            used, self._used = self._used, {}
        if not counted and not used:
            return

        def deed(conn: Connection) -> None:
            pieces.count(conn, counted)
            pieces.used(conn, used)

        try:
            self.database.write(deed)
        except BaseException:
            with self._lock:
                for key, n in counted.items():
                    self._counted[key] = self._counted.get(key, 0) + n
                self._used = used | self._used
            raise


# --- shown ------------------------------------------------------------------------------------------------


def table(conn: Connection, release: Any, max_ratio: float) -> list[dict[str, Any]]:
    """Of every image that devices run: how they would get this release now, the most devices first."""
    fulls = {row.device_type: row for row in releases.artifacts_of(conn, release.id) if row.kind == "full"}
    rows: list[dict[str, Any]] = []
    for crowd in pieces.crowds(conn, sorted(fulls)):
        full = fulls[crowd.device_type]
        if crowd.image_sha256 == full.sha256 or crowd.version == release.version:
            continue
        made = decision(conn, release.id, release.product, full, crowd.image_sha256, crowd.means, max_ratio)
        rows.append(
            {
                "device_type": crowd.device_type,
                "runs": crowd.version,
                "devices": crowd.devices,
                "gives": crowd.means.memory,
                "way": made.cost.way.value,
                "bytes": made.cost.bytes,
                "memory": made.cost.memory,
                "flash": made.cost.flash,
                "seconds": round(made.cost.seconds, 1),
                "words": made.words,
            }
        )
    rows.sort(key=lambda row: (-row["devices"], row["device_type"], row["runs"] or "", row["way"]))
    return rows[:MOST_SHOWN]


MOST_SHOWN = 50


def made(conn: Connection, release_id: str) -> list[dict[str, Any]]:
    """The release's deltas and packed images, whatever became of them."""
    return [
        {
            "device_type": row.device_type,
            "kind": row.kind,
            "from": row.base_version or None,
            "state": row.state,
            "words": row.words,
            "devices": row.devices,
            "size": row.size,
            "seconds": None if row.seconds is None else round(row.seconds, 1),
            "made_at": row.made_at.isoformat() if row.made_at else None,
            "used_at": row.used_at.isoformat() if row.used_at else None,
        }
        for row in pieces.of_release(conn, release_id)
    ]


def travelled(conn: Connection, release_id: str) -> dict[str, Any]:
    """How devices got this release: by way, and by way and reason what was passed over."""
    counted = pieces.counted(conn, release_id)
    passed: dict[str, dict[str, int]] = {}
    for (way, reason), n in sorted(counted.items()):
        if reason:
            passed.setdefault(way, {})[reason] = n
    return {"taken": {way: n for (way, reason), n in sorted(counted.items()) if not reason}, "passed": passed}
