"""A picture of a patch: what of the image stands in the old one, in its place or moved, and what is new."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from skylift.firmware import assemble, hdiff, layers, peers, skd2
from skylift.firmware.layers import COPY, HELD, NEW, PACKED
from skylift.firmware.script import matches_of

SIGNS = {"same": "=", "moved": ">", "opened": "o", "new": "."}
WORDS = {
    "same": "in its place",
    "moved": "moved",
    "opened": "packed again from what it holds",
    "new": "new",
}
COLOURS = {"same": "#9db8d2", "moved": "#e0a030", "opened": "#7b9e6b", "new": "#c8433f"}
_WIDTH, _BAR, _GAP, _LEFT = 900, 26, 170, 12


@dataclass(frozen=True, slots=True)
class Stretch:
    """`length` bytes of the image at `at`; `start`: where they stand in the old one, None where they do
    not."""

    at: int
    length: int
    start: int | None
    opened: bool = False

    @property
    def kind(self) -> str:
        if self.opened:
            return "opened"
        return "new" if self.start is None else "same" if self.start == self.at else "moved"


def stretches(old: bytes, patch: bytes) -> tuple[int, list[Stretch]] | None:
    """(bytes of the image, all of it in order); None where the format does not tell.

    Of our own patches the matches that a decoder keeps: what is too small for that counts as new. Raises
    `DeltaError`.
    """
    if patch.startswith(layers.MAGIC):
        head = layers.read_head(patch)
        return head.target_size, list(_whole(head.target_size, _of_layers(old, patch, head)))
    if patch.startswith(skd2.MAGIC):
        size = skd2.read_header(patch).target_size
        runs = [(match.at, match.start, match.length) for match in matches_of(old, patch)]
    else:
        name = None if patch.startswith(hdiff.MAGIC) else peers.format_of(patch)
        told = peers.told(name, patch, old) if name else None
        if told is None:
            return None
        size, runs = told
    return size, list(_whole(size, (Stretch(at, length, start) for at, start, length in runs)))


def _whole(size: int, known: Iterable[Stretch]) -> Iterator[Stretch]:
    """With what is new between them; what goes on where the last one ended is one with it."""
    end, last = 0, None
    for each in known:
        if not each.length:
            continue
        if each.at > end:
            if last:
                yield last
            last = None
            yield Stretch(end, each.at - end, None)
        end = each.at + each.length
        if last and last.start is not None and last.start + last.length == each.start:
            last = Stretch(last.at, last.length + each.length, last.start)
            continue
        if last:
            yield last
        last = each
    if last:
        yield last
    if size > end:
        yield Stretch(end, size - end, None)


def _of_layers(old: bytes, patch: bytes, head: layers.Head) -> Iterator[Stretch]:
    begin = head.length + head.plan_packed
    plan = layers.read_plan(patch[head.length : begin], head)
    made = {kind: _Made(old, patch[begin:], plan, held=kind == HELD) for kind in (NEW, HELD)}
    at = inside = 0
    for kind, first, second in plan.steps():
        if kind >= PACKED:
            yield Stretch(at, first, None, opened=True)
            at, inside = at + first, second
            continue
        found = made[kind].next(second) if kind in made else []
        if inside:
            inside -= second
            continue
        if kind == COPY:
            yield Stretch(at, second, first)
        yield from (Stretch(at + place, length, start) for place, length, start in found)
        at += second


class _Made:
    """What the parts of one kind make, in order: which runs of it stand in the base."""

    def __init__(self, old: bytes, bodies: bytes, plan: layers.Plan, *, held: bool) -> None:
        self._stock = layers.regions(span.size for span in plan.spans)
        self._spans, self._at = plan.spans, 0
        stock, self._runs, made = assemble.Stock(old, plan.spans), list[tuple[int, int, int]](), 0
        for part, (begin, end) in zip(plan.parts, layers.regions(p.patch for p in plan.parts), strict=True):
            if part.held is held:
                with stock.piece(part.start, part.size, None) as base:
                    matches = matches_of(bytes(base), bodies[begin:end])
                self._runs += [(made + m.at, m.length, part.start + m.start) for m in matches]
                made += part.makes
        self._starts = [run[0] for run in self._runs]

    def next(self, size: int) -> list[tuple[int, int, int]]:
        """(place, bytes, place in the base) within the next `size` bytes."""
        low, self._at = self._at, self._at + size
        found, k = [], max(bisect_right(self._starts, low) - 1, 0)
        while k < len(self._runs) and self._runs[k][0] < self._at:
            at, length, start = self._runs[k]
            cut = max(low - at, 0)
            length = min(at + length, self._at) - at - cut
            place = self._in_base(start + cut, length) if length > 0 else None
            if place is not None:
                found.append((at + cut - low, length, place))
            k += 1
        return found

    def _in_base(self, start: int, length: int) -> int | None:
        """Where a run of the stock stands in the base: nowhere, where it was packed there or is in pieces."""
        k = bisect_right(self._stock, (start, 1 << 62)) - 1
        begin, end = self._stock[k]
        if self._spans[k].codec is not None or start + length > end:
            return None
        return self._spans[k].at + start - begin


# --- drawn -----------------------------------------------------------------------------------------------


def shares(found: Iterable[Stretch]) -> dict[str, int]:
    """Bytes of each kind."""
    sums = dict.fromkeys(SIGNS, 0)
    for each in found:
        sums[each.kind] += each.length
    return sums


def bar(found: list[Stretch], size: int, cells: int) -> str:
    """One sign per equal part of the image: what most of it is."""
    edges = [size * k // cells for k in range(cells + 1)] if size >= cells else list(range(size + 1))
    starts = [each.at for each in found]
    signs = []
    for low, high in pairwise(edges):
        sums = dict.fromkeys(SIGNS, 0)
        for each in found[max(bisect_right(starts, low) - 1, 0) : bisect_right(starts, high)]:
            sums[each.kind] += max(min(each.at + each.length, high) - max(each.at, low), 0)
        signs.append(SIGNS[max(sums, key=lambda kind: sums[kind])])
    return "".join(signs)


def svg(found: list[Stretch], base_size: int, size: int, title: str) -> str:
    """The old image above, the new one below, and what stands in both joined."""
    scale = _WIDTH / max(base_size, size, 1)
    top, below = 46, 46 + _BAR + _GAP
    width, height = _WIDTH + 2 * _LEFT, below + _BAR + 60
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        f' font-size="13"><title>{escape(title)}</title>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="{top - 8}">old: {base_size:,} bytes</text>',
        _rect(0, top, base_size * scale, "#e4e4e4"),
    ]
    drawn = list(_merged(found, scale))
    for each in drawn:
        if each.start is not None:
            x, u, w = each.at * scale, each.start * scale, each.length * scale
            points = ((u, top + _BAR), (u + w, top + _BAR), (x + w, below), (x, below))
            told = " ".join(f"{_LEFT + px:.1f},{py}" for px, py in points)
            lines.append(_rect(u, top, w, COLOURS[each.kind]))
            lines.append(f'<polygon points="{told}" fill="{COLOURS[each.kind]}" fill-opacity="0.45"/>')
    lines += [_rect(each.at * scale, below, each.length * scale, COLOURS[each.kind]) for each in drawn]
    lines.append(f'<text x="{_LEFT}" y="{below + _BAR + 18}">new: {size:,} bytes</text>')
    x = _LEFT
    for kind, count in ((kind, count) for kind, count in shares(found).items() if count):
        words = f"{WORDS[kind]}: {count:,} bytes ({100 * count / max(size, 1):.1f} %)"
        lines.append(f'<rect x="{x}" y="{height - 24}" width="12" height="12" fill="{COLOURS[kind]}"/>')
        lines.append(f'<text x="{x + 17}" y="{height - 13}" font-size="11">{words}</text>')
        x += 40 + 6 * len(words)
    return "\n".join([*lines, "</svg>", ""])


def _merged(found: list[Stretch], scale: float) -> Iterator[Stretch]:
    """As many as can be seen: what is thinner than half a pixel goes into its neighbour of the same kind and
    the same distance, or is left to what lies around it."""
    last: Stretch | None = None
    for each in found:
        if last and last.kind == each.kind and _shift(last) == _shift(each):
            last = Stretch(last.at, each.at + each.length - last.at, last.start, last.opened)
        elif last is None or each.length * scale >= 0.5:
            if last:
                yield last
            last = each
    if last:
        yield last


def _shift(each: Stretch) -> int | None:
    return None if each.start is None else each.start - each.at


def _rect(x: float, y: int, width: float, colour: str) -> str:
    width = max(width, 0.5)
    return f'<rect x="{_LEFT + x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'
