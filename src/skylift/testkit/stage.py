"""A stage for demos and end-to-end tests: a real server process, a signing desk, real agents, in one folder.

Everything an operator would do goes through the `skylift` command; everything a device would do, its own
process does. Killing a process here is a power cut.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from skylift.cli.client import Client
from skylift.testkit.publishing import publish
from skylift.testkit.server import PATIENCE_S, Failed, Server, end, wait
from skylift.trust.ceremony import Desk
from skylift.trust.keys import PASSPHRASE_ENV

__all__ = ["DEVICE_TYPE", "PATIENCE_S", "PRODUCT", "Failed", "Stage", "wait"]

PRODUCT, DEVICE_TYPE = "sensor", "sensor-v2"
_PY = sys.executable


@dataclass
class Device:
    """One agent process and its folder."""

    name: str
    home: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def log(self) -> str:
        return (self.home / "agent.log").read_text(errors="replace")

    def start(self) -> None:
        with (self.home / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [_PY, "-m", "skylift.agent", "--config", str(self.home / "agent.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Cut its power."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None

    def runs(self) -> dict[str, Any]:
        """What its image answers right now: `version`, `healthy`, `config`; {} where it does not answer."""
        try:
            port = (self.state / "shared" / "port").read_text()
            answer = httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2.0)
            found: dict[str, Any] = answer.json()
        except (OSError, httpx2.HTTPError, ValueError):
            return {}
        return found

    def version(self) -> str:
        """The version that runs and is healthy; "" where none is."""
        found = self.runs()
        return str(found["version"]) if found.get("healthy") else ""

    def journal(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "journal.json").read_text())
        return found


@dataclass
class Stage:
    """The folder and what runs in it. `settings` are the server's, by name; `detached` servers do not hear
    the Ctrl-C that their terminal's foreground gets."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    detached: bool = False

    # --- the server --------------------------------------------------------------------------------

    def serve(self, *words: str, servers: int = 1) -> None:
        """Start the server and wait until it listens. Again after `kill_server`: the same one comes back.

        `servers` beside each other, all at once, share the database that `settings` name, keys and, where
        `settings` do not say otherwise, a folder of blobs.
        """
        if not self.servers:
            shared = {}
            if servers > 1:
                shared = {
                    "SKYLIFT_KEYS_DIR": str(self.home / "shared" / "keys"),
                    "SKYLIFT_BLOBS": str(self.home / "shared" / "blobs"),
                }
            names = ["data", *(f"data-{number}" for number in range(1, servers))]
            settings = shared | self.settings
            self.servers = [
                Server(self.home / name, settings, words, detached=self.detached) for name in names
            ]
        absent = [server for server in self.servers if server.process is None]
        for server in absent:
            server.launch()
        for server in absent:
            server.listening()
        self.facts = self.servers[0].facts
        made = (server.data / "admin.token" for server in self.servers)
        self.environment = {
            **os.environ,
            "SKYLIFT_SERVER": self.facts["url"],
            "SKYLIFT_TOKEN": next(path for path in made if path.exists()).read_text().strip(),
            "SKYLIFT_KEY_PASSPHRASE": self.environment.get("SKYLIFT_KEY_PASSPHRASE")
            or secrets.token_urlsafe(24),
            "NO_COLOR": "1",
        }

    @property
    def server(self) -> Server:
        """The first, or only, server."""
        return self.servers[0]

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    def check_server(self) -> bool:
        """False while it runs; raises `Failed` when one has ended by itself."""
        return any(server.check() for server in self.servers)

    def kill_server(self, number: int = 0) -> None:
        """kill -9."""
        self.servers[number].kill()

    @property
    def client(self) -> Client:
        """An admin's, to any server that runs."""
        running = next((server for server in self.servers if server.process is not None), self.server)
        return Client(running.url, self.environment["SKYLIFT_TOKEN"])

    # --- the operator ------------------------------------------------------------------------------

    def skylift(self, *words: str) -> Any:
        """A command of the CLI, as an operator would type it; its JSON. `Failed` if it fails."""
        done = self.run(*words, "--json")
        if done.returncode:
            raise Failed(f"skylift {' '.join(words[:3])}: exit {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command of the CLI, whatever comes of it."""
        return subprocess.run(
            [_PY, "-m", "skylift", *words],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def ceremony(self) -> None:
        """Keys, roots, delegations; and the roots for the devices."""
        self.skylift("trust", "init", "--product", PRODUCT, "--keys", "desk")
        self.skylift("trust", "export", "--linux", "roots", "--keys", "desk")

    def release(self, file: Path, version: str, *words: str, more: tuple[str, Path] | None = None) -> str:
        """Upload and sign, one key after the other; the release's id. `more`: another device type's image."""
        about = ("--product", PRODUCT, "--version", version, "--device-type", DEVICE_TYPE)
        if more is None:
            made = self.skylift("release", "create", str(file), *about, *words)
        else:
            draft = self.skylift("release", "create", str(file), *about, *words, "--draft")["id"]
            second = (str(more[1]), "--device-type", more[0], "--seal")
            made = self.skylift("release", "upload", draft, *second)
        if made["status"] != "signing":
            raise Failed(f"{version} should wait for signatures, it is {made['status']}")
        for number, published in ((1, False), (2, True)):
            signed = self.sign(made["id"], number)
            if signed["published"] is not published:
                raise Failed(f"{version} with {number} signatures: published is {signed['published']}")
        found: str = made["id"]
        return found

    def publish(self, file: Path, version: str, **about: str) -> str:
        """The same, signed by two, without a command: for what is about something else."""
        desk = Desk(self.home / "desk", self.environment[PASSPHRASE_ENV].encode())
        return publish(self.client, desk, file, PRODUCT, version, DEVICE_TYPE, **about)

    def sign(self, release: str, number: int) -> Any:
        """One of the three release keys signs."""
        key = f"desk/keys/release-{PRODUCT}-{number}.pem"
        return self.skylift("release", "sign", release, "--keys", "desk", "--key", key, "--yes")

    def wait_for_delta(self, version: str) -> None:
        """Until a delta to this version has been made."""

        def there() -> bool:
            self.check_server()
            found = self.client.get("/api/releases", limit=50)["items"]
            made = next(release for release in found if release["version"] == version)
            return any(artifact["kind"] == "delta" for artifact in made["artifacts"])

        wait(there, f"the delta to {version}")

    def deployment(self, deployment: str) -> dict[str, Any]:
        self.check_server()
        found: dict[str, Any] = self.client.get(f"/api/deployments/{deployment}")
        return found

    def ended(self, deployment: str, seconds: float = PATIENCE_S) -> dict[str, Any]:
        """The deployment, once it neither is scheduled nor runs."""

        def look() -> dict[str, Any] | None:
            found = self.deployment(deployment)
            return None if found["status"] in ("scheduled", "running") else found

        found: dict[str, Any] = wait(look, f"{deployment} ends or stops itself", seconds)
        return found

    def completed(self, deployment: str) -> dict[str, int]:
        """Its devices by state, once it is complete. `Failed`, with the reason, when it ends otherwise."""
        found = self.ended(deployment)
        if found["status"] != "complete":
            raise Failed(f"{deployment} is {found['status']}: {found['status_reason']}")
        totals: dict[str, int] = found["totals"]
        return totals

    # --- the devices -------------------------------------------------------------------------------

    def enroll(self, names: list[str], factory: Path, version: str, **settings: Any) -> list[Device]:
        """Devices with their factory image, started. `settings` go into agent.toml."""
        claim = self.skylift("device", "enroll", "--type", DEVICE_TYPE, "--uses", str(len(names)))["claim"]
        made = []
        for name in names:
            home = self.home / "devices" / name
            home.mkdir(parents=True)
            body = self._agent_toml(name, claim, factory, version, settings)
            (home / "agent.toml").write_text(body)
            device = Device(name, home)
            device.start()
            self.devices[name] = device
            made.append(device)
        return made

    def _agent_toml(
        self, name: str, claim: str, factory: Path, version: str, settings: dict[str, Any]
    ) -> str:
        values: dict[str, Any] = {
            "server": self.facts["url"],
            "device_id": name,
            "device_type": DEVICE_TYPE,
            "state_dir": "state",
            "roots": str(self.home / "roots"),
            "claim": claim,
            "mqtt": self.facts["mqtt"],
            "factory_image": str(factory),
            "factory_version": version,
            "boot_attempts": 2,
            "health_passes": 2,
            "health_interval_seconds": 0.2,
            "health_deadline_seconds": 20.0,  # a busy machine is no bad image
            **settings,
        }
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())

    def close(self) -> None:
        """Stop every process that was started here, and remove the folder."""
        for device in self.devices.values():
            if device.process is not None:
                device.process.terminate()
        for device in self.devices.values():
            device.stop()
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.home, ignore_errors=True)
