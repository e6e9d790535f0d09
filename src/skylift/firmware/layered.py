"""Makes layered deltas: of images too large or too packed for one patch. Memory is bounded, whatever their
size.

1. Both images are laid open (`view`): packed blocks that changed are opened, if they can be packed again to
the bit.
2. Long runs that stand in both are found (`native.copies`) and will be copied. What remains of the target
is new.
3. A kernel is compared whole, its types opened in their place. Else a program (`elf`) of which something is
new is taken whole, and compared with the program of the base that it has most runs in common with: a part of
its own, in which addresses can be predicted. So is a large block.
4. All else that is new goes, in order, into parts that are held; each is compared with what of the base is
not copied, the stretch around the same place where that is more than one patch can take.
5. The parts are made, as many at once as there are cores. Nothing depends on how many that is.
"""

import os
import re
import tempfile
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skylift.firmware import btf, codecs, containers, elf, layers, native, view
from skylift.firmware.layers import COPY, FILL, HELD, NEW, PACKED, Head, Part, Span, Step
from skylift.firmware.native import DeltaError
from skylift.firmware.ranges import Range, complement, cut, touching, without
from skylift.firmware.stock import Stock, stock_of

MOST_IMAGE = 0xFFFFFF00  # bytes; what is larger is refused by name
SHORTEST = 256  # bytes of a run that tells which programs belong together
WORTH_COPYING = 4096  # bytes of a run that is copied; less is left to a part
OWN_PART = 64 << 10  # bytes of a program that is worth a part of its own
HARDLY = 512  # bytes of a program for each that is not copied: a build's name and date changed, no more
LARGE_BLOCK = 1 << 20  # bytes of a packed block that is
MOST_PART = 24 << 20  # bytes that a part makes
MOST_BASE = 48 << 20  # bytes that it is made from: with the encoder's tables about 350 MB at a time
LEAST_BASE = 1 << 20
REPAID = 128  # bytes of base that a byte of part may cost to put together; with 32 an eighth was lost
MOST_PROGRAM = 48 << 20
MOST_ALONE = 96 << 20  # bytes of one that is the only one: a kernel
SEVERAL = 4  # programs that make an image one of many
_FILLS = re.compile(rb"\x00{4096,}|\xff{4096,}")
_AT_ONCE = 4  # parts, at most

Progress = Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class Made:
    """A delta, and what became of the images on the way."""

    patch: bytes
    parts: int
    copied: int  # bytes of the target
    opened: int  # packed blocks that were opened
    closed: int  # packed blocks that changed and that nothing packs to the same bytes
    reasons: tuple[str, ...] = ()  # why they stay closed, in sentences


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of the new view; `base`: the range of the old view it is compared with, None: whatever is
    left. `segments`: what is loaded where, of the base and of this; none: the bytes say that."""

    start: int
    end: int
    base: Range | None
    segments: native.Segments | None = None


def worth_layers(old: Any, new: Any) -> bool:
    """Whether this pair is for here rather than for one patch: large, packed, or many programs in one
    image."""
    if max(len(old), len(new)) > MOST_BASE:
        return True
    with memoryview(old) as a, memoryview(new) as b:
        packed = (containers.units(a) and containers.units(b)) or containers.beyond(b)
        return bool(packed) or len(elf.extents(b)) >= SEVERAL


def make(
    old: Any,
    new: Any,
    progress: Progress | None = None,
    threads: int | None = None,
    scratch: Path | None = None,
) -> Made:
    """The delta between two images (bytes, or mapped copy-on-write). `progress(done, all)`, in bytes of the
    target,
    is asked every so often, from any thread; True stops it. Raises `DeltaError`."""
    if max(len(old), len(new)) > MOST_IMAGE:
        raise DeltaError(
            f"images of more than {MOST_IMAGE} bytes are not made into deltas: send the full image"
        )
    with ExitStack() as keep:
        folder = Path(keep.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
        pair = _views(old, new, folder, keep)
        said = _Said(progress, len(pair.new))
        runs = native.copies(pair.old.body, pair.new.body, SHORTEST, said.comparing)
        view.drop(pair)
        return _made(old, new, pair, runs, said, threads)


def _views(old: Any, new: Any, folder: Path, keep: ExitStack) -> view.Pair:
    try:
        return view.lay_open(old, new, folder, keep)
    except DeltaError as e:  # larger than a disk should bear, or damaged: compared as they are
        return view.closed(old, new, f"compared packed: {e}")


def _made(old: Any, new: Any, pair: view.Pair, runs: list[Step], said: "_Said", threads: int | None) -> Made:
    copied = list(_worth_copying(pair, runs))
    gaps = complement([(at, at + length) for at, _, length in copied], len(pair.new))
    pieces = _pieces(pair, gaps, runs)
    copied = list(cut(copied, [(piece.start, piece.end) for piece in pieces]))
    fills = _fills(pair.new, pieces)
    stock = stock_of(pair, copied, [piece.base for piece in pieces if piece.base is not None])
    jobs, steps = _plan(pair, pieces, fills, copied, stock)
    bodies = _patches(pair, stock, jobs, said, threads)
    view.drop(pair)
    return _written(old, new, pair, stock, jobs, steps, bodies)


class _Said:
    """Progress, put together from many threads."""

    def __init__(self, progress: Progress | None, everything: int) -> None:
        self._progress, self._all, self._done = progress, everything, 0
        self._lock = threading.Lock()

    def comparing(self, _done: int, _everything: int) -> bool:
        return self._progress is not None and self._progress(0, self._all)

    def more(self, size: int) -> bool:
        with self._lock:
            self._done += size
            return self._progress is not None and self._progress(min(self._done, self._all), self._all)


# --- what is copied, what is new -------------------------------------------------------------------------


def _worth_copying(pair: view.Pair, runs: list[Step]) -> Iterator[Step]:
    """The runs' parts that lie in closed stretches on both sides, and are long enough."""
    for at, start, length in runs:
        for ours, begin, end in pair.new.between(at, at + length):
            if ours.codec is not None:
                continue
            shift = start - at
            for theirs, a, b in pair.old.between(begin + shift, end + shift):
                if theirs.codec is None and b - a >= WORTH_COPYING:
                    yield a - shift, a, b - a


def _pieces(pair: view.Pair, gaps: list[Range], runs: list[Step]) -> list[Piece]:
    """The new ranges, in order: programs and large blocks whole, the rest between them."""
    ours, theirs = elf.programs(pair.new.body), elf.programs(pair.old.body)
    programs, bases = ([(each.start, each.end) for each in found] for found in (ours, theirs))
    if _one_program(pair, len(programs)):
        return [Piece(0, len(pair.new), (0, len(pair.old)))]
    taken: list[Piece] = []
    most = MOST_PROGRAM if len(programs) > 1 else MOST_ALONE
    for start, end in sorted([*programs, *_blocks(pair.new)], key=lambda each: (each[0], -each[1])):
        if not OWN_PART <= end - start <= most or (taken and start < taken[-1].end):
            continue
        if _fresh(gaps, start, end) * HARDLY < end - start:
            continue  # no address moved in it: it is copied but for these bytes
        base = _relative(start, end, runs, sorted([*bases, *_blocks(pair.old)]))
        if base is not None and base[1] - base[0] <= most:
            taken.append(
                Piece(start, end, base, _segments(pair, elf.at(theirs, *base), elf.at(ours, start, end)))
            )
    between = without(gaps, [(piece.start, piece.end) for piece in taken])
    rest = [Piece(start, end, None) for start, end in between]
    return sorted([*taken, *rest], key=lambda piece: piece.start)


def _fresh(gaps: list[Range], start: int, end: int) -> int:
    """Bytes of a range that are not copied."""
    return sum(min(b, end) - max(a, start) for a, b in touching(gaps, start, end))


def _segments(pair: view.Pair, old: elf.Program | None, new: elf.Program | None) -> native.Segments | None:
    if old is None or new is None:
        return None
    before, after = old.segments(pair.old.body), new.segments(pair.new.body)
    return (before, after) if before and after else None


def _one_program(pair: view.Pair, programs: int) -> bool:
    """Whether the image is a kernel, of which nothing but what keeps its place was opened: addresses count
    right across it."""
    if programs >= SEVERAL or max(len(pair.old), len(pair.new)) > MOST_ALONE:
        return False
    kinds = {s.codec for s in pair.new.stretches if s.codec is not None}
    with memoryview(pair.new.body) as body:
        return kinds <= set(codecs.IN_PLACE) and any(btf.units(body))


def _blocks(image: view.View) -> list[Range]:
    return [
        (s.start, s.start + s.size) for s in image.stretches if s.codec is not None and s.size >= LARGE_BLOCK
    ]


def _relative(start: int, end: int, runs: list[Step], bases: list[Range]) -> Range | None:
    """The one of the base's ranges that most runs between two places lead to."""
    votes: Counter[Range] = Counter()
    begins = [begin for begin, _ in bases]
    k = max(bisect_right(runs, (start,)) - 1, 0)
    while k < len(runs) and runs[k][0] < end:
        at, there, length = runs[k]
        at, there, length = max(at, start), there + max(start - at, 0), min(at + length, end) - max(at, start)
        near = bisect_right(begins, there) - 1
        if length > 0 and near >= 0 and there < bases[near][1]:
            votes[bases[near]] += length
        k += 1
    return max(votes, key=lambda base: (votes[base], -base[0])) if votes else None


def _fills(new: view.View, pieces: list[Piece]) -> list[tuple[int, int, int]]:
    """(start, end, byte) of long runs of one byte in what is left over: no coder needs to see them."""
    found: list[tuple[int, int, int]] = []
    for piece in pieces:
        if piece.base is not None or piece.end - piece.start < WORTH_COPYING:
            continue
        for start in range(piece.start, piece.end, MOST_PART):
            body = bytes(new.body[start : min(start + MOST_PART, piece.end)])
            found += [
                (start + hit.start(), start + hit.end(), body[hit.start()]) for hit in _FILLS.finditer(body)
            ]
    return found


# --- what parts are made from ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """A part to be made: from the stock at `start`, `size` bytes; what it makes are these ranges of the new
    view."""

    start: int
    size: int
    ranges: tuple[Range, ...]
    held: bool
    segments: native.Segments | None = None

    @property
    def makes(self) -> int:
        return sum(end - start for start, end in self.ranges)


def _plan(
    pair: view.Pair, pieces: list[Piece], fills: list[tuple[int, int, int]], copied: list[Step], stock: Stock
) -> tuple[list[Job], list[Step]]:
    """The parts, and the steps that write the image."""
    jobs = [
        Job(
            stock.place(piece.base[0]),
            piece.base[1] - piece.base[0],
            ((piece.start, piece.end),),
            False,
            piece.segments,
        )
        for piece in pieces
        if piece.base is not None
    ]
    rest = list(without([(p.start, p.end) for p in pieces if p.base is None], [(a, b) for a, b, _ in fills]))
    held = [_held_job(ranges, copied, stock) for ranges in _portions(rest)]
    told: list[tuple[int, int, int, int]] = [(a, b, FILL, byte) for a, b, byte in fills]
    told += [(at, at + length, COPY, start) for at, start, length in copied]
    told += [(a, b, NEW, 0) for job in jobs for a, b in job.ranges]
    told += [(a, b, HELD, 0) for job in held for a, b in job.ranges]
    return [*held, *jobs], list(_steps(pair, sorted(told)))


def _portions(ranges: list[Range]) -> Iterator[tuple[Range, ...]]:
    """As much as one part makes, at a time."""
    portion: list[Range] = []
    left = MOST_PART
    for start, end in ranges:
        while start < end:
            stop = min(end, start + left)
            portion.append((start, stop))
            left -= stop - start
            start = stop
            if not left:
                yield tuple(portion)
                portion, left = [], MOST_PART
    if portion:
        yield tuple(portion)


def _held_job(ranges: tuple[Range, ...], copied: list[Step], stock: Stock) -> Job:
    """From the whole stock, or a stretch of it around where the neighbours came from: no more than a part can
    take, nor than what it makes can repay."""
    makes = sum(end - start for start, end in ranges)
    most = min(MOST_BASE, max(LEAST_BASE, REPAID * makes))
    if stock.size <= most:
        return Job(0, stock.size, ranges, True)
    middle = (_source(ranges[0][0], copied, stock) + _source(ranges[-1][1], copied, stock)) // 2
    start = max(0, min(middle - most // 2, stock.size - most))
    return Job(start, most, ranges, True)


def _source(place: int, copied: list[Step], stock: Stock) -> int:
    k = bisect_right(copied, (place,)) - 1
    if k < 0:
        return stock.place(place)
    at, start, _ = copied[k]
    return stock.place(start + place - at)


def _steps(pair: view.Pair, told: list[tuple[int, int, int, int]]) -> Iterator[Step]:
    """In the target's order; where a packed block begins, that first."""
    names = _codecs(pair)
    inside = None
    for start, end, kind, first in told:
        for stretch, begin, stop in pair.new.between(start, end):
            if stretch.codec is not None and stretch is not inside:
                inside = stretch
                yield PACKED + names.index(stretch.codec), stretch.length, stretch.size
            source = _in_the_image(pair.old, first + begin - start) if kind == COPY else first
            yield kind, source, stop - begin


def _in_the_image(old: view.View, place: int) -> int:
    """Where a byte of a closed stretch stands in the image itself."""
    stretch = old.stretch_at(place)
    return stretch.at + place - stretch.start


def _codecs(pair: view.Pair) -> list[str]:
    return sorted({s.codec for image in (pair.old, pair.new) for s in image.stretches if s.codec is not None})


# --- the parts -------------------------------------------------------------------------------------------


def _patches(pair: view.Pair, stock: Stock, jobs: list[Job], said: _Said, threads: int | None) -> list[bytes]:
    stop = threading.Event()

    def one(job: Job) -> bytes:
        before = stock.read(pair.old, job.start, job.size)
        after = b"".join(bytes(pair.new.body[start:end]) for start, end in job.ranges)
        done = 0

        def say(now: int, _everything: int) -> bool:
            nonlocal done
            more, done = max(now - done, 0), max(now, done)
            if said.more(more):
                stop.set()
            return stop.is_set()

        if stop.is_set():
            raise DeltaError(native.ERRORS[8])
        return native.make(before, after, "linux-16m", say, segments=job.segments).patch

    with ThreadPoolExecutor(threads or min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        try:
            return list(pool.map(one, jobs))
        except BaseException:
            stop.set()
            raise


def _written(
    old: Any, new: Any, pair: view.Pair, stock: Stock, jobs: list[Job], steps: list[Step], bodies: list[bytes]
) -> Made:
    names = _codecs(pair)
    spans = []
    for start, end in stock.ranges:
        for s, begin, stop in pair.old.between(start, end):
            at = s.at if s.codec is not None else s.at + begin - s.start
            spans.append(Span(at, s.length if s.codec is not None else stop - begin, s.codec, stop - begin))
    parts = [
        Part(job.start, job.size, job.makes, len(body), job.held)
        for job, body in zip(jobs, bodies, strict=True)
    ]
    plan = layers.plan_of(names, _joined(spans), parts, steps)
    packed, size = layers.write_plan(plan)
    if size > layers.MOST_PLAN:
        raise DeltaError(f"the images differ in too many places: their description takes {size} bytes")
    head = Head(
        len(old),
        len(new),
        native.digest(old),
        native.digest(new),
        layers.memory_of(plan, size),
        layers.scratch_of(plan),
        len(packed),
        size,
        sum(map(len, bodies)),
        tuple(names),
    )
    layers.judge(plan, head)
    copied = sum(second for kind, _, second in steps if kind == COPY)
    patch = layers.write_head(head) + packed + b"".join(bodies)
    return Made(patch, len(jobs), copied, pair.opened, pair.closed, pair.reasons)


def _joined(spans: list[Span]) -> Iterator[Span]:
    """Raw spans that touch are one."""
    last: Span | None = None
    for span in spans:
        if last and last.codec is span.codec is None and last.at + last.length == span.at:
            last = Span(last.at, last.length + span.length, None, last.size + span.size)
            continue
        if last:
            yield last
        last = span
    if last:
        yield last
