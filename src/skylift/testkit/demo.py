"""The demo: the main job in front of your eyes, with nothing faked.

A real server process on SQLite with its embedded broker, the key ceremony with encrypted keys, real agents as
separate processes with two slots each. 1.0.0 is what the factory put on them; 1.1.0 goes out in phases by
delta; 1.2.0 installs but fails its health check on the trial boot, and the deployment stops itself; then an
operator rolls 1.1.0 back. At the end every device is asked what it runs.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.live import Live
from rich.table import Table

from skylift.cli import wording
from skylift.cli.client import Client
from skylift.testkit.image import Behaviour, build

PRODUCT, DEVICE_TYPE = "sensor", "sensor-v2"
PATIENCE_S = 60.0  # for any one thing; the whole demo takes about that long
SOAK_MINUTES = 0.02
_PY = sys.executable


class Failed(Exception):
    """Something did not come out as told."""


@dataclass
class Stage:
    """Where the demo happens: its folder, its processes, its console (on stderr: stdout is for the JSON)."""

    home: Path
    console: Console
    server: "subprocess.Popen[bytes] | None" = None
    agents: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return Client(self.facts["url"], self.environment["SKYLIFT_TOKEN"])

    def skylift(self, *words: str) -> Any:
        """A command of the CLI, as an operator would type it; its JSON."""
        done = subprocess.run(
            [_PY, "-m", "skylift", *words, "--json"],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failed(f"skylift {' '.join(words[:3])}: exit {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def say(self, sentence: str) -> None:
        self.console.print(f"[bold blue]▸[/bold blue] {sentence}")


def run(devices: int, *, keep: bool, as_json: bool) -> int:
    """The exit code: 0 only if all of it came out as told."""
    console = Console(stderr=True)
    stage = Stage(Path(tempfile.mkdtemp(prefix="skylift-demo-")), console)
    started = time.monotonic()
    summary: dict[str, Any] = {}
    try:
        summary = _story(stage, devices)
        summary["seconds"] = round(time.monotonic() - started, 1)
        _picture(console, summary)
        if as_json:
            print(json.dumps(summary))
        if keep:
            _keep(stage)
        return 0
    except (Failed, httpx2.HTTPError, OSError) as e:
        console.print(f"[red]the demo failed: {e}[/red]")
        _tail(stage)
        if as_json:
            print(json.dumps({**summary, "error": str(e)}))
        return 1
    finally:
        _stop(stage)


def _story(stage: Stage, devices: int) -> dict[str, Any]:
    _serve(stage)
    _ceremony(stage)
    images = _images(stage.home)
    _release(stage, images["1.0.0"], "1.0.0")
    _agents(stage, devices)
    _release(stage, images["1.1.0"], "1.1.0")
    _wait_for_deltas(stage, "1.1.0")
    good = _deploy(stage, "1.1.0")
    _watch(stage, good)
    _expect(stage, good, "complete", complete=devices)
    _everywhere(stage, devices, "1.1.0")
    sent = _received(stage)

    _release(stage, images["1.2.0"], "1.2.0")
    _wait_for_deltas(stage, "1.2.0")
    bad = _deploy(stage, "1.2.0")
    _watch(stage, bad)
    stopped = _wait(lambda: _settled(stage, bad), "the canaries fall back")
    stage.say(f"[yellow]{stopped['status_reason']}[/yellow]")
    _expect(stage, bad, "paused", complete=0)
    _everywhere(stage, devices, "1.1.0")

    stage.say("the operator rolls 1.1.0 back")
    back = stage.skylift("deploy", "rollback", good, "--yes")["deployments"][0]["id"]
    _watch(stage, back)
    _expect(stage, back, "complete", complete=devices)
    _everywhere(stage, devices, "1.0.0")
    return _summary(stage, devices, (good, bad, back), images, sent)


# --- setting the stage ---------------------------------------------------------------------------------


def _serve(stage: Stage) -> None:
    stage.say("starting the server: SQLite, embedded MQTT broker")
    data = stage.home / "data"
    log = (stage.home / "server.log").open("wb")
    environment = {
        **os.environ,
        # A demo does not wait five minutes for a poll that the doorbell missed.
        "SKYLIFT_CHECK_INTERVAL_S": "10",
        "SKYLIFT_CHECK_INTERVAL_WAITING_S": "5",
        "SKYLIFT_CHECK_INTERVAL_BUSY_S": "5",
    }
    stage.server = subprocess.Popen(
        [_PY, "-m", "skylift", "serve", "--data", str(data), "--port", "0", "--mqtt-port", "0"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    path = data / "server.json"
    _wait(lambda: path.exists() or _dead(stage), "the server listens")
    stage.facts = json.loads(path.read_text())
    stage.environment = {
        **os.environ,
        "SKYLIFT_SERVER": stage.facts["url"],
        "SKYLIFT_TOKEN": (data / "admin.token").read_text().strip(),
        "SKYLIFT_KEY_PASSPHRASE": secrets.token_urlsafe(24),
        "NO_COLOR": "1",
    }


def _dead(stage: Stage) -> bool:
    if stage.server is not None and stage.server.poll() is not None:
        raise Failed("the server ended")
    return False


def _ceremony(stage: Stage) -> None:
    stage.say(
        "key ceremony: 3 root, 3 targets, 3 release keys, two of three must sign; all offline, encrypted"
    )
    stage.skylift("trust", "init", "--product", PRODUCT, "--keys", "desk")
    stage.skylift("trust", "export", "--linux", "roots", "--keys", "desk")


def _images(home: Path) -> dict[str, Path]:
    healthy, sick = Behaviour.HEALTHY, Behaviour.UNHEALTHY
    behaviours = {"1.0.0": healthy, "1.1.0": healthy, "1.2.0": sick}
    return {
        version: build(home / f"{version}.pyz", version, behaviour)
        for version, behaviour in behaviours.items()
    }


def _release(stage: Stage, image: Path, version: str) -> None:
    stage.say(f"release {version}: upload, then sign with two of three release keys")
    about = ("--product", PRODUCT, "--version", version, "--device-type", DEVICE_TYPE)
    made = stage.skylift("release", "create", image.name, *about)
    if made["status"] != "signing":
        raise Failed(f"{version} should wait for signatures, it is {made['status']}")
    keys = [f"desk/keys/release-{PRODUCT}-{number}.pem" for number in (1, 2)]
    half = stage.skylift("release", "sign", made["id"], "--keys", "desk", "--key", keys[0])
    if half["published"]:
        raise Failed(f"{version} was published by one signature")
    whole = stage.skylift("release", "sign", made["id"], "--keys", "desk", "--key", keys[1])
    if not whole["published"]:
        raise Failed(f"{version} is not published by two signatures")


def _agents(stage: Stage, devices: int) -> None:
    stage.say(f"{devices} device agents start: two slots each, enrolled with a claim token")
    enrolled = stage.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", str(devices))
    for number in range(1, devices + 1):
        name = f"device-{number:02}"
        home = stage.home / "devices" / name
        home.mkdir(parents=True)
        (home / "agent.toml").write_text(_agent_toml(stage, name, enrolled["claim"]))
        log = (home / "agent.log").open("wb")
        stage.agents.append(
            subprocess.Popen(
                [_PY, "-m", "skylift.agent", "--config", str(home / "agent.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        )
    _wait(lambda: len(_fleet(stage, "1.0.0")) == devices, "every device has asked for the first time")


def _agent_toml(stage: Stage, name: str, claim: str) -> str:
    return f"""\
server = "{stage.facts["url"]}"
device_id = "{name}"
device_type = "{DEVICE_TYPE}"
state_dir = "state"
roots = "../../roots"
claim = "{claim}"
mqtt = "{stage.facts["mqtt"]}"
factory_image = "../../1.0.0.pyz"
factory_version = "1.0.0"
boot_attempts = 2
health_passes = 2
health_interval_seconds = 0.2
health_deadline_seconds = 6.0
"""


def _fleet(stage: Stage, version: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stage.client.get("/api/devices", limit=500, current_version=version)[
        "items"
    ]
    return found


def _wait_for_deltas(stage: Stage, version: str) -> None:
    def there() -> bool:
        releases = stage.client.get("/api/releases", limit=10)["items"]
        made = next(release for release in releases if release["version"] == version)
        return any(artifact["kind"] == "delta" for artifact in made["artifacts"])

    _wait(there, f"the delta to {version}")


# --- the acts ------------------------------------------------------------------------------------------


def _deploy(stage: Stage, version: str) -> str:
    stage.say(f"deploy {version} to everybody, in phases of 10, 40 and 100 percent")
    made = stage.skylift(
        "deploy", "create", version, "--all", "--phases", "10,40,100", "--interval", str(SOAK_MINUTES)
    )
    found: str = made["id"]
    return found


def _watch(stage: Stage, deployment: str) -> None:
    """Live until it ends or stops itself."""
    until = time.monotonic() + PATIENCE_S
    found = _view(stage, deployment)
    with Live(wording.picture(found), console=stage.console, refresh_per_second=4) as live:
        while found["status"] in ("scheduled", "running"):
            if time.monotonic() > until:
                raise Failed(
                    f"{deployment} is still {found['status']} after {PATIENCE_S:g} s: {found['notes']}"
                )
            time.sleep(0.3)
            found = _view(stage, deployment)
            live.update(wording.picture(found))


def _view(stage: Stage, deployment: str) -> dict[str, Any]:
    _dead(stage)
    found: dict[str, Any] = stage.client.get(f"/api/deployments/{deployment}")
    return found


def _settled(stage: Stage, deployment: str) -> dict[str, Any] | None:
    """The deployment, once nobody is in flight any more."""
    found = _view(stage, deployment)
    totals = found["totals"]
    flying = sum(totals[state] for state in ("pending", "downloading", "installing", "validating"))
    # Offers that were not taken up before the pause stay pending: their devices run what they ran.
    return found if flying - totals["pending"] == 0 else None


def _expect(stage: Stage, deployment: str, status: str, *, complete: int) -> None:
    found = _view(stage, deployment)
    if (found["status"], found["totals"]["complete"]) != (status, complete):
        raise Failed(
            f"{found['version']} should be {status} with {complete} devices complete: it is "
            f"{found['status']} with {found['totals']['complete']} ({found['status_reason']})"
        )
    if status == "paused":
        bad = found["totals"]["rolled_back"]
        if found["paused_by"] != "failure_threshold" or bad < 1 or bad > found["phases"][0]["size"]:
            raise Failed(f"{found['version']} should have been stopped by its canaries alone")


def _running(stage: Stage) -> Iterator[str]:
    """What each device's image answers right now; "" where it does not answer healthy."""
    for home in sorted((stage.home / "devices").iterdir()):
        yield _asked(home)


def _asked(home: Path) -> str:
    try:
        port = (home / "state" / "shared" / "port").read_text()
        answer = httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2.0)
    except (OSError, httpx2.HTTPError):
        return ""
    return str(answer.json()["version"]) if answer.status_code == 200 else ""


def _everywhere(stage: Stage, devices: int, version: str) -> None:
    _wait(
        lambda: list(_running(stage)) == [version] * devices,
        f"every device runs {version}",
    )


def _received(stage: Stage) -> int:
    """Bytes of images and deltas the agents took in, by their own journals."""
    journals = (stage.home / "devices").glob("*/state/journal.json")
    return sum(json.loads(path.read_text())["received"] for path in journals)


# --- the end -------------------------------------------------------------------------------------------


def _summary(
    stage: Stage, devices: int, told: tuple[str, ...], images: dict[str, Path], sent: int
) -> dict[str, Any]:
    shown = [_line(_view(stage, deployment), devices) for deployment in told]
    bricked = sum(1 for version in _running(stage) if not version)
    full = images["1.1.0"].stat().st_size * devices
    if bricked:
        raise Failed(f"{bricked} devices do not answer")
    if sent >= full:
        raise Failed(f"deltas should save: {sent} bytes were sent, full images are {full}")
    return {
        "devices": devices,
        "bricked": bricked,
        "deployments": shown,
        "bytes_sent": sent,
        "bytes_full": full,
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
    console.print(
        f"{summary['devices']} devices, [bold]{summary['bricked']} bricked[/bold]; 1.1.0 took "
        f"{summary['bytes_sent']:,} bytes by delta, not {summary['bytes_full']:,} ({saved:.1f} % saved); "
        f"{summary['seconds']} s"
    )


def _keep(stage: Stage) -> None:
    console = stage.console
    console.print(f"server: {stage.facts['url']}   token: {stage.environment['SKYLIFT_TOKEN']}")
    console.print("it stays up, with its devices, until you press Ctrl-C")
    try:
        if stage.server is not None:
            stage.server.wait()
    except KeyboardInterrupt:
        console.print("stopping")


def _tail(stage: Stage) -> None:
    """The last words of the server, and of the devices that have something to say."""
    logs = [stage.home / "server.log", *sorted((stage.home / "devices").glob("*/agent.log"))[:3]]
    for log in logs:
        if log.exists():
            stage.console.print(f"[dim]{log.parent.name}/{log.name}[/dim]")
            stage.console.print(log.read_text(errors="replace")[-1500:], markup=False, highlight=False)


def _stop(stage: Stage) -> None:
    processes = [*stage.agents, *([stage.server] if stage.server is not None else [])]
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    shutil.rmtree(stage.home, ignore_errors=True)


def _wait(condition: Callable[[], Any], what: str) -> Any:
    """Until the condition holds; its value."""
    until = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        if time.monotonic() > until:
            raise Failed(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.1)
    return found
