"""An image of more than 2 GiB by a layered delta, and the power cut behind the second gigabyte."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from skylift.agent.boot.file import digest
from skylift.agent.disk import Disk
from skylift.agent.fetch import Fetcher
from skylift.agent.journal import Order, Stage
from skylift.firmware import native
from skylift.firmware.delta import create_delta, read_header
from skylift.testkit.image import build

from .conftest import Depot, MakeDevice

SIZE = (2 << 30) + (200 << 20)
CUT = (2 << 30) + (50 << 20)


class Cut(Exception):
    """The power failed."""


class CutDisk(Disk):
    """The power fails at a write behind so many bytes of a file; what is written to it is counted."""

    def __init__(self) -> None:
        self.file, self.written, self.most = Path(), 0, CUT

    def _do(self, operation: str, path: Path, act: Callable[[], Any], data: bytes = b"") -> Any:
        if operation == "write" and path == self.file:
            if self.written > self.most:
                raise Cut
            self.written += len(data)
        return act()


def sparse(path: Path, changed: bytes, program: bytes) -> None:
    """Mostly holes; something here and there, on both sides of the second gigabyte."""
    chance = random.Random(1)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in (0, 1 << 30, (2 << 30) - (1 << 19), SIZE - (8 << 20)):
            file.seek(at)
            file.write(chance.randbytes(1 << 20))
        for at in (1000, (2 << 30) + 77):
            file.seek(at)
            file.write(changed)
        file.seek(SIZE - len(program))
        file.write(program)


@pytest.mark.slow
def test_an_image_of_more_than_two_gigabytes_comes_by_layers_and_goes_on_after_a_cut(
    depot: Depot, make_device: MakeDevice, tmp_path: Path
) -> None:
    if not native.available():
        missing("the C core (a C compiler)")
    (tmp_path / "device").mkdir()
    old, new = tmp_path / "device" / "factory.pyz", tmp_path / "new.bin"
    program = build(tmp_path / "image.pyz", "1.0.0", size=20_000).read_bytes()
    sparse(old, b"what was there before", program)
    sparse(new, b"and what there is now", program)
    made = create_delta(old, new, tmp_path / "patch")
    assert made is not None
    patch = (tmp_path / "patch").read_bytes()
    assert len(patch) < 10_000
    assert read_header(patch).target_size == SIZE
    os.unlink(new)
    disk = CutDisk()
    device = make_device(disk=disk)
    device.on()
    disk.file = device.boot.path("image", "b")
    sha256 = depot.put(patch)
    hop = {
        "url": f"/api/blobs/{sha256}",
        "sha256": sha256,
        "size": len(patch),
        "base_sha256": made["old_version_hash"],
    }
    order = Order("dep_1", 1, "image", "1.1.0", made["new_version_hash"], SIZE, 0, "b", "/nowhere", hop)

    def fill() -> Stage:
        fetcher = Fetcher(device.config, disk, device.boot, device.file, device.transport)
        journal = replace(device.file.load(), order=order)
        return fetcher.fill(journal, order, lambda percent: None).stage

    try:
        with pytest.raises(Cut):
            fill()
        assert device.file.load().offset > 2 << 30
        disk.most = SIZE
        assert fill() is Stage.READY
        assert disk.written == SIZE, "every byte was written once"
        assert digest(disk.file) == made["new_version_hash"]
        assert depot.sent == len(patch)
    finally:
        device.off()
        shutil.rmtree(tmp_path / "device")  # gigabytes, that nobody needs to keep
