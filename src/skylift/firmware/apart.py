"""`create_delta` and `packed.pack` in a process of their own, for a server that must outlive them.

The encoder maps both images. A blob that is cut short or cannot be read while it is mapped ends the process
that looks at it (SIGBUS), and a large pair takes memory by the hundred megabytes: both stay over there,
within the limits that are given, and end with the server.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skylift.firmware import packed
from skylift.firmware.delta import DeltaError, create_delta, read_header

_REFUSED = 3  # the exit code for a `DeltaError`, its words on stderr
_NICENESS = 10  # polls and reports go first
_MAPS = 2  # how often an image may stand in the address space: mapped, and once as bytes


@dataclass(eq=False)
class Limits:
    """Of one process. `memory` in bytes besides the images it maps, `seconds` by the clock; None: as it goes.
    `stop` ends the one under way, from any thread."""

    memory: int | None = None
    seconds: float | None = None
    _child: "subprocess.Popen[str] | None" = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)

    def stop(self) -> None:
        self._stopped = True
        if (child := self._child) is not None:
            child.kill()


def create(old: Path, new: Path, patch: Path, limits: Limits | None = None) -> dict[str, Any] | None:
    """What `create_delta` returns, whatever the ratio, and of its header `memory`, `scratch` (bytes that
    applying it takes; None where the format does not say) and `needs` (codecs). Raises `DeltaError`, also
    when the process was killed or came to a limit."""
    mapped = old.stat().st_size + new.stat().st_size
    made: dict[str, Any] | None = _run(limits or Limits(), mapped, "delta", str(old), str(new), str(patch))
    return made


def pack(image: Path, target: Path, codec: str, limits: Limits | None = None) -> int:
    """What `packed.pack` returns. Raises `DeltaError` like `create`."""
    size: int = _run(limits or Limits(), 0, "pack", str(image), str(target), codec)
    return size


def _run(limits: Limits, mapped: int, *words: str) -> Any:
    most = "0" if limits.memory is None else str(limits.memory + _MAPS * mapped)
    child = subprocess.Popen(
        [sys.executable, "-m", "skylift.firmware.apart", most, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    limits._child = child
    if limits._stopped:
        child.kill()
    late = threading.Event()

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(limits.seconds or 0, end)
    if limits.seconds is not None:
        timer.start()
    with child:
        assert child.stdout is not None
        assert child.stderr is not None
        # Read, not communicate(): that would close stdin, and the child lives as long as stdin is open.
        said, complaint = child.stdout.read(), child.stderr.read()
        code = child.wait()
    timer.cancel()
    limits._child = None
    if code == _REFUSED:
        raise DeltaError(complaint.strip())
    if code and late.is_set():
        raise DeltaError(f"the encoder was ended after {limits.seconds:g} seconds")
    if code < 0:
        raise DeltaError(f"the encoder was ended by {signal.Signals(-code).name}")
    if code:
        raise DeltaError(f"the encoder ended with exit code {code}: {complaint.strip()[-300:]}")
    return json.loads(said)


def main(most: str, what: str, *words: str) -> int:
    """The child: the facts as JSON on stdout."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)
    try:
        _bound(int(most))
        made = _DEEDS[what](*words)
    except DeltaError as wrong:
        print(wrong, file=sys.stderr)
        return _REFUSED
    except (MemoryError, OSError) as wrong:
        if isinstance(wrong, OSError) and wrong.errno != errno.ENOMEM:
            raise
        print(f"the encoder takes more than its {int(most) >> 20} MiB", file=sys.stderr)
        return _REFUSED
    print(json.dumps(made))
    return 0


def _delta(old: str, new: str, patch: str) -> dict[str, Any] | None:
    made = create_delta(old, new, patch, max_ratio=1)
    if made is not None:
        header = read_header(Path(patch).read_bytes())
        made |= {"memory": header.memory, "scratch": header.scratch, "needs": list(header.needs)}
    return made


def _pack(image: str, target: str, codec: str) -> int:
    return packed.pack(Path(image), Path(target), codec)


_DEEDS = {"delta": _delta, "pack": _pack}


def _bound(most: int) -> None:
    """No more address space than this, where the system can say so."""
    if most and sys.platform != "win32":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _end_with_parent() -> None:
    """A server that was killed closes its end of stdin: nobody waits for the delta any more."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
