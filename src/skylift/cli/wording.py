"""How a deployment looks on a terminal: the same words as everywhere, as lines, tables and a live picture."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skylift.cli.output import Format, Output
from skylift.cli.speed import Speed

_COLOURS = (
    ("complete", "green"),
    ("validating", "bright_blue"),
    ("installing", "blue"),
    ("downloading", "cyan"),
    ("pending", "bright_black"),
    ("rolled_back", "yellow"),
    ("failed", "red"),
)
STATUS_COLOURS = {
    "complete": "green",
    "running": "blue",
    "paused": "yellow",
    "failed": "red",
    "aborted": "red",
}
BAR = 30


def summary(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The few lines that matter."""
    for name in ("id", "product", "version", "status", "status_reason", "paused_by", "devices"):
        if found.get(name) not in (None, ""):
            yield name, found[name]
    if found.get("without"):
        yield "without", f"{', '.join(found['without'])} ({found['left_out']} devices left out)"
    if approval := found.get("approval"):
        yield "approved by", approval["by"] or f"nobody (needed above {approval['above']} devices)"
    if above := _above(found):
        yield "skips", above
    for note in _notes(found):
        yield "waits for", note


def _above(found: dict[str, Any]) -> str:
    """The devices it goes on without, for their security floor; empty where there are none."""
    above = found.get("above_floor") or {"devices": 0}
    if not above["devices"]:
        return ""
    names, more = ", ".join(above["device_ids"]), above["devices"] - len(above["device_ids"])
    others = f" and {more} others" if more else ""
    return f"{above['devices']} devices above its security floor: {names}{others}"


def sent_back(answer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A rollback: the deployments that do it, and whom nobody can send back."""
    yield "rolls back", answer["rolled_back"]
    for made in answer["deployments"]:
        yield made["id"], f"{made['devices']} devices to {made['version']}"
        if above := _above(made):
            yield "skips", above
    for version, devices in answer["left"].items():
        yield "left", f"{devices} devices that came from {version}, which no release offers any more"


def _notes(found: dict[str, Any]) -> list[str]:
    """The planner's words, where they say more than the status and its reason."""
    if found["status"] in ("complete", "aborted", "failed"):
        return []
    return [note for note in found.get("notes", ()) if note != found.get("status_reason")]


def status(output: Output, found: dict[str, Any]) -> None:
    """The whole view."""
    if output.form is Format.JSON:
        output.one(found)
    else:
        output.out.print(picture(found))


def explain(output: Output, found: dict[str, Any]) -> None:
    """Suspects with their samples, and the offers as commands to copy."""
    if output.form is Format.JSON:
        output.one(found)
        return
    output.one(found, [("finds", found["sentence"])])
    if not found["suspects"]:
        return
    rows = [
        {
            "cohort": f"{one['attribute']} {one['value']}",
            "failed": f"{one['failed']} of {one['decided']}",
            "of the others": f"{one['failed_elsewhere']} of {one['decided_elsewhere']}",
            "lift": f"{one['lift']:.1f}",
            "at least": f"{one['lift_at_least']:.1f}",
            "by chance": f"{one['chance']:.1g}",
        }
        for one in found["suspects"]
    ]
    output.many(rows, tuple(rows[0]))
    for offer in found["offers"]:
        output.out.print(f"\n{offer['what']}:\n  {offer['command']}", soft_wrap=True, markup=False)


def audits(output: Output, found: list[dict[str, Any]]) -> None:
    """A line for each deployment that was counted again, and one for everything that differs."""
    if output.form is Format.JSON:
        output.many(found, ())
        return
    rows = [{**one, "says": "equal" if one["equal"] else f"{len(one['findings'])} differ"} for one in found]
    output.many(rows, ("deployment", "status", "updates", "says"))
    for one in found:
        for finding in one["findings"]:
            output.out.print(f"{one['deployment']}  {finding}", soft_wrap=True, markup=False)


def preview(output: Output, counted: dict[str, Any]) -> None:
    """A dry run: devices per phase."""
    if output.form is Format.JSON:
        output.one(counted)
        return
    output.many(counted["phases"], ("name", "percent", "count", "devices", "min_minutes", "gate"))
    output.say(f"{counted['devices']} devices, {counted['skipped']} already there or without an image")
    if counted.get("needs_approval"):
        output.say("[yellow]it will wait for a second person: skylift deploy approve[/yellow]")
    if above := _above(counted):
        output.say(f"skips {above}")


def picture(found: dict[str, Any], speed: str = "") -> RenderableType:
    """Phases with bars, rate against threshold, the planner's words, recent failures; while somebody watches,
    how fast it goes."""
    colour = STATUS_COLOURS.get(found["status"], "white")
    head = Text.assemble(
        (f"{found['product']} {found['version']}  ", "bold"),
        (found["status"], f"bold {colour}"),
        f"  {found['id']}",
    )
    parts: list[RenderableType] = [head]
    if found.get("status_reason"):
        parts.append(Text(found["sentence"], style=colour))
    parts.append(_phases(found))
    if found.get("without"):
        without = f"goes on without {', '.join(found['without'])}: {found['left_out']} devices left out"
        parts.append(Text(without, style="yellow"))
    if speed:
        parts.append(Text(speed))
    parts.extend(Text(f"waits for: {note}", style="dim") for note in _notes(found))
    if found.get("recent_failures"):
        parts.append(_failures(found["recent_failures"]))
    return Group(*parts)


@contextmanager
def live(output: Output, found: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """The picture, redrawn by the function this gives; where there is no terminal, only its last state. As
    JSON, a line for every change."""
    if output.form is Format.JSON:
        output.line(found)
        yield output.line
        return
    with shown(output.out, found) as redraw:
        yield redraw


@contextmanager
def shown(console: Console, found: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """The picture on this console."""
    speed = Speed()

    def draw(now: dict[str, Any]) -> RenderableType:
        speed.note(monotonic(), now)
        return picture(now, speed.words(now))

    with Live(draw(found), console=console, refresh_per_second=4) as drawn:
        yield lambda now: drawn.update(draw(now))
    if not console.is_terminal:
        console.print()  # Live ends its last line only on terminals


def _phases(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("phase", "state", "", "complete", "failed, of limit"):
        table.add_column(column, no_wrap=True)
    for phase in found["phases"]:
        tally = phase["tally"]
        rate = phase.get("failure_rate_percent")
        limit = found["failure_threshold_percent"]
        shown = "" if rate is None else f"{rate:.1f} % of {limit:g} %"
        table.add_row(
            phase["name"],
            phase["state"],
            bar(tally, phase["size"]),
            f"{tally['complete']}/{phase['size']}",
            shown,
        )
    return table


def bar(tally: dict[str, Any], size: int) -> Text:
    """One phase as a bar of its states."""
    drawn, text = 0, Text()
    for state, colour in _COLOURS:
        if not size or not tally[state]:
            continue
        cells = max(1, round(BAR * tally[state] / size))
        cells = min(cells, BAR - drawn)
        text.append("█" * cells, style=colour)
        drawn += cells
    text.append("░" * (BAR - drawn), style="bright_black")
    return text


def _failures(failures: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("device", "state", "reason", "message"):
        table.add_column(column)
    for failure in failures[:5]:
        table.add_row(
            failure["device_id"], failure["state"], failure["reason"], (failure["message"] or "")[:60]
        )
    return table
