"""The report is one page that needs nothing else, with every plot, also of a run without anything."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from skylift.testkit.chart import MOST_POINTS, Axis, Series, lines, thin
from skylift.testkit.meter import Kind, Meter
from skylift.testkit.report import Facts, Look, page

PLOTS = (
    "Phases over time",
    "Failure rate against threshold",
    "Polls per second",
    "Devices in flight",
    "Latency percentiles",
    "Latency over time",
)
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Checked(HTMLParser):
    """Collects what is opened and closed, what is loaded, and what can run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        given = dict(attrs)
        if tag in ("script", "link", "img", "iframe", "object"):
            self.outside.append(tag)
        self.outside += [
            f"{tag} {name}" for name in given if name in ("src", "href") or name.startswith("on")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def must_be_a_page(text: str) -> list[ElementTree.Element]:
    """Well-formed and self-contained; its drawings."""
    checked = Checked()
    checked.feed(text)
    assert (checked.wrong, checked.open) == ([], [])
    assert checked.outside == []
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "prefers-color-scheme:dark" in text
    drawn = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
    figures = [ElementTree.fromstring(found) for found in drawn]  # noqa: S314 - we made it a moment ago
    titles = [figure.findtext("figcaption") or "" for figure in figures]
    for plot in PLOTS:
        assert any(title.startswith(plot) for title in titles), plot
    for figure in figures:
        for element in figure.iter():
            numbers = " ".join(element.get(name, "") for name in ("points", "x1", "x2", "y1", "y2", "x", "y"))
            for number in re.findall(r"[-\w.]+", numbers):
                assert -1 <= float(number) <= 721, f"{number} is outside of the drawing"
    return figures


def facts(*, seconds: int) -> Facts:
    meter = Meter()
    looks = []
    for second in range(seconds):
        for n in range(second % 50):
            meter.answered(Kind.POLL, 0.001 * (n + 1), 0.001)
            meter.answered(Kind.REPORT, 0.002 * (n + 1), 0.001)
        meter.turn(in_flight=second, queued=0)
        done = min(second, 100)
        others = ("pending", "downloading", "installing", "validating", "failed", "rolled_back")
        totals = dict.fromkeys(others, 0)
        seen = {
            "totals": {**totals, "complete": done, "waiting": 100 - done},
            "phases": [{"failure_rate_percent": 2.5 if done else None}, {"failure_rate_percent": None}],
            "failure_threshold_percent": 10.0,
        }
        looks.append(Look(float(second), seen))
    judgement = {"reports_lost": 0, "counters_equal": True, "findings": ["<script>alert(1)</script>"]}
    summary: dict[str, Any] = {
        "clean": True, "judgement": judgement, "latency": meter.view(), "devices": 100,
        "status_reason": "phase 1: <b>5</b> & more", "seconds": float(seconds),
    }  # fmt: skip
    return Facts(
        "A <fleet>", summary, ("devices' times are divided by 10",), meter.seconds, looks,
        ((0.0, "phase 1"), (5.0, "phase <2>")) if seconds else (),
        (("well", "100 %", "does what it should"),),
    )  # fmt: skip


@pytest.mark.parametrize("seconds", [0, 1, 2, 3_000])
def test_the_page_is_whole_and_needs_nothing_else(seconds: int) -> None:
    text = page(facts(seconds=seconds))
    must_be_a_page(text)
    assert "<script" not in text
    assert "A &lt;fleet&gt;" in text
    assert len(text) < 300_000


def test_the_plots_show_what_was_measured() -> None:
    figures = must_be_a_page(page(facts(seconds=60)))
    phases = figures[0]
    complete = next(area for area in phases.iter("polygon") if area.get("class") == "area c0")
    heights = [float(point.split(",")[1]) for point in (complete.get("points") or "").split()]
    assert max(heights) - min(heights) > 100, "the fleet goes from none complete to 60 of 100"
    rate = figures[1]
    assert [line for line in rate.iter("line") if line.get("class") == "limit"]
    assert any("threshold 10 %" in (text.text or "") for text in rate.iter("text"))


def test_a_peak_never_disappears_in_a_long_run() -> None:
    points = [(float(n), 5_000.0 if n == 7_777 else 1.0) for n in range(20_000)]
    kept = thin(points)
    assert len(kept) <= MOST_POINTS
    assert (7_777.0, 5_000.0) in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_a_chart_of_nothing_still_has_its_axes() -> None:
    drawn = lines("empty", [Series("none", [], "c0")], Axis(" ms", log=True))
    assert "nan" not in drawn
    assert drawn.count("<line") >= 2
