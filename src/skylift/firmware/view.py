"""Two images with what they hold packed laid open, where that can be undone to the bit.

Blocks that stand in both as they are stay closed: they are copied. Of the others the base's are opened and
the target's too, if some codec packs what they hold to the very same bytes (tried, block by block); one that
nothing reproduces stays closed and travels as it is. In a kernel that was packed its types are opened too.
"""

import hashlib
import mmap
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skylift.firmware import btf, codecs, containers, native
from skylift.firmware.native import DeltaError
from skylift.firmware.squashfs import superblock
from skylift.firmware.unit import Unit

MOST_OPENED = 2 << 30  # bytes of an image laid open: beyond, it is compared as it is
_NEAR = 4  # unchanged blocks between changed ones that are opened too, so that files stay in one piece


@dataclass(frozen=True, slots=True)
class Stretch:
    """`length` bytes of the image at `at` that stand at `start` in the view, as `size` bytes; `codec` None:
    closed."""

    at: int
    length: int
    start: int
    size: int
    codec: str | None


@dataclass(frozen=True, slots=True)
class View:
    """An image laid open: `body` is what is compared, `stretches` say where it came from."""

    body: Any  # mmap or bytes
    stretches: tuple[Stretch, ...]
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.body)

    def stretch_at(self, place: int) -> Stretch:
        return self.stretches[bisect_right(self.starts, place) - 1]

    def between(self, start: int, end: int) -> Iterator[tuple[Stretch, int, int]]:
        """(stretch, start, end) of the stretches' parts between two places."""
        k = bisect_right(self.starts, start) - 1
        while start < end:
            stretch = self.stretches[k]
            stop = min(end, stretch.start + stretch.size)
            if stop > start:
                yield stretch, start, stop
            start, k = max(start, stop), k + 1


@dataclass(frozen=True, slots=True)
class Pair:
    """Both images, and what became of the target's packed blocks."""

    old: View
    new: View
    opened: int
    closed: int  # changed, but nothing packs them to the same bytes
    reasons: tuple[str, ...] = ()  # why, in sentences


def lay_open(old: Any, new: Any, scratch: Path, keep: ExitStack) -> Pair:
    """Views of two images (mapped, or bytes); their files live as long as `keep`."""
    with memoryview(old) as before, memoryview(new) as after:
        ours, theirs = containers.units(before), containers.units(after)
        if not ours or not theirs or (len(theirs) == len(ours) == 1 and old == new):
            return closed(old, new, *_unknown(after))
        known = {_name(before, unit) for unit in ours}
        changed = _changed(after, theirs, known)
        names = _names(after, changed, _block(after))
        names = {unit: name + _inside(after, unit) for unit, name in names.items()}
        kept = {_name(after, unit) for unit in theirs if unit not in names}
        orphans = {
            unit: unit.kind + _inside(before, unit) for unit in ours if _name(before, unit) not in kept
        }
        return Pair(
            _laid_open(before, orphans, scratch, keep),
            _laid_open(after, names, scratch, keep),
            len(names),
            len(changed) - len(names),
            tuple(_unmatched(unit for unit in changed if unit not in names)),
        )


def _unknown(image: memoryview) -> Iterator[str]:
    if (kind := containers.beyond(image)) is not None:
        yield f"the kernel is packed as {kind}, which nothing here opens: it is compared packed"


def _unmatched(units: Iterable[Unit]) -> Iterator[str]:
    """A sentence for each kind."""
    kept: dict[str, list[int]] = {}
    for unit in units:
        kept.setdefault(unit.kind, []).append(unit.length)
    for kind, lengths in kept.items():
        yield (
            f"{len(lengths)} of the {kind} blocks that changed, {sum(lengths)} bytes, stay packed: "
            "nothing here packs what they hold to the same bytes"
        )


def closed(old: Any, new: Any, *reasons: str) -> Pair:
    """Both as they are."""
    return Pair(_whole(old), _whole(new), 0, 0, reasons)


def _whole(image: Any) -> View:
    return View(image, (Stretch(0, len(image), 0, len(image), None),), (0,))


def _name(image: memoryview, unit: Unit) -> bytes:
    return hashlib.blake2b(image[unit.at : unit.end], digest_size=16).digest()


def _block(image: memoryview) -> int:
    found = superblock(image)
    return found.block if found else 0


def _changed(image: memoryview, units: list[Unit], known: set[bytes]) -> list[Unit]:
    """Those that the base has not, and the few between them."""
    new = [_name(image, unit) not in known for unit in units]
    last = -_NEAR - 2
    for k, is_new in enumerate(list(new)):
        if is_new:
            if k - last <= _NEAR + 1:
                new[last + 1 : k] = [True] * (k - last - 1)
            last = k
    return [unit for unit, is_new in zip(units, new, strict=True) if is_new]


def _names(image: memoryview, units: list[Unit], block: int) -> dict[Unit, str]:
    """How each block is packed, for those that can be packed again; what worked last is tried first."""
    found: dict[Unit, str] = {}
    last: dict[str, str] = {}
    failures: dict[str, int] = {}
    for unit in units:
        if failures.get(unit.kind, 0) >= _HOPELESS and unit.kind not in last:
            continue
        names = codecs.candidates(unit.kind, unit.size, block, bytes(image[unit.at : unit.at + 16]))
        if unit.kind in last:
            names = sorted(names, key=lambda name: name != last[unit.kind])
        name = next((name for name in names if _reproduces(image, unit, name)), None)
        if name is None:
            failures[unit.kind] = failures.get(unit.kind, 0) + 1
        else:
            found[unit] = last[unit.kind] = name
    return found


_HOPELESS = 8  # blocks of a kind that nothing reproduced, before one did: then no more are tried


def _reproduces(image: memoryview, unit: Unit, name: str) -> bool:
    packed = bytes(image[unit.at : unit.end])
    try:
        packer, at = codecs.packer(name), 0
        for piece in _content(packed, unit):
            made = packer.compress(piece)
            if packed[at : at + len(made)] != made:
                return False
            at += len(made)
        return packed[at:] == packer.flush()
    except DeltaError:
        return False


def _inside(image: memoryview, unit: Unit) -> str:
    """What is opened in what a unit holds: to be added to its codec's name."""
    if not _LARGEST_BLOCK < unit.size <= _LARGEST_KERNEL or unit.kind in codecs.IN_PLACE:
        return ""
    content = b"".join(_content(bytes(image[unit.at : unit.end]), unit))
    for found in btf.units(memoryview(content)):
        if _closes(content[found.at : found.end]):
            return f"|{found.kind} {found.at} {found.size}"
    return ""


_LARGEST_BLOCK = 1 << 20  # bytes, of a squashfs
_LARGEST_KERNEL = 128 << 20


def _closes(types: bytes) -> bool:
    try:
        return native.turned("close", native.turned("open", types)) == types
    except DeltaError:
        return False


def _content(packed: bytes, unit: Unit, inside: str = "") -> Iterator[bytes]:
    if unit.size:
        return codecs.opened(unit.kind + inside, packed, unit.size)
    return iter((codecs.opened_at_most(unit.kind, packed, _LARGEST_BLOCK),))


def _laid_open(image: memoryview, names: dict[Unit, str], scratch: Path, keep: ExitStack) -> View:
    file = keep.enter_context(tempfile.TemporaryFile(dir=scratch))  # noqa: SIM115 - `keep` closes it
    stretches: list[Stretch] = []
    at = start = 0

    def copy(end: int) -> None:
        nonlocal at, start
        if end > at:
            stretches.append(Stretch(at, end - at, start, end - at, None))
            for place in range(at, end, 1 << 20):
                file.write(image[place : min(place + (1 << 20), end)])
            start, at = start + end - at, end

    for unit in sorted(names, key=lambda unit: unit.at):
        copy(unit.at)
        size = 0
        _, bar, inside = names[unit].partition("|")
        for piece in _content(bytes(image[unit.at : unit.end]), unit, bar + inside):
            file.write(piece)
            size += len(piece)
        stretches.append(Stretch(at, unit.length, start, size, names[unit]))
        start, at = start + size, unit.end
        if start > MOST_OPENED:
            raise DeltaError(f"laid open the image has more than {MOST_OPENED} bytes")
    copy(len(image))
    file.flush()
    body = keep.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)) if start else b""
    return View(body, tuple(stretches), tuple(stretch.start for stretch in stretches))


def drop(pair: Pair) -> None:
    """Give both views' pages back."""
    for view in (pair.old, pair.new):
        native.drop(view.body)
