"""`create_delta` in a process of its own, for a server that must outlive it.

The encoder maps both images. A blob that is cut short or cannot be read while it is mapped ends the process
that looks at it (SIGBUS), and a large pair takes memory by the hundred megabytes: both stay over there.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from skylift.firmware.delta import DeltaError, create_delta, read_header

_REFUSED = 3  # the exit code for a `DeltaError`, its words on stderr
_NICENESS = 10  # polls and reports go first


def create(old: Path, new: Path, patch: Path) -> dict[str, Any] | None:
    """What `create_delta` returns, whatever the ratio, and of its header `memory`, `scratch` (bytes that
    applying it
    takes; None where the format does not say) and `needs` (codecs). Raises `DeltaError`, also when the
    process was killed."""
    child = subprocess.Popen(
        [sys.executable, "-m", "skylift.firmware.apart", str(old), str(new), str(patch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stderr is not None
        # Read, not communicate(): that would close stdin, and the child lives as long as stdin is open.
        said, complaint = child.stdout.read(), child.stderr.read()
        code = child.wait()
    if code == _REFUSED:
        raise DeltaError(complaint.strip())
    if code < 0:
        raise DeltaError(f"the encoder was ended by {signal.Signals(-code).name}")
    if code:
        raise DeltaError(f"the encoder ended with exit code {code}: {complaint.strip()[-300:]}")
    made: dict[str, Any] | None = json.loads(said)
    return made


def main(old: str, new: str, patch: str) -> int:
    """The child: the facts as JSON on stdout."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)
    try:
        made = create_delta(old, new, patch, max_ratio=1)
    except DeltaError as wrong:
        print(wrong, file=sys.stderr)
        return _REFUSED
    if made is not None:
        header = read_header(Path(patch).read_bytes())
        made |= {"memory": header.memory, "scratch": header.scratch, "needs": list(header.needs)}
    print(json.dumps(made))
    return 0


def _end_with_parent() -> None:
    """A server that was killed closes its end of stdin: nobody waits for the delta any more."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
