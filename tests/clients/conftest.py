"""A real server with signed releases of ESP32 images, a proxy that may lie, and virtual ESP32s between
them: those of the C++ client, and those that run MicroPython."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from skylift.testkit import esp32, micropython
from skylift.testkit.hostile import Proxy
from skylift.testkit.server import Failed
from skylift.testkit.stage import DEVICE_TYPE, PRODUCT, Stage, wait

SIZE = 64 << 10
# What each release's image is; 1.0.0 is the factory's.
IMAGES: dict[str, dict[str, Any]] = {
    "1.0.0": {},
    "1.1.0": {},
    "1.2.0": {"behaviour": "unhealthy"},
    "1.3.0": {"behaviour": "crashes"},
    "1.4.0": {"chip": esp32.CHIP_ESP32},
    "1.5.0": {"size": 600 << 10},
}


@pytest.fixture(scope="session")
def program() -> Path:
    """The virtual ESP32, built once."""
    if esp32.compiler() is None:
        missing("a C++ compiler (g++)")
    return esp32.device_program()


@dataclass
class Desk:
    """The server's stage, and what was released there."""

    stage: Stage
    releases: dict[str, str]
    images: dict[str, Path]
    numbers: "count[int]" = field(default_factory=count)

    def deploy(self, device: esp32.VirtualEsp32, version: str) -> str:
        """To this device, and to nobody else."""
        body = {"release": self.releases[version], "target_devices": [device.settings["device_id"]]}
        made: str = self.stage.client.post("/api/deployments", body)["id"]
        return made

    def update(self, deployment: str) -> dict[str, Any]:
        """What the server knows of the one device of this deployment."""
        found = self.stage.client.get(f"/api/deployments/{deployment}/devices")["items"]
        return dict(found[0]) if found else {}

    def ended(self, deployment: str, seconds: float = 300) -> dict[str, Any]:
        """The update, once it is final."""
        final = ("complete", "failed", "rolled_back")
        wait(lambda: self.update(deployment).get("state") in final, f"{deployment} is over", seconds)
        return self.update(deployment)


@pytest.fixture(scope="session")
def desk(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    stage = Stage(tmp_path_factory.mktemp("esp32"))
    try:
        stage.serve()
        stage.ceremony()
        images = {version: stage.home / f"{version}.bin" for version in IMAGES}
        for version, path in images.items():
            path.write_bytes(esp32.image(version, **{"size": SIZE, **IMAGES[version]}))
        releases = {v: stage.publish(path, v, other_chip="true") for v, path in images.items()}
        yield Desk(stage, releases, images)
    finally:
        stage.close()


@pytest.fixture
def proxy(desk: Desk) -> Iterator[Proxy]:
    made = Proxy(desk.stage.facts["url"])
    yield made
    made.close()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MicroPython library as a board gets it."""
    if micropython.interpreter() is None:
        missing("micropython")
    return micropython.packed(tmp_path_factory.mktemp("micropython") / "library")


@pytest.fixture(params=["c++", "micropython"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which client; a test that is about one of them parametrizes it away."""
    return str(request.param)


@pytest.fixture
def virtual(kind: str, request: pytest.FixtureRequest) -> Callable[..., esp32.VirtualEsp32]:
    """(home, settings) -> a device of this kind."""
    if kind == "c++":
        return esp32.VirtualEsp32
    return partial(micropython.VirtualMicropython, library=request.getfixturevalue("library"))


NewDevice = Callable[..., esp32.VirtualEsp32]


@pytest.fixture
def device(desk: Desk, proxy: Proxy, virtual: Callable[..., esp32.VirtualEsp32]) -> Iterator[NewDevice]:
    """Devices that run 1.0.0 and are known to the server; `settings` are the program's."""
    made: list[esp32.VirtualEsp32] = []

    def new(**settings: str) -> esp32.VirtualEsp32:
        name = f"esp-{next(desk.numbers)}"
        claim = desk.stage.client.post("/api/claims", {"device_type": DEVICE_TYPE, "uses": 1})["claim"]
        told = {
            "server": proxy.url,
            "device_id": name,
            "device_type": DEVICE_TYPE,
            "product": PRODUCT,
            "claim": claim,
            "roots": str(desk.stage.home / "roots"),
            "factory": str(desk.images["1.0.0"]),
            "poll": "1",
            **settings,
        }
        one = virtual(desk.stage.home / name, told)
        made.append(one)
        one.start()
        known = desk.stage.client.get
        try:
            wait(
                lambda: (
                    known("/api/devices", current_version="1.0.0", limit=100)["items"] and _asks(proxy, name)
                ),
                name,
            )
        except Failed as e:
            pytest.fail(f"{e}\n{one.log[-3000:]}")
        return one

    yield new
    for one in made:
        one.kill()
        print(f"{one.home.name}:\n{one.log[-3000:]}")  # shown where a test fails
        shutil.rmtree(one.home, ignore_errors=True)


def _asks(proxy: Proxy, name: str) -> bool:
    """Whether the device has been answered a check."""
    return any(f"check?device_id={name}&" in asked.path for asked in list(proxy.asked))
