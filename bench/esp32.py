"""The ESP32's clients, measured: power cuts, memory, code, flash writes, fuzzing, coverage.

Everything runs the C++ of `clients/esp32` as it is flashed, on the host's chip; sizes are of what the
cross-compilers make of it. What a machine lacks (clang, the cross-compilers, gcovr) is not measured, and
its key is absent. Tables to stderr, JSON to stdout.

    python3 dev.py bench esp32 [--json] [--full] [--fuzz N] [--pairs N] [--step N] [--seed S]
        [--tally FILE] [--jobs N] [--only PART ...]

A million inputs for each parser take hours: with --tally they can be had in pieces, and count together for as
long as the sources are the same.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parts.esp32_coverage import coverage
from parts.esp32_fuzz import fuzz, micropython_fuzz
from parts.esp32_sizes import sizes
from parts.shell import run, say
from parts.tally import Tally
from skylift.testkit import esp32, esp32scene, micropython

FULL, SHORT = 1_000_000, 20_000  # fuzzed inputs of each parser
MICROPYTHON_PAIRS = {False: 20, True: 200}  # lives of processes: all pairs would be a night
SIZE = 48 << 10  # of the image whose every operation is cut
LARGE = 1 << 20  # of the one whose writes are weighed
PARTS = ("sizes", "writes", "coverage", "cuts", "micropython-cuts", "fuzz", "micropython-fuzz")


# --- power cuts, flash, heap --------------------------------------------------------------------------


def cuts(folder: Path, pairs: str, step: int) -> dict[str, Any]:
    """Every operation, and pairs, some or all: see clients/esp32/tests/powercut.cpp."""
    scene = esp32scene.scene(size=SIZE).write(folder / "scene")
    done = run([str(esp32.power_cuts()), str(scene), pairs, str(step)])
    say(done.stderr.strip()[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    say(
        f"power cuts: {found['cuts']:,}, and {found['pairs']:,} pairs, in {found['lives']:,} lives from "
        f"{found['starts']} starting chips: "
        f"{found['unbootable']} unbootable, {found['unverified_boots']} unverified; ends: {found['ends']}"
    )
    keys = ("cuts", "pairs", "unbootable", "unverified_boots", "stuck", "neither_old_nor_new", "lives")
    return {key: found[key] for key in keys}


def writes(folder: Path) -> dict[str, Any]:
    """Bytes written to flash by one update of a usual image, its journal and boot control included; and
    the heap."""
    scene = esp32scene.scene(size=LARGE).write(folder / "large")
    program = esp32.harness("weigh", ("-O2", "-g"))
    done = run([str(program), str(scene)])
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    say(
        f"flash: {found['written']:,} bytes for an image of {found['image']:,}; heap after begin: "
        f"{found['heap_after_begin']} allocations; the decoder's stack: {found['stack']} bytes on this host"
    )
    return {
        "flash_write_ratio": round(found["written"] / found["image"], 4),
        "heap_after_begin": found["heap_after_begin"],
        "delta_stack_host": found["stack"],
    }


def micropython_cuts(folder: Path, step: int, pairs: int, seed: int) -> dict[str, Any]:
    """The MicroPython client's power cuts, each and some pairs; {} without its interpreter."""
    if micropython.interpreter() is None:
        say("no micropython here: its power cuts are not measured")
        return {}
    library = micropython.packed(folder / "library")
    scene = esp32scene.scene(size=SIZE)
    found = micropython.cut_everywhere(folder / "micropython", library, scene, step)
    say(
        f"MicroPython: {found.cuts} cuts in {found.operations} operations: {found.unbootable} unbootable, "
        f"{found.unverified} unverified; ends: {found.ends}"
    )
    both = micropython.cut_pairs(folder / "pairs", library, scene, pairs, seed)
    say(
        f"MicroPython, {pairs} lives cut twice: {both.cuts} cuts: {both.unbootable} unbootable, "
        f"{both.unverified} unverified; ends: {both.ends}"
    )
    keys = ("operations", "cuts", "unbootable", "unverified")
    told = {key: getattr(found, key) for key in keys} | {"pairs": pairs}
    for key in ("unbootable", "unverified"):
        told[key] += getattr(both, key)
    return {"micropython": told}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} inputs for each parser")
    parser.add_argument("--fuzz", type=int, default=None, metavar="N", help="inputs for each parser")
    parser.add_argument(
        "--pairs",
        default=None,
        help="pairs of cuts from each starting chip, each kind of update, or all; 40, or all with --full",
    )
    parser.add_argument("--step", type=int, default=1, help="cut at every so many operations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tally", type=Path, help="counts fuzzed inputs here, and goes on from there")
    parser.add_argument("--jobs", type=int, default=1, help="parsers that are fuzzed at a time")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS)
    )
    asked = parser.parse_args()
    if esp32.compiler() is None:
        say("a C++ and a C compiler (g++, gcc) are needed")
        return 1
    each = asked.fuzz if asked.fuzz is not None else FULL if asked.full else SHORT
    pairs = asked.pairs or ("all" if asked.full else "40")
    tally, found = Tally(asked.tally), {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "sizes": lambda: sizes(folder),
            "writes": lambda: writes(folder),
            "coverage": lambda: coverage(folder),
            "cuts": lambda: cuts(folder, pairs, asked.step),
            "micropython-cuts": lambda: micropython_cuts(
                folder, asked.step, MICROPYTHON_PAIRS[asked.full], asked.seed
            ),
            "fuzz": lambda: fuzz(
                folder, each, asked.seed, tally, asked.tally and asked.tally.parent, asked.jobs
            ),
            "micropython-fuzz": lambda: micropython_fuzz(folder, each, asked.seed, tally),
        }
        for part in PARTS:
            if part in asked.only:
                found |= parts[part]()
    print(json.dumps(found, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
