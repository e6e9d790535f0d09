"""Blobs: bytes by their SHA-256, in a directory. Written under a temporary name, fsynced, renamed.

What is there under a digest is complete and right; whatever a crash left behind has a temporary name and is
swept at the next start.
"""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from skylift.core.errors import Kind, Rejected, Unavailable

LEFTOVER_S = 3600.0  # an upload that lives brings bytes more often, a delta takes minutes


@dataclass(frozen=True, slots=True)
class Stored:
    """What was stored."""

    sha256: str
    size: int


class Intake:
    """One upload on its way in: write chunks, then `keep`; `drop` (or a crash) leaves nothing behind."""

    def __init__(self, store: "BlobStore", limit: int) -> None:
        self._store = store
        self._limit = limit
        self._path = store.incoming / secrets.token_hex(8)
        self._file: BinaryIO = self._path.open("xb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Raises `Rejected` past the limit, `Unavailable` when the disk is full."""
        self.size += len(chunk)
        if self.size > self._limit:
            raise Rejected(
                "too_large",
                f"body is more than {self._limit} bytes: larger than this server takes",
                kind=Kind.TOO_LARGE,
                field="body",
                value=self.size,
                rule=f"at most {self._limit} bytes",
            )
        with _disk():
            self._file.write(chunk)
        self._hash.update(chunk)

    def digest(self) -> Stored:
        """What has come in so far."""
        return Stored(self._hash.hexdigest(), self.size)

    def path(self) -> Path:
        """The bytes as they lie there, for a look before they are kept."""
        with _disk():
            self._file.flush()
        return self._path

    def keep(self) -> Stored:
        """Make it durable under its digest."""
        stored = self.digest()
        target = self._store.path(stored.sha256)
        with _disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if not target.parent.exists():
                target.parent.mkdir(exist_ok=True)
                _fsync_directory(target.parent.parent)
            os.replace(self._path, target)
            _fsync_directory(target.parent)
        return stored

    def drop(self) -> None:
        """Forget it; harmless after `keep`."""
        with suppress(OSError):  # what a full disk did not take is not wanted any more
            self._file.close()
        self._path.unlink(missing_ok=True)


@contextmanager
def _disk() -> Iterator[None]:
    """A disk that is full or broken, in our words."""
    try:
        yield
    except OSError as e:
        raise Unavailable(f"the blob store cannot be written: {e.strerror}", 60) from e


class BlobStore:
    """A directory of blobs, two letters of the digest as folders. A `shared` one is other servers' too."""

    def __init__(self, directory: Path, shared: bool = False) -> None:
        self.directory = directory
        self._shared = shared
        self.incoming = directory / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    def sweep(self, starting: bool = False) -> None:
        """Remove what interrupted uploads and deltas left: what nobody has touched for an hour and, at the
        start of the one server of a directory, everything."""
        alone = starting and not self._shared
        oldest = time.time() - LEFTOVER_S
        for leftover in self.incoming.iterdir():
            with suppress(FileNotFoundError):  # another server sweeps too, or it was an upload that ended
                if not alone and leftover.stat().st_mtime > oldest:
                    continue
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()

    def path(self, sha256: str) -> Path:
        return self.directory / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def intake(self, limit: int) -> Intake:
        return Intake(self, limit)

    def put_file(self, source: Path) -> Stored:
        """A copy of a local file."""
        intake = self.intake(source.stat().st_size)
        try:
            with source.open("rb") as file:
                for chunk in _chunks(file):
                    intake.write(chunk)
            return intake.keep()
        finally:
            intake.drop()


def _chunks(file: BinaryIO, size: int = 1 << 20) -> Iterator[bytes]:
    while chunk := file.read(size):
        yield chunk


def _fsync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
