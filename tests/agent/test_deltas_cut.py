"""Deltas, and a power cut at any byte of the image: the slot is not believed before it is whole, a delta
comes once over the line, and every byte is written once."""

import gzip
import hashlib
import os
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from skylift.agent import patch as agent_patch
from skylift.agent.disk import Disk, write_all
from skylift.agent.fetch import Fetcher
from skylift.agent.journal import Order, Stage
from skylift.core.errors import Unavailable
from skylift.firmware import delta, layered, native, skd2
from skylift.testkit.image import build

from .conftest import Depot, Device, Fault, MakeDevice

CUTS = 9
NOTED = 8192  # bytes


class Cut(Exception):
    """The power failed."""


class CutDisk(Disk):
    """The power fails when so many bytes were written to a file: in the middle of a write, mostly. What is
    written is counted."""

    def __init__(self) -> None:
        self.file, self.left, self.written = Path(), 0, 0

    def _do(self, operation: str, path: Path, act: Callable[[], Any], data: bytes = b"") -> Any:
        if operation != "write" or path != self.file:
            return act()
        size = min(len(data), self.left)
        self.left -= size
        self.written += size
        if size == len(data):
            return act()
        with path.open("r+b") as file:
            file.seek(0, 2)
            write_all(file.fileno(), data[:size])
        raise Cut


@dataclass
class Cutter:
    """A device that is filled again and again, from nothing but its disk."""

    device: Device
    disk: CutDisk
    order: Order

    @property
    def slot(self) -> Path:
        return self.disk.file

    def fill(self, most: int) -> Stage:
        """By a fresh agent, which may write so many bytes into the slot."""
        device = self.device
        self.disk.left = most
        journal = replace(device.file.load(), order=self.order)
        fetcher = Fetcher(device.config, self.disk, device.boot, device.file, device.transport)
        return fetcher.fill(journal, self.order, lambda percent: None).stage


@pytest.fixture
def cutter(depot: Depot, make_device: MakeDevice, tmp_path: Path) -> Callable[..., Cutter]:
    def make(old: bytes, new: bytes, *patches: bytes) -> Cutter:
        """With one delta, or with a chain from `old` to `new`."""
        (tmp_path / "device").mkdir()
        (tmp_path / "device" / "factory.pyz").write_bytes(old)
        disk = CutDisk()
        device = make_device(disk=disk)
        device.on()
        depot.offer(new, "1.1.0", delta=(old, patches[0]))
        said, digest = depot.answer, hashlib.sha256(new).hexdigest()
        hops = [said["delta"]]
        for patch in patches[1:]:
            sha256, based = depot.put(patch), delta.read_header(patch).base_sha256
            hops.append(
                {"url": f"/api/blobs/{sha256}", "sha256": sha256, "size": len(patch), "base_sha256": based}
            )
        order = Order("dep_1", 1, "image", "1.1.0", digest, len(new), 0, "b", str(said["url"]))
        order = replace(order, chain=hops) if patches[1:] else replace(order, delta=hops[0])
        disk.file = device.boot.path("image", "b")
        return Cutter(device, disk, order)

    return make


def packed_pair(factory: Path) -> tuple[bytes, bytes]:
    """Copied, packed anew, made by parts, filled: every kind of step."""
    chance = random.Random(1)
    lines = b" ".join(b"%x" % chance.randrange(1 << 30) for _ in range(6000))
    plain = build(factory, "1.0.0", size=20_000).read_bytes()  # it runs with something before it, too
    old = gzip.compress(lines, 9, mtime=0) + plain
    new = gzip.compress(lines[:9000] + b"!" + lines[9000:], 9, mtime=0)
    return old, new + plain[:9000] + chance.randbytes(500) + plain[9000:] + bytes(5000)


def plain_pair(factory: Path) -> tuple[bytes, bytes]:
    old = build(factory, "1.0.0", size=40_000).read_bytes()
    return old, build(factory, "1.1.0", size=40_000).read_bytes()


def one_patch(old: bytes, new: bytes) -> bytes:
    return native.make(old, new, "linux-16m").patch


@pytest.mark.parametrize("noted", ["noted", "not noted", "noted, and the rest lost"])
@pytest.mark.parametrize("pair", [packed_pair, plain_pair])
def test_a_cut_at_any_byte_costs_no_byte_of_radio_or_flash(
    noted: str,
    pair: Callable[[Path], tuple[bytes, bytes]],
    depot: Depot,
    cutter: Callable[..., Cutter],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not native.available():
        missing("the C core (a C compiler)")
    old, new = pair(tmp_path / "image.pyz")
    layers = pair is packed_pair
    patch = layered.make(old, new).patch if layers else one_patch(old, new)
    assert bool(delta.read_header(patch).needs) is layers
    assert len(patch) < len(new) / 4
    if noted != "not noted":
        monkeypatch.setattr(agent_patch, "NOTED_EVERY", NOTED)
    cut, lost = cutter(old, new, patch), 0
    offsets = set()
    for at in range(0, len(new), len(new) // CUTS):
        with pytest.raises(Cut):
            cut.fill(at + lost - cut.disk.written)
        journal = cut.device.file.load()
        assert cut.slot.read_bytes() == new[:at]
        assert journal.stage is not Stage.READY
        assert not cut.device.boot.slot("image", "b").sha256
        assert journal.offset <= at
        offsets.add(journal.offset)
        if "lost" in noted:  # what was not synced
            lost += at - journal.offset
            os.truncate(cut.slot, journal.offset)
    assert (len(offsets) > 2) is (layers and noted != "not noted")  # the other is one piece
    assert cut.fill(len(new)) is Stage.READY
    assert cut.slot.read_bytes() == new
    assert depot.sent == len(patch), "the delta came once"
    assert cut.disk.written == len(new) + lost, "every byte was written once"
    assert cut.device.file.load().way == "delta"
    assert {each.name for each in cut.device.config.state_dir.iterdir() if each.is_file()} == {"journal.json"}
    cut.device.off()


def test_a_cut_in_the_last_delta_of_a_chain_costs_nothing_of_those_before(
    depot: Depot, cutter: Callable[..., Cutter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native.available():
        missing("the C core (a C compiler)")
    images = [build(tmp_path / "image.pyz", f"1.{k}.0", size=60_000).read_bytes() for k in range(3)]
    patches = [one_patch(old, new) for old, new in pairwise(images)]
    monkeypatch.setattr(agent_patch, "NOTED_EVERY", NOTED)
    cut = cutter(images[0], images[2], *patches)
    cut.device.config = replace(cut.device.config, delta_memory_bytes=16 << 20)  # what is between: in a file
    beside = cut.device.config.state_dir / "between-0"
    with pytest.raises(Cut):
        cut.fill(40_000)
    assert beside.read_bytes() == images[1]
    made = beside.stat()
    with pytest.raises(Cut):
        cut.fill(10_000)
    assert (beside.stat().st_mtime_ns, beside.stat().st_ino) == (made.st_mtime_ns, made.st_ino)
    assert cut.fill(len(images[2])) is Stage.READY
    assert cut.slot.read_bytes() == images[2]
    assert cut.disk.written == len(images[2])
    assert depot.sent == sum(map(len, patches))
    assert not beside.exists()
    cut.device.off()


@pytest.mark.parametrize("spoiled", ["slot", "deltas"])
def test_what_a_cut_spoiled_is_found_and_the_full_image_comes(
    spoiled: str, cutter: Callable[..., Cutter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that lies about what it synced."""
    if not native.available():
        missing("the C core (a C compiler)")
    old, new = packed_pair(tmp_path / "image.pyz")
    monkeypatch.setattr(agent_patch, "NOTED_EVERY", NOTED)
    cut = cutter(old, new, layered.make(old, new).patch)
    with pytest.raises(Cut):
        cut.fill(40_000)
    assert cut.device.file.load().offset
    file = cut.slot if spoiled == "slot" else cut.device.config.state_dir / "deltas"
    body = bytearray(file.read_bytes())
    body[100] ^= 1
    file.write_bytes(body)
    assert cut.fill(2 * len(new)) is Stage.READY
    assert cut.slot.read_bytes() == new
    journal = cut.device.file.load()
    assert (journal.way, journal.passed) == ("full", {"delta": "broken"})
    assert not (cut.device.config.state_dir / "deltas").exists()
    cut.device.off()


def test_a_line_that_breaks_goes_on_in_the_middle_of_a_delta(
    depot: Depot, cutter: Callable[..., Cutter], tmp_path: Path
) -> None:
    """By an agent that was started again, too; a line that is dead says nothing against the delta."""
    if not native.available():
        missing("the C core (a C compiler)")
    old, new = plain_pair(tmp_path / "image.pyz")
    patch = one_patch(old, new)
    cut = cutter(old, new, patch)
    where = str(depot.answer["delta"]["url"])
    depot.faults[where] = Fault(close_after=len(patch) // 3)
    server = cut.device.transport.config.server
    for _ in range(2):
        with pytest.raises(Unavailable):
            cut.fill(len(new))
        cut.device.transport.config = replace(cut.device.transport.config, server="http://127.0.0.1:1")
        with pytest.raises(Unavailable):
            cut.fill(len(new))
        cut.device.transport.config = replace(cut.device.transport.config, server=server)
    depot.faults.clear()
    assert cut.fill(len(new)) is Stage.READY
    assert cut.device.file.load().way == "delta"
    assert depot.sent == len(patch) == cut.device.file.load().received
    cut.device.off()


def test_a_delta_of_another_size_than_the_order_is_refused_before_it_is_followed(
    cutter: Callable[..., Cutter], tmp_path: Path
) -> None:
    """However long it would take."""
    if not native.available():
        missing("the C core (a C compiler)")
    old, new = plain_pair(tmp_path / "image.pyz")
    patch = one_patch(old, new)
    fields = list(skd2.HEADER.unpack_from(patch))
    fields[6] = len(new) - 1  # bytes of target
    head = skd2.HEADER.pack(*fields)[:-4]
    lying = head + struct.pack("<I", zlib.crc32(head)) + patch[skd2.HEADER.size :]
    cut = cutter(old, new, lying)
    assert cut.fill(len(new)) is Stage.READY
    journal = cut.device.file.load()
    assert journal.passed == {"delta": "broken"}
    assert "another image than the one that was ordered" in journal.notes[0]
    cut.device.off()
