"""Cuts the agent's power at every disk operation of every update, from every starting disk, and boots again.

For each starting disk (factory, updated once or twice, with a configuration, torn in mid-download, armed, on
trial, after a fallback, after a confirmed image gave way, with a spoiled boot record) and each update (full
image, as it is and packed; a delta, one in layers, a chain; configuration; images and configurations that
turn out sick on trial, or wear out once they are confirmed), the operations are counted once; then the power
is cut before the first, after each, and in the middle of each that writes, with and without losing what was
not synced, by SIGKILL to a forked process. Then the power comes back: a valid image must boot, and the update
must end as it would have. Pairs of cuts (a second one during recovery) are sampled with a seed.

Prints cuts, bricks and unverified boots; the last line of stdout is one JSON object.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from skylift.agent import fetch, patch
from skylift.firmware import layered, native, packed
from skylift.firmware.delta import make
from skylift.testkit.powerplug import MODES, Bench, Cut, PluggedDisk, Update

SIZE = 96 << 10
NOTED_EVERY = 24 << 10  # bytes: images here are small, and are to be torn in the middle
UPDATES = (
    "full",
    "packed",
    "delta",
    "layers",
    "chain",
    "sick",
    "worn",
    "config",
    "sick config",
    "worn config",
)
WAYS = {"packed": "packed", "delta": "delta", "layers": "delta", "chain": "chain"}
# Syncing is what is simulated: a disk in memory saves the wait for a real one.
SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - only a private folder below it


@dataclass(frozen=True)
class Scene:
    """A starting disk and an update; `expect` is how the update ends, `may_run` which images are right."""

    start: str
    update: Update
    attempt: int


class Desk:
    """The images, and the starting disks as folders to copy."""

    def __init__(self, home: Path) -> None:
        self.home = home
        noise = random.Random(7)
        base = noise.randbytes(SIZE)
        names = ("old", "mid", "between", "new", "sick", "worn")
        self.images = {name: base[:-8] + noise.randbytes(8) for name in names}
        self.factory = home / "factory.img"
        self.factory.write_bytes(self.images["old"])
        self.updates = self._updates()
        self.known = {hashlib.sha256(self.images["old"]).hexdigest(): True}
        self.known |= {update.sha256: update.healthy for update in self.updates.values()}
        self.worn = frozenset(update.sha256 for update in self.updates.values() if update.wears_out)
        self.starts = self._starts()

    def _updates(self) -> dict[str, Update]:
        old, mid, new = (self.images[name] for name in ("mid", "between", "new"))
        return {
            "mid": Update("mid", "image", "mid", old),
            "full": Update("full", "image", "new", new),
            "packed": Update("packed", "image", "new", new, packed=self._packed(new)),
            "delta": Update("delta", "image", "new", new, (hop(old, new),)),
            "layers": Update("layers", "image", "new", new, (hop(old, new, layers=True),)),
            "chain": Update("chain", "image", "new", new, (hop(old, mid, layers=True), hop(mid, new))),
            "sick": Update("sick", "image", "sick", self.images["sick"], healthy=False),
            "config": Update("config", "config", "c1", b'{"interval": 30}'),
            "sick config": Update("sick config", "config", "c2", b'{"interval": 0}', healthy=False),
            "worn": Update("worn", "image", "worn", self.images["worn"], wears_out=True),
            "worn config": Update("worn config", "config", "c3", b'{"interval": 1}', wears_out=True),
        }

    def _packed(self, body: bytes) -> bytes:
        (self.home / "raw").write_bytes(body)
        packed.pack(self.home / "raw", self.home / "packed", "xz")
        return (self.home / "packed").read_bytes()

    def bench(self, folder: Path) -> Bench:
        return Bench(folder, self.factory, self.known, self.worn)

    def _starts(self) -> dict[str, Path]:
        made: dict[str, Path] = {}

        def disk(name: str, of: str | None = None) -> Path:
            made[name] = self.home / "starts" / name.replace(" ", "-")
            if of is None:
                made[name].mkdir(parents=True)
            else:
                shutil.copytree(made[of], made[name])
            return made[name]

        def run(folder: Path, update: Update | None, attempt: int, cut: Cut | None = None) -> None:
            if cut is None:
                self.bench(folder).live(PluggedDisk(folder), update, attempt)
            else:
                killed(self.bench(folder), update, attempt, cut)

        run(disk("factory"), None, 0)
        run(disk("updated once", "factory"), self.updates["mid"], 101)
        run(disk("updated twice", "updated once"), self.updates["full"], 102)
        run(disk("with a configuration", "updated once"), self.updates["config"], 103)
        run(disk("after a fallback", "updated once"), self.updates["sick"], 104)
        torn = self._operations("updated once", self.updates["sick"], 105)
        run(
            disk("torn in mid-download", "updated once"),
            self.updates["sick"],
            105,
            Cut(torn // 3, "during", True),
        )
        run(disk("armed", "updated once"), self.updates["sick"], 106, Cut(torn * 3 // 4, "after", False))
        run(disk("gave way", "updated once"), self.updates["worn"], 107)
        run(disk("on trial", "updated once"), self.updates["full"], 108, self._first_trial())
        (disk("spoiled record", "updated once") / "slots" / "boot.json").write_bytes(b"\0" * 64)
        return made

    def _first_trial(self) -> Cut:
        """The cut that comes when a trial of the full image has been booted, and not judged."""
        source = self.home / "starts" / "updated-once"
        with tempfile.TemporaryDirectory(dir=self.home) as scratch:
            for at in range(1, self._operations("updated once", self.updates["full"], 108) + 1):
                folder = Path(scratch) / str(at)
                shutil.copytree(source, folder)
                killed(self.bench(folder), self.updates["full"], 108, cut := Cut(at, "after", False))
                record = json.loads((folder / "slots" / "boot-copy.json").read_bytes())["kinds"]["image"]
                if record["trial"] and record["tries"] < self.bench(folder).config().boot_attempts:
                    return cut
        raise AssertionError("no trial was ever booted")

    def _operations(self, start: str, update: Update, attempt: int) -> int:
        return self.count(start, update, attempt).operations

    def count(self, start: str, update: Update, attempt: int) -> PluggedDisk:
        """A disk that has counted its operations, through the whole update without a cut."""
        with tempfile.TemporaryDirectory(dir=self.home) as scratch:
            folder = Path(scratch) / "disk"
            source = self.home / "starts" / start.replace(" ", "-")
            shutil.copytree(source, folder)
            disk = PluggedDisk(folder)
            outcome = self.bench(folder).live(disk, update, attempt)
            if start == "updated once" and update.name in WAYS and outcome.ways != [WAYS[update.name]]:
                raise AssertionError(f"{update.name} came another way: {outcome.ways}")
            return disk

    def scenes(self) -> Iterator[Scene]:
        for start in self.starts:
            for name in UPDATES:
                yield Scene(start, self.updates[name], 1)


def hop(old: bytes, new: bytes, layers: bool = False) -> tuple[str, bytes]:
    """A delta and the digest of what it starts from."""
    body = layered.make(old, new).patch if layers else make(old, new)
    return Update("", "image", "", old).sha256, body


def small_pieces() -> None:
    """What is noted every few megabytes, every few kilobytes."""
    fetch.DURABLE_EVERY = patch.NOTED_EVERY = packed.FRAME = NOTED_EVERY


def killed(bench: Bench, update: Update | None, attempt: int, cut: Cut) -> bool:
    """Run in a forked child until the plug kills it; False when it ended before the cut came."""
    child = os.fork()
    if child == 0:
        try:
            bench.live(PluggedDisk(bench.home, cut), update, attempt)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@dataclass
class Found:
    """What a scene came to."""

    cuts: int = 0
    bricked: int = 0
    unverified: int = 0
    wrong: int = 0


def play(desk: Desk, scene: Scene, stride: int, pairs: int) -> Found:
    """Every cut of one scene, then some pairs."""
    found = Found()
    scratch = Path(tempfile.mkdtemp(dir=desk.home))
    counted = desk.count(scene.start, scene.update, scene.attempt)
    expected = counted.operations
    cuts = [
        Cut(at, mode, lose)
        for at in range(1, expected + 1, stride)
        for mode in MODES
        if _differs(at, mode, counted.writes)
        for lose in (False, True)
    ]
    for cut in cuts:
        folder = _copy(desk, scene, scratch)
        if killed(desk.bench(folder), scene.update, scene.attempt, cut):
            found.cuts += 1
            _recover(desk, scene, folder, found, 1)
    dice = random.Random(f"{scene.start}/{scene.update.name}")
    for _ in range(pairs):
        folder = _copy(desk, scene, scratch)
        came = 0
        for _ in range(2):
            cut = Cut(dice.randint(1, expected), dice.choice(MODES), dice.random() < 0.5)
            came += killed(desk.bench(folder), scene.update, scene.attempt, cut)
        found.cuts += came
        _recover(desk, scene, folder, found, came)
    shutil.rmtree(scratch)
    return found


def _differs(at: int, mode: str, writes: set[int]) -> bool:
    """Before an operation the disk is as it was after the one before it; only what writes has a middle."""
    match mode:
        case "before":
            return at == 1
        case "during":
            return at in writes
    return True


def _copy(desk: Desk, scene: Scene, scratch: Path) -> Path:
    folder = scratch / "disk"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(desk.starts[scene.start], folder)
    return folder


def _recover(desk: Desk, scene: Scene, folder: Path, found: Found, cuts: int) -> None:
    """The power is back: it boots something valid, and the update ends as it would have. As many cuts as
    there are boot attempts may have used them up: then falling back is right."""
    bench = desk.bench(folder)
    outcome = bench.live(PluggedDisk(folder), scene.update, scene.attempt)
    found.bricked += outcome.bricked or not outcome.ran
    found.unverified += outcome.unverified
    used_up = cuts >= bench.config().boot_attempts and outcome.final == "rolled_back"
    update = scene.update
    stays = update.healthy and not update.wears_out and not used_up
    # No last word: it had been delivered before the cut, nothing was left to say.
    ends_right = outcome.final in ("complete" if stays else "rolled_back", "")
    runs = {"image": outcome.ran[-1] if outcome.ran else "", "config": outcome.config}
    healthy = all(desk.known.get(runs[kind], not runs[kind]) for kind in runs) and bool(runs["image"])
    # What gave way to the former may be the same image as that one; what wears out may not stay.
    new = runs[update.kind] == update.sha256
    runs_right = healthy and (new if stays else not (new and update.wears_out))
    found.wrong += not (ends_right and runs_right)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the JSON is always last")
    parser.add_argument("--stride", type=int, default=1, help="every n-th operation only")
    parser.add_argument("--pairs", type=int, default=60, help="sampled pairs of cuts per scene")
    parser.add_argument("--updates", default=",".join(UPDATES), help="only these, by name")
    parser.add_argument("--starts", default="", help="only these starting disks, by name; else all")
    options = parser.parse_args()
    started = time.monotonic()
    totals = Found()
    if not native.available():
        parser.error("deltas are made by the C core: python native/build.py")
    small_pieces()
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        desk = Desk(Path(home))
        scenes = [scene for scene in desk.scenes() if chosen(scene, options)]
        jobs = [(desk, scene, options.stride, options.pairs) for scene in scenes]
        print(
            f"{'start':<24}{'update':<14}{'cuts':>7}{'bricked':>9}{'unverified':>12}{'wrong':>7}",
            file=sys.stderr,
        )
        with get_context("fork").Pool(os.cpu_count()) as pool:
            for scene, found in zip(scenes, pool.imap(_play, jobs), strict=True):
                line = f"{scene.start:<24}{scene.update.name:<14}{found.cuts:>7}{found.bricked:>9}"
                print(f"{line}{found.unverified:>12}{found.wrong:>7}", file=sys.stderr)
                totals.cuts += found.cuts
                totals.bricked += found.bricked
                totals.unverified += found.unverified
                totals.wrong += found.wrong
    told = {
        "cuts": totals.cuts,
        "bricked": totals.bricked,
        "unverified_boots": totals.unverified,
        "wrong_endings": totals.wrong,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(told))
    return 0 if not (totals.bricked or totals.unverified or totals.wrong) else 1


def chosen(scene: Scene, options: argparse.Namespace) -> bool:
    starts = options.starts.split(",") if options.starts else [scene.start]
    return scene.start in starts and scene.update.name in options.updates.split(",")


def _play(job: tuple[Desk, Scene, int, int]) -> Found:
    return play(*job)


if __name__ == "__main__":
    sys.exit(main())
