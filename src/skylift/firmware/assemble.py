"""A layered delta followed: the image, a piece at a time and in order. Pure bytes in, bytes out.

Nothing is written before the header, the description and every size in it are in order. The parts' bases
are put
together in `scratch`, a folder for a nameless file, or in memory where there is none. What a codec packs is
compared
with nothing here but its length: the image's digest, which the caller holds against signed metadata, decides.
"""

import mmap
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skylift.firmware import codecs, native, purepython, skd2
from skylift.firmware.layers import COPY, FILL, HELD, NEW, PACKED, Head, Part, Span, Step, read_plan, regions
from skylift.firmware.native import DeltaError, Image
from skylift.firmware.resume import Write, after, rest

_PIECE = 1 << 20
_DROP_EVERY = 8 << 20


def missing(head: Head) -> list[str]:
    """The codecs that a delta names and this machine lacks."""
    return [name for name in head.needs if not codecs.available(name)]


def apply(
    old: Image,
    patch: bytes,
    head: Head,
    write: Write,
    max_memory: int,
    scratch: Path | None = None,
    start: int = 0,
) -> None:
    """Hand the image on, from its byte `start`. Raises `DeltaError`, or what `write` raised."""
    if lacking := missing(head):
        raise DeltaError(f"the delta needs {', '.join(lacking)}, which is not here")
    wanted = head.memory + (0 if scratch else head.scratch)
    if wanted > max_memory:
        raise DeltaError(f"the delta takes {wanted} bytes of memory, at most {max_memory} are allowed")
    body = head.length + head.plan_packed
    if len(patch) != body + head.body:
        raise DeltaError(f"the delta has {len(patch)} bytes, its header says {body + head.body}")
    plan = read_plan(patch[head.length : body], head)
    places = regions(part.patch for part in plan.parts)
    bodies = [memoryview(patch)[body + begin : body + end] for begin, end in places]
    ours = list(zip(plan.parts, bodies, strict=True))
    stock = Stock(old, plan.spans)
    left = rest(plan, start)
    with _room(scratch) as held:
        _make_all(stock, [each for each in ours if each[0].held], left.held, held.write, scratch)
        writer = _Writer(old, plan.codecs, left.steps, held, after(left.drop, write))
        _make_all(stock, [each for each in ours if not each[0].held], left.new, writer.take, scratch)
        writer.finish()


def _make_all(
    stock: "Stock", parts: list[tuple[Part, memoryview]], behind: int, write: Write, scratch: Path | None
) -> None:
    """What these parts make, in order, but for the first `behind` bytes."""
    end = 0
    for part, body in parts:
        begin, end = end, end + part.makes
        if end > behind or not behind:
            _make(stock, part, body, after(behind - begin, write), scratch)


def _make(stock: "Stock", part: Part, body: memoryview, write: Write, scratch: Path | None) -> None:
    """One part's bytes, as many as it promised."""
    made = 0

    def counted(piece: bytes) -> None:
        nonlocal made
        made += len(piece)
        if made > part.makes:
            raise DeltaError("a part of the delta makes more than it promised")
        write(piece)

    patch = bytes(body)
    facts = skd2.read_header(patch)
    if (facts.base_size, facts.target_size) != (part.size, part.makes):
        raise DeltaError("a part of the delta is for another base than the one described")
    if len(patch) != skd2.HEADER.size + facts.body:
        raise DeltaError("a part of the delta has another length than its header says")
    with stock.piece(part.start, part.size, scratch) as base:
        if native.available():
            native.apply(base, patch, counted, part.makes, native.PART_MEMORY, base_checked=True)
        else:
            purepython.apply(base, patch, counted)
    if made != part.makes:
        raise DeltaError("a part of the delta makes less than it promised")


class Stock:
    """What parts are made from: pieces of the base, opened where they are packed."""

    def __init__(self, old: Image, spans: tuple[Span, ...]) -> None:
        self._old, self._spans = old, spans
        self._regions = regions(span.size for span in spans)
        self._starts = [begin for begin, _ in self._regions]

    @contextmanager
    def piece(self, start: int, size: int, scratch: Path | None) -> Iterator[Any]:
        """`size` bytes of the stock, readable in one piece: the base itself where that is one."""
        if (where := self._as_it_is(start, size)) is not None:
            with memoryview(self._old) as whole, whole[where : where + size] as view:
                yield view
            return
        with _room(scratch) as room:
            for piece in self._pieces(start, size):
                room.write(piece)
            with room.whole() as body:
                yield body

    def _as_it_is(self, start: int, size: int) -> int | None:
        k = bisect_right(self._starts, start) - 1
        if k < 0 or self._spans[k].codec is not None or start + size > self._regions[k][1]:
            return None
        return self._spans[k].at + start - self._starts[k]

    def _pieces(self, start: int, size: int) -> Iterator[bytes]:
        end, k = start + size, max(bisect_right(self._starts, start) - 1, 0)
        while k < len(self._spans) and self._starts[k] < end:
            at = self._starts[k]
            for piece in self._span(self._spans[k]):
                part = piece[max(start - at, 0) : max(end - at, 0)]
                at += len(piece)
                if part:
                    yield part
            k += 1

    def _span(self, span: Span) -> Iterator[bytes]:
        if span.codec is not None:
            yield from codecs.opened(span.codec, bytes(self._old[span.at : span.at + span.length]), span.size)
            return
        for at in range(span.at, span.at + span.length, _PIECE):
            yield bytes(self._old[at : min(at + _PIECE, span.at + span.length)])
            if at % _DROP_EVERY < _PIECE:
                native.drop(self._old)


class _Room:
    """Bytes put aside: in a file without a name, or in memory."""

    def __init__(self, file: Any) -> None:
        self._file, self._bytes, self._at = file, bytearray(), 0

    def write(self, piece: bytes) -> None:
        if self._file is None:
            self._bytes += piece
        else:
            self._file.write(piece)

    def read(self, size: int) -> bytes:
        """The next `size` bytes of what was written."""
        self._at += size
        if self._file is None:
            return bytes(self._bytes[self._at - size : self._at])
        self._file.seek(self._at - size)
        return bytes(self._file.read(size))

    @contextmanager
    def whole(self) -> Iterator[Any]:
        if self._file is None:
            yield self._bytes
            return
        self._file.flush()
        if not self._file.tell():
            yield b""
            return
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            yield mapped


@contextmanager
def _room(scratch: Path | None) -> Iterator[_Room]:
    if scratch is None:
        yield _Room(None)
        return
    with tempfile.TemporaryFile(dir=scratch) as file:
        yield _Room(file)


class _Writer:
    """Follows the steps; what the parts make is pushed into it."""

    def __init__(
        self, old: Image, names: tuple[str, ...], steps: Iterator[Step], held: _Room, write: Write
    ) -> None:
        self._old, self._names, self._held, self._write = old, names, held, write
        self._steps = steps
        self._left = 0  # bytes that the NEW step at hand still takes
        self._packer: codecs.Packer | None = None
        self._inside = 0  # bytes that still go into the packer
        self._packed = 0  # bytes it must still give
        self._read = 0  # of the base, since its pages were given back
        self._go_on()

    def take(self, piece: bytes) -> None:
        """What the next NEW steps are made of."""
        at = 0
        while at < len(piece):
            if not self._left:
                raise DeltaError("the delta's parts make more than its steps take")
            part = piece[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            self._out(part)
            if not self._left:
                self._go_on()

    def finish(self) -> None:
        if self._left or self._inside or next(self._steps, None) is not None:
            raise DeltaError("the delta's parts make less than its steps take")

    def _go_on(self) -> None:
        """Every step up to the next that takes something from a part."""
        for kind, first, second in self._steps:
            if kind == COPY:
                self._copy(first, second)
            elif kind == FILL:
                for at in range(0, second, _PIECE):
                    self._out(bytes([first]) * min(_PIECE, second - at))
            elif kind == HELD:
                for at in range(0, second, _PIECE):
                    self._out(self._held.read(min(_PIECE, second - at)))
            elif kind == NEW:
                self._left = second
                return
            else:
                self._packer = codecs.packer(self._names[kind - PACKED])
                self._packed, self._inside = first, second

    def _copy(self, start: int, length: int) -> None:
        for at in range(start, start + length, _PIECE):
            self._out(bytes(self._old[at : min(at + _PIECE, start + length)]))
            self._read += _PIECE
            if self._read >= _DROP_EVERY:
                native.drop(self._old)
                self._read = 0

    def _out(self, piece: bytes) -> None:
        """To the image, or into the packer that is open."""
        if self._packer is None:
            self._write(piece)
            return
        self._inside -= len(piece)
        self._give(self._packer.compress(piece))
        if not self._inside:
            self._give(self._packer.flush())
            if self._packed:
                raise DeltaError("a block packs to fewer bytes than the delta says: another library made it")
            self._packer = None

    def _give(self, packed: bytes) -> None:
        self._packed -= len(packed)
        if self._packed < 0:
            raise DeltaError("a block packs to more bytes than the delta says: another library made it")
        if packed:
            self._write(packed)
