"""`skylift delta`: patches of every format made, told apart, applied, pictured and compared."""

import hashlib
import json
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from conftest import missing
from skylift.cli.app import app
from skylift.firmware import delta, layered, layers, native, peers, picture
from skylift.firmware.picture import Stretch

FORMATS = ["skylift", *peers.FORMATS]


@pytest.fixture(scope="module", autouse=True)
def core() -> None:
    if not native.available():
        missing("the C core (a C compiler)")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """40 KB: a quarter stays, the middle moves, something is new."""
    folder, old = tmp_path_factory.mktemp("pair"), Random(1).randbytes(40_000)
    new = old[:10_000] + Random(2).randbytes(4000) + old[10_000:30_000] + old[34_000:]
    for name, body in (("old", old), ("new", new)):
        (folder / name).write_bytes(body)
    return folder / "old", folder / "new"


def skylift(*words: object) -> str:
    """What it says on stdout; it must succeed."""
    done = CliRunner().invoke(app, ["delta", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_made_told_applied_and_inspected(
    kind: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = pair
    patch, back, drawn = tmp_path / "patch", tmp_path / "back", tmp_path / "patch.svg"
    made = json.loads(skylift("make", old, new, patch, "--format", kind, "--json"))
    assert made["patch_size"] == patch.stat().st_size < 7000
    applied = json.loads(skylift("apply", old, patch, back, "--json"))
    assert applied["sha256"] == hashlib.sha256(new.read_bytes()).hexdigest()
    assert back.read_bytes() == new.read_bytes()
    found = json.loads(skylift("inspect", patch, "--base", old, "--json"))
    assert found["format"] == kind
    if kind in ("zstd", "hdiffpatch"):
        assert "picture" not in found
        refused = CliRunner().invoke(app, ["delta", "inspect", str(patch), "--base", str(old), "--svg", "x"])
        assert "do not tell what stands where" in str(refused.exception)
        return
    skylift("inspect", patch, "--base", old, "--svg", drawn)
    assert set(found["picture"]) == {"=", ">", "."}
    assert found["picture"].startswith("==========")
    assert found["bytes"]["same"] >= 9_900
    assert found["bytes"]["moved"] > 19_000
    assert 3_500 < found["bytes"]["new"] < 4_500
    tree = ElementTree.fromstring(drawn.read_text())  # noqa: S314 - our own
    assert sum(each.tag.endswith("polygon") for each in tree) >= 3


def test_a_picture_needs_the_old_image(pair: tuple[Path, Path], tmp_path: Path) -> None:
    skylift("make", *pair, tmp_path / "patch")
    done = CliRunner().invoke(app, ["delta", "inspect", str(tmp_path / "patch"), "--svg", "x.svg"])
    assert done.exit_code != 0


def test_comparing_tries_every_format_and_measures_it(pair: tuple[Path, Path]) -> None:
    rows = json.loads(skylift("compare", *pair, "--json"))
    assert {row["format"] for row in rows} == {*peers.FORMATS, *(f"skylift {name}" for name in delta.MEMORY)}
    assert [row["size"] for row in rows] == sorted(row["size"] for row in rows)
    assert all(row["same"] and row["make_s"] >= 0 and row["apply_s"] >= 0 for row in rows)
    largest = next(row for row in rows if row["format"] == "skylift linux-16m")
    assert largest["apply_memory"] is None or largest["apply_memory"] > 4 << 20, "its tables"


def test_layers_are_pictured_through_their_parts() -> None:
    """What a part takes from the base is seen, where its base is a stretch of the image."""
    old = Random(3).randbytes(600_000)
    changed = bytearray(old[300_000:310_000])
    for at in range(0, len(changed), 50):
        changed[at] ^= 1
    new = old[:200_000] + Random(4).randbytes(3000) + old[200_000:300_000] + bytes(changed) + old[310_000:]
    patch = layered.make(old, new).patch
    assert patch.startswith(layers.MAGIC)
    told = picture.stretches(old, patch)
    assert told is not None
    size, found = told
    assert size == len(new)
    assert [each.at for each in found] == [0, *(each.at + each.length for each in found[:-1])], "no gaps"
    sums = picture.shares(found)
    assert sums["same"] >= 199_000
    assert sums["moved"] > 399_000, "the changed ten thousand too"
    assert 2_900 < sums["new"] < 3_500
    for each in found:
        if each.start is not None and each.length > 20_000:
            assert new[each.at : each.at + 20] == old[each.start : each.start + 20]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 1000])
def test_the_bar_covers_images_of_any_size(size: int) -> None:
    found = [Stretch(0, size, 0)] if size else []
    assert picture.bar(found, size, 64) == "=" * min(size, 64)
    ElementTree.fromstring(picture.svg(found, size, size, "<&>"))  # noqa: S314 - our own
