"""The demo: the main job in front of your eyes, with nothing faked.

A real server process on SQLite with its embedded broker, the key ceremony with encrypted keys, real agents as
separate processes with two slots each, and, where there is a C++ compiler, virtual ESP32s among them whose
power browns out and whose line breaks. 1.0.0 is what the factory put on them; 1.1.0 goes out in phases by
delta; 1.2.0 installs but fails its health check on the trial boot, and the deployment stops itself; then an
operator rolls 1.1.0 back. At the end every device is asked what it runs.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.table import Table

from skylift.cli import wording
from skylift.cli.exits import Leave
from skylift.testkit import chips, esp32
from skylift.testkit.chips import CHIP_TYPE, Chips
from skylift.testkit.image import Behaviour, build
from skylift.testkit.stage import PATIENCE_S, Failed, Stage, wait

SOAK_MINUTES = 0.02
VERSIONS = {"1.0.0": Behaviour.HEALTHY, "1.1.0": Behaviour.HEALTHY, "1.2.0": Behaviour.UNHEALTHY}
ONE_CHIP_OF, MOST_CHIPS = 6, 4  # of the devices, where they can be built


class Show:
    """The stage, and the console (stderr: stdout is for the JSON)."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stage = Stage(Path(tempfile.mkdtemp(prefix="skylift-demo-")))
        self.chips = Chips(self.stage)

    def say(self, sentence: str) -> None:
        self.console.print(f"[bold blue]▸[/bold blue] {sentence}")


def run(devices: int, *, keep: bool, as_json: bool, console: Console | None = None) -> int:
    """The exit code: 0 only if all of it came out as told."""
    show = Show(console or Console(stderr=True))
    started = time.monotonic()
    try:
        summary = _story(show, devices)
        summary["seconds"] = round(time.monotonic() - started, 1)
        _picture(show.console, summary)
        if as_json:
            print(json.dumps(summary), flush=True)
        if keep:
            _keep(show)
        return 0
    except (Failed, Leave, httpx2.HTTPError, OSError) as e:
        show.console.print(f"[red]the demo failed: {e}[/red]")
        _tail(show)
        if as_json:
            print(json.dumps({"error": str(e)}))
        return 1
    finally:
        show.chips.close()
        show.stage.close()


def _chips(show: Show, devices: int) -> int:
    """How many of the devices are virtual ESP32s. Builds them."""
    count = min(MOST_CHIPS, devices // ONE_CHIP_OF)
    if esp32.compiler() is None:
        show.say("no virtual ESP32s: they want g++, gcc and the source tree")
        return 0
    try:
        if count:
            chips.program()
    except RuntimeError as e:
        show.say(f"no virtual ESP32s: {str(e).splitlines()[0]}")
        return 0
    return count


def _story(show: Show, devices: int) -> dict[str, Any]:
    stage = show.stage
    images = {
        version: build(stage.home / f"{version}.pyz", version, how) for version, how in VERSIONS.items()
    }
    count = _chips(show, devices)
    flashed = chips.images(stage.home, VERSIONS) if count else {}
    show.say("the server starts: SQLite, embedded MQTT broker")
    stage.serve()
    show.say("key ceremony: three keys for each role, two must sign; made offline, encrypted")
    stage.ceremony()
    _release(show, "1.0.0", images, flashed)
    show.say(f"{devices - count} device agents start: two slots each, enrolled with a claim token")
    names = [f"device-{number:02}" for number in range(1, devices - count + 1)]
    stage.enroll(names, images["1.0.0"], "1.0.0")
    if count:
        show.say(f"{count} virtual ESP32s start: the C++ client, on flash files whose power browns out")
        show.chips.start(count, flashed["1.0.0"])
    wait(lambda: _fleet(stage, "1.0.0") == devices, "every device has asked for the first time")

    _release(show, "1.1.0", images, flashed)
    good = _deploy(show, "1.1.0")
    _watch(show, good)
    _expect(stage, good, "complete", complete=devices)
    _everywhere(show, "1.1.0")
    sent = _received(stage)

    _release(show, "1.2.0", images, flashed)
    bad = _deploy(show, "1.2.0")
    _watch(show, bad)
    stopped = wait(lambda: _settled(stage, bad), "the canaries fall back")
    show.say(f"[yellow]{stopped['status_reason']}[/yellow]")
    _expect(stage, bad, "paused", complete=0)
    _everywhere(show, "1.1.0")

    show.say("the operator rolls 1.1.0 back")
    back = stage.skylift("deploy", "rollback", good, "--yes")["deployments"][0]["id"]
    _watch(show, back)
    _expect(stage, back, "complete", complete=devices)
    _everywhere(show, "1.0.0")
    return _summary(show, (good, bad, back), images, sent)


def _release(show: Show, version: str, images: dict[str, Path], flashed: dict[str, Path]) -> None:
    show.say(f"release {version}: upload, then sign with two of three release keys")
    more = (CHIP_TYPE, flashed[version]) if flashed else None
    show.stage.release(images[version], version, more=more)
    if version != "1.0.0":
        show.stage.wait_for_delta(version)


def _fleet(stage: Stage, version: str) -> int:
    return len(stage.client.get("/api/devices", limit=500, current_version=version)["items"])


# --- the acts ------------------------------------------------------------------------------------------


def _deploy(show: Show, version: str) -> str:
    show.say(f"deploy {version} to everybody, in phases of 10, 40 and 100 percent")
    phases = ("--phases", "10,40,100", "--interval", str(SOAK_MINUTES))
    found: str = show.stage.skylift("deploy", "create", version, "--all", *phases)["id"]
    return found


def _watch(show: Show, deployment: str) -> None:
    """Live until it ends or stops itself."""
    until = time.monotonic() + PATIENCE_S
    found = show.stage.deployment(deployment)
    with wording.shown(show.console, found) as redraw:
        while found["status"] in ("scheduled", "running"):
            if time.monotonic() > until:
                raise Failed(f"{deployment} is still {found['status']}: {found['notes']}")
            time.sleep(0.3)
            found = show.stage.deployment(deployment)
            redraw(found)


def _settled(stage: Stage, deployment: str) -> dict[str, Any] | None:
    """The deployment, once nobody is at it any more. An offer not taken up before the pause stays pending."""
    found = stage.deployment(deployment)
    totals = found["totals"]
    flying = sum(totals[state] for state in ("downloading", "installing", "validating"))
    return None if flying else found


def _expect(stage: Stage, deployment: str, status: str, *, complete: int) -> None:
    found = stage.deployment(deployment)
    if (found["status"], found["totals"]["complete"]) != (status, complete):
        raise Failed(
            f"{found['version']} should be {status} with {complete} devices complete: it is "
            f"{found['status']} with {found['totals']['complete']} ({found['status_reason']})"
        )
    if status == "paused":
        bad = found["totals"]["rolled_back"]
        if found["paused_by"] != "failure_threshold" or not 1 <= bad <= found["phases"][0]["size"]:
            raise Failed(f"{found['version']} should have been stopped by its canaries alone")


def _everywhere(show: Show, version: str) -> None:
    """Ask every device itself."""
    wait(lambda: all(found == version for found in _running(show)), f"every device runs {version}")


def _running(show: Show) -> list[str]:
    return [device.version() for device in show.stage.devices.values()] + show.chips.versions()


def _received(stage: Stage) -> int:
    """Bytes of images and deltas the agents took in, by their own journals."""
    return sum(device.journal()["received"] for device in stage.devices.values())


# --- the end -------------------------------------------------------------------------------------------


def _summary(show: Show, told: tuple[str, ...], images: dict[str, Path], sent: int) -> dict[str, Any]:
    stage, running = show.stage, _running(show)
    devices, bricked = len(running), running.count("")
    full = images["1.1.0"].stat().st_size * len(stage.devices)
    if bricked:
        raise Failed(f"{bricked} devices do not answer")
    if sent >= full:
        raise Failed(f"deltas should save: {sent} bytes were sent, full images are {full}")
    return {
        "devices": devices,
        "bricked": bricked,
        "deployments": [_line(stage.deployment(deployment), devices) for deployment in told],
        "bytes_sent": sent,
        "bytes_full": full,
        "chips": {
            "devices": len(show.chips.every),
            "power_cuts": show.chips.power_cuts(),
            "worst_wear": show.chips.worst_wear(),
        },
    }


def _line(found: dict[str, Any], devices: int) -> dict[str, Any]:
    totals = found["totals"]
    touched = sum(
        totals[state] for state in ("complete", "rolled_back", "failed", "installing", "validating")
    )
    return {
        "version": found["version"],
        "status": found["status"],
        "paused_by": found["paused_by"],
        "status_reason": found["status_reason"],
        "complete": totals["complete"],
        "rolled_back": totals["rolled_back"],
        "failed": totals["failed"],
        "untouched": devices - touched,
    }


def _picture(console: Console, summary: dict[str, Any]) -> None:
    table = Table(title="what happened", box=None, header_style="bold")
    for column in ("version", "status", "complete", "rolled back", "failed", "untouched", "why"):
        table.add_column(column)
    for line in summary["deployments"]:
        counts = (str(line[name]) for name in ("complete", "rolled_back", "failed", "untouched"))
        table.add_row(line["version"], line["status"], *counts, line["status_reason"])
    console.print(table)
    saved = 100 * (1 - summary["bytes_sent"] / summary["bytes_full"])
    of_chips = summary["chips"]
    if of_chips["devices"]:
        console.print(
            f"{of_chips['devices']} of them virtual ESP32s: {of_chips['power_cuts']} power cuts, no sector "
            f"of their slots erased more than {of_chips['worst_wear']} times"
        )
    console.print(
        f"{summary['devices']} devices, [bold]{summary['bricked']} bricked[/bold]; 1.1.0 took the "
        f"{summary['devices'] - of_chips['devices']} Linux agents {summary['bytes_sent']:,} bytes by delta, "
        f"not {summary['bytes_full']:,} ({saved:.1f} % saved); {summary['seconds']} s"
    )


def _keep(show: Show) -> None:
    stage = show.stage
    show.console.print(f"server: {stage.facts['url']}   token: {stage.environment['SKYLIFT_TOKEN']}")
    show.console.print("it stays up, with its devices, until you press Ctrl-C")
    try:
        if stage.server.process is not None:
            stage.server.process.wait()
    except KeyboardInterrupt:
        show.console.print("stopping")


def _tail(show: Show) -> None:
    """The last words of the server and of a few devices."""
    home = show.stage.home
    for log in (
        home / "data.log",
        *sorted((home / "devices").glob("*/agent.log"))[:3],
        *sorted((home / "chips").glob("*/device.log"))[:2],
    ):
        if log.exists():
            show.console.print(f"[dim]{log.parent.name}/{log.name}[/dim]")
            show.console.print(log.read_text(errors="replace")[-1500:], markup=False, highlight=False)
