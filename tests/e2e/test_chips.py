"""Virtual ESP32s, C++ clients with flash files, beside Python agents in one deployment, as the demo shows
them: their power browns out while they write, their line breaks, and every sector counts its erases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import missing
from skylift.testkit import chips, esp32
from skylift.testkit.chips import CHIP_TYPE, Chips
from skylift.testkit.image import Behaviour, build
from skylift.testkit.stage import Stage, wait

pytestmark = pytest.mark.slow  # one story, chapter after chapter
VERSIONS = {"1.0.0": Behaviour.HEALTHY, "1.1.0": Behaviour.HEALTHY, "1.2.0": Behaviour.UNHEALTHY}
CHIPS = 3


@pytest.fixture(scope="module")
def released(stage: Stage) -> dict[str, Path]:
    """Each version for both device types; the chips' images by version."""
    if esp32.compiler() is None:
        missing("a C++ compiler (g++)")
    chips.program()
    flashed = chips.images(stage.home, VERSIONS)
    for version, how in VERSIONS.items():
        own = build(stage.home / f"{version}.pyz", version, how)
        stage.release(own, version, more=(CHIP_TYPE, flashed[version]))
    return flashed


@pytest.fixture(scope="module")
def fleet(stage: Stage, released: dict[str, Path]) -> Iterator[Chips]:
    made = Chips(stage)
    stage.enroll(["dev-1"], stage.home / "1.0.0.pyz", "1.0.0")
    made.start(CHIPS, released["1.0.0"])
    yield made
    made.close()


def everywhere(stage: Stage, fleet: Chips, version: str) -> None:
    def there() -> bool:
        agents = [device.version() for device in stage.devices.values()]
        return all(found == version for found in agents + fleet.versions())

    wait(there, f"everybody runs {version}")


def deploy(stage: Stage, version: str) -> str:
    made: str = stage.skylift("deploy", "create", version, "--all", "--interval", "0")["id"]
    return made


def test_a_release_reaches_agents_and_chips_whatever_their_power_does(
    stage: Stage, released: dict[str, Path], fleet: Chips
) -> None:
    known = stage.client.get
    wait(lambda: len(known("/api/devices", current_version="1.0.0")["items"]) == CHIPS + 1, "enrolled")
    assert stage.completed(deploy(stage, "1.1.0"))["complete"] == CHIPS + 1
    everywhere(stage, fleet, "1.1.0")
    for chip in fleet.every:
        assert (chip.status()["slot"], chip.status()["trial"]) == (1, False)
        at = 10 * 4096 + 512 * 1024
        image = released["1.1.0"].read_bytes()
        assert (chip.home / "flash.bin").read_bytes()[at : at + len(image)] == image


def test_a_bad_one_leaves_nobody_on_it(stage: Stage, released: dict[str, Path], fleet: Chips) -> None:
    """All at once, so that chips have it too."""
    found = stage.ended(deploy(stage, "1.2.0"))
    assert (found["status"], found["paused_by"]) == ("paused", "failure_threshold")
    everywhere(stage, fleet, "1.1.0")


def test_the_power_did_go_and_no_sector_is_worn(fleet: Chips) -> None:
    assert fleet.power_cuts() > 0
    updates = 2
    assert 0 < fleet.worst_wear() <= updates * (2 + fleet.power_cuts())


def test_a_machine_without_a_compiler_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    from skylift.testkit import demo

    monkeypatch.setenv("CXX", "no-such-compiler")
    show = demo.Show(Console(stderr=True))
    assert demo._chips(show, 24) == 0
    assert "no virtual ESP32s: they want g++, gcc" in capsys.readouterr().err.replace("\n", " ")
    show.stage.close()
