"""The command line against a real server process; devices are their HTTP requests."""

import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from skylift.cli.app import run
from skylift.testkit.image import build
from skylift.testkit.server import abort
from skylift.testkit.stage import DEVICE_TYPE, Stage, wait


@dataclass(frozen=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]
MAX_IMAGE = 4 << 20  # bytes that the stage's server takes


@dataclass
class Unit:
    """A device that says what a test wants it to say."""

    name: str
    server: str
    token: str
    version: str = "1.0.0"

    def _http(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx2.Client(base_url=self.server, headers=headers, timeout=60)

    def check(self) -> dict[str, Any]:
        asked = {"device_id": self.name, "current_version": self.version, "device_type": DEVICE_TYPE}
        with self._http() as http:
            found: dict[str, Any] = http.get("/api/updates/check", params=asked).raise_for_status().json()
        return found

    def report(self, offer: dict[str, Any], state: str, **more: Any) -> None:
        body = {"device_id": self.name, "deployment": offer["deployment"], "attempt": offer["attempt"]}
        with self._http() as http:
            http.post("/api/updates/status", json={**body, "state": state, **more}).raise_for_status()

    def offered(self) -> dict[str, Any]:
        """Asks until it is offered something: a server's cache may be a second behind."""
        found: dict[str, Any] = wait(self._offer, f"{self.name} is offered an update")
        return found

    def _offer(self) -> dict[str, Any] | None:
        found = self.check()
        return found if found["update_available"] else None

    def complete(self) -> None:
        """Take the offer and succeed."""
        offer = self.offered()
        self.report(offer, "complete", version=offer["version"], image_sha256=offer["sha256"])
        self.version = offer["version"]

    def fail(self) -> None:
        """Take the offer and fall back."""
        offer = self.offered()
        self.report(offer, "rolled_back", reason="health_check_failed", error_message="the sensor is silent")


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server, its ceremony held, 1.0.0 and 1.1.0 published."""
    made = Stage(tmp_path_factory.mktemp("stage"), {"SKYLIFT_MAX_IMAGE_BYTES": str(MAX_IMAGE)})
    try:
        made.serve("--mqtt", "off")
        made.ceremony()
        for version in ("1.0.0", "1.1.0"):
            made.publish(build(made.home / f"{version}.pyz", version), version)
        yield made
    finally:
        made.close()


@pytest.fixture
def cli(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Cli:
    """Runs `skylift` with these words, here, as the operator of the stage."""
    for name, value in stage.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(stage.home)

    def type_(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["skylift", *map(str, words)])
        capsys.readouterr()
        code = run()
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return type_


@pytest.fixture
def units(stage: Stage, request: pytest.FixtureRequest) -> Iterator[list[Unit]]:
    """Four devices of this test alone, in a group named like it; decommissioned when it ends."""
    where = request.node.name[-40:].strip("_[]").replace("[", "-")
    names = [f"{where}-{number}" for number in range(1, 5)]
    made = []
    client = stage.client
    for name in names:
        token = "dev_" + secrets.token_urlsafe(32)
        client.post("/api/devices", {"device_id": name, "device_type": DEVICE_TYPE, "token": token})
        made.append(Unit(name, stage.facts["url"], token))
        made[-1].check()
    client.post("/api/groups", {"name": where, "devices": names})
    yield made
    for deployment in client.get("/api/deployments", limit=50)["items"]:
        abort(client, deployment["id"])
    for unit in made:
        client.post(f"/api/devices/{unit.name}:decommission")


@pytest.fixture
def group(units: list[Unit]) -> str:
    """The group of the test's devices."""
    return units[0].name.rpartition("-")[0]
