"""Our deltas against everybody's: sizes on real pairs, times and memory, the decoder's code, mutated patches.

Every pair of a corpus (folders with old.bin and new.bin) by our three profiles and by bsdiff4, detools,
HDiffPatch, zstd --patch-from and xdelta3, each at its best setting and each patch applied and compared. Peers
that are not installed are left out, by name. Instructions per byte are callgrind's, over the host's build at
-Os; code size is GCC's for a Cortex-M4 at -Os; both only where those programs are.
Tables to stderr, JSON to stdout.

    python3 dev.py bench delta [--json] [--corpus DIR] [--linux DIR] [--pair NAME] [--fuzz N | --full]
        [--tally FILE]
"""

import argparse
import importlib.util
import io
import json
import lzma
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from parts import mutants
from parts.mutants import DECODER, NATIVE
from parts.shell import say
from parts.tally import Tally
from skylift.firmware import delta, native

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "mcu"
PROFILES = ("mcu-16k", "mcu-64k", "linux-16m")
CLOCK = 240e6  # Hz, of the microcontroller that the time is reckoned for
FUZZ_FULL = 10_000_000
FUZZ_TYPES = 200_000

Peer = Callable[[Path, Path, Path], None]  # old, new, where the patch goes


# --- the peers -------------------------------------------------------------------------------------------


def _bsdiff4(old: Path, new: Path, patch: Path) -> None:
    import bsdiff4

    bsdiff4.file_diff(str(old), str(new), str(patch))
    assert bsdiff4.patch(old.read_bytes(), patch.read_bytes()) == new.read_bytes()


def _detools(old: Path, new: Path, patch: Path) -> None:
    import detools

    out = io.BytesIO()
    with old.open("rb") as a, new.open("rb") as b, redirect_stdout(sys.stderr):
        detools.create_patch(a, b, out, compression="lzma")
    patch.write_bytes(out.getvalue())
    back = io.BytesIO()
    with old.open("rb") as a:
        detools.apply_patch(a, io.BytesIO(out.getvalue()), back)
    assert back.getvalue() == new.read_bytes()


def _hdiffpatch(old: Path, new: Path, patch: Path) -> None:
    import hdiffpatch

    a, b = old.read_bytes(), new.read_bytes()
    best = min((hdiffpatch.diff(a, b, codec) for codec in ("lzma", "lzma2")), key=len)
    patch.write_bytes(best)
    assert hdiffpatch.apply(a, best) == b


def _zstd(old: Path, new: Path, patch: Path) -> None:
    """Its window reaches over both images, or it would not see the base's beginning."""
    reach = f"--long={min(max((old.stat().st_size + new.stat().st_size).bit_length(), 27), 31)}"
    words = ["zstd", "-q", "-f", "-19", "--ultra", reach, f"--patch-from={old}", str(new), "-o"]
    subprocess.run([*words, str(patch)], check=True)
    back = ["zstd", "-q", "-d", "-c", reach, f"--patch-from={old}", str(patch)]
    assert subprocess.run(back, check=True, capture_output=True).stdout == new.read_bytes()


def _xdelta3(old: Path, new: Path, patch: Path) -> None:
    subprocess.run(["xdelta3", "-q", "-f", "-9", "-S", "lzma", "-e", "-s", old, new, patch], check=True)
    back = ["xdelta3", "-q", "-f", "-d", "-c", "-s", old, patch]
    assert subprocess.run(back, check=True, capture_output=True).stdout == new.read_bytes()


def peers() -> dict[str, Peer]:
    """Those that are here; what is not is named once."""
    everyone: dict[str, tuple[Peer, bool]] = {
        "bsdiff4": (_bsdiff4, importlib.util.find_spec("bsdiff4") is not None),
        "detools": (_detools, importlib.util.find_spec("detools") is not None),
        "hdiffpatch": (_hdiffpatch, importlib.util.find_spec("hdiffpatch") is not None),
        "zstd": (_zstd, shutil.which("zstd") is not None),
        "xdelta3": (_xdelta3, shutil.which("xdelta3") is not None),
    }
    missing = [name for name, (_, there) in everyone.items() if not there]
    if missing:
        say(f"not installed, left out: {', '.join(missing)} (pip: bsdiff4 detools; apt: zstd xdelta3)")
    return {name: peer for name, (peer, there) in everyone.items() if there}


# --- sizes -----------------------------------------------------------------------------------------------


def measure(folder: Path, others: dict[str, Peer]) -> dict[str, Any]:
    """One pair: every patch's size, each applied and compared."""
    old, new = folder / "old.bin", folder / "new.bin"
    before, after = old.read_bytes(), new.read_bytes()
    row: dict[str, Any] = {"new": len(after), "xz": len(lzma.compress(after, preset=9 | lzma.PRESET_EXTREME))}
    with tempfile.TemporaryDirectory() as scratch:
        for name, peer in others.items():
            patch = Path(scratch) / name
            peer(old, new, patch)
            row[name] = patch.stat().st_size
    for profile in PROFILES:
        made = native.make(before, after, profile)
        assert delta.apply_delta(before, made.patch, len(after)) == after
        row[profile.replace("-", "_")] = len(made.patch)
        row["arch"] = made.arch
    known = [name for name in others if name in row]
    if known:
        row["best_peer_name"] = min(known, key=lambda name: row[name])
        row["best_peer"] = row[row["best_peer_name"]]
    return row


def pairs(corpus: Path, only: str | None) -> Iterator[Path]:
    for folder in sorted(corpus.iterdir()) if corpus.is_dir() else ():
        if (folder / "old.bin").exists() and (only is None or folder.name == only):
            yield folder


def sizes(corpus: Path, only: str | None) -> dict[str, dict[str, Any]]:
    others, table = peers(), {}
    columns = ["new", "xz", *others, *(name.replace("-", "_") for name in PROFILES)]
    say(f"{'pair':24}" + "".join(f"{name:>12}" for name in columns))
    folders = list(pairs(corpus, only))
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1))) as pool:
        for folder, row in zip(folders, pool.map(lambda f: measure(f, others), folders), strict=True):
            table[folder.name] = row
            say(f"{folder.name:24}" + "".join(f"{row[name]:>12,}" for name in columns))
    return table


def geomean(table: dict[str, dict[str, Any]], column: str, against: str) -> float | None:
    ratios = [row[column] / row[against] for row in table.values() if against in row]
    return round(math.exp(sum(map(math.log, ratios)) / len(ratios)), 4) if ratios else None


# --- the decoder -----------------------------------------------------------------------------------------


def decoder(table: dict[str, dict[str, Any]], corpus: Path) -> dict[str, Any]:
    """Code and memory of the decoder, and what a byte of image costs it."""
    found: dict[str, Any] = {"ram_bytes": {name.replace("-", "_"): delta.MEMORY[name] for name in PROFILES}}
    if shutil.which("arm-none-eabi-gcc"):
        found["code_bytes"] = code_size()
        say(f"decoder: {found['code_bytes']:,} bytes of code (Cortex-M4, -Os, Thumb tables)")
    else:
        say("decoder: no arm-none-eabi-gcc here (apt: gcc-arm-none-eabi), code not measured")
    if shutil.which("valgrind") and native_compiler() and table:
        largest = max(table, key=lambda name: table[name]["new"])
        found["instructions_per_byte"] = {
            name.replace("-", "_"): instructions(corpus / largest, name) for name in PROFILES[:2]
        }
        for name, each in found["instructions_per_byte"].items():
            seconds = each * 1.3e6 / CLOCK
            say(f"decoder: {name} {each} instructions a byte: {seconds:.1f} s for 1.3 MB at 240 MHz")
    return found


def native_compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def code_size() -> int:
    flags = ["-mcpu=cortex-m4", "-mthumb", "-Os", "-std=c11", "-ffreestanding"]
    flags += ["-ffunction-sections", "-fdata-sections"]
    defines = ["-DSD_DECODER_ONLY", "-DSD_MCU", "-DSD_NARROW", "-DSD_ARCHS=1<<SD_THUMB", "-DSD_FREESTANDING"]
    with tempfile.TemporaryDirectory() as scratch:
        objects = []
        for source in DECODER:
            objects.append(str(Path(scratch) / f"{source.stem}.o"))
            words = ["arm-none-eabi-gcc", *flags, *defines, "-w", "-c", str(source), "-o", objects[-1]]
            subprocess.run(words, check=True)
        done = subprocess.run(["arm-none-eabi-size", *objects], check=True, capture_output=True, text=True)
    return sum(int(line.split()[0]) + int(line.split()[1]) for line in done.stdout.splitlines()[1:])


def instructions(folder: Path, profile: str) -> int:
    """Instructions per byte of image, the decoder alone: all of the program's but those without a patch."""
    before, after = (folder / "old.bin").read_bytes(), (folder / "new.bin").read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        program, patch = Path(scratch) / "apply", Path(scratch) / "patch"
        patch.write_bytes(native.make(before, after, profile).patch)
        sources = [str(path) for path in (NATIVE / "bench_apply.c", *DECODER)]
        words = [str(native_compiler()), "-std=c11", "-Os", "-DSD_DECODER_ONLY", "-DSD_MCU", "-o"]
        subprocess.run([*words, str(program), *sources], check=True)
        out = f"--callgrind-out-file={scratch}/callgrind"
        words = ["valgrind", "--tool=callgrind", out, "--toggle-collect=sd_apply", str(program)]
        done = subprocess.run(
            [*words, str(folder / "old.bin"), str(patch)], check=True, capture_output=True, text=True
        )
    counted = re.search(r"Collected : (\d+)", done.stderr)
    assert counted is not None, done.stderr
    return round(int(counted[1]) / len(after))


# --- large images ----------------------------------------------------------------------------------------

_MAKE = "import sys; from skylift.firmware import delta\ndelta.create_delta(*sys.argv[1:4], max_ratio=9)\n"
_APPLY = (
    "import os, pathlib, sys; from skylift.firmware import delta\n"
    "patch, scratch = pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[3]).parent\n"
    "out = open(scratch / 'made', 'wb')\n"
    "delta.rebuild(sys.argv[1], patch.read_bytes(), out.write, scratch=scratch)\n"
)
_HDIFFPATCH = (
    "import pathlib, sys, hdiffpatch\n"
    "old, new = (pathlib.Path(path).read_bytes() for path in sys.argv[1:3])\n"
    "pathlib.Path(sys.argv[3]).write_bytes(hdiffpatch.diff(old, new, 'lzma2'))\n"
)


def timed(words: list[str]) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import re, sys; sys.argv = sys.argv[1:]; exec(sys.argv[0])\n"
    # Not by getrusage: that tells what the parent had when it forked, where that is more.
    code += "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return round(spent, 2), round(float(done.stdout.split()[-1]), 1)


MOST_BSDIFF4 = 48 << 20  # bytes of a kernel; of larger ones bsdiff4 makes nothing in an hour, or a fault


def large(folder: Path) -> dict[str, Any]:
    """One pair of large images: ours, HDiffPatch's and zstd's, for kernels bsdiff4's too (it takes 17 times
    the image); seconds are CPU, memory is the process's."""
    old, new = folder / "old.bin", folder / "new.bin"
    row: dict[str, Any] = {"new": new.stat().st_size}
    with tempfile.TemporaryDirectory() as scratch:
        patch = Path(scratch) / "patch"
        row["create_s"], row["create_rss_mb"] = timed([_MAKE, str(old), str(new), str(patch)])
        row["ours"] = patch.stat().st_size
        row["apply_s"], row["apply_rss_mb"] = timed([_APPLY, str(old), str(new), str(patch)])
        assert (Path(scratch) / "made").read_bytes() == new.read_bytes()
        (Path(scratch) / "made").unlink()
        row["hdiffpatch_create_s"], row["hdiffpatch_create_rss_mb"] = timed(
            [_HDIFFPATCH, str(old), str(new), str(Path(scratch) / "hdiff")]
        )
        row["hdiffpatch"] = (Path(scratch) / "hdiff").stat().st_size
        kernel = folder.name.startswith("kernel") and row["new"] <= MOST_BSDIFF4
        if kernel and importlib.util.find_spec("bsdiff4"):
            _bsdiff4(old, new, Path(scratch) / "bsdiff4")
            row["bsdiff4"] = (Path(scratch) / "bsdiff4").stat().st_size
        if shutil.which("zstd"):
            _zstd(old, new, Path(scratch) / "zstd")
            row["zstd"] = (Path(scratch) / "zstd").stat().st_size
    say(f"{folder.name:24}", row)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--linux", type=Path, help="folders of old.bin and new.bin, large images")
    parser.add_argument("--pair", help="this pair only")
    parser.add_argument("--fuzz", type=int, default=20_000, metavar="N")
    parser.add_argument(
        "--full", action="store_true", help=f"{FUZZ_FULL:,} mutated patches: hours; see --tally"
    )
    parser.add_argument("--tally", type=Path, help="counts mutated patches here, and goes on from there")
    asked = parser.parse_args()
    asked.fuzz = FUZZ_FULL if asked.full else asked.fuzz
    if not native.available():
        say("the C core was not built (no compiler?): nothing to measure")
        return 1
    table = sizes(asked.corpus, asked.pair)
    found: dict[str, Any] = {"pairs": table}
    found["geomean_vs_bsdiff4"] = {}
    for profile in PROFILES:
        column = profile.replace("-", "_")
        mean, best = geomean(table, column, "bsdiff4"), geomean(table, column, "best_peer")
        if mean is not None:
            found["geomean_vs_bsdiff4"][column] = mean
            say(f"{profile}: {mean} of bsdiff4, {best} of the best peer (geometric means)")
    found["decoder"] = decoder(table, asked.corpus)
    if asked.linux:
        found["linux"] = {folder.name: large(folder) for folder in pairs(asked.linux, asked.pair)}
    if asked.fuzz and (cc := native_compiler()):
        done = mutants.fuzz(cc, asked.fuzz, asked.corpus, Tally(asked.tally))
        found |= {"fuzz_inputs": done.inputs, "fuzz_read": done.read, "fuzz_findings": done.findings}
        types = min(asked.fuzz, FUZZ_TYPES)
        found["fuzz_types_inputs"], found["fuzz_types_findings"] = mutants.fuzz_types(cc, types)
    print(json.dumps(found, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
