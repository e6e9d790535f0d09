"""Every write of the agent goes through here, one small operation at a time.

So that a test can cut the power at each of them: before it, in the middle of it, after it.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Disk:
    """The real one. A subclass may watch or cut each operation by overriding `_do`."""

    def _do(self, operation: str, path: Path, act: Callable[[], Any], data: bytes = b"") -> Any:
        return act()

    def create(self, path: Path) -> int:
        """A new empty file, open for writing; an old one is emptied."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        handle: int = self._do("create", path, lambda: os.open(path, flags, 0o600))
        return handle

    def resume(self, path: Path, offset: int) -> int:
        """The file cut to `offset`, open for writing at its end."""

        def act() -> int:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            os.ftruncate(handle, offset)
            os.lseek(handle, offset, os.SEEK_SET)
            return handle

        handle: int = self._do("resume", path, act)
        return handle

    def write(self, handle: int, path: Path, data: bytes) -> None:
        self._do("write", path, lambda: write_all(handle, data), data)

    def sync(self, handle: int, path: Path) -> None:
        """What was written survives a power cut from here on."""
        self._do("sync", path, lambda: os.fsync(handle))

    def close(self, handle: int) -> None:
        os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        self._do("rename", target, lambda: os.replace(source, target))

    def unlink(self, path: Path) -> None:
        self._do("unlink", path, lambda: path.unlink(missing_ok=True))

    def sync_directory(self, path: Path) -> None:
        def act() -> None:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

        self._do("sync_directory", path, act)

    # --- made of the above ------------------------------------------------------------------------

    def replace(self, path: Path, body: bytes) -> None:
        """The whole file, atomically: the old content or the new one, whatever happens."""
        temporary = path.with_name(path.name + ".new")
        handle = self.create(temporary)
        try:
            self.write(handle, temporary, body)
            self.sync(handle, temporary)
        finally:
            self.close(handle)
        self.rename(temporary, path)
        self.sync_directory(path.parent)

    def replace_json(self, path: Path, document: Any) -> None:
        self.replace(path, json.dumps(document, sort_keys=True).encode())


def write_all(handle: int, data: bytes) -> None:
    """`os.write` until everything is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def read_json(path: Path) -> Any:
    """The document, or None where there is none or it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
