"""The workshop: makes deltas and packed images in the background, within limits, the hottest first.

Each is made in a process of its own (`firmware.apart`), bounded in memory and time; a few at once, as the
settings say. Who makes one holds a short lease on its row and renews it until the end (`engine.lease`): a
server that is killed loses it within the minute, and another goes on. What is made goes into the cache: the
files of every product share one budget of bytes, and what fewest devices need gives way (`core.deltas.kept`).
Its blob is removed later, when nobody fetches it any more (`engine.unblob`).

A delta is measured by the image as a compressor leaves it, so packed images come first. What is not worth it,
or fails, is put down with the reason; it is tried again a few times only where it failed.
"""

import lzma
import secrets
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from secrets import token_bytes
from time import monotonic
from typing import Any

import structlog

from skylift.core.deltas import MAX_RATIO, Cached, kept, worth_it
from skylift.core.errors import SkyliftError
from skylift.core.ids import mint
from skylift.engine import unblob
from skylift.engine.blobs import Blobs, put_file
from skylift.engine.deltas import cached
from skylift.engine.lease import Held
from skylift.engine.poked import Poked, survived
from skylift.firmware import apart, native, packed
from skylift.firmware.delta import DeltaError
from skylift.firmware.layered import MOST_IMAGE
from skylift.store import events, outbox, pieces, releases
from skylift.store.db import Connection, Database

LOG = structlog.get_logger("skylift.workshop")
# The core takes about six times a small image and at most 0.8 GB for a large one, in a process of its own
# (docs/decisions/delta-layers.md); HDiffPatch, which is used where the core was not built, about 12 times
# the old image: 64 MB keeps a server below 1 GB.
MAX_IMAGE = MOST_IMAGE
MAX_IMAGE_HDIFF = 64 << 20
SAVES = 0.95  # of the image: what packs to more is not kept
ATTEMPTS = 3  # until a file that cannot be made is left alone
LEASE_S = 60.0  # that a row stays with a server that has died
AGAIN = timedelta(minutes=10)  # after a failure
SOON = timedelta(seconds=5)  # until what it is measured by is there
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the workshop may take. `workers`: at once; `memory` in bytes and `seconds`: each; `cache`: bytes
    of all that it keeps; `lease`: seconds until others take over what a dead server was at."""

    workers: int = 1
    memory: int | None = None
    seconds: float = 1800.0
    cache: int = 1 << 62
    max_ratio: float = MAX_RATIO
    lease: float = LEASE_S


@dataclass(frozen=True, slots=True)
class _Made:
    """A file that was made."""

    path: Path
    size: int
    facts: dict[str, Any] = field(default_factory=dict)


class _NotYet(Exception):
    """What it is measured by is still to be made."""


class _Refused(Exception):
    """It saves too little."""

    def __init__(self, words: str, size: int | None) -> None:
        super().__init__(words)
        self.size = size


class Workshop:
    """Threads, each at one file. `poke` makes them look at once; `stop` ends what they are at, which is made
    again at the next start."""

    def __init__(
        self, database: Database, blobs: Blobs, clock: Callable[[], datetime], bounds: Bounds | None = None
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._poked = Poked()
        self._stopping = False
        self._at: set[apart.Limits] = set()
        self._threads = [
            threading.Thread(target=self._live, name=f"skylift-workshop-{number}", daemon=True)
            for number in range(self._bounds.workers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._poked.set()
        for limits in list(self._at):
            limits.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def poke(self) -> None:
        self._poked.set()

    def _live(self) -> None:
        while not self._stopping:
            self._poked.clear()
            with survived(LOG, "workshop failed"):
                while not self._stopping and self.work():
                    pass
            self._poked.rest()

    def work(self) -> bool:
        """Make the file that is wanted most; False when nothing is."""
        now = self._clock()
        with self._database.read() as conn:
            if not pieces.is_due(conn, now):
                return False
        token = secrets.token_hex(8)
        until = now + timedelta(seconds=self._bounds.lease)
        row = self._database.write(lambda conn: pieces.lease(conn, token, until, now))
        if row is None:
            return False
        limits = apart.Limits(self._bounds.memory, self._bounds.seconds)
        held = Held(self._database, self._clock, row.pk, token, self._bounds.lease, limits.stop)
        with held, _Watched(self, limits):
            self._make(row, token, limits)
        return True

    # --- one file ----------------------------------------------------------------------------------

    def _make(self, row: Any, token: str, limits: apart.Limits) -> None:
        began = monotonic()
        with tempfile.TemporaryDirectory(dir=self._blobs.scratch) as folder:
            try:
                made = self._made(row, Path(folder) / "made", limits)
            except _NotYet:
                self._end(row, token, pieces.WANTED, due_at=self._clock() + SOON, attempts=row.attempts)
                return
            except _Refused as e:
                self._end(row, token, pieces.REFUSED, words=str(e), size=e.size)
                return
            except DeltaError as e:
                self._fail(row, token, str(e))
                return
            except SkyliftError as e:  # the store of blobs is away
                self._end(row, token, pieces.WANTED, due_at=self._clock() + AGAIN, attempts=row.attempts)
                LOG.warning("workshop waits", error=str(e))
                return
            self._keep(row, token, made, monotonic() - began)

    def _made(self, row: Any, path: Path, limits: apart.Limits) -> _Made:
        with self._database.read() as conn:
            full = releases.full_artifact(conn, row.release_id, row.device_type)
            images = pieces.packed_of(conn, row.release_id, row.device_type)
        if full is None:
            raise DeltaError("its image is gone")
        if row.kind == pieces.DELTA:
            return self._delta(row, full, images, path, limits)
        return self._packed(row, full, path, limits)

    def _packed(self, row: Any, full: Any, path: Path, limits: apart.Limits) -> _Made:
        with self._blobs.local(full.sha256) as image:
            size = apart.pack(image, path, row.kind, limits)
            _intact(path, row.kind, full)
        if size >= SAVES * full.size:
            raise _Refused(f"packed it has {size} of {full.size} bytes", size)
        return _Made(path, size, {"memory": packed.memory(row.kind, full.size)})

    def _delta(self, row: Any, full: Any, images: list[Any], path: Path, limits: apart.Limits) -> _Made:
        if any(_is_first(image) for image in images):
            raise _NotYet
        with self._blobs.local(row.base_sha256) as old, self._blobs.local(full.sha256) as new:
            most = MAX_IMAGE if native.available() else MAX_IMAGE_HDIFF
            if max(_size(old), full.size) > most:
                raise _Refused(f"larger than {most} bytes", None)
            made = apart.create(old, new, path, limits)
            if made is not None and _hashes(made) != (row.base_sha256, full.sha256):
                raise DeltaError("a stored image is not what its digest says")
            compressed = min([full.size, *_sizes(images)]) if _sizes(images) else _compressed(new)
        size = made["patch_size"] if made else None
        if made is None or not worth_it(made["patch_size"], compressed, self._bounds.max_ratio):
            ratio = self._bounds.max_ratio
            raise _Refused(f"not below {ratio:g} of the full image, compressed", size)
        facts = {name: made[name] for name in ("savings_percent", "memory", "scratch", "needs")}
        return _Made(path, made["patch_size"], facts)

    # --- how it ends -------------------------------------------------------------------------------

    def _keep(self, row: Any, token: str, made: _Made, seconds: float) -> None:
        """Into the cache: the artifact and its row in one transaction, and what gives way for it."""
        stored = put_file(self._blobs, made.path)
        facts = {"size": stored.size, "sha256": stored.sha256, "seconds": seconds, "words": ""}

        def deed(conn: Connection) -> bool:
            now = self._clock()
            there = {str(one.pk): one for one in pieces.in_state(conn, pieces.MADE)}
            stays = kept([*map(cached, there.values()), _new(row, stored.size, now)], self._bounds.cache)
            for key, one in there.items():
                if key not in stays:
                    _evict(conn, one, now)
            if str(row.pk) not in stays:
                pieces.settle(conn, row.pk, token, pieces.EVICTED, **facts)
                outbox.put(conn, "unblob", {"sha256": stored.sha256}, now, now)
                return False
            if not pieces.settle(conn, row.pk, token, pieces.MADE, made_at=now, **facts):
                return False
            _name(conn, row, stored, made.facts, now)
            return True

        if self._database.write(deed) and not self._blobs.has(stored.sha256):
            put_file(self._blobs, made.path)  # an older one of these bytes was just being removed

    def _fail(self, row: Any, token: str, words: str) -> None:
        if self._stopping:  # it was ended by `stop`
            self._end(row, token, pieces.WANTED, due_at=self._clock(), attempts=row.attempts)
            return
        again = row.attempts + 1 < ATTEMPTS
        state = pieces.WANTED if again else pieces.FAILED
        self._end(row, token, state, words=words, due_at=self._clock() + AGAIN)

    def _end(self, row: Any, token: str, state: str, **values: Any) -> None:
        def deed(conn: Connection) -> None:
            held = pieces.settle(conn, row.pk, token, state, **values)
            if held and values.get("words"):
                said = {
                    "release": row.release_id,
                    "device_type": row.device_type,
                    "kind": row.kind,
                    "base_version": row.base_version,
                    "skipped": values["words"],
                }
                events.say(conn, "delta", said, self._clock())

        self._database.write(deed)


class _Watched:
    """Limits of a process that `stop` knows while it runs."""

    def __init__(self, workshop: Workshop, limits: apart.Limits) -> None:
        self._workshop, self._limits = workshop, limits

    def __enter__(self) -> None:
        self._workshop._at.add(self._limits)
        if self._workshop._stopping:
            self._limits.stop()

    def __exit__(self, *_: object) -> None:
        self._workshop._at.discard(self._limits)


def _evict(conn: Connection, piece: Any, now: datetime) -> None:
    pieces.change(conn, [piece.pk], pieces.EVICTED, now)
    pieces.remove_artifact(conn, piece)
    unblob.fetched(conn, piece.sha256, now)


def _new(row: Any, size: int, now: datetime) -> Cached:
    return Cached(str(row.pk), size, row.devices, now.timestamp())


def _name(conn: Connection, row: Any, stored: Any, facts: dict[str, Any], now: datetime) -> None:
    pieces.remove_artifact(conn, row)
    releases.insert_artifact(
        conn,
        id=mint("art", now, token_bytes(5)),
        release_id=row.release_id,
        device_type=row.device_type,
        kind=row.kind,
        base_sha256=row.base_sha256,
        base_version=row.base_version,
        sha256=stored.sha256,
        size=stored.size,
        facts=facts,
        created_at=now,
    )


def _intact(path: Path, codec: str, full: Any) -> None:
    """Raises `DeltaError` when what was packed is not the image that the store promised."""
    from hashlib import sha256

    seen = sha256()
    with path.open("rb") as file:
        for piece in packed.unpack(file, codec, full.size):
            seen.update(piece)
    if seen.hexdigest() != full.sha256:
        raise DeltaError("a stored image is not what its digest says")


def _is_first(image: Any) -> bool:
    """Whether a packed image is still to be made, for the first time: nothing waits for a second one."""
    return (image.state == pieces.WANTED and not image.attempts) or (
        image.state == pieces.MAKING and image.attempts == 1
    )


def _hashes(made: dict[str, Any]) -> tuple[str, str]:
    return made["old_version_hash"], made["new_version_hash"]


def _sizes(images: list[Any]) -> list[int]:
    return [image.size for image in images if image.size]


def _size(image: Path) -> int:
    with suppress(FileNotFoundError):
        return image.stat().st_size
    raise DeltaError("a stored image is gone")


def _compressed(image: Path) -> int:
    """About what the image takes when it travels compressed, in bytes, where packing it failed: by a quick
    LZMA."""
    compressor, size, raw = lzma.LZMACompressor(preset=1), 0, 0
    with image.open("rb") as file:
        while piece := file.read(_PIECE):
            raw += len(piece)
            size += len(compressor.compress(piece))
    return min(raw, size + len(compressor.flush()))
