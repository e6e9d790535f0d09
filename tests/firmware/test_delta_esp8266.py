"""Deltas of the ESP8266's images: an Xtensa without register windows, and a header of its own."""

import struct
from collections.abc import Callable
from random import Random

import pytest

from conftest import missing
from skylift.firmware import delta, native, skd2

FLASH, RAM, LOADER = 0x40200000, 0x40100000, 0x4010F000
ENTRY, NOP3, NOP2 = b"\x12\xc1\xf0", b"\xf0\x20\x00", b"\x3d\xf0"
WORDS = [NOP3, NOP2, *map(bytes.fromhex, ("1022a0", "20a320", "c02011", "802280"))]
CODE = Random(3).randbytes(400)
TO_FOUR = (b"", NOP3 + NOP2, NOP2, NOP3)

Layout = Callable[[int], bytes]


@pytest.fixture(autouse=True)
def core(built: bool) -> None:
    if not built:
        missing("the C core (a C compiler)")


def call0(at: int, target: int) -> bytes:
    return struct.pack("<I", 0x05 | ((target - (at & ~3) - 4) >> 2 & 0x3FFFF) << 6)[:3]


def flash(at: int, grown: int) -> bytes:
    """Functions that call each other, and a table of their addresses, from a place of the flash on; function
    `grown` has more inside."""
    chance = Random(7)
    callees = [[chance.randrange(300) for _ in range(chance.randrange(2, 6))] for _ in range(300)]
    fillers = [b"".join(chance.choices(WORDS, k=chance.randrange(2, 40))) for _ in callees]
    if grown >= 0:
        fillers[grown] += NOP3 * 8
    fillers = [
        body + TO_FOUR[-(len(body) + 3 * len(calls) + 3) % 4]
        for body, calls in zip(fillers, callees, strict=True)
    ]
    starts, end = [], FLASH + at
    for body, calls in zip(fillers, callees, strict=True):
        starts.append(end)
        end += len(ENTRY) + len(body) + 3 * len(calls)
    out = bytearray()
    for body, calls in zip(fillers, callees, strict=True):
        out += ENTRY + body
        for callee in calls:
            out += call0(FLASH + at + len(out), starts[callee])
    return bytes(out) + struct.pack(f"<{len(starts)}I", *starts)


def header(*segments: tuple[int, bytes]) -> bytes:
    """As the boot ROM reads it."""
    told = (struct.pack("<II", address, len(body)) + body for address, body in segments)
    return struct.pack("<BBBBI", 0xE9, len(segments), 2, 0x40, RAM + 4) + b"".join(told)


def as_micropython_has_it(grown: int) -> bytes:
    """Memory by the header, the rest from a fixed place on."""
    return header((RAM, CODE), (0x3FFE8000, CODE[:80])).ljust(0x9000, b"\xff") + flash(0x9000, grown)


def as_arduino_has_it(grown: int) -> bytes:
    """A boot loader, then an image with a header of its own."""
    loader = header((LOADER, CODE)).ljust(0x1000, b"\xaa")
    return loader + header((FLASH + 0x1010, flash(0x1010, grown)), (RAM, CODE))


LAYOUTS = pytest.mark.parametrize(
    "layout", [as_micropython_has_it, as_arduino_has_it], ids=lambda layout: layout.__name__
)


@LAYOUTS
@pytest.mark.parametrize("profile", ["mcu-16k", "mcu-64k", "linux-16m"])
def test_moved_code_costs_hardly_anything(layout: Layout, profile: str) -> None:
    base, target = layout(-1), layout(60)
    made, blind = native.make(base, target, profile), native.make(base, target, profile, arch="plain")
    assert made.arch == "xtensa"
    assert delta.apply_delta(base, made.patch, len(target)) == target
    assert made.fields_moved - made.fields_right < 5
    assert (len(made.patch) - skd2.HEADER.size) * 3 < len(blind.patch) - skd2.HEADER.size


@LAYOUTS
def test_without_the_core_the_same_image_comes_out(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    base, target = layout(-1), layout(60)
    patch = native.make(base, target, "mcu-16k").patch
    monkeypatch.setattr(native, "_library", lambda: None)
    assert delta.apply_delta(base, patch, len(target)) == target


@pytest.mark.parametrize(
    "head",
    [
        header((0x10000000, CODE)),
        header((RAM, CODE)).replace(struct.pack("<I", 400), struct.pack("<I", 0xFFFFFFF0)),
        b"\xe9\xff" + header((RAM, CODE))[2:],
    ],
    ids=["loaded elsewhere", "longer than the image", "of too many segments"],
)
def test_a_header_that_lies_is_none(head: bytes) -> None:
    noise = Random(1).randbytes(3000)
    assert native.detect(header((RAM, CODE)) + noise) == "xtensa", "one that is right is believed"
    assert native.detect(head + noise) == "plain"
    made = native.make(head + noise, head + noise[:-1], "mcu-16k")
    assert delta.apply_delta(head + noise, made.patch) == head + noise[:-1]


@LAYOUTS
def test_an_image_cut_anywhere_in_its_headers_goes_there_and_back(layout: Layout) -> None:
    image = layout(-1)
    for length in (*range(64), *range(0x1000 - 2, 0x1000 + 40)):
        cut = image[:length]
        assert delta.apply_delta(cut, native.make(cut, image[:2000], "mcu-16k").patch) == image[:2000]
