"""The ways an image comes: packed, by a chain, and from each back to the full image, with its reason."""

import hashlib
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from skylift.core.lifecycle import UpdateState
from skylift.firmware import packed
from skylift.firmware.delta import create_delta

from .conftest import SIZE, Depot, Device, Fault, MakeDevice

Make = Callable[..., bytes]
FRAME = 32 << 10  # several in the images of these tests


@pytest.fixture(autouse=True)
def _small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "FRAME", FRAME)


def pack(folder: Path, body: bytes, codec: str) -> bytes:
    (folder / "raw").write_bytes(body)
    packed.pack(folder / "raw", folder / "packed", codec)
    return (folder / "packed").read_bytes()


def offer_packed(depot: Depot, body: bytes, file: bytes, codec: str = "xz") -> str:
    """The packed file's path."""
    depot.offer(body, "1.1.0")
    digest = depot.put(file)
    depot.answer["packed"] = {
        "codec": codec,
        "url": f"/api/blobs/{digest}",
        "sha256": digest,
        "size": len(file),
    }
    return f"/api/blobs/{digest}"


def hop(depot: Depot, base: bytes, patch: bytes) -> dict[str, Any]:
    digest = depot.put(patch)
    based = hashlib.sha256(base).hexdigest()
    return {"url": f"/api/blobs/{digest}", "sha256": digest, "size": len(patch), "base_sha256": based}


def told(depot: Depot) -> tuple[str, dict[str, str]]:
    """The way the device says it went, and what it passed over."""
    said = next(report for report in depot.reports if report["state"] == UpdateState.INSTALLING)
    return said["way"], said.get("passed", {})


def finish(device: Device, version: str = "1.1.0") -> None:
    device.until(lambda: device.version == version and device.settled(), seconds=120, steps=2000)


@pytest.mark.parametrize("codec", packed.CODECS)
def test_a_packed_image_is_unpacked_into_the_slot(
    codec: str, device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    new = image("1.1.0")
    file = pack(tmp_path, new, codec)
    where = offer_packed(depot, new, file, codec)
    finish(device)
    assert told(depot) == ("packed", {})
    assert [path for path, _, _ in depot.asked if path.startswith("/api/blobs/")] == [where]
    assert device.slot("b").read_bytes() == new
    assert device.journal.received == len(file)


def test_a_line_that_breaks_goes_on_in_the_middle_of_a_frame(
    device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    """The decoder waits where it was: no byte is fetched twice."""
    new = image("1.1.0")
    file = pack(tmp_path, new, "xz")
    depot.faults[offer_packed(depot, new, file)] = Fault(close_after=9000)
    finish(device)
    assert told(depot) == ("packed", {})
    assert depot.sent == len(file) == device.journal.received
    assert len(depot.asked) > 3


def test_after_a_power_cut_a_packed_image_goes_on_at_its_last_whole_frame(
    device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    new = image("1.1.0")
    file = pack(tmp_path, new, "xz")
    where = offer_packed(depot, new, file)
    depot.faults[where] = Fault(close_after=60_000)
    device.until(lambda: device.journal.taken > 0)
    cut = device.journal
    assert cut.offset % FRAME == 0
    assert 0 < cut.taken < len(file)
    device.again()
    depot.faults.clear()
    depot.asked.clear()
    finish(device)
    assert depot.asked[0][:2] == (where, f"bytes={cut.taken}-")
    assert told(depot) == ("packed", {})
    assert device.slot("b").read_bytes() == new


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("damaged", "broken"),
        ("cut", "broken"),
        ("longer", "broken"),
        ("another", "broken"),
        ("gone", "download"),
        ("codec", "codec"),
        ("not resumed", "download"),
    ],
)
def test_a_packed_image_with_anything_wrong_gives_way_to_the_image_as_it_is(
    wrong: str, why: str, device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    new = image("1.1.0")
    file = pack(tmp_path, new, "xz")
    if wrong == "damaged":
        file = file[:70_000] + bytes([file[70_000] ^ 1]) + file[70_001:]
    if wrong == "cut":
        file = file[:-5000]
    if wrong == "longer":
        file += pack(tmp_path, new[:1000], "xz")
    if wrong == "another":
        file = pack(tmp_path, random.Random(1).randbytes(len(new)), "xz")
    where = offer_packed(depot, new, file, "lzip" if wrong == "codec" else "xz")
    if wrong == "gone":
        depot.blobs.pop(where)
    if wrong == "not resumed":
        depot.faults[where] = Fault(close_after=9000, ignore_range=True)
    finish(device)
    assert told(depot) == ("full", {"packed": why})
    assert device.slot("b").read_bytes() == new
    assert "packed not used" in depot.last["error_message"]


def test_a_device_without_memory_takes_the_image_as_it_is(
    make_device: MakeDevice, depot: Depot, image: Make, tmp_path: Path
) -> None:
    """And it says so when it asks, so that a server offers nothing of the kind."""
    device = make_device(delta_memory_bytes=0)
    new = image("1.1.0")
    offer_packed(depot, new, pack(tmp_path, new, "xz"))
    depot.answer["delta"] = hop(depot, device.factory.read_bytes(), b"x") | {"memory": 1 << 14}
    finish(device)
    assert told(depot) == ("full", {"delta": "memory", "packed": "memory"})
    assert depot.checks[0]["memory"] == ["0"]
    assert set(depot.checks[0]["codecs"][0].split(",")) <= set(packed.CODECS)


# --- chains --------------------------------------------------------------------------------------------


def chained(device: Device, depot: Depot, image: Make, folder: Path, count: int = 2) -> bytes:
    """An offer of a chain from the factory's image; the image it leads to."""
    bodies = [device.factory.read_bytes(), *(image(f"1.0.{number}") for number in range(1, count))]
    bodies.append(image("1.1.0"))
    hops = []
    for old, new in pairwise(bodies):
        assert create_delta(old, new, folder / "patch") is not None
        hops.append(hop(depot, old, (folder / "patch").read_bytes()))
    depot.offer(bodies[-1], "1.1.0")
    depot.answer["chain"] = hops
    return bodies[-1]


@pytest.mark.parametrize(("count", "memory"), [(2, 64 << 20), (2, 16 << 20), (3, 16 << 20)])
def test_a_chain_is_applied_in_memory_where_it_fits_else_through_a_file(
    count: int, memory: int, make_device: MakeDevice, depot: Depot, image: Make, tmp_path: Path
) -> None:
    """The decoder takes 16 MiB by itself: then what is between two deltas has no place in memory."""
    device = make_device(delta_memory_bytes=memory)
    new = chained(device, depot, image, tmp_path, count)
    finish(device)
    assert told(depot) == ("chain", {})
    assert device.slot("b").read_bytes() == new
    assert depot.sent < SIZE // 2
    assert list(device.config.state_dir.glob("between-*")) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [("order", "base"), ("broken", "broken"), ("middle", "broken"), ("gone", "download"), ("long", "broken")],
)
def test_a_chain_with_anything_wrong_gives_way_to_the_full_image(
    wrong: str, why: str, device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    new = chained(device, depot, image, tmp_path)
    hops = depot.answer["chain"]
    if wrong == "order":
        hops.reverse()
    if wrong == "broken":
        body = depot.blobs[hops[1]["url"]]
        hops[1] = hop(depot, b"", body[:-20] + bytes(20)) | {"base_sha256": hops[1]["base_sha256"]}
    if wrong == "middle":
        hops[1] = hops[0]
    if wrong == "gone":
        depot.blobs.pop(hops[1]["url"])
    if wrong == "long":
        hops += hops
    finish(device)
    assert told(depot) == ("full", {"chain": why})
    assert device.slot("b").read_bytes() == new
    assert "chain not used" in depot.last["error_message"]


def test_what_a_cut_left_between_two_deltas_is_removed(
    device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    left = device.config.state_dir / "between-0"
    left.write_bytes(b"half an image")
    chained(device, depot, image, tmp_path)
    finish(device)
    assert not left.exists()


def test_a_delta_that_was_passed_over_is_not_tried_again(
    device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    """The line breaks while the full image comes: what was found to be of no use stays so."""
    new = image("1.1.0")
    where = depot.offer(new, "1.1.0")
    depot.answer["delta"] = hop(depot, device.factory.read_bytes(), b"no patch at all")
    depot.faults[where] = Fault(close_after=60_000)
    finish(device)
    assert told(depot) == ("full", {"delta": "broken"})
    assert [path for path, _, _ in depot.asked].count(depot.answer.get("delta", {}).get("url", "")) <= 1
    assert len([1 for path, _, _ in depot.asked if path != where]) == 1
