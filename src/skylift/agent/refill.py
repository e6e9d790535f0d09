"""A file written on: what it holds already is compared, not written again."""

from pathlib import Path
from typing import BinaryIO

from skylift.agent.disk import Disk

_STEP = 4096  # bytes


class Refill:
    """A file that is to hold certain bytes, some of which it may hold from before a power cut.

    The first `start` bytes are believed. Those behind are read as long as they are the ones that `write` is
    given; from the first that is another one on, or missing, the file is written. `at`: bytes that are right
    so far, durable when `sync` returns.
    """

    def __init__(self, disk: Disk, path: Path, start: int = 0) -> None:
        self._disk, self._path = disk, path
        self._there: BinaryIO | None = path.open("rb") if path.exists() else None
        self._handle: int | None = None
        self.at = start
        if self._there is not None:
            self._there.seek(start)

    def write(self, piece: bytes) -> None:
        if self._there is not None:
            same = agree(piece, self._there.read(len(piece)))
            self.at += same
            piece = piece[same:]
        if piece:
            self._disk.write(self._writing(), self._path, piece)
            self.at += len(piece)

    def sync(self) -> None:
        handle = self._writing() if self._there is None else self._there.fileno()
        self._disk.sync(handle, self._path)

    def finish(self) -> None:
        """The file ends here, and is durable."""
        self._writing()
        self.sync()

    def close(self) -> None:
        if self._there is not None:
            self._there.close()
            self._there = None
        if self._handle is not None:
            self._disk.close(self._handle)
            self._handle = None

    def _writing(self) -> int:
        if self._handle is None:
            if self._there is not None:
                self._there.close()
                self._there = None
            self._handle = self._disk.resume(self._path, self.at)
            self._disk.sync_directory(self._path.parent)
        return self._handle


def agree(ours: bytes, theirs: bytes) -> int:
    """How many bytes both begin with."""
    for at in range(0, len(ours), _STEP):
        a, b = ours[at : at + _STEP], theirs[at : at + _STEP]
        if a != b:
            return at + next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(b))
    return len(ours)
