"""Deltas: after a release is published, patches between it and the product's recent releases, both ways.

Both ways, because a rollback is an update too; from what most devices run first. A delta that is not worth it
(`core.deltas`) is not kept; doing it again changes nothing, so a crash in the middle costs only the time. A
device never waits for one: until it is there, and where it fails, the full image is sent.
"""

import lzma
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_bytes
from typing import Any

from skylift.core.deltas import MAX_RATIO, Pair, in_order, surely_worth_it, worth_it
from skylift.core.ids import mint
from skylift.engine.blobs import Blobs, put_file
from skylift.firmware import apart, native
from skylift.firmware.delta import DeltaError
from skylift.firmware.layered import MOST_IMAGE
from skylift.store import devices, events, releases
from skylift.store.db import Connection, Database

RECENT = 5  # releases to make deltas from: who is further behind takes the full image
# The core takes about six times a small image and at most 0.8 GB for a large one, in a process of its own
# (docs/decisions/delta-layers.md); HDiffPatch, which is used where the core was not built, about 12 times
# the old
# image: 64 MB keeps a server below 1 GB.
MAX_IMAGE = MOST_IMAGE
MAX_IMAGE_HDIFF = 64 << 20
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class DeltaMaker:
    """The outbox's `deltas` handler."""

    database: Database
    blobs: Blobs
    clock: Callable[[], datetime]
    max_ratio: float = MAX_RATIO  # of the compressed full image

    def __call__(self, payload: dict[str, Any]) -> None:
        """Make every missing delta around one release."""
        with self.database.read() as conn:
            pairs = _pairs(conn, payload["release"])
        for old, new, old_version in pairs:
            self._make(old, new, old_version)

    def _make(self, old: Any, new: Any, old_version: str) -> None:
        most = MAX_IMAGE if native.available() else MAX_IMAGE_HDIFF
        if max(old.size, new.size) > most:
            self._say(new, {"base_version": old_version, "skipped": f"larger than {most} bytes"})
            return
        with (
            tempfile.TemporaryDirectory(dir=self.blobs.scratch) as folder,
            self.blobs.local(old.sha256) as before,
            self.blobs.local(new.sha256) as after,
        ):
            path = Path(folder) / "delta"
            try:
                made = apart.create(before, after, path)
                if made is not None:
                    _intact(made, old.sha256, new.sha256)
            except DeltaError as wrong:
                self._say(new, {"base_version": old_version, "skipped": str(wrong)})
                return
            if made is None or not self._worth_it(made["patch_size"], after, new.size):
                skipped = f"not below {self.max_ratio:g} of the full image, compressed"
                self._say(new, {"base_version": old_version, "skipped": skipped})
                return
            stored = put_file(self.blobs, path)
        self.database.write(lambda conn: self._add(conn, old, new, old_version, stored.sha256, made))

    def _worth_it(self, patch: int, image: Path, size: int) -> bool:
        if surely_worth_it(patch, size, self.max_ratio):
            return True
        return worth_it(patch, min(size, _compressed(image)), self.max_ratio)

    def _add(
        self, conn: Connection, old: Any, new: Any, old_version: str, sha256: str, made: dict[str, Any]
    ) -> None:
        if releases.delta_artifact(conn, new.release_id, new.device_type, old.sha256) is not None:
            return
        now = self.clock()
        releases.insert_artifact(
            conn,
            id=mint("art", now, token_bytes(5)),
            release_id=new.release_id,
            device_type=new.device_type,
            kind="delta",
            base_sha256=old.sha256,
            base_version=old_version,
            sha256=sha256,
            size=made["patch_size"],
            facts={name: made[name] for name in ("savings_percent", "memory", "scratch", "needs")},
            created_at=now,
        )

    def _say(self, new: Any, data: dict[str, Any]) -> None:
        said = {"release": new.release_id, "device_type": new.device_type, **data}
        self.database.write(lambda conn: events.say(conn, "delta", said, self.clock()))


def _pairs(conn: Connection, release_id: str) -> list[tuple[Any, Any, str]]:
    """(old artifact, new artifact, old version) for every delta that is still missing."""
    release = releases.find(conn, release_id)
    if release is None or release.kind != "image":
        return []
    found: dict[Pair, tuple[Any, Any, str]] = {}
    for other in releases.recent_images(conn, release.product, RECENT + 1):
        if other.id == release.id:
            continue
        for old_release, new_release in ((other, release), (release, other)):
            for new in releases.artifacts_of(conn, new_release.id):
                old = releases.full_artifact(conn, old_release.id, new.device_type)
                if new.kind != "full" or old is None or old.sha256 == new.sha256:
                    continue
                if releases.delta_artifact(conn, new_release.id, new.device_type, old.sha256) is None:
                    back = new_release is not release
                    pair = Pair(old_release.version, new_release.version, new.device_type, back)
                    found[pair] = (old, new, old_release.version)
    running = devices.by_version(conn, {pair.device_type for pair in found})
    return [found[pair] for pair in in_order(found, running)]


def _intact(made: dict[str, Any], old_sha256: str, new_sha256: str) -> None:
    """Raises `DeltaError` when the images read were not the ones the store promised."""
    if (made["old_version_hash"], made["new_version_hash"]) != (old_sha256, new_sha256):
        raise DeltaError("a stored image is not what its digest says")


def _compressed(image: Path) -> int:
    """About what the image takes when it travels compressed, in bytes: by a quick LZMA."""
    compressor, size = lzma.LZMACompressor(preset=1), 0
    with image.open("rb") as file:
        while piece := file.read(_PIECE):
            size += len(compressor.compress(piece))
    return size + len(compressor.flush())
