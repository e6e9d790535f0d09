"""Bytes from outside, mutated: every parser that strangers can reach, fed from a seed that is told.

A `Target` has honest seeds and a way to feed bytes; it takes the errors that its parser promises, and returns
whether it accepted something that nobody honest made ("installed"). Anything else that is raised is a find.

| module | what it feeds |
|---|---|
| `trust` | metadata: a device's full and compact verification, a signer's desk |
| `firmware` | images, deltas |
| `device` | answers to a device: checks, the log, certificates; its settings |
| `server` | certificate requests, signatures, bills of materials, requests on the socket, bodies of the API |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skylift.testkit.fuzz import device, firmware, server, trust
from skylift.testkit.fuzz.mutate import Findings, Target, mutated, run, stem, try_one
from skylift.testkit.fuzz.trust import DEVICE, HARDWARE, NOW, PRODUCT, Repository

__all__ = [
    "DEVICE",
    "HARDWARE",
    "NOW",
    "PRODUCT",
    "Findings",
    "Repository",
    "Target",
    "mutated",
    "run",
    "stem",
    "targets",
    "try_one",
]


@contextmanager
def targets(folder: Path, build: server.Build) -> Iterator[dict[str, Target]]:
    """Every target by name, with seeds made in this folder. `build` makes the server that is asked."""
    with server.application(folder / "server", build) as application:
        made = [
            *trust.targets(folder),
            *firmware.targets(folder),
            *device.targets(folder),
            *server.targets(),
            *application,
        ]
        yield {target.name: target for target in made}
