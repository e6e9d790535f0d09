"""Blobs: bytes by their SHA-256. Written under a temporary name on a local disk, checked, then named.

What is there under a digest is complete and right; whatever a crash left behind has a temporary name and is
swept. `BlobStore` keeps them in a directory, `engine.bucket.Bucket` in an S3-compatible object store.
"""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from skylift.core.errors import Kind, Rejected, Unavailable

LEFTOVER_S = 3600.0  # an upload that lives brings bytes more often, a delta takes minutes


@dataclass(frozen=True, slots=True)
class Stored:
    """What was stored."""

    sha256: str
    size: int


class Blobs(Protocol):
    """Where blobs are kept."""

    scratch: Path  # a local folder for files on their way

    def intake(self, limit: int) -> "Intake":
        """An upload of at most so many bytes, on its way in."""
        ...

    def has(self, sha256: str) -> bool:
        """Whether it is there, whole. Raises `Unavailable`."""
        ...

    def url(self, sha256: str, method: str) -> str | None:
        """Where it can be fetched (`GET`) or looked at (`HEAD`) for some minutes, by anybody who has the URL;
        None: from the file at `path`."""
        ...

    def path(self, sha256: str) -> Path:
        """The file, where `url` gives none."""
        ...

    def local(self, sha256: str) -> AbstractContextManager[Path]:
        """The bytes as a file to read, within the block. Raises `Unavailable`."""
        ...

    def remove(self, sha256: str) -> None:
        """It is needed by nobody any more; harmless where it is not there. Raises `Unavailable`."""
        ...

    def sweep(self, starting: bool = False) -> None:
        """Remove what interrupted uploads and deltas left."""
        ...


def too_large(size: int, limit: int) -> Rejected:
    """Of a body of so many bytes, or at least so many."""
    return Rejected(
        "too_large",
        f"body is more than {limit} bytes: larger than this server takes",
        kind=Kind.TOO_LARGE,
        field="body",
        value=size,
        rule=f"at most {limit} bytes",
    )


class Intake:
    """One upload on its way in: write chunks, then `keep`; `drop` (or a crash) leaves nothing behind."""

    def __init__(self, scratch: Path, limit: int, settle: Callable[[Path, Stored], None]) -> None:
        """`settle` moves the whole, synced file to its digest."""
        self._limit = limit
        self._settle = settle
        self._path = scratch / secrets.token_hex(8)
        self._file: BinaryIO = self._path.open("xb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Raises `Rejected` past the limit, `Unavailable` when the disk is full."""
        self.size += len(chunk)
        if self.size > self._limit:
            raise too_large(self.size, self._limit)
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
        with _disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self._settle(self._path, stored)
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


def put_file(blobs: Blobs, source: Path) -> Stored:
    """A copy of a local file."""
    intake = blobs.intake(source.stat().st_size)
    try:
        with source.open("rb") as file:
            for chunk in _chunks(file):
                intake.write(chunk)
        return intake.keep()
    finally:
        intake.drop()


def sweep(scratch: Path, everything: bool) -> None:
    """Remove what nobody has touched for an hour, or everything: at the start of the only one who writes."""
    oldest = time.time() - LEFTOVER_S
    for leftover in scratch.iterdir():
        with suppress(FileNotFoundError):  # another server sweeps too, or it was an upload that ended
            if not everything and leftover.stat().st_mtime > oldest:
                continue
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


class BlobStore:
    """A directory of blobs, two letters of the digest as folders. A `shared` one is other servers' too."""

    def __init__(self, directory: Path, shared: bool = False) -> None:
        self.directory = directory
        self._shared = shared
        self.scratch = directory / "incoming"  # on the same file system, to be renamed
        self.scratch.mkdir(parents=True, exist_ok=True)

    def sweep(self, starting: bool = False) -> None:
        sweep(self.scratch, starting and not self._shared)

    def path(self, sha256: str) -> Path:
        return self.directory / sha256[:2] / sha256

    def url(self, sha256: str, method: str) -> str | None:
        return None

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    @contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        yield self.path(sha256)

    def remove(self, sha256: str) -> None:
        with _disk():
            self.path(sha256).unlink(missing_ok=True)

    def intake(self, limit: int) -> Intake:
        return Intake(self.scratch, limit, self._settle)

    def _settle(self, source: Path, stored: Stored) -> None:
        target = self.path(stored.sha256)
        with _disk():
            if not target.parent.exists():
                target.parent.mkdir(exist_ok=True)
                _fsync_directory(target.parent.parent)
            os.replace(source, target)
            _fsync_directory(target.parent)


def _chunks(file: BinaryIO, size: int = 1 << 20) -> Iterator[bytes]:
    while chunk := file.read(size):
        yield chunk


def _fsync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
