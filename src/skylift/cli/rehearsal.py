"""How a rehearsal looks on a terminal: a time line of the phases, its costs, and where bad releases stop."""

from typing import Any

from rich.table import Table
from rich.text import Text

from skylift.cli.output import Format, Output

LINE = 40  # cells of the time line


def show(output: Output, found: dict[str, Any]) -> None:
    """The whole of it; with `-o json` as it came."""
    if output.form is Format.JSON:
        output.one(found)
        return
    output.out.print(
        f"[bold]{found['devices']:,} devices[/bold], {found['skipped']:,} already there or without an image"
    )
    output.out.print(_phases(found))
    for sentence in _costs(found):
        output.out.print(sentence, soft_wrap=True)
    output.out.print(_gate(found["gate"]))
    for sentence in _grounds(found):
        output.out.print(Text(sentence, style="dim"), soft_wrap=True)


def _phases(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("phase", "devices", "opens", "", "through", "9 of 10 by"):
        table.add_column(column, no_wrap=True)
    end = max((phase["through_s"]["p50"] for phase in found["phases"] if phase["through_s"]), default=0.0)
    for phase in found["phases"]:
        opens, through = phase["opens_s"], phase["through_s"]
        table.add_row(
            phase["name"],
            f"{phase['devices']:,}",
            "never" if opens is None else time(opens["p50"]),
            _bar(opens, through, end),
            "never" if through is None else time(through["p50"]),
            "" if through is None else time(through["p90"]),
        )
    return table


def _bar(opens: dict[str, float] | None, through: dict[str, float] | None, end: float) -> Text:
    """From opening to through, on a line that ends with the last phase."""
    if opens is None or through is None or not end:
        return Text("·" * LINE, style="bright_black")
    start = min(round(LINE * opens["p50"] / end), LINE - 1)
    cells = max(1, round(LINE * through["p50"] / end) - start)
    bar = Text("·" * start, style="bright_black")
    bar.append("█" * min(cells, LINE - start), style="blue")
    bar.append("·" * max(0, LINE - start - cells), style="bright_black")
    return bar


def _costs(found: dict[str, Any]) -> list[str]:
    duration, traffic, asked = found["duration_s"], found["bytes"], found["requests_per_s"]
    if duration is None:
        took = "[yellow]it does not come through its phases[/yellow]"
    else:
        middle, most = time(duration["p50"]), time(duration["p90"])
        took = f"through its phases in [bold]{middle}[/bold], 9 of 10 times in {most}"
    saved = (
        f", {100 * (1 - traffic['total'] / traffic['full']):.1f} % saved by deltas" if traffic["full"] else ""
    )
    return [
        f"{took}; {found['completes_percent']:g} % of {found['runs']} runs came through",
        f"[bold]{size(traffic['total'])}[/bold] to download{saved}",
        f"{asked['peak']:g} requests/s at the peak, {asked['at_rest']:g} at rest",
    ]


def _gate(trips: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("defect", "stops itself", "in", "after", "devices offered", "devices hurt"):
        table.add_column(column, no_wrap=True)
    for trip in trips:
        stops = trip["after_s"] is not None
        table.add_row(
            f"{trip['defect_percent']:g} %",
            f"{trip['stops_percent']:g} % of runs",
            trip["phase"] or "-",
            time(trip["after_s"]["p50"]) if stops else "-",
            f"{trip['offered']['p50']:,.0f}" if stops else "-",
            f"{trip['hurt']['p50']:,.0f} (9 of 10: at most {trip['hurt']['p90']:,.0f})",
        )
    return table


def _grounds(found: dict[str, Any]) -> list[str]:
    based = found["based_on"]
    ground = (
        f"based on {based['contacts']:,} last contacts, {based['updates']:,} updates of "
        f"{len(based['deployments'])} deployments, {based['failure_rate_percent']:g} % of which failed"
    )
    return [ground, *(f"assumes: {sentence}" for sentence in found["assumes"])]


def time(seconds: float) -> str:
    """45 s, 12 min, 3.4 h, 2.5 d."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes, in units of a thousand."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"
