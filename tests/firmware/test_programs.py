"""Programs in an image: found where a file system keeps them, and where what is there of them is loaded."""

import shutil
import struct
import subprocess
from pathlib import Path
from random import Random

import pytest

from conftest import missing
from skylift.firmware import delta, elf, ext4, layered, layers

SEGMENT = {1: (32, "<5I"), 2: (56, "<IIQQQQ")}


def program(seed: int, loaded: list[tuple[int, int, int]], wide: bool = True) -> bytes:
    """An ELF file: (place, bytes, address) are loaded, all else is zeros; section headers at the end."""
    random = Random(seed)
    size = max(place + length for place, length, _ in loaded)
    body = bytearray(size)
    for place, length, _ in loaded:
        body[place : place + length] = random.randbytes(length)
    ident = b"\x7fELF" + (b"\x02" if wide else b"\x01") + b"\x01\x01" + bytes(9)
    if wide:
        head = struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, size, 0, 64, 56, len(loaded), 64, 2, 1)
        rows = [struct.pack("<IIQQQQQQ", 1, 5, at, va, va, n, n, 4096) for at, n, va in loaded]
        sections = bytes(64) + struct.pack("<IIQ", 1, 3, 0) + bytes(48)
    else:
        head = struct.pack("<HHIIIIIHHHHHH", 3, 40, 1, 0, 52, size, 0, 52, 32, len(loaded), 40, 2, 1)
        rows = [struct.pack("<8I", 1, at, va, va, n, n, 5, 4096) for at, n, va in loaded]
        sections = bytes(40) + struct.pack("<II", 1, 3) + bytes(32)
    start = ident + head + b"".join(rows)
    body[: len(start)] = start
    return bytes(body) + sections


LOADED = [(0, 30_000, 0), (0x10000, 9_000, 0x20000)]  # 35,536 bytes of zeros between


@pytest.mark.parametrize("wide", [True, False], ids=["64 bit", "32 bit"])
def test_a_program_says_what_of_it_is_loaded_where(wide: bool) -> None:
    image = bytes(4096) + program(1, LOADED, wide)
    (found,) = elf.programs(image)
    assert (found.start, found.end) == (4096, len(image))
    assert found.segments(image) == LOADED


def test_a_program_whose_end_is_elsewhere_ends_where_the_next_begins() -> None:
    """As in a squashfs, which keeps what is left of a file behind its last whole block in another place."""
    one, two = program(1, LOADED), program(2, LOADED)
    image = one[: 0x10000 + 4096] + two
    first, second = elf.programs(image)
    assert (first.start, first.end, second.start) == (0, 0x10000 + 4096, 0x10000 + 4096)
    assert first.segments(image) == [LOADED[0], (0x10000, 4096, 0x20000)]


def test_a_program_in_a_program_is_a_part_of_it() -> None:
    inner = program(1, [(0, 500, 0)])
    outer = bytearray(program(2, LOADED))
    outer[8192 : 8192 + len(inner)] = inner
    assert elf.extents(bytes(outer)) == [(0, len(outer))]


def test_no_more_segments_are_told_than_a_patch_holds() -> None:
    loaded = [(k * 300, 200 + k, k * 4096) for k in range(40)]
    image = program(3, loaded)
    (found,) = elf.programs(image)
    assert found.segments(image) == loaded[16:], "the largest"


# --- ext4 ------------------------------------------------------------------------------------------------


def ext4_of(files: dict[str, bytes], where: Path) -> bytes:
    """The files in a new file system of 1 KiB blocks, as mke2fs makes it."""
    mke2fs = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if mke2fs is None:
        missing("mke2fs (e2fsprogs)")
    tree, image = where / "tree", where / "image"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name, body in files.items():
        (tree / name).write_bytes(body)
    words = [
        str(mke2fs),
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "1024",
        "-O",
        "^has_journal",
        "-d",
        str(tree),
        str(image),
        "12M",
    ]
    subprocess.run(words, check=True, capture_output=True)
    return image.read_bytes()


PROGRAMS = {f"program{k}": program(k, [(0, 90_000 + k, 0), (0x20000, 50_000, 0x30000)]) for k in range(4)}


def test_files_are_read_from_an_ext4_with_the_zeros_that_it_left_out(tmp_path: Path) -> None:
    image = ext4_of(PROGRAMS, tmp_path)
    read = []
    for rows in ext4.files(image, 4096):
        body = bytearray(max(logical + length for logical, _, length in rows))
        for logical, place, length in rows:
            body[logical : logical + length] = image[place : place + length]
        read.append(bytes(body))
        assert len(rows) > 1, "blocks of zeros are not there"
    assert sorted(read) == sorted(PROGRAMS.values())


def test_programs_in_an_ext4_are_loaded_where_their_blocks_are(tmp_path: Path) -> None:
    image = ext4_of(PROGRAMS, tmp_path)
    found = elf.programs(image)
    assert len(found) == len(PROGRAMS)
    for each in found:
        body = next(body for body in PROGRAMS.values() if image[each.start :].startswith(body[:60_000]))
        for place, size, address in each.segments(image):
            at = address if address < 0x30000 else address - 0x10000  # as `PROGRAMS` are laid out
            assert image[each.start + place : each.start + place + size] == body[at : at + size]


def test_an_updated_program_in_an_ext4_is_compared_with_its_like(tmp_path: Path) -> None:
    old = ext4_of(PROGRAMS, tmp_path)
    body = PROGRAMS["program1"]
    more = {"program0": PROGRAMS["program0"] + bytes(3000) + b"\1" * 3000}
    new = ext4_of({**PROGRAMS, **more, "program1": body[:5000] + b"patched" + body[5007:]}, tmp_path)
    made = layered.make(old, new)
    head = layers.read_head(made.patch)
    plan = layers.read_plan(made.patch[head.length : head.length + head.plan_packed], head)
    assert [part for part in plan.parts if not part.held], "a part of its own"
    assert delta.apply_delta(old, made.patch) == new


def test_an_ext4_that_lies_has_fewer_files_and_nothing_else(tmp_path: Path) -> None:
    image = ext4_of(PROGRAMS, tmp_path)
    end = max(rows[0][1] for rows in ext4.files(image, 4096))
    random = Random(9)
    for _ in range(300):
        bad = bytearray(image)
        for _ in range(random.randrange(1, 30)):
            at = random.randrange(1024, 2048) if random.random() < 0.3 else random.randrange(1024, end)
            bad[at] = random.choice((0, 255, bad[at] ^ 1 << random.randrange(8)))
        for rows in ext4.files(bytes(bad), 4096):
            assert all(length > 0 and place + length <= len(bad) for _, place, length in rows)
    assert not list(ext4.files(image[:3000], 4096))
