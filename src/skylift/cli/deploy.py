"""`skylift deploy`: create, watch, status, explain, audit, list, and what an operator can do to one."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli import rehearsal, wording
from skylift.cli.context import Session, YesOption, at_server, must_confirm
from skylift.cli.exits import Exit, Leave

app = typer.Typer(help="Deployments: a release to devices, in phases.", no_args_is_help=True)
ENDED = ("complete", "aborted", "failed")
Deployment = Annotated[str, typer.Argument(help="A deployment's id, dep_...")]

SkipOption = Annotated[
    bool,
    typer.Option(
        "--skip-above-floor", help="Go on without devices whose security floor is above the release."
    ),
]


@at_server(app)
def create(
    this: Session,
    release: Annotated[str, typer.Argument(help="A release's id, or a version.")],
    all_devices: Annotated[bool, typer.Option("--all", help="To every device the release fits.")] = False,
    device: Annotated[list[str] | None, typer.Option("--device", help="To this device; repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="To this group; repeatable.")] = None,
    product: Annotated[str | None, typer.Option(help="Where two products have the version.")] = None,
    phases: Annotated[str | None, typer.Option(help="Cumulative percentages, such as 10,40,100.")] = None,
    rollout_percentage: Annotated[float | None, typer.Option(help="Size of each batch.")] = None,
    interval: Annotated[
        float | None, typer.Option(help="Minutes each phase soaks before the next; 60 unless given.")
    ] = None,
    wait: Annotated[
        float | None, typer.Option(help="Minutes a phase waits for devices to ask; 30 unless given.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Failure rate in percent above which it stops; 10 unless given."),
    ] = None,
    min_devices: Annotated[int | None, typer.Option(help="Decided devices before the rate counts.")] = None,
    failure_action: Annotated[
        str | None, typer.Option(help="pause, abort or rollback; pause unless given.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help="threshold or statistical; threshold unless given.")
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(help="How often the statistical gate may stop a good release; 0.05 unless given."),
    ] = None,
    expect: Annotated[
        float | None,
        typer.Option(help="Percent of devices that fail with any release; 1 unless given."),
    ] = None,
    max_parallel: Annotated[int | None, typer.Option(help="Devices at it at the same time.")] = None,
    starts_at: Annotated[str | None, typer.Option(help="An ISO 8601 time.")] = None,
    manual: Annotated[bool, typer.Option("--manual", help="Every later phase waits for promote.")] = False,
    mandatory: Annotated[bool, typer.Option("--mandatory")] = False,
    all_at_once: Annotated[bool, typer.Option("--all-at-once", help="No canary. Say it aloud.")] = False,
    skip_above_floor: SkipOption = False,
    config: Annotated[Path | None, typer.Option(help="The whole configuration as a JSON file.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Device counts per phase; changes nothing.")
    ] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Play it on what the fleet did before; changes nothing.")
    ] = False,
    defect: Annotated[
        list[float] | None,
        typer.Option(help="With --rehearse: a release that fails on so many percent; repeatable."),
    ] = None,
) -> None:
    """Send a published release out in phases.

    skylift deploy create 2.4.0 --all --phases 1,10,100 --interval 60 --threshold 5
    """
    body = _read_config(config) if config else {}
    body |= {"release": release} if release.startswith("rel_") else {"firmware_version": release}
    given = {
        "product": product,
        "target_devices": "all" if all_devices else (device or None),
        "target_groups": group or None,
        "rollout_percentage": rollout_percentage,
        "rollout_interval_minutes": interval,
        "wait_minutes": wait,
        "failure_threshold_percent": threshold,
        "failure_min_devices": min_devices,
        "failure_action": failure_action,
        "gate": gate,
        "false_alarm_rate": false_alarm_rate,
        "expected_failure_percent": expect,
        "max_parallel": max_parallel,
        "starts_at": starts_at,
        "mandatory": mandatory or None,
        "all_at_once": all_at_once or None,
        "skip_above_floor": skip_above_floor or None,
        "phases": _phases(phases, interval, wait, manual) if phases else None,
    }
    body |= {name: value for name, value in given.items() if value is not None}
    if defect and not rehearse:
        raise Leave(Exit.USAGE, f"--defect is {defect[0]:g}: belongs to --rehearse")
    if rehearse:
        played = this.client.post("/api/deployments", body, rehearse="true", defect=defect or None)
        rehearsal.show(this.output, played)
        return
    if dry_run:
        counted = this.client.post("/api/deployments", body, dry_run="true")
        wording.preview(this.output, counted)
        return
    if all_at_once:
        this.output.say("[yellow]no canary: every device at once[/yellow]")
    made = this.client.post("/api/deployments", body)
    this.output.one(made, wording.summary(made))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text())
    except ValueError as e:
        raise Leave(Exit.USAGE, f"--config is {path.name!r}: must be JSON ({e})") from e
    if not isinstance(body, dict):
        raise Leave(Exit.USAGE, f"--config is {path.name!r}: must be one JSON object")
    return body


def _phases(text: str, interval: float | None, wait: float | None, manual: bool) -> list[dict[str, Any]]:
    try:
        ends = [float(part) for part in text.split(",")]
    except ValueError as e:
        raise Leave(Exit.USAGE, f"--phases is {text!r}: percentages with commas, such as 10,40,100") from e
    times = {"min_minutes": interval, "wait_minutes": wait}
    given = {name: minutes for name, minutes in times.items() if minutes is not None}
    return [
        {"percent": end, "gate": "manual" if manual and number else "auto", **given}
        for number, end in enumerate(ends)
    ]


@at_server(app)
def status(
    this: Session,
    deployment: Deployment,
    wait: Annotated[bool, typer.Option("--wait", help="Until it ends or is paused.")] = False,
    timeout: Annotated[str, typer.Option(help="How long to wait: 90s, 30m, 2h.")] = "2h",
) -> None:
    """Where it stands.

    With --wait it exits 0 complete, 3 failed or aborted, 4 paused by its threshold, 5 timeout.
    """
    found = _find(this, deployment)
    if wait:
        until = time.monotonic() + seconds(timeout)
        while found["status"] not in ENDED and not _stopped(found):
            if time.monotonic() > until:
                wording.status(this.output, found)
                raise Leave(Exit.TIMEOUT, f"{deployment} is still {found['status']} after {timeout}")
            time.sleep(1)
            found = _find(this, deployment)
    wording.status(this.output, found)
    if wait:
        raise Leave(_exit_code(found))


def _find(this: Session, deployment: str) -> Any:
    return this.client.get(f"/api/deployments/{deployment}")


def _stopped(found: dict[str, Any]) -> bool:
    return bool(found["status"] == "paused" and found["paused_by"] == "failure_threshold")


def _exit_code(found: dict[str, Any]) -> Exit:
    if found["status"] == "complete":
        return Exit.OK
    return Exit.PAUSED if _stopped(found) else Exit.FAILED


def seconds(text: str) -> float:
    """90, 90s, 30m, 2h."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    number = text[:-1] if unit else text
    try:
        return float(number) * (unit or 1)
    except ValueError as e:
        raise Leave(Exit.USAGE, f"--timeout is {text!r}: a time such as 90s, 30m, 2h") from e


@at_server(app)
def explain(this: Session, deployment: Deployment) -> None:
    """What the devices that failed have in common, by how much, and what can be done about it."""
    wording.explain(this.output, this.client.get(f"/api/deployments/{deployment}/explain"))


@at_server(app)
def watch(this: Session, deployment: Deployment) -> None:
    """Live: phases, rate against threshold, devices a minute and when its phase is decided, recent failures,
    and what it waits for. Ctrl-C leaves.

    skylift deploy watch dep_01jb

    With --json: one object a line, whenever something has changed.
    """
    found = _find(this, deployment)
    with wording.live(this.output, found) as show:
        while found["status"] not in ENDED and not _stopped(found):
            time.sleep(0.5)
            found = _find(this, deployment)
            show(found)
    raise Leave(_exit_code(found))


@at_server(app)
def audit(
    this: Session,
    deployment: Annotated[str | None, typer.Argument(help="One; all of them unless named.")] = None,
) -> None:
    """Count everything again from the rows: counters, who waits, open slots, sizes. Changes nothing.

    Exits 1 if anything differs.
    """
    named = [deployment] if deployment is not None else [found["id"] for found in _every(this)]
    audits = [this.client.get(f"/api/deployments/{one}/audit") for one in named]
    wording.audits(this.output, audits)
    if wrong := [found["deployment"] for found in audits if not found["equal"]]:
        raise Leave(Exit.ERROR, f"the counts of {', '.join(wrong)} differ from a full count")


def _every(this: Session) -> Iterator[Any]:
    """All deployments, newest first, page by page."""
    cursor = None
    while True:
        found = this.client.get("/api/deployments", limit=500, cursor=cursor)
        yield from found["items"]
        cursor = found["next"]
        if cursor is None:
            return


@at_server(app, "list")
def list_(
    this: Session,
    state: Annotated[str | None, typer.Option("--status", help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
) -> None:
    """The latest deployments."""
    found = this.client.get("/api/deployments", limit=limit, status=state)
    this.output.many(found["items"], ("id", "product", "version", "status", "status_reason", "created_at"))


def _verb(verb: str, deployment: str, body: dict[str, Any], this: Session) -> Any:
    answer = this.client.post(f"/api/deployments/{deployment}:{verb}", body)
    this.output.one(answer, wording.summary(answer) if "status" in answer else None)
    return answer


@at_server(app)
def pause(
    this: Session,
    deployment: Deployment,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
) -> None:
    """No more offers; devices that have begun go on."""
    _verb("pause", deployment, {"reason": reason}, this)


@at_server(app)
def resume(
    this: Session,
    deployment: Deployment,
    threshold: Annotated[float | None, typer.Option(help="A new failure threshold in percent.")] = None,
    expect: Annotated[float | None, typer.Option(help="A new expected failure rate in percent.")] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave this cohort out, such as label.hw=rev-b, group=eu; repeatable."),
    ] = None,
) -> None:
    """Go on. A breach that still stands needs a higher threshold, a retry first, or to go on without the
    cohort it comes from (deploy explain finds it)."""
    given = {
        "failure_threshold_percent": threshold,
        "expected_failure_percent": expect,
        "without": without or None,
    }
    body = {name: value for name, value in given.items() if value is not None}
    _verb("resume", deployment, body, this)


@at_server(app)
def approve(this: Session, deployment: Deployment) -> None:
    """Say yes as a second person to a deployment that waits for one. Whoever created it cannot.

    skylift deploy approve dep_01jb
    """
    _verb("approve", deployment, {}, this)


@at_server(app)
def promote(this: Session, deployment: Deployment) -> None:
    """Open the next phase now."""
    _verb("promote", deployment, {}, this)


@at_server(app)
def abort(
    this: Session,
    deployment: Deployment,
    yes: YesOption = False,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
) -> None:
    """Stop for good. Devices that are installing finish; nobody else begins."""
    must_confirm(f"abort {deployment}?", yes)
    _verb("abort", deployment, {"reason": reason}, this)


@at_server(app)
def delete(this: Session, deployment: Deployment, yes: YesOption = False) -> None:
    """Forget a deployment that has ended, with its updates and events."""
    must_confirm(f"delete {deployment}?", yes)
    this.client.delete(f"/api/deployments/{deployment}")
    this.output.one({"deleted": deployment})


@at_server(app)
def retry(
    this: Session,
    deployment: Deployment,
    device: Annotated[list[str] | None, typer.Option("--device", help="Only this one; repeatable.")] = None,
) -> None:
    """Another attempt for devices that failed or fell back."""
    body = {"devices": device} if device else {}
    _verb("retry", deployment, body, this)


@at_server(app)
def rollback(
    this: Session,
    deployment: Deployment,
    yes: YesOption = False,
    only: Annotated[
        str | None, typer.Option(help="Only this cohort, such as label.hw=rev-b; the rest goes on.")
    ] = None,
    skip_above_floor: SkipOption = False,
) -> None:
    """Send the devices it updated back to the release they came from."""
    must_confirm(f"roll back {only or 'everything'} that {deployment} updated?", yes)
    body: dict[str, Any] = {} if only is None else {"only": only}
    if skip_above_floor:
        body["skip_above_floor"] = True
    answer = this.client.post(f"/api/deployments/{deployment}:rollback", body)
    this.output.one(answer, wording.sent_back(answer))
