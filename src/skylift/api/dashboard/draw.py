"""Pictures as SVG, drawn here: bars of states, a rate against its threshold, progress over time, a time line.

Sizes are attributes and colours are classes: a page that forbids inline styles shows them all the same. Each
has a sentence for those who do not see it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup

STATES = (
    "complete",
    "validating",
    "installing",
    "downloading",
    "pending",
    "rolled_back",
    "failed",
    "waiting",
)
WIDTH = 1000  # of bars, in their own units: they stretch
CHART_W, CHART_H = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 84, 12, 10, 30


def _svg(
    name: str, width: float, height: float, said: str, inside: Iterable[Markup], stretch: bool
) -> Markup:
    ratio = Markup(' preserveAspectRatio="none"') if stretch else Markup("")
    return Markup('<svg class="{}" viewBox="0 0 {} {}"{} role="img" aria-label="{}">{}</svg>').format(
        name, f"{width:g}", f"{height:g}", ratio, said, Markup("").join(inside)
    )


def _rect(name: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        name, f"{x:.1f}", f"{y:.1f}", f"{max(width, 0):.1f}", f"{height:.1f}"
    )


def bar(tally: Mapping[str, int], size: int) -> Markup:
    """One phase: its devices by state. What is there is seen, however few."""
    shares = [(state, tally.get(state, 0)) for state in STATES if state != "waiting"]
    parts, x = [], 0.0
    for state, n in shares:
        if not n or not size:
            continue
        wide = min(max(4.0, WIDTH * n / size), WIDTH - x)
        parts.append(_rect(f"s-{state}", x, 0, wide, 12))
        x += wide
    said = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in shares if n) or "nothing yet"
    return _svg("bar", WIDTH, 12, f"{said}, of {size}", parts, stretch=True)


def share(n: float, of: float, name: str = "s-validating") -> Markup:
    """A plain bar: so much of the whole."""
    wide = WIDTH * n / of if of else 0
    return _svg("bar", WIDTH, 12, f"{n:g} of {of:g}", [_rect(name, 0, 0, wide, 12)], stretch=True)


def rate(percent: float | None, limit: float) -> Markup:
    """The failure rate on a scale that ends at twice the threshold; the threshold is a mark."""
    most = max(limit * 2, 1.0)
    reached = min(percent or 0.0, most)
    over = percent is not None and percent > limit
    mark = WIDTH * limit / most
    parts = [_rect("s-failed" if over else "s-complete", 0, 2, WIDTH * reached / most, 8)]
    parts.append(_rect("mark", min(mark, WIDTH - 6), 0, 6, 12))
    said = "nothing decided yet" if percent is None else f"{percent:.2f} percent fail"
    return _svg("bar", WIDTH, 12, f"{said}; it stops above {limit:g} percent", parts, stretch=True)


# --- progress over time ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """Devices through, and failed, by the end of each slot of so many seconds."""

    slot_s: float
    complete: Sequence[int]
    failed: Sequence[int]


def progress(found: Progress, whole: int) -> Markup:
    """Two lines that only rise: complete, and failed or rolled back."""
    top = _nice(max([1, *found.complete, *found.failed]))
    slots = max(1, len(found.complete) - 1)
    wide, high = CHART_W - LEFT - RIGHT, CHART_H - TOP - BOTTOM

    def at(slot: int, value: float) -> str:
        return f"{LEFT + wide * slot / slots:.1f},{TOP + high * (1 - value / top):.1f}"

    def line(values: Sequence[int]) -> str:
        return " ".join(at(n, value) for n, value in enumerate(values))

    parts = [_tick(top * step / 4, top) for step in range(5)]
    floor_y = f"{TOP + high:.1f}"
    if found.complete:
        area = f"{LEFT},{floor_y} {line(found.complete)} {LEFT + wide:.1f},{floor_y}"
        parts.append(Markup('<polygon class="area" points="{}"/>').format(area))
        parts.append(Markup('<polyline class="line-complete" points="{}"/>').format(line(found.complete)))
        parts.append(Markup('<polyline class="line-failed" points="{}"/>').format(line(found.failed)))
    span = found.slot_s * slots
    for share_, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        text = "now" if share_ == 1 else f"−{_span(span * (1 - share_))}"
        label = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
        parts.append(label.format(f"{LEFT + wide * share_:.0f}", CHART_H - 6, anchor, text))
    done, bad = (found.complete or [0])[-1], (found.failed or [0])[-1]
    said = f"{done} complete and {bad} failed or rolled back of {whole}, over {_span(span)}"
    return _svg("chart", CHART_W, CHART_H, said, parts, stretch=False)


def _tick(value: float, top: float) -> Markup:
    y = TOP + (CHART_H - TOP - BOTTOM) * (1 - value / top)
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}" text-anchor="end">{}</text>'
    ).format(
        LEFT,
        CHART_W - RIGHT,
        f"{y:.1f}",
        f"{y:.1f}",
        LEFT - 8,
        f"{y + 4:.1f}",
        f"{value:,.4g}" if value < 10 else f"{value:,.0f}",
    )


def _nice(value: float) -> float:
    """The next of 4, 8, 20, 40, 80, ... : its quarters are whole numbers."""
    power = 10 ** floor(log10(max(value, 4) / 4))
    return float(next(4 * power * step for step in (1, 2, 5, 10) if 4 * power * step >= value))


def _span(seconds: float) -> str:
    for limit, unit, each in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / each:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


# --- the time line of a plan -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One phase of a plan: seconds from the start, and how long it rests behind its end. None: it does not
    come so far."""

    name: str
    devices: int
    opens_s: float | None
    through_s: float | None
    soak_s: float

    @property
    def ends_s(self) -> float:
        return self.through_s or self.opens_s or 0.0


def timeline(steps: Sequence[Step]) -> Markup:
    """Each phase a row: when it works, when it soaks."""
    end = max([1.0, *(step.ends_s + step.soak_s for step in steps[:-1]), *(s.ends_s for s in steps[-1:])])
    row, left = 26, 150
    wide = CHART_W - left - RIGHT
    high = row * len(steps) + 24
    parts = []
    for n, step in enumerate(steps):
        y = n * row + 4
        text = Markup('<text x="0" y="{}">{}</text>')
        parts.append(text.format(y + 13, f"{step.name[:14]} · {step.devices:,}"))
        parts.append(_rect("track", left, y, wide, 16))
        if step.opens_s is None:
            continue
        x = left + wide * step.opens_s / end
        work = max(3.0, wide * (step.ends_s - step.opens_s) / end)
        parts.append(_rect("s-validating", x, y, min(work, left + wide - x), 16))
        if n < len(steps) - 1 and step.through_s is not None:
            soak = min(wide * step.soak_s / end, left + wide - x - work)
            parts.append(_rect("soak", x + work, y, soak, 16))
    for share_, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        label = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
        when = "start" if not share_ else _span(end * share_)
        parts.append(label.format(f"{left + wide * share_:.0f}", high - 4, anchor, when))
    said = "; ".join(f"{step.name}: {step.devices} devices, {_when(step)}" for step in steps)
    return _svg("chart plan", CHART_W, high, said, parts, stretch=False)


def _when(step: Step) -> str:
    if step.opens_s is None:
        return "does not open"
    return f"from {_span(step.opens_s)} to {_span(step.ends_s)}"


def slots_for(span_s: float, most: int = 120) -> float:
    """A slot's length in seconds, so that `most` of them hold the span."""
    return max(1.0, ceil(span_s / most))
