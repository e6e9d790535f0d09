"""A patch format tried on two images: size, and what making and applying take, each in a process of its own.

Memory is what the process came to need beyond what it had before it read the images.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skylift.firmware import delta, layered, native, peers
from skylift.firmware.native import DeltaError

OURS = "skylift "
LAYERS = OURS + "layers"
_REFUSED = 3  # the exit code for a format that cannot be made here; the reason on stderr


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of it. Seconds by the clock; memory in bytes, None where there is no /proc."""

    format: str
    size: int
    of_new: float
    make_s: float
    apply_s: float
    make_memory: int | None
    apply_memory: int | None
    same: bool


def names(old: Path, new: Path) -> Iterator[str]:
    """What is worth trying: our own as `delta.make` would choose, in every profile, and every peer's."""
    if native.available():
        with delta.opened(old) as before, delta.opened(new) as after:
            layers = layered.worth_layers(before, after)
        if layers:
            yield LAYERS
        if max(old.stat().st_size, new.stat().st_size) <= layered.MOST_BASE:
            yield from (OURS + profile for profile in delta.MEMORY)
    yield from peers.FORMATS


def run(name: str, old: Path, new: Path) -> Tried:
    """Raises `DeltaError` where the format cannot be made here, or says no."""
    with tempfile.TemporaryDirectory() as folder:
        patch, back = Path(folder) / "patch", Path(folder) / "back"
        make_s, make_memory = _child("make", name, old, new, patch)
        apply_s, apply_memory = _child("apply", name, old, patch, back)
        size, full = patch.stat().st_size, new.stat().st_size
        same = native.digest(back.read_bytes()) == native.digest(new.read_bytes())
    share = round(size / max(1, full), 4)
    return Tried(name, size, share, make_s, apply_s, make_memory, apply_memory, same)


def _child(deed: str, name: str, old: Path, given: Path, out: Path) -> tuple[float, int | None]:
    words = [sys.executable, "-m", "skylift.firmware.trial", deed, name, str(old), str(given), str(out)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode == _REFUSED:
        raise DeltaError(done.stderr.strip())
    if done.returncode:
        raise DeltaError(f"{deed} ended with exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    told = json.loads(done.stdout)
    return told["seconds"], told["memory"]


def _make(name: str, old: Path, new: Path, out: Path) -> None:
    if not name.startswith(OURS):
        out.write_bytes(peers.make(name, old.read_bytes(), new.read_bytes()))
        return
    with delta.opened(old) as before, delta.opened(new) as after:
        if name == LAYERS:
            made = layered.make(before, after, scratch=out.parent).patch
        else:
            made = native.make(before, after, name.removeprefix(OURS)).patch
    out.write_bytes(made)


def _apply(name: str, old: Path, patch: Path, out: Path) -> None:
    body = patch.read_bytes()
    with out.open("wb") as file:
        if name.startswith(OURS):
            delta.rebuild(old, body, lambda piece: file.writelines([piece]), scratch=out.parent)
        else:
            file.write(peers.apply(name, old.read_bytes(), body))


def _peak() -> int | None:
    """Bytes that this process came to need so far, of memory; by /proc, for what getrusage tells on Linux is
    what the parent needed before."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(found[1]) << 10 if found else None


def main(deed: str, name: str, old: str, given: str, out: str) -> int:
    """The child: what it took, as JSON on stdout."""
    from skylift.core.errors import SkyliftError

    before, begun = _peak(), time.perf_counter()
    try:
        {"make": _make, "apply": _apply}[deed](name, Path(old), Path(given), Path(out))
    except SkyliftError as wrong:
        print(wrong, file=sys.stderr)
        return _REFUSED
    took, after = round(time.perf_counter() - begun, 3), _peak()
    memory = None if before is None or after is None else after - before
    print(json.dumps({"seconds": took, "memory": memory}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
