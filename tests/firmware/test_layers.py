"""Layered deltas: large images in little memory, packed images opened, and descriptions that lie."""

import base64
import gzip
import hashlib
import io
import json
import lzma
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conftest import missing
from skylift.firmware import assemble, codecs, containers, delta, elf, layered, layers, native, squashfs
from skylift.firmware.layers import COPY, FILL, HELD, NEW, PACKED, Head, Part, Span
from skylift.firmware.native import DeltaError

Change = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def core(built: bool) -> None:
    """Layers are made by the C core."""
    if not built:
        missing("the C core (a C compiler)")


def rebuilt(old: bytes, patch: bytes, scratch: Path | None = None) -> bytes:
    pieces: list[bytes] = []
    delta.rebuild(old, patch, pieces.append, scratch=scratch)
    return b"".join(pieces)


def words(seed: int, size: int) -> bytes:
    """Text that packs, and says something else for every seed."""
    random = Random(seed)
    known = [hashlib.sha256(b"%d" % k).hexdigest()[: 3 + k % 9].encode() for k in range(900)]
    return b" ".join(random.choice(known) for _ in range(size // 8))[:size]


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    """A few megabytes: some moved, some new, some zeros where nothing was."""
    old = Random(1).randbytes(3 << 20)
    new = old[: 1 << 20] + words(2, 30_000) + old[2 << 20 :] + bytes(200_000) + old[1 << 20 : 2 << 20]
    return old, new


CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[2] / "conformance" / "delta" / "layers.json").read_text()
)


def unpacked(case: dict[str, Any], name: str) -> bytes:
    return zlib.decompress(base64.b64decode(case[name]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_a_vector_makes_exactly_its_image_or_is_refused(case: dict[str, Any]) -> None:
    old, patch = unpacked(case, "base"), unpacked(case, "patch")
    if "error" in case:
        with pytest.raises(DeltaError):
            rebuilt(old, patch)
        return
    assert delta.read_header(patch).needs == tuple(case["needs"])
    assert rebuilt(old, patch) == unpacked(case, "target")
    if not case["needs"]:
        assert layered.make(old, unpacked(case, "target")).patch == patch, "the encoder is deterministic"


@pytest.mark.parametrize(
    "case", [case for case in CASES if "error" not in case], ids=lambda case: str(case["name"])
)
def test_what_is_there_already_is_not_made_again(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any byte on, also in the middle of a packed block; of the parts only what is still needed."""
    old, patch, target = (unpacked(case, name) for name in ("base", "patch", "target"))
    made: list[int] = []
    apply = native.apply

    def counted(*words: Any, **more: Any) -> None:
        made.append(len(words[1]))
        apply(*words, **more)

    monkeypatch.setattr(native, "apply", counted)
    parts = []
    for start in [*range(0, len(target), max(1, len(target) // 40)), len(target)]:
        pieces: list[bytes] = []
        made.clear()
        delta.rebuild(old, patch, pieces.append, start=start)
        assert b"".join(pieces) == target[start:]
        parts.append(sum(made))
    assert parts == sorted(parts, reverse=True)
    assert parts[-1] == 0


# --- large images ----------------------------------------------------------------------------------------


def test_long_runs_are_copied_and_what_is_new_costs_what_it_is(
    pair: tuple[bytes, bytes], tmp_path: Path
) -> None:
    old, new = pair
    made = layered.make(old, new)
    assert rebuilt(old, made.patch) == rebuilt(old, made.patch, tmp_path) == new
    assert made.copied > 0.99 * len(old)
    assert len(made.patch) < len(lzma.compress(words(2, 30_000))) * 1.2 + 500
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_the_same_delta_comes_out_whatever_the_number_of_threads(
    pair: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small parts, from only a stretch of the base each."""
    monkeypatch.setattr(layered, "MOST_PART", 5_000)
    monkeypatch.setattr(layered, "MOST_BASE", 20_000)
    old, new = pair[0][:200_000], words(3, 25_000) + pair[0][100_000:200_000] + words(4, 10_000)
    one, four = (layered.make(old, new, threads=threads) for threads in (1, 4))
    assert one == four
    assert one.parts > 5
    assert rebuilt(old, one.patch) == new


def test_making_tells_progress_and_ends_when_told(pair: tuple[bytes, bytes]) -> None:
    said: list[tuple[int, int]] = []
    layered.make(*pair, progress=lambda done, everything: bool(said.append((done, everything))))
    assert said
    assert all(0 <= done <= everything for done, everything in said)
    for patience in (0, len(said) - 1):
        left = iter(range(patience))
        with pytest.raises(DeltaError, match="stopped"):
            layered.make(*pair, progress=lambda done, everything, left=left: next(left, None) is None)


def test_an_image_beyond_four_gigabytes_is_refused_by_name(tmp_path: Path) -> None:
    """Sparse files: sizes only."""
    for name, size in (("old", 1 << 20), ("new", layered.MOST_IMAGE + 1)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    with pytest.raises(DeltaError, match=r"more than 4294967040 bytes.*full image"):
        delta.create_delta(tmp_path / "old", tmp_path / "new", tmp_path / "patch")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"", b"x"),
        (b"x", b""),
        (b"a", b"b"),
        (bytes(9000), bytes(9001)),
        (b"ab" * 50, b"ab" * 50),
    ],
    ids=["both empty", "from nothing", "to nothing", "tiny", "zeros", "identical"],
)
def test_odd_images_go_there_and_back(old: bytes, new: bytes) -> None:
    assert rebuilt(old, layered.make(old, new).patch) == new


def test_images_with_nothing_in_common_cost_hardly_more_than_themselves() -> None:
    old, new = Random(8).randbytes(20_000), Random(9).randbytes(20_000)
    made = layered.make(old, new)
    assert rebuilt(old, made.patch) == new
    assert len(made.patch) < len(new) * 1.03 + 500


def test_where_the_core_is_missing_python_follows_layers_too(
    pair: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair[0][:50_000], pair[0][:20_000] + b"something else" * 9 + pair[0][20_000:50_000]
    patch = layered.make(old, new).patch
    monkeypatch.setattr(native, "_library", lambda: None)
    assert rebuilt(old, patch) == new


def test_a_cut_at_any_byte_of_the_output_costs_only_doing_it_again(pair: tuple[bytes, bytes]) -> None:
    """No state is kept: what was written is made again, the same, and the rest follows."""
    old, new = pair[0][:60_000], words(5, 4000) + pair[0][:60_000] + words(6, 4000)
    patch = layered.make(old, new).patch

    class PowerCut(Exception):
        pass

    for cut in range(0, len(new), 4999):
        written = bytearray()

        def until(piece: bytes, written: bytearray = written, cut: int = cut) -> None:
            written += piece[: cut - len(written)]
            if len(written) >= cut:
                raise PowerCut

        with pytest.raises(PowerCut):
            delta.rebuild(old, patch, until)
        assert new.startswith(bytes(written))
        assert rebuilt(old, patch) == new


# --- programs --------------------------------------------------------------------------------------------


def program(seed: int, size: int) -> bytes:
    """An ELF file by its headers: one segment, section headers at the end."""
    body = Random(seed).randbytes(size)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 120 + size, 0, 64, 56, 1, 64, 1, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 120 + size, 120 + size, 4096)
    return head + body + bytes(64)


def test_programs_are_found_whole_and_compared_with_their_like() -> None:
    one, two = program(1, 90_000), program(2, 80_000)
    changed = two[:40_000] + b"patched " * 40 + two[40_320:]
    old, new = bytes(5000) + one + two, bytes(5000) + changed + one
    assert [end - start for start, end in elf.extents(memoryview(old))] == [len(one), len(two)]
    made = layered.make(old, new)
    head = layers.read_head(made.patch)
    plan = layers.read_plan(made.patch[head.length : head.length + head.plan_packed], head)
    assert [(part.size, part.makes) for part in plan.parts if not part.held] == [(len(two), len(changed))]
    assert rebuilt(old, made.patch) == new
    assert len(made.patch) < 700


def test_a_program_whose_builds_name_alone_changed_is_copied() -> None:
    one, two = program(1, 90_000), program(2, 80_000)
    changed = two[:40_000] + b"by name" + two[40_007:]
    old, new = bytes(5000) + one + two, bytes(5000) + changed + one
    made = layered.make(old, new)
    head = layers.read_head(made.patch)
    plan = layers.read_plan(made.patch[head.length : head.length + head.plan_packed], head)
    assert [(part.held, part.makes) for part in plan.parts] == [(True, 7)]
    assert made.copied >= len(one) + len(two) - 7
    assert rebuilt(old, made.patch) == new


# --- packed images ---------------------------------------------------------------------------------------


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, 9, mtime=0)


def zipped(body: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(0, len(body), 50_000):
            archive.writestr(zipfile.ZipInfo(f"part{k}"), body[k : k + 50_000], zipfile.ZIP_DEFLATED)
    return out.getvalue()


def xz_kernel(body: bytes) -> bytes:
    """What an ARM kernel that unpacks itself looks like from outside."""
    chain = [{"id": lzma.FILTER_ARM}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 32 << 20}]
    packed = lzma.compress(body * 2, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=chain)
    return bytes(0x24) + b"\x18\x28\x6f\x01" + words(1, 2000) + packed + b"tail"


def lzma_stream(body: bytes) -> bytes:
    return lzma.compress(body, lzma.FORMAT_ALONE, preset=9)


@pytest.mark.parametrize("pack", [gzipped, zipped, xz_kernel, lzma_stream], ids=lambda pack: pack.__name__)
def test_a_small_change_inside_a_packed_image_stays_small(pack: Change, tmp_path: Path) -> None:
    before = words(1, 550_000)
    after = before[:200_000] + b"a line that was put in" + before[200_000:]
    old, new = pack(before), pack(after)
    made = layered.make(old, new)
    assert made.opened >= 1
    assert made.closed == 0
    assert rebuilt(old, made.patch, tmp_path) == new
    assert len(made.patch) < 0.05 * len(new)
    assert (tmp_path / "patch").exists() is False
    told = delta.create_delta(old, new, tmp_path / "patch")
    assert told is not None
    assert told["patch_size"] == len(made.patch), "packed images go in layers by themselves"


def test_what_nothing_packs_to_the_same_bytes_stays_closed_and_is_said() -> None:
    """Two deflate streams one behind the other with a flush between: no level makes that again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    before, after = words(1, 100_000), words(1, 99_000) + words(2, 1000)
    streams = []
    for body in (before, after):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        head = b"\x1f\x8b\x08\0\0\0\0\0\0\3"
        streams.append(
            head + packer.compress(body[:5000]) + packer.flush(zlib.Z_FULL_FLUSH)
            + packer.compress(body[5000:]) + packer.flush() + struct.pack("<II", zlib.crc32(body), len(body))
        )  # fmt: skip
    made = layered.make(*streams)
    assert (made.opened, made.closed) == (0, 1)
    assert rebuilt(streams[0], made.patch) == streams[1]


# --- squashfs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sixty files; in the second tree one of them was updated and is a little longer."""
    if not shutil.which("mksquashfs"):
        missing("mksquashfs")
    folders = []
    for name in ("old", "new"):
        folder = tmp_path_factory.mktemp(name)
        for k in range(60):
            body = words(k, 20_000 + 9000 * (k % 7))
            if (name, k) == ("new", 20):
                body = body[:9000] + b"security update" + body[9000:]
            (folder / f"file{k}").write_bytes(body)
        (folder / "link").symlink_to("file1")
        (folder / "deep").mkdir()
        (folder / "deep" / "large").write_bytes(words(99, 700_000))
        folders.append(folder)
    return folders[0], folders[1]


def squashed(tree: Path, image: Path, *how: str) -> bytes:
    quiet = ["-noappend", "-quiet", "-no-progress", "-all-root", "-all-time", "0", "-mkfs-time", "0"]
    subprocess.run(["mksquashfs", str(tree), str(image), *quiet, *how], check=True, capture_output=True)
    return image.read_bytes()


@pytest.mark.parametrize("how", ["gzip", "xz", "zstd", "lz4"])
def test_an_updated_file_in_a_squashfs_costs_little_more_than_its_change(
    how: str, trees: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = (squashed(tree, tmp_path / tree.name, "-comp", how) for tree in trees)
    if not all(codecs.available(name) for name in {"zstd": ["zstd"], "lz4": ["lz4"]}.get(how, [])):
        missing(f"lib{how}")
    made = layered.make(old, new)
    assert rebuilt(old, made.patch, tmp_path) == new
    assert made.opened > 0
    assert len(made.patch) < 0.03 * len(new)
    head = layers.read_head(made.patch)
    assert any(name.startswith({"gzip": "zlib"}.get(how, how)) for name in head.needs)


def test_every_compressed_block_of_a_squashfs_is_found(trees: tuple[Path, Path], tmp_path: Path) -> None:
    image = squashed(trees[0], tmp_path / "image", "-comp", "gzip")
    units = containers.units(memoryview(image))
    held = b"".join(squashfs.opened_block("zlib", image[unit.at : unit.end], 1 << 20) for unit in units)
    for k in range(60):
        assert (trees[0] / f"file{k}").read_bytes()[:500] in held
    assert units[0].at == 96, "the first block follows the superblock"
    assert sum(unit.length for unit in units) > 0.97 * len(image.rstrip(b"\0"))


def test_a_squashfs_with_tables_that_lie_is_compared_as_it_is(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    image = bytearray(squashed(trees[0], tmp_path / "image", "-comp", "gzip"))
    random = Random(3)
    good = len(containers.units(memoryview(bytes(image))))
    for _ in range(400):
        bad = bytearray(image)
        at = random.randrange(96) if random.random() < 0.5 else random.randrange(len(bad) - 3000, len(bad))
        bad[at] = random.randrange(256)
        found = containers.units(memoryview(bytes(bad)))
        assert len(found) <= good + 5
        assert all(unit.end <= len(bad) for unit in found)


# --- devices that lack something, and descriptions that lie --------------------------------------------


def test_a_delta_names_the_library_it_needs_and_is_refused_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = gzipped(words(1, 90_000)), gzipped(words(1, 90_000) + b"more")
    patch = layered.make(old, new).patch
    assert "deflate 9 15 8" in delta.read_header(patch).needs
    monkeypatch.setattr(codecs, "available", lambda name: not name.startswith("deflate 9"))
    written: list[bytes] = []
    with pytest.raises(DeltaError, match="needs deflate 9 15 8"):
        delta.rebuild(old, patch, written.append)
    assert written == []


def test_another_version_of_a_library_is_another_library() -> None:
    assert not codecs.available("zstd 15 0.0.1")
    assert not codecs.available("lz4 0.0.1")
    assert not codecs.available("deflate 9 15 8 7")
    assert not codecs.available("nonsense")
    for name in ("deflate 99 15 8", "xz 6 7", "xzs 6 1", "zlib 9 99 99"):
        with pytest.raises(DeltaError):
            packed(name, b"x" * 99)


def packed(name: str, body: bytes) -> bytes:
    packer = codecs.packer(name)
    return packer.compress(body) + packer.flush()


@pytest.fixture(scope="module")
def small() -> tuple[bytes, bytes, bytes]:
    old, new = (
        gzipped(words(1, 30_000)),
        gzipped(words(1, 20_000) + b"other" * 400 + words(1, 30_000)[20_000:]),
    )
    return old, new, layered.make(old, new).patch


def test_a_base_that_differs_by_one_byte_is_refused(small: tuple[bytes, bytes, bytes]) -> None:
    old, _, patch = small
    for at in range(0, len(old), 997):
        with pytest.raises(DeltaError, match="another image"):
            rebuilt(old[:at] + bytes([old[at] ^ 1]) + old[at + 1 :], patch)


def test_a_delta_cut_at_any_byte_is_refused(small: tuple[bytes, bytes, bytes]) -> None:
    old, _, patch = small
    for length in range(len(patch)):
        with pytest.raises(DeltaError):
            rebuilt(old, patch[:length])


def test_any_byte_flipped_is_refused_or_makes_the_very_image(small: tuple[bytes, bytes, bytes]) -> None:
    old, new, patch = small
    for at in range(len(patch)):
        for bits in (0x01, 0x80):
            bad = patch[:at] + bytes([patch[at] ^ bits]) + patch[at + 1 :]
            try:
                assert rebuilt(old, bad) == new
            except DeltaError:
                continue


def resealed(patch: bytes, **changed: Any) -> bytes:
    head = layers.read_head(patch)
    return layers.write_head(replace(head, **changed)) + patch[head.length :]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"memory": 4 << 30}, "at most"),
        ({"scratch": 4 << 30}, "at most"),
        ({"scratch": 5 << 30}, "at most"),
        ({"plan_size": 5}, "another size"),
        ({"plan_size": 1 << 30}, "at most"),
        ({"memory": 100}, "more memory than its header says"),
        ({"scratch": 1}, "more memory than its header says"),
        ({"target_size": 1 << 41}, "at most"),
        ({"target_size": 77}, "do not add up|larger than"),
        ({"needs": ()}, "does not name"),
        ({"body": 5}, "header says"),
    ],
    ids=lambda value: str(value),
)
def test_a_header_that_lies_is_refused_before_a_byte_is_written(
    small: tuple[bytes, bytes, bytes], changed: dict[str, Any], said: str
) -> None:
    written: list[bytes] = []
    with pytest.raises(DeltaError, match=said):
        delta.rebuild(small[0], resealed(small[2], **changed), written.append, max_memory=64 << 20)
    assert written == []


SPAN, PART = Span(0, 50, None, 50), Part(0, 50, 10, 5, False)
HEAD = Head(100, 110, bytes(32), bytes(32), 64 << 20, 1 << 20, 0, 0, 5, ())
STEPS = [(COPY, 0, 100), (NEW, 0, 10)]


@pytest.mark.parametrize(
    ("spans", "parts", "steps"),
    [
        ([Span(60, 50, None, 50)], [PART], STEPS),
        ([SPAN], [Part(10, 50, 10, 5, False)], STEPS),
        ([SPAN], [Part(0, 50, 10, 6, False)], STEPS),
        ([SPAN], [Part(0, 50, 10, 5, True)], STEPS),
        ([SPAN], [PART], [(COPY, 1, 100), (NEW, 0, 10)]),
        ([SPAN], [PART], [(COPY, 0, 100), (FILL, 256, 10)]),
        ([SPAN], [PART], [(COPY, 0, 99), (NEW, 0, 10)]),
        ([SPAN], [PART], [(COPY, 0, 100), (NEW, 0, 9), (HELD, 0, 1)]),
        ([SPAN], [PART], [(COPY, 0, 100), (NEW, 0, 10), (COPY, 0, 0)]),
        ([SPAN], [PART], [(COPY, 0, 100), (PACKED, 10, 20), (NEW, 0, 10)]),
        ([SPAN], [PART], [(COPY, 0, 100), (PACKED, 10, 5), (NEW, 0, 10)]),
        ([SPAN], [PART], [(COPY, 0, 100), (PACKED, 5, 20), (PACKED, 5, 10), (NEW, 0, 10)]),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(spans: Any, parts: Any, steps: Any) -> None:
    names = ["deflate 9 15 8"]
    head = replace(HEAD, needs=tuple(names))
    layers.judge(layers.plan_of(names, [SPAN], [PART], STEPS), head)
    with pytest.raises(DeltaError):
        layers.judge(layers.plan_of(names, spans, parts, steps), head)


def test_a_description_is_read_as_it_was_written() -> None:
    names = ["deflate", "deflate 9 15 8"]
    spans = [SPAN, Span(60, 20, "deflate", 300)]
    steps = [(COPY, 20, 70), (FILL, 255, 9), (COPY, 3, 16), (PACKED + 1, 15, 10), (NEW, 0, 10)]
    plan = layers.plan_of(names, spans, [PART], steps)
    packed, size = layers.write_plan(plan)
    head = replace(HEAD, needs=tuple(names), plan_packed=len(packed), plan_size=size)
    assert layers.read_plan(packed, head) == plan


def test_a_part_for_another_base_is_refused(small: tuple[bytes, bytes, bytes]) -> None:
    old, _, patch = small
    head = layers.read_head(patch)
    start = head.length + head.plan_packed
    other = native.make(b"x" * 99, b"y" * 99, "mcu-16k").patch
    body = other + bytes(head.body - len(other)) if len(other) < head.body else other[: head.body]
    with pytest.raises(DeltaError):
        rebuilt(old, patch[:start] + body)
    assert assemble.missing(head) == []
