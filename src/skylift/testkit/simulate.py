"""`skylift simulate`: a fleet of a million against a real server, and a report of what came of it.

Without a server it starts one of its own, in a folder that is removed afterwards: real process, real
ceremony, a signed release, the devices written in bulk. Against another server everything goes through its
API. At the end the fleet's memory is laid beside what the server has; only a clean judgement is exit code 0.
"""

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console

from skylift.cli.client import Client
from skylift.cli.exits import Leave
from skylift.core.deadlines import DEFAULTS
from skylift.core.errors import SkyliftError
from skylift.store.db import Database, migrate
from skylift.testkit import report
from skylift.testkit.fleet import VERSION, Fleet, Pace
from skylift.testkit.image import build
from skylift.testkit.judge import judge_fleet, judge_http
from skylift.testkit.progress import Show, bar
from skylift.testkit.report import Look
from skylift.testkit.seed import seed
from skylift.testkit.stage import Failed, Stage
from skylift.testkit.summary import LEAST_DEADLINE_S, Options, Run, facts, summary, tell_end

NEXT_VERSION = "1.1.0"
LOOK_S = 1.0
LINGER_S = 20.0  # after the deployment's end, for devices on their way
PATIENT_S = 600.0  # the operator's requests: a deployment over a million devices counts them first
_ENDED = ("complete", "aborted", "failed", "paused")


def run(options: Options, *, as_json: bool, console: Console | None = None) -> int:
    """The exit code: 0 only if the judgement is clean."""
    this = Run(options, console or Console(stderr=True))
    if not options.server:
        this.stage = Stage(Path(tempfile.mkdtemp(prefix="skylift-simulate-")), detached=True)
    try:
        told = asyncio.run(_story(this))
    except (Failed, Leave, SkyliftError, httpx2.HTTPError, OSError) as e:
        this.console.print(f"[red]the simulation failed: {e}[/red]")
        _tail(this)
        if as_json:
            print(json.dumps({"error": str(e), "clean": False}), flush=True)
        return 1
    finally:
        if this.stage is not None:
            this.stage.close()
    tell_end(this, told)
    if as_json:
        print(json.dumps(told), flush=True)
    return 0 if told["clean"] else 1


async def _story(this: Run) -> dict[str, Any]:
    began = time.monotonic()
    fleet = await _prepare(this)
    working = asyncio.create_task(fleet.run())
    stopped = _on_interrupt(this, fleet)
    started = time.monotonic()
    try:
        await _watch(this, fleet, working, started)
    finally:
        fleet.stop()
        await working
        stopped()
    this.facts["run_s"] = round(time.monotonic() - started, 1)
    this.say("the judgement: every acknowledged report against what the server has")
    judgement = await asyncio.to_thread(_judge, this, fleet)
    told = summary(this, fleet, judgement, time.monotonic() - began)
    if this.options.page is not None:
        this.options.page.write_text(report.page(facts(this, fleet, told)))
        told["report"] = str(this.options.page)
    return told


# --- the server and its devices ---------------------------------------------------------------------------


async def _prepare(this: Run) -> Fleet:
    """A server with the fleet enrolled and a deployment created; the fleet, not yet running."""
    options = this.options
    if this.stage is not None:
        await asyncio.to_thread(_own_server, this, this.stage)
        url = str(this.stage.facts["url"])
        this.client = Client(url, this.stage.environment["SKYLIFT_TOKEN"], timeout=PATIENT_S)
    else:
        url = options.server
        this.client = Client(url, options.token, timeout=PATIENT_S)
    pace = Pace(speed=options.speed, polls_per_s=options.polls_per_s, download=options.download)
    fleet = Fleet(
        url, this.identity, pace=pace, device_type=options.device_type, connections=options.connections
    )
    if this.stage is None:
        await _enroll(this, fleet)
    release = options.release or (NEXT_VERSION if this.stage is not None else "")
    if release:
        this.say(
            f"deploy {release} to everybody, in phases of {', '.join(f'{p:g}' for p in options.phases)} %"
        )
        made = await asyncio.to_thread(this.client.post, "/api/deployments", _deployment(options, release))
        this.deployment = made["id"]
    return fleet


def _deployment(options: Options, release: str) -> dict[str, Any]:
    named = {"release": release} if release.startswith("rel_") else {"firmware_version": release}
    times = {"min_minutes": options.interval_minutes, "wait_minutes": options.wait_minutes}
    return {
        **named,
        "target_devices": "all",
        "failure_threshold_percent": options.threshold_percent,
        "phases": [{"percent": end, **times} for end in options.phases],
    }


def _own_server(this: Run, stage: Stage) -> None:
    """Database, devices, server, ceremony, release."""
    (stage.home / "data").mkdir()
    migrate(this.database)
    _seed(this)
    deadlines = {
        f"SKYLIFT_{state.value.upper()}_DEADLINE_S": str(
            round(max(LEAST_DEADLINE_S, time.total_seconds() / this.options.speed))
        )
        for state, time in DEFAULTS.items()
    }
    # Named even where it is the default: a variable of the shell must not lead into a real fleet's database.
    usual = {"CHECK_INTERVAL_S": "300", "CHECK_INTERVAL_WAITING_S": "60", "CHECK_INTERVAL_BUSY_S": "30"}
    stage.settings |= {"SKYLIFT_DATABASE_URL": this.database, **deadlines}
    stage.settings |= {f"SKYLIFT_{name}": value for name, value in usual.items()}
    this.say("the server starts; key ceremony; a signed release")
    stage.serve("--mqtt", "off")
    stage.ceremony()
    image = build(stage.home / "image.pyz", NEXT_VERSION, size=this.options.image_kb << 10)
    stage.release(image, NEXT_VERSION)


def _seed(this: Run) -> None:
    began = time.monotonic()
    database = Database(this.database)
    try:
        with bar(this.console, "devices enrolled", this.options.devices) as moved:
            seed(
                database,
                this.identity,
                device_type=this.options.device_type,
                version=VERSION,
                now=datetime.now(UTC),
                moved=moved,
            )
    finally:
        database.close()
    this.facts["enroll_s"] = round(time.monotonic() - began, 1)


async def _enroll(this: Run, fleet: Fleet) -> None:
    """Through the device API, with a claim."""
    assert this.client is not None
    body = {"device_type": this.options.device_type, "uses": this.options.devices, "expires_in_hours": 24}
    claim = (await asyncio.to_thread(this.client.post, "/api/claims", body))["claim"]
    this.say(f"{this.options.devices:,} devices enroll over HTTP")
    began = time.monotonic()
    enrolled = await fleet.enroll(claim)
    this.facts["enroll_s"] = round(time.monotonic() - began, 1)
    if enrolled < this.options.devices:
        raise Failed(f"{enrolled} of {this.options.devices} devices enrolled; {'; '.join(fleet.refused[:1])}")


# --- watching ---------------------------------------------------------------------------------------------


def _on_interrupt(this: Run, fleet: Fleet) -> Callable[[], None]:
    """Ctrl-C ends the run early, with its judgement and its report; the second one ends it at once."""
    loop = asyncio.get_running_loop()

    def early() -> None:
        this.ended = "interrupted"
        fleet.stop()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, early)

    def restore() -> None:
        loop.remove_signal_handler(signal.SIGINT)

    return restore


async def _watch(this: Run, fleet: Fleet, working: "asyncio.Task[None]", started: float) -> None:
    """Look once a second until there is a reason to end."""
    show = Show(this.console, fleet)
    until, linger = started + this.options.minutes * 60, 0.0
    with show:
        while not (this.ended or working.done()):
            now = time.monotonic()
            seen = await asyncio.to_thread(_look, this, now - started)
            show(seen)
            reason = _over(seen)
            if reason and not linger:
                linger = now + LINGER_S
            if reason and (not fleet.flights or now > linger):
                this.ended = reason
            elif now > until:
                this.ended = f"{this.options.minutes:g} minutes are over"
            elif not this.ended:
                await asyncio.wait({working}, timeout=LOOK_S)


def _look(this: Run, at: float) -> dict[str, Any] | None:
    """The deployment now; the last one seen where the server does not answer."""
    if this.stage is not None:
        this.stage.check_server()
    if not this.deployment or this.client is None:
        return None
    try:
        seen: dict[str, Any] = this.client.get(f"/api/deployments/{this.deployment}")
    except Leave:
        return this.looks[-1].seen if this.looks else None  # type: ignore[return-value] # it was a dict
    this.looks.append(Look(at, seen))
    return seen


def _over(seen: dict[str, Any] | None) -> str:
    """Why there is nothing more to come; empty while there is."""
    if seen is None:
        return ""
    if seen["status"] in _ENDED:
        return f"the deployment is {seen['status']}"
    through = all(phase["state"] == "through" for phase in seen["phases"])
    return "every phase is through" if through else ""


# --- the end ----------------------------------------------------------------------------------------------


def _judge(this: Run, fleet: Fleet) -> dict[str, Any]:
    if this.stage is not None:
        return judge_fleet(this.database, fleet)
    found = judge_http(lambda deployment: _pages(this, deployment), this.identity, fleet.memory)
    findings = found["findings"] + fleet.refused[:5]
    return {**found, "refused": fleet.refusals, "findings": findings}


def _pages(this: Run, deployment: str) -> Iterator[list[dict[str, Any]]]:
    assert this.client is not None
    cursor: str | None = None
    while True:
        found = this.client.get(f"/api/deployments/{deployment}/devices", limit=500, cursor=cursor)
        yield found["items"]
        cursor = found["next"]
        if cursor is None:
            return


def _tail(this: Run) -> None:
    """The last words of the own server."""
    for server in this.stage.servers if this.stage is not None else ():
        if server.log.exists():
            print(server.log.read_text(errors="replace")[-1500:], file=sys.stderr)
