"""Counts that go on over several runs, so that a long one can be had in pieces: as long as what they count is
the same.

    python3 dev.py bench esp32 --tally FILE
    python3 dev.py bench delta --tally FILE
"""

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Count:
    """How far it has come. `of`: the digest of everything that makes what is counted. `read`: inputs that got
    past the door, where that is told."""

    of: str
    seed: int = 0
    inputs: int = 0
    read: int = 0
    findings: int = 0


class Tally:
    """Counts by name, in a file if there is one. Several threads may count, each a name of its own."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()
        there = json.loads(path.read_text()) if path and path.exists() else {}
        self._counts = {name: Count(**kept) for name, kept in there.items()}

    def of(self, name: str, digest: str) -> Count:
        """What was counted before, or a fresh count where it was of something else."""
        with self._lock:
            kept = self._counts.get(name)
            if kept is None or kept.of != digest:
                self._counts[name] = kept = Count(digest)
            return kept

    def save(self) -> None:
        if self._path is None:
            return
        with self._lock:
            fresh = self._path.with_name(self._path.name + ".new")
            fresh.write_text(
                json.dumps({name: asdict(kept) for name, kept in self._counts.items()}, indent=1)
            )
            fresh.replace(self._path)
