"""`skylift top`: the fleet on one screen, live."""

import time
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skylift.cli.context import Session
from skylift.cli.output import Format
from skylift.cli.speed import Speed, current
from skylift.cli.wording import STATUS_COLOURS, bar

VERSIONS = 8  # of the most devices; the rest in one line
HEARD = (("hour", "within the hour"), ("day", "within a day"), ("month", "within a month"),
         ("longer", "longer ago"), ("never", "never"))  # fmt: skip
BAR = 30


def top(
    this: Session,
    once: Annotated[bool, typer.Option("--once", help="Look once and leave.")] = False,
    every: Annotated[float, typer.Option(min=0.5, max=3600, help="Seconds between two looks.")] = 2.0,
) -> None:
    """The fleet, live: devices by version and last contact, what runs and how fast, what needs a person.

    Ctrl-C leaves. With --json: one object a line, whenever something has changed.

    skylift top

    skylift top --once --json
    """
    screen = Screen()
    found = this.client.get("/api/fleet")
    if this.output.form is Format.JSON:
        this.output.line(found)
        while not once:
            time.sleep(every)
            this.output.line(this.client.get("/api/fleet"))
        return
    if once:
        this.output.out.print(screen.draw(time.monotonic(), found))
        return
    with Live(screen.draw(time.monotonic(), found), console=this.output.out, refresh_per_second=4) as drawn:
        while True:
            time.sleep(every)
            drawn.update(screen.draw(time.monotonic(), this.client.get("/api/fleet")))


class Screen:
    """What is drawn, and what it remembers from one look to the next: how fast each deployment goes."""

    def __init__(self) -> None:
        self._speeds: dict[str, Speed] = {}

    def draw(self, at: float, found: dict[str, Any]) -> RenderableType:
        parts: list[RenderableType] = [Text(f"{found['devices']:,} devices", style="bold"), _heard(found)]
        parts.append(_versions(found))
        live = found["deployments"]
        self._speeds = {one["id"]: self._speeds.get(one["id"], Speed()) for one in live}
        for one in live:
            self._speeds[one["id"]].note(at, one)
        if live:
            parts.append(Text("\ndeployments", style="dim"))
            parts.extend(self._deployment(one) for one in live)
        if found["needs"]:
            parts.append(Text("\nneeds a person", style="dim"))
            parts.extend(
                Text(f"{need['what']}: {need['sentence']}", style="yellow") for need in found["needs"]
            )
        return Group(*parts)

    def _deployment(self, one: dict[str, Any]) -> RenderableType:
        phase = current(one)
        totals = one["totals"]
        bad = totals["failed"] + totals["rolled_back"]
        head = Text.assemble(
            (one["sentence"], STATUS_COLOURS.get(one["status"], "white")), (f"  {one['id']}", "dim")
        )
        line = Text.assemble("  ", bar(totals, one["devices"]), f" {totals['complete']:,}/{one['devices']:,}")
        if bad:
            line.append(f", {bad:,} failed", style="red")
        if phase is not None:
            rate = phase["failure_rate_percent"]
            shown = "" if rate is None else f" {rate:.1f} % of {one['failure_threshold_percent']:g} %"
            line.append(f"  {phase['name']}{shown}")
        if words := self._speeds[one["id"]].words(one):
            line.append(f"  {words}", style="dim")
        return Group(head, line)


def _heard(found: dict[str, Any]) -> Text:
    heard = found["heard"]
    parts = [f"{heard[name]:,} {words}" for name, words in HEARD if heard[name]]
    if not found["devices"]:
        return Text("nobody has enrolled yet", style="dim")
    text = Text("heard: " + (", ".join(parts) or "nobody"), style="dim")
    if heard["unhealthy"]:
        text.append(f"; {heard['unhealthy']:,} say they are unhealthy", style="red")
    return text


def _versions(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    rows = found["versions"]
    for row in rows[:VERSIONS]:
        cells = round(BAR * row["devices"] / max(1, found["devices"]))
        drawn = Text("█" * cells, style="blue").append("░" * (BAR - cells), style="bright_black")
        table.add_row(row["device_type"], row["version"] or "unknown", drawn, f"{row['devices']:,}")
    if rest := sum(row["devices"] for row in rows[VERSIONS:]):
        table.add_row("others", "", "", f"{rest:,}")
    return table
