"""Blobs: bytes by their SHA-256, in a directory. Written under a temporary name, fsynced, renamed.

What is there under a digest is complete and right; whatever a crash left behind has a temporary name and is
swept at the next start.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from skylift.core.errors import Kind, Rejected, Unavailable


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
        try:
            self._file.write(chunk)
        except OSError as e:
            raise Unavailable(f"the blob store cannot be written: {e.strerror}", 60) from e
        self._hash.update(chunk)

    def digest(self) -> Stored:
        """What has come in so far."""
        return Stored(self._hash.hexdigest(), self.size)

    def path(self) -> Path:
        """The bytes as they lie there, for a look before they are kept."""
        self._file.flush()
        return self._path

    def keep(self) -> Stored:
        """Make it durable under its digest."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        stored = self.digest()
        target = self._store.path(stored.sha256)
        target.parent.mkdir(exist_ok=True)
        os.replace(self._path, target)
        _fsync_directory(target.parent)
        return stored

    def drop(self) -> None:
        """Forget it; harmless after `keep`."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class BlobStore:
    """A directory of blobs, two letters of the digest as folders."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.incoming = directory / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Remove what an interrupted upload left; only when no upload runs (at the start)."""
        for leftover in self.incoming.iterdir():
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
