"""Which deltas and packed images are wanted: planned when a release is published, and looked at again.

Deltas to a release from the product's recent releases, and from older ones that devices run, both ways,
because a rollback is an update too; and every image they lead to, packed. What is put down here is made by
`engine.workshop`, the hottest first; doing it again changes nothing. A device never waits for one: until it
is there, and where it fails, the full image is sent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from skylift.core.deltas import (
    MAX_RATIO,
    RECENT,
    Cached,
    Pair,
    in_order,
    is_wanted,
    wanted_again,
    worth_it,
)
from skylift.core.ways import chain
from skylift.firmware import packed
from skylift.store import devices, pieces, releases
from skylift.store.db import Connection, Database
from skylift.store.pieces import Wanted

AGAIN_EVERY = timedelta(minutes=5)
MOST_BASES = 50  # older releases of a product that are looked at


@dataclass(frozen=True, slots=True)
class DeltaPlanner:
    """The outbox's `deltas` handler, and a chore. `changed` is told when there is something to make."""

    database: Database
    clock: Callable[[], datetime]
    max_ratio: float = MAX_RATIO  # of the compressed full image
    budget: int = 1 << 62  # bytes of the cache
    changed: Callable[[], None] = lambda: None

    def __call__(self, payload: dict[str, Any]) -> None:
        """Put down every delta around one release, and its image packed."""
        self._look([payload["release"]])

    def again(self, now: datetime) -> None:
        """The newest releases once more: the fleet has moved on, and what was cold may be hot."""
        with self.database.read() as conn:
            newest = releases.newest_images(conn)
        self._look(newest)
        with self.database.read() as conn:
            counts = _counts(conn)
        self.database.write(lambda conn: pieces.serve(conn, counts))
        with self.database.read() as conn:
            hot = self._hot(conn)
        self._want(hot)

    def _look(self, release_ids: list[str]) -> None:
        """Reads beside everybody, writes what is new: a pass over a large fleet keeps nobody waiting."""
        with self.database.read() as conn:
            wanted = [one for release_id in release_ids for one in _wanted(conn, release_id)]
            better = self._better(conn)
        self.database.write(lambda conn: pieces.want(conn, wanted, self.clock()))
        self._want(better)

    def _want(self, pks: list[int]) -> None:
        if pks:
            self.database.write(lambda conn: pieces.change(conn, pks, pieces.WANTED, self.clock()))
        self.changed()

    def _better(self, conn: Connection) -> list[int]:
        """What was refused by another `max_ratio`, or before its image was packed."""
        found = []
        for row in pieces.in_state(conn, pieces.REFUSED):
            sizes = [one.size for one in pieces.packed_of(conn, row.release_id, row.device_type) if one.size]
            measured = row.kind == pieces.DELTA and row.size and sizes
            if measured and worth_it(row.size, min(sizes), self.max_ratio):
                found.append(row.pk)
        return found

    def _hot(self, conn: Connection) -> list[int]:
        """What was evicted, and would stay today."""
        gone = pieces.in_state(conn, pieces.EVICTED)
        there = [cached(row) for row in pieces.in_state(conn, pieces.MADE)] if gone else []
        return [int(key) for key in wanted_again(map(cached, gone), there, self.budget)]


def _counts(conn: Connection) -> dict[int, int]:
    """How many devices each file serves, where that has changed."""
    rows = pieces.in_state(conn, *_ALL)
    running = devices.by_version(conn, {row.device_type for row in rows}) if rows else {}
    now = {row.pk: _served(row, running) for row in rows}
    return {row.pk: now[row.pk] for row in rows if row.devices != now[row.pk]}


_ALL = (pieces.WANTED, pieces.MAKING, pieces.MADE, pieces.REFUSED, pieces.FAILED, pieces.EVICTED)


def cached(row: Any) -> Cached:
    """A row of the cache as `core.deltas` looks at it."""
    used = row.used_at or row.made_at
    return Cached(str(row.pk), row.size or 0, row.devices, used.timestamp() if used else 0.0)


def _served(row: Any, running: Mapping[tuple[str, str], int]) -> int:
    """Devices that a file is for: those on its base; of a packed image all of its type."""
    if row.kind == pieces.DELTA:
        return running.get((row.device_type, row.base_version), 0)
    return sum(count for (device_type, _), count in running.items() if device_type == row.device_type)


def _wanted(conn: Connection, release_id: str) -> list[Wanted]:
    """Everything around one release, the hottest first."""
    release = releases.find(conn, release_id)
    if release is None or release.kind != "image" or release.status != releases.PUBLISHED:
        return []
    fulls = [row for row in releases.artifacts_of(conn, release.id) if row.kind == "full"]
    running = devices.by_version(conn, {full.device_type for full in fulls})
    found: dict[Pair, Wanted] = {}
    images: dict[tuple[str, str], Any] = {(release.id, full.device_type): full for full in fulls}
    others = releases.recent_images(conn, release.product, MOST_BASES + 1)
    recent = {other.id for other in others[: RECENT + 1]}
    for other in others:
        if other.id == release.id:
            continue
        for full in fulls:
            old = releases.full_artifact(conn, other.id, full.device_type)
            if old is None or old.sha256 == full.sha256:
                continue
            count = running.get((full.device_type, other.version), 0)
            chained = other.id not in recent and _is_chained(conn, release, old, full)
            if is_wanted(count, recent=other.id in recent, chained=chained):
                found[Pair(other.version, release.version, full.device_type, back=False)] = Wanted(
                    release.id, full.device_type, pieces.DELTA, old.sha256, other.version, False, count
                )
            if other.id in recent:
                images[other.id, full.device_type] = old
                here = running.get((full.device_type, release.version), 0)
                found[Pair(release.version, other.version, full.device_type, back=True)] = Wanted(
                    other.id, full.device_type, pieces.DELTA, full.sha256, release.version, True, here
                )
    deltas = [found[pair] for pair in in_order(found, running)]
    return [*_packed(conn, images, running), *deltas]


def _is_chained(conn: Connection, release: Any, old: Any, full: Any) -> bool:
    between = pieces.between(conn, release.product, full.device_type)
    return chain(old.sha256, full.sha256, between) is not None


def _packed(
    conn: Connection, images: Mapping[tuple[str, str], Any], running: Mapping[tuple[str, str], int]
) -> list[Wanted]:
    """Every image by xz; by zstd too, where a device of the type takes that and not xz."""
    if not images:
        return []
    asked = pieces.codecs_of(conn, {device_type for _, device_type in images})
    found = []
    for release_id, device_type in images:
        served = sum(count for (kind, _), count in running.items() if kind == device_type)
        said = asked.get(device_type, set())
        quick = packed.available("zstd") and any("zstd" in one and "xz" not in one for one in said)
        codecs = ("xz", "zstd") if quick else ("xz",)
        found += [Wanted(release_id, device_type, codec, devices=served) for codec in codecs]
    return found
