"""Small SVG charts: lines and stacked areas with axes, limits and marks. No script; colours are CSS classes.

Points are (x, y) in the units of the axes, x in seconds and ascending. What is given is thinned to what a
screen can show: the largest of each stretch is kept, so that a peak never disappears.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 30
MOST_POINTS = 360  # two pixels each

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """`colour`: one of the page's classes, c0 to c7."""

    name: str
    points: Sequence[Point]
    colour: str


@dataclass(frozen=True, slots=True)
class Axis:
    """`unit` is written behind the numbers of y. `log`: ratios instead of differences."""

    unit: str = ""
    log: bool = False
    least: float = 1.0  # the top of an empty chart
    x_text: Callable[[float], str] | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """From numbers to pixels."""

    x_max: float
    y_min: float
    y_max: float
    log: bool

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at / self.x_max)

    def y(self, value: float) -> float:
        if self.log:
            share = log10(max(value, self.y_min) / self.y_min) / log10(self.y_max / self.y_min)
        else:
            share = (value - self.y_min) / (self.y_max - self.y_min)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)


def lines(
    title: str,
    series: Sequence[Series],
    axis: Axis,
    *,
    limit: tuple[str, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """A chart of lines; `limit` is drawn across it, `marks` are upright lines with a name."""
    every = [point for one in series for point in one.points]
    values = [y for _, y in every] + ([limit[1]] if limit else [])
    frame = _frame(every, values, axis, marks)
    drawn = [_line(frame, one) for one in series]
    if limit:
        y = frame.y(limit[1])
        drawn.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text class="mark" x="{WIDTH - RIGHT}" y="{y - 4:.1f}" text-anchor="end">'
                     f"{escape(limit[0])}</text>")  # fmt: skip
    keys = [(one.name, one.colour) for one in series]
    return _figure(title, keys, frame, axis, drawn, marks)


def stack(
    title: str, series: Sequence[Series], axis: Axis, *, marks: Sequence[tuple[float, str]] = ()
) -> str:
    """Areas upon each other; every series has the same x."""
    below = [0.0] * len(series[0].points) if series else []
    layers: list[tuple[Series, list[Point], list[Point]]] = []
    for one in series:
        above = [low + y for low, (_, y) in zip(below, one.points, strict=True)]
        xs = [x for x, _ in one.points]
        layers.append((one, list(zip(xs, below, strict=True)), list(zip(xs, above, strict=True))))
        below = above
    every = [point for _, _, top in layers for point in top]
    frame = _frame(every, [y for _, y in every], axis, marks)
    drawn = [_area(frame, one.colour, low, top) for one, low, top in layers]
    return _figure(title, [(one.name, one.colour) for one in series], frame, axis, drawn, marks)


# --- parts ----------------------------------------------------------------------------------------------


def thin(points: Sequence[Point]) -> list[Point]:
    """At most `MOST_POINTS`, the highest of each stretch; the first and the last stay."""
    if len(points) <= MOST_POINTS:
        return list(points)
    step = len(points) / (MOST_POINTS - 2)
    cuts = [int(n * step) for n in range(MOST_POINTS - 1)]
    highest = (max(points[a:b], key=lambda point: point[1]) for a, b in pairwise(cuts))
    return [points[0], *highest, points[-1]]


def _frame(
    every: Sequence[Point], values: Sequence[float], axis: Axis, marks: Sequence[tuple[float, str]]
) -> _Frame:
    x_max = max([x for x, _ in every] + [x for x, _ in marks], default=1.0) or 1.0
    highest = max(values, default=axis.least) or axis.least
    if not axis.log:
        return _Frame(x_max, 0.0, _ticks(highest)[-1], log=False)
    lowest = min((value for value in values if value > 0), default=axis.least)
    bottom = 10.0 ** floor(log10(lowest))
    top = 10.0 ** ceil(log10(max(highest, lowest) * 1.0001))
    return _Frame(x_max, bottom, max(top, bottom * 10), log=True)


def _ticks(highest: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to at least `highest`."""
    raw = highest / about
    size = 10.0 ** floor(log10(raw))
    step = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= raw * 0.999)
    return [step * n for n in range(ceil(highest / step - 1e-9) + 1)]


def _line(frame: _Frame, one: Series) -> str:
    if not one.points:
        return ""
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in thin(one.points))
    return f'<polyline class="line {one.colour}" points="{path}"/>'


def _area(frame: _Frame, colour: str, low: list[Point], top: list[Point]) -> str:
    if not top:
        return ""
    step = max(1, ceil(len(top) / MOST_POINTS))
    kept = sorted({*range(0, len(top), step), len(top) - 1})
    edge = [top[n] for n in kept] + [low[n] for n in reversed(kept)]
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in edge)
    return f'<polygon class="area {colour}" points="{path}"/>'


def _figure(
    title: str,
    keys: Sequence[tuple[str, str]],
    frame: _Frame,
    axis: Axis,
    drawn: Sequence[str],
    marks: Sequence[tuple[float, str]],
) -> str:
    legend = "".join(f'<li><i class="key {colour}"></i>{escape(name)}</li>' for name, colour in keys)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><ul class="legend">{legend}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{_grid(frame, axis)}{''.join(drawn)}{_marks(frame, marks)}</svg></figure>"
    )


def _grid(frame: _Frame, axis: Axis) -> str:
    parts = []
    if frame.log:
        count = round(log10(frame.y_max / frame.y_min))
        levels = [frame.y_min * 10.0**n for n in range(count + 1)]
    else:
        levels = _ticks(frame.y_max)
    for level in levels:
        y = frame.y(level)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = escape(f"{number(level)}{axis.unit}")
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    say = axis.x_text or duration
    for at in _ticks(frame.x_max, 6):
        if at <= frame.x_max * 1.0001:
            x = frame.x(at)
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{say(at)}</text>'
            )
    return "".join(parts)


def _marks(frame: _Frame, marks: Sequence[tuple[float, str]]) -> str:
    parts, free_from = [], -1.0
    for at, name in marks:
        x = frame.x(at)
        parts.append(f'<line class="upright" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        if x >= free_from:  # names that would lie upon each other are left out; the lines stay
            parts.append(f'<text class="mark" x="{x + 3:.1f}" y="{TOP + 10}">{escape(name)}</text>')
            free_from = x + 7.0 * len(name)
    return "".join(parts)


def number(value: float) -> str:
    """1200 as 1.2k, 3000000 as 3M, 0.05 as it is."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.6g}"


def duration(seconds: float) -> str:
    """90 as 1.5m, 7200 as 2h."""
    for size, letter in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.3g}{letter}"
    return f"{seconds:.3g}s"
