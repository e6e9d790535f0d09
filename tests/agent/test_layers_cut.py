"""A layered delta, and a power cut at any byte of the image: the slot is never believed, and doing it again
makes the very image."""

import gzip
import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from skylift.agent.disk import Disk, write_all
from skylift.agent.fetch import Fetcher
from skylift.agent.journal import Order, Stage
from skylift.firmware import delta, layered, native
from skylift.testkit.image import build

from .conftest import Depot, MakeDevice

STRIDE = 9973


class Cut(Exception):
    """The power failed."""


class CutDisk(Disk):
    """The power fails when so many bytes were written to a file: in the middle of a write, mostly."""

    def __init__(self) -> None:
        self.file, self.left = Path(), 0

    def _do(self, operation: str, path: Path, act: Callable[[], Any], data: bytes = b"") -> Any:
        if operation != "write" or path != self.file:
            return act()
        self.left -= len(data)
        if self.left >= 0:
            return act()
        with path.open("r+b") as file:
            file.seek(0, 2)
            write_all(file.fileno(), data[: len(data) + self.left])
        raise Cut


def test_a_cut_at_any_byte_of_a_layered_image_costs_only_doing_it_again(
    depot: Depot, make_device: MakeDevice, tmp_path: Path
) -> None:
    if not native.available():
        missing("the C core (a C compiler)")
    chance = random.Random(1)
    lines = b" ".join(b"%x" % chance.randrange(1 << 30) for _ in range(6000))
    # Copied, packed anew, made by parts, filled: every kind of step.
    (tmp_path / "device").mkdir()
    factory = tmp_path / "device" / "factory.pyz"
    plain = build(factory, "1.0.0", size=20_000).read_bytes()  # it runs with something before it, too
    old = gzip.compress(lines, 9, mtime=0) + plain
    new = gzip.compress(lines[:9000] + b"!" + lines[9000:], 9, mtime=0)
    new += plain[:9000] + chance.randbytes(500) + plain[9000:] + bytes(5000)
    patch = layered.make(old, new).patch
    assert delta.read_header(patch).needs
    assert len(patch) < len(new) / 4
    factory.write_bytes(old)
    disk = CutDisk()
    device = make_device(disk=disk)
    device.on()
    depot.offer(new, "1.1.0", delta=(old, patch))
    said, digest = depot.answer, hashlib.sha256(new).hexdigest()
    order = Order(
        "dep_1", 1, "image", "1.1.0", digest, len(new), 0, "b", str(said["url"]), delta=said["delta"]
    )
    disk.file = device.boot.path("image", "b")

    def fill() -> Stage:
        journal = device.file.load()
        fetcher = Fetcher(device.config, disk, device.boot, device.file, device.transport)
        return fetcher.fill(replace(journal, order=order), order, lambda percent: None).stage

    for at in range(0, len(new), STRIDE):
        disk.left = at
        with pytest.raises(Cut):
            fill()
        assert disk.file.stat().st_size == at
        assert device.file.load().stage is not Stage.READY
        assert not device.boot.slot("image", "b").sha256
    disk.left = len(new)
    sent = depot.sent
    assert fill() is Stage.READY
    assert disk.file.read_bytes() == new
    assert depot.sent - sent == len(patch), "by the delta, again"
    assert not [each for each in device.config.state_dir.iterdir() if each.is_file() and "tmp" in each.name]
    device.off()
