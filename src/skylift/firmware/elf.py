"""Programs and libraries that lie in an image one behind the other: found by their ELF headers.

Addresses in a program count from its own beginning; compared file by file they can be predicted. Few file
systems store one whole: in ext4 blocks of zeros are missing and its own lie between (`ext4`), squashfs puts
the end elsewhere. `Program.segments` says which bytes of what is there are loaded where.
"""

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skylift.firmware import ext4, native
from skylift.firmware.ext4 import Row

Segment = tuple[int, int, int]  # place, bytes, address
_HEAD = re.compile(rb"\x7fELF[\x01\x02]\x01\x01[\x00\x03]")
_STRIDE = 16 << 20
_SMALLEST = 4096
_FAR = 1 << 20  # bytes: more than a file system puts between a file's blocks for its own
_LOADED = 1  # kind of a segment
_MOST_HEADERS = 64


@dataclass(frozen=True, slots=True)
class Program:
    """`rows`: what of it lies where in the image, in order."""

    rows: tuple[Row, ...]

    @property
    def start(self) -> int:
        return self.rows[0][1]

    @property
    def end(self) -> int:
        return self.rows[-1][1] + self.rows[-1][2]

    def segments(self, image: Any) -> list[Segment]:
        """What is loaded, by its place from the program's beginning: the largest, as many as a patch can
        tell, in order."""
        found: list[Segment] = []
        for offset, size, address in _headers(image, self.start):
            for logical, place, length in self.rows:
                begin, stop = max(offset, logical), min(offset + size, logical + length)
                if begin < stop:
                    found.append(
                        (place + begin - logical - self.start, stop - begin, address + begin - offset)
                    )
        largest = sorted(found, key=lambda segment: -segment[1])[: native.MOST_SEGMENTS]
        return sorted(largest)


def _headers(image: Any, at: int) -> Iterator[Segment]:
    """What a program has loaded: place in its file, bytes there, address."""
    wide = image[at + 4] == 2
    (table,) = struct.unpack_from("<Q" if wide else "<I", image, at + (32 if wide else 28))
    each, count = struct.unpack_from("<HH", image, at + (54 if wide else 42))
    for k in range(min(count, _MOST_HEADERS)):
        place = at + table + k * each
        if each != (56 if wide else 32) or place + each > len(image):
            return
        if wide:
            kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", image, place)
        else:
            kind, offset, address, _, size = struct.unpack_from("<5I", image, place)
        if kind == _LOADED and size:
            yield offset, size, address


def programs(image: Any) -> list[Program]:
    """Every ELF file, in order, none overlapping. One that begins before the end of the one before it cuts
    that short: its end is elsewhere."""
    found: list[Program] = []
    stored = {rows[0][1]: _together(rows) for rows in ext4.files(image, _SMALLEST) if not rows[0][0]}
    for at in _heads(image):
        rows = stored.get(at) or _as_it_says(image, at)
        if not rows:
            continue
        if found and at < found[-1].end:
            if at < found[-1].rows[-1][1] or _is_whole(image, found[-1]):
                continue
            logical, place, _ = found[-1].rows[-1]
            found[-1] = Program((*found[-1].rows[:-1], (logical, place, at - place)))
        found.append(Program(rows))
    return found


def _together(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Up to where a file goes on far away, behind others."""
    far = (k for k in range(1, len(rows)) if rows[k][1] - rows[k - 1][1] - rows[k - 1][2] > _FAR)
    return rows[: next(far, len(rows))]


def extents(image: Any) -> list[tuple[int, int]]:
    """(start, end) of every program."""
    return [(program.start, program.end) for program in programs(image)]


def _heads(image: Any) -> Iterator[int]:
    """In strides, so that a mapped image need not stay in memory."""
    for start in range(0, len(image), _STRIDE):
        for hit in _HEAD.finditer(image[start : start + _STRIDE + 8]):
            if hit.start() < _STRIDE:
                yield start + hit.start()
        native.drop(image)


def _as_it_says(image: Any, at: int) -> tuple[Row, ...]:
    size, _, _ = _sections(image, at)
    return ((0, at, size),) if size and at + size <= len(image) else ()


def _is_whole(image: Any, program: Program) -> bool:
    """Whether its section headers stand at its end: the first of them is empty, the second is not."""
    size, each, count = _sections(image, program.start)
    first = program.start + size - each * count
    return (
        len(program.rows) > 1
        or count == 1
        or (image[first : first + each] == bytes(each) and any(image[first + each : first + each + 8]))
    )


def _sections(image: Any, at: int) -> tuple[int, int, int]:
    """Bytes up to the end of the section headers, which linkers put last; bytes of one, and how many.
    (0, 0, 0) for what is no ELF file."""
    if at + 64 > len(image):
        return 0, 0, 0
    if image[at + 4] == 2:
        (sections,) = struct.unpack_from("<Q", image, at + 40)
        head, _, _, each, count = struct.unpack_from("<HHHHH", image, at + 52)
        right = head == 64 and each == 64
    else:
        (sections,) = struct.unpack_from("<I", image, at + 32)
        head, _, _, each, count = struct.unpack_from("<HHHHH", image, at + 40)
        right = head == 52 and each == 40
    return (sections + each * count, each, count) if right and count and sections >= head else (0, 0, 0)


def at(found: list[Program], start: int, end: int) -> Program | None:
    """The one that lies just there."""
    k = bisect_right(found, start, key=lambda program: program.start) - 1
    return found[k] if k >= 0 and (found[k].start, found[k].end) == (start, end) else None
