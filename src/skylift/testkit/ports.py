"""Ports for what tests, demos and benches start: named now, listened on a moment later.

What `bind` to port 0 names may be gone by then: to a connection that somebody opens, or to the next who asks.
These lie below the range that the kernel takes from, and no two who ask, in whatever process, get the same.
"""

import fcntl
import os
import socket
import tempfile
from pathlib import Path

_KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL = 32_768  # where the kernel's own range begins, unless it says otherwise
_SPAN = 12_000
_TRIES = 1_000


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens. `OSError` where a thousand in turn are taken."""
    below = _below()
    counter = Path(tempfile.gettempdir()) / f"skylift-ports-{os.getuid()}"
    file = os.open(counter, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        asked = int(os.pread(file, 20, 0) or 0)
        for number in range(asked, asked + _TRIES):
            port = below - 1 - number % _SPAN
            if _is_free(port):
                os.pwrite(file, f"{number + 1:020}".encode(), 0)
                return port
    finally:
        os.close(file)
    raise OSError(f"ports {port} to {below - 1} of 127.0.0.1: {_TRIES} in turn are taken")


def _below() -> int:
    try:
        lowest = int(_KERNELS.read_text().split()[0])
    except OSError:
        return _USUAL
    return lowest if lowest > _SPAN + 1024 else _USUAL


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
