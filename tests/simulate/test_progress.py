"""What a simulation shows while it runs: bars where somebody looks, lines where something reads."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from skylift.testkit import progress
from skylift.testkit.fleet import Fleet
from skylift.testkit.identity import Identity
from skylift.testkit.meter import Kind

SEEN: dict[str, Any] = {
    "status": "running",
    "totals": {"complete": 1_200},
    "phases": [
        {"name": "canary", "state": "through", "size": 50,
         "tally": {"complete": 48, "failed": 1, "rolled_back": 1}},
        {"name": "rest", "state": "open", "size": 4_000,
         "tally": {"complete": 1_152, "failed": 0, "rolled_back": 0}},
    ],
}  # fmt: skip


@pytest.fixture
def fleet() -> Fleet:
    made = Fleet("http://127.0.0.1:1", Identity(1, 5_000))
    for _ in range(30):
        made.meter.answered(Kind.POLL, 0.001, 0.001)
    made.meter.turn(in_flight=0, queued=0)
    return made


def console(*, terminal: bool) -> tuple[Console, Callable[[], str]]:
    written = io.StringIO()
    made = Console(file=written, force_terminal=terminal, width=120, color_system=None)
    return made, lambda: " ".join(written.getvalue().split())


def test_a_terminal_gets_a_bar_for_every_phase_and_the_load(fleet: Fleet) -> None:
    out, written = console(terminal=True)
    with progress.Show(out, fleet) as show:
        show(SEEN)
    for part in (
        "canary (through)",
        "50/50",
        "rest (open)",
        "1152/4000",
        "30 polls/s, 0 reports/s",
        "0/5000",
    ):
        assert part in written(), part


def test_the_first_bars_are_of_enrolling(fleet: Fleet) -> None:
    out, written = console(terminal=True)
    with progress.bar(out, "enrolling", 5_000) as moved:
        moved(2_500)
    assert "enrolling" in written()
    assert "2500/5000" in written()


def test_elsewhere_a_line_is_told_now_and_then(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    out, written = console(terminal=False)
    with progress.Show(out, fleet) as show:
        show(SEEN)
        assert written() == "", "not at every look"
        monkeypatch.setattr(progress, "TELL_S", 0.0)
        show(SEEN)
    said = "running: 2 of 2 phases open, 1,200 complete; 30 polls/s, 0 reports/s, in flight 0"
    assert written() == f"▸ {said}"
