"""The report of a simulation: one HTML page that needs nothing else. Light and dark by CSS, no script."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from skylift.testkit.chart import Axis, Series, lines, stack
from skylift.testkit.meter import PERCENTILES, Second

STATES = (
    ("complete", "c0"),
    ("validating", "c1"),
    ("installing", "c2"),
    ("downloading", "c3"),
    ("pending", "c4"),
    ("rolled_back", "c5"),
    ("failed", "c6"),
    ("waiting", "c7"),
)
KINDS = (("poll", "c1"), ("report", "c5"), ("download", "c3"), ("enroll", "c4"))


@dataclass(frozen=True, slots=True)
class Look:
    """The deployment at one moment of the run: seconds since it began, and the server's view of it."""

    at: float
    seen: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the page shows. `summary`: what `--json` prints. `compressed`: sentences on what is not as
    in real life. `phases`: (seconds, name) of each phase that opened."""

    title: str
    summary: Mapping[str, Any]
    compressed: Sequence[str]
    seconds: Sequence[Second]
    looks: Sequence[Look]
    phases: Sequence[tuple[float, str]] = ()
    behaviours: Sequence[tuple[str, str, str]] = field(default_factory=tuple)  # name, share, what it does


def page(facts: Facts) -> str:
    """The whole page."""
    summary = facts.summary
    clean = summary["clean"]
    verdict = (
        "clean: nothing acknowledged was lost, nobody was offered anything twice" if clean else "NOT clean"
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(facts.title)}</title><style>{CSS}</style></head><body><main>
<h1>{escape(facts.title)}</h1>
<p class="verdict {"good" if clean else "bad"}">{escape(verdict)}</p>
{_terms(_head(summary))}
<h2>The judgement</h2>
{_terms((name, _shown(value)) for name, value in summary["judgement"].items() if name != "findings")}
{_list(summary["judgement"].get("findings", ()))}
<h2>What was compressed</h2>
{_list(facts.compressed)}
<h2>The deployment</h2>
{_phases(facts)}
{_failure_rate(facts)}
<h2>The load</h2>
{_polls(facts)}
{_in_flight(facts)}
<h2>Latency</h2>
<p>From the moment a request was due, waiting included, to its answer. A server that falls behind cannot hide
it here; the second table counts from the moment the request was sent.</p>
{_percentiles(facts)}
{_latency(facts)}
{_table(summary["latency"], "since_due", "since it was due")}
{_table(summary["latency"], "since_sent", "since it was sent")}
<h2>Behaviours</h2>
{_rows(("behaviour", "share", "what it does"), facts.behaviours)}
</main></body></html>
"""


# --- words -----------------------------------------------------------------------------------------------


def _head(summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    names = ("server", "database", "devices", "seed", "speed", "seconds", "ended", "status", "status_reason")
    return [(name, _shown(summary[name])) for name in names if summary.get(name) not in (None, "")]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _terms(pairs: Iterable[tuple[str, str]]) -> str:
    items = "".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(value)}</dd></div>"
        for name, value in pairs
    )
    return f"<dl>{items}</dl>"


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _table(latency: Mapping[str, Any], what: str, title: str) -> str:
    columns = (title, "requests", *(f"p{percent:g}" for percent in PERCENTILES), "longest")
    rows = []
    for kind, found in latency.items():
        cells = [_ms(found[what][f"p{percent:g}_ms"]) for percent in PERCENTILES]
        rows.append((kind, f"{found[what]['count']:,}", *cells, _ms(found[what]["max_ms"])))
    return _rows(columns, rows)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


# --- plots -----------------------------------------------------------------------------------------------


def _phases(facts: Facts) -> str:
    """Where devices stand, over time."""
    series = [
        Series(
            state.replace("_", " "), [(look.at, look.seen["totals"][state]) for look in facts.looks], colour
        )
        for state, colour in STATES
    ]
    return stack("Phases over time: devices by state", series, Axis(), marks=facts.phases)


def _failure_rate(facts: Facts) -> str:
    """The rate of the latest phase that has one, against the threshold."""
    points, limit = [], None
    for look in facts.looks:
        rates = [phase["failure_rate_percent"] for phase in look.seen["phases"]]
        known = [rate for rate in rates if rate is not None]
        if known:
            points.append((look.at, known[-1]))
        limit = look.seen["failure_threshold_percent"]
    shown = None if limit is None else (f"threshold {limit:g} %", limit)
    series = [Series("failure rate of the current phase", points, "c6")]
    return lines(
        "Failure rate against threshold", series, Axis(" %", least=1.0), limit=shown, marks=facts.phases
    )


def _polls(facts: Facts) -> str:
    series = [
        Series("polls", [(s.at, s.polls) for s in facts.seconds], "c1"),
        Series("reports", [(s.at, s.reports) for s in facts.seconds], "c5"),
        Series("first offers", [(s.at, s.offers) for s in facts.seconds], "c0"),
    ]
    return lines("Polls per second, and reports", series, Axis(), marks=facts.phases)


def _in_flight(facts: Facts) -> str:
    series = [
        Series("devices on their way", [(s.at, s.in_flight) for s in facts.seconds], "c2"),
        Series("due, waiting for a connection", [(s.at, s.queued) for s in facts.seconds], "c6"),
    ]
    return lines("Devices in flight", series, Axis(), marks=facts.phases)


def _percentiles(facts: Facts) -> str:
    """Latency by percentile; x counts nines: 90, 99, 99.9."""
    series = []
    for kind, colour in KINDS:
        found = facts.summary["latency"].get(kind)
        if found:
            values = [found["since_due"][f"p{percent:g}_ms"] for percent in PERCENTILES]
            points = [(float(n), value) for n, value in enumerate(values) if value is not None]
            series.append(Series(kind, points, colour))
    names = [f"p{percent:g}" for percent in PERCENTILES]
    axis = Axis(" ms", log=True, x_text=lambda x: names[int(x)] if x == int(x) < len(names) else "")
    return lines("Latency percentiles", series, axis)


def _latency(facts: Facts) -> str:
    series = []
    for kind, colour in KINDS[:2]:
        for percentile, shade in (("p50", ""), ("p99", " dashed")):
            points = [
                (float(s.at), s.percentiles[kind][percentile]) for s in facts.seconds if kind in s.percentiles
            ]
            series.append(Series(f"{kind} {percentile}", points, colour + shade))
    return lines("Latency over time", series, Axis(" ms", log=True), marks=facts.phases)


CSS = """
:root{color-scheme:light dark;--ink:#1c2330;--dim:#5b6472;--paper:#fff;--edge:#d9dee6;
--c0:#1a7f47;--c1:#2563c9;--c2:#5b4bc4;--c3:#0b7a91;--c4:#6b7280;--c5:#a85b00;--c6:#c02f2f;--c7:#c3cad5}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--dim:#9aa5b4;--paper:#12161d;--edge:#2c3440;
--c0:#4cc38a;--c1:#6ea8fe;--c2:#a79bff;--c3:#4fc3d9;--c4:#8b95a3;--c5:#f0a33f;--c6:#ff7b72;--c7:#3a4452}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:780px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:32px 0 8px}
.verdict{font-weight:600}.good{color:var(--c0)}.bad{color:var(--c6)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(180px,1fr));gap:8px 16px;margin:0}
dt{color:var(--dim);font-size:13px}dd{margin:0;overflow-wrap:anywhere}
figure{margin:16px 0}figcaption{font-weight:600}svg{width:100%;height:auto;display:block}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;list-style:none;padding:0;margin:2px 0 4px;font-size:13px}
.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px;background:currentColor}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}
.c4{color:var(--c4)}.c5{color:var(--c5)}.c6{color:var(--c6)}.c7{color:var(--c7)}
.line{fill:none;stroke:currentColor;stroke-width:1.6}.dashed{stroke-dasharray:5 3}
.area{fill:currentColor;stroke:none}.grid{stroke:var(--edge);stroke-width:1}
.limit{stroke:var(--c6);stroke-dasharray:6 4}.upright{stroke:var(--dim);stroke-dasharray:2 3}
text{font-size:11px;fill:var(--dim);font-family:inherit}
table{border-collapse:collapse;width:100%;margin:12px 0;font-size:14px}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--edge)}
"""
