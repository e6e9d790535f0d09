"""Layered deltas: large images in little memory, and programs compared with their like."""

import base64
import json
import lzma
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import pytest

from skylift.firmware import delta, elf, layered, layers, native
from skylift.firmware.native import DeltaError

from .conftest import rebuilt, words

pytestmark = pytest.mark.usefixtures("core")  # it makes layers


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
