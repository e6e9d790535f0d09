"""What a layered delta says: long runs copied, packed blocks opened, the rest in patches of our format.
`SKD3`.

For images too large or too packed to be compared in one piece. The target is told as a list of steps in
order: copy
a run of the base, repeat a byte, take what the next part makes, pack what the next steps give. Each part is
a patch
(`SKD2`) whose base is put together from pieces of the base image, opened where they are packed. This module
reads and writes that description and judges it; `layered` makes one, `assemble` follows one.
docs/reference/delta-format.md.
"""

import lzma
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from skylift.firmware import codecs
from skylift.firmware.native import DeltaError

MAGIC = b"SKD3"
FORMAT = 1
PART_MEMORY = 16 << 20  # of the profile that parts are made in
MOST_PLAN = 2 << 20  # bytes of description: each costs a decoder about eight
MOST_IMAGE = 1 << 40
MOST_SCRATCH = 1 << 32
MOST_NEEDS = 1024
_STEADY = 4 << 20  # bytes of pieces under way
_FIXED = struct.Struct("<4sBBHQQ32s32sQQIIQ")
_PLAN_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 20}]

COPY, FILL, NEW, HELD, PACKED = range(5)  # kinds of steps; PACKED + k packs by the k-th codec


@dataclass(frozen=True, slots=True)
class Head:
    """The fixed part, and the codecs that both sides need."""

    base_size: int
    target_size: int
    base_sha256: bytes
    target_sha256: bytes
    memory: int  # bytes that a decoder takes
    scratch: int  # bytes it puts together besides: on disk, or in memory too
    plan_packed: int
    plan_size: int
    body: int  # bytes that follow this and the description
    needs: tuple[str, ...]
    length: int = 0  # of this header


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of the base that parts are made from; `codec`: opened by it, to `size` bytes; None: as they
    are."""

    at: int
    length: int
    codec: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """A patch of `patch` bytes, from `size` bytes of the stock at `start`, that makes `makes` bytes.
    `held`: made
    before anything is written, for the HELD steps; the others as the NEW steps come."""

    start: int
    size: int
    makes: int
    patch: int
    held: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The stock is what `spans` hold, in order. A step is (kind, a, b): COPY from, length; FILL byte, length;
    NEW 0, length; HELD 0, length; PACKED+k packed length, length before: of what the next steps give."""

    codecs: tuple[str, ...]
    spans: tuple[Span, ...]
    parts: tuple[Part, ...]
    kinds: bytes
    firsts: "array[int]"
    seconds: "array[int]"

    def steps(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.kinds, self.firsts, self.seconds, strict=True)


Step = tuple[int, int, int]


def plan_of(
    names: Iterable[str], spans: Iterable[Span], parts: Iterable[Part], steps: Iterable[Step]
) -> Plan:
    rows = list(steps)
    columns = (array("Q", (row[k] for row in rows)) for k in (1, 2))
    return Plan(tuple(names), tuple(spans), tuple(parts), bytes(row[0] for row in rows), *columns)


# --- the header ------------------------------------------------------------------------------------------


def write_head(head: Head) -> bytes:
    needs = ";".join(head.needs).encode()
    fixed = _FIXED.pack(
        MAGIC,
        FORMAT,
        0,
        len(needs),
        head.base_size,
        head.target_size,
        head.base_sha256,
        head.target_sha256,
        head.memory,
        head.scratch,
        head.plan_packed,
        head.plan_size,
        head.body,
    )
    return fixed + needs + struct.pack("<I", zlib.crc32(fixed + needs))


def read_head(patch: bytes) -> Head:
    """Raises `DeltaError` when these bytes are none of ours, damaged, or ask for more than a decoder
    gives."""
    if len(patch) < _FIXED.size + 4 or not patch.startswith(MAGIC):
        raise DeltaError("this is no delta, or a damaged one")
    _, version, flags, needs, *numbers = _FIXED.unpack_from(patch)
    end = _FIXED.size + needs
    if version != FORMAT or flags:
        raise DeltaError(f"the delta is of format SKD3.{version}, this reads SKD3.{FORMAT}")
    if needs > MOST_NEEDS or len(patch) < end + 4:
        raise DeltaError("the delta ends before its header does")
    if patch[end : end + 4] != struct.pack("<I", zlib.crc32(patch[:end])):
        raise DeltaError("this is no delta, or a damaged one")
    named = patch[_FIXED.size : end].decode("ascii", "replace")
    names = tuple(named.split(";")) if named else ()
    head = Head(*numbers, names, end + 4)  # type: ignore[call-arg] # the struct's fields, in its order
    _judge_head(head)
    return head


def _judge_head(head: Head) -> None:
    for name, value, most in (
        ("base", head.base_size, MOST_IMAGE),
        ("target", head.target_size, MOST_IMAGE),
        ("scratch", head.scratch, MOST_SCRATCH),
        ("description", head.plan_size, MOST_PLAN),
        ("packed description", head.plan_packed, MOST_PLAN + 4096),
    ):
        if value > most:
            raise DeltaError(f"the delta's {name} is {value} bytes, at most {most} are read")


# --- the description -------------------------------------------------------------------------------------


def write_plan(plan: Plan) -> tuple[bytes, int]:
    """(packed, size before)."""
    raw = bytearray()
    names = ";".join(plan.codecs).encode()
    for table in (_columns_of_spans(plan), _columns_of_parts(plan), _columns_of_steps(plan)):
        rows = len(table[0]) if table else 0
        _put(raw, rows)
        for column in table:
            for value in column:
                _put(raw, value)
    body = struct.pack("<H", len(names)) + names + bytes(raw)
    return lzma.compress(body, lzma.FORMAT_RAW, filters=_PLAN_FILTERS), len(body)


def _columns_of_spans(plan: Plan) -> list[list[int]]:
    ends = [0, *(span.at + span.length for span in plan.spans)]
    return [
        [_kind(plan, span.codec) for span in plan.spans],
        [span.at - end for span, end in zip(plan.spans, ends, strict=False)],
        [span.length for span in plan.spans],
        [span.size if span.codec else 0 for span in plan.spans],
    ]


def _kind(plan: Plan, codec: str | None) -> int:
    return 0 if codec is None else 1 + plan.codecs.index(codec)


def _columns_of_parts(plan: Plan) -> list[list[int]]:
    return [
        [int(part.held) for part in plan.parts],
        [part.start for part in plan.parts],
        [part.size for part in plan.parts],
        [part.makes for part in plan.parts],
        [part.patch for part in plan.parts],
    ]


def _columns_of_steps(plan: Plan) -> list[list[int]]:
    """A copy's place is told from where the last one ended."""
    firsts, end = [], 0
    for kind, first, second in plan.steps():
        if kind == COPY:
            jump, end = first - end, first + second
            first = jump * 2 if jump >= 0 else -jump * 2 - 1
        firsts.append(first)
    return [list(plan.kinds), firsts, list(plan.seconds)]


def _put(raw: bytearray, value: int) -> None:
    while value >= 0x80:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    raw.append(value)


def read_plan(packed: bytes, head: Head) -> Plan:
    """The description, judged against its header: every size in it adds up, every place is in the base."""
    try:
        stream = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_PLAN_FILTERS)
        body = stream.decompress(packed, head.plan_size + 1)
    except (lzma.LZMAError, EOFError) as e:
        raise DeltaError(f"the delta's description is damaged: {e}") from e
    if len(body) != head.plan_size or len(body) < 2:
        raise DeltaError("the delta's description has another size than its header says")
    (names,) = struct.unpack_from("<H", body)
    reader = _Reader(body, 2 + names)
    known = tuple(name for name in body[2 : 2 + names].decode("ascii", "replace").split(";") if name)
    spans = tuple(_spans(reader.table(4), known))
    parts = tuple(
        Part(start, size, makes, patch, bool(held))
        for held, start, size, makes, patch in _rows(reader.table(5))
    )
    kinds, firsts, seconds = reader.table(3)
    if any(kind >= PACKED + len(known) for kind in kinds):
        raise DeltaError("the delta's description names a step that nobody knows")
    end = 0
    for k, kind in enumerate(kinds):
        if kind == COPY:
            jump = firsts[k]
            first = end + (-(jump + 1) // 2 if jump & 1 else jump // 2)
            if first < 0:
                raise DeltaError("the delta copies from before the base's beginning")
            firsts[k], end = first, first + seconds[k]
    plan = Plan(known, spans, parts, bytes(kinds.tolist()), firsts, seconds)
    judge(plan, head)
    return plan


def _rows(table: list["array[int]"]) -> Iterator[tuple[int, ...]]:
    return zip(*table, strict=True)


def _spans(table: list["array[int]"], known: tuple[str, ...]) -> Iterator[Span]:
    end = 0
    for kind, gap, length, size in _rows(table):
        if kind > len(known):
            raise DeltaError("the delta's description names a codec that it does not list")
        yield Span(end + gap, length, known[kind - 1] if kind else None, size if kind else length)
        end += gap + length


class _Reader:
    """Numbers of seven bits a byte, out of a description."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body, self._at = body, at

    def number(self) -> int:
        value = shift = 0
        while self._at < len(self._body) and shift < 63:
            byte = self._body[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
        raise DeltaError("the delta's description is cut")

    def table(self, columns: int) -> list["array[int]"]:
        rows = self.number()
        if rows * columns > len(self._body):
            raise DeltaError("the delta's description has more rows than bytes")
        return [array("Q", (self.number() for _ in range(rows))) for _ in range(columns)]


def judge(plan: Plan, head: Head) -> None:
    """Raises `DeltaError` for what contradicts itself or the header. Nothing has been written yet."""
    needs = {*(span.codec for span in plan.spans if span.codec), *_packed_by(plan)}
    if not needs <= set(head.needs):
        raise DeltaError("the delta's description uses a codec that its header does not name")
    stock = 0
    for span in plan.spans:
        stock += span.size
        if span.at + span.length > head.base_size:
            raise DeltaError("the delta's description reaches beyond the base")
    made = {True: 0, False: 0}
    for part in plan.parts:
        made[part.held] += part.makes
        if part.start + part.size > stock or part.makes > head.target_size * 16 + MOST_PLAN:
            raise DeltaError("the delta's description has a part that is larger than what it is made from")
    if sum(part.patch for part in plan.parts) != head.body:
        raise DeltaError("the delta's parts are not as long as its header says")
    _judge_steps(plan, head, made)
    if scratch_of(plan) > head.scratch or memory_of(plan, head.plan_size) > head.memory:
        raise DeltaError("the delta takes more memory than its header says")


def _packed_by(plan: Plan) -> set[str]:
    return {plan.codecs[kind - PACKED] for kind in set(plan.kinds) if kind >= PACKED}


def _judge_steps(plan: Plan, head: Head, made: dict[bool, int]) -> None:
    written = inside = 0
    used = {True: 0, False: 0}
    for kind, first, second in plan.steps():
        if not second:
            raise DeltaError("the delta has a step of no length")
        if kind >= PACKED:
            if inside:
                raise DeltaError("the delta packs what is being packed")
            written, inside = written + first, second
            continue
        if kind == COPY and first + second > head.base_size:
            raise DeltaError("the delta copies from beyond the base's end")
        if kind == FILL and first > 255:
            raise DeltaError("the delta repeats what is no byte")
        if kind in (NEW, HELD):
            used[kind == HELD] += second
        if not inside:
            written += second
        elif second > inside:
            raise DeltaError("the delta has a step that is half packed")
        else:
            inside -= second
    if written != head.target_size or inside or used != made:
        raise DeltaError("the delta's steps do not add up to the image it promises")


def scratch_of(plan: Plan) -> int:
    """Bytes that a decoder puts together: the largest part's base, and what is held."""
    held = sum(part.makes for part in plan.parts if part.held)
    return held + max((part.size for part in plan.parts), default=0)


def memory_of(plan: Plan, plan_size: int) -> int:
    """Bytes that a decoder takes besides."""
    packing = max((codecs.memory(name) for name in _packed_by(plan)), default=0)
    opening = max((codecs.opening(span.codec, span.size) for span in plan.spans if span.codec), default=0)
    return (
        PART_MEMORY + _STEADY + 8 * plan_size + packing + opening + 64 * (len(plan.spans) + len(plan.parts))
    )


def regions(sizes: Iterable[int]) -> list[tuple[int, int]]:
    """(start, end) of things that lie one behind the other."""
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    return list(pairwise(ends))
