"""Virtual ESP32s beside the agents of a stage: C++ clients, each a process with its own flash file.

Their power browns out while they write a slot, their line breaks now and then, and every sector counts how
often it was erased. They belong to the stage's product, with a device type and images of their own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skylift.testkit import esp32
from skylift.testkit.esp32 import HOME, VirtualEsp32
from skylift.testkit.image import Behaviour
from skylift.testkit.stage import PRODUCT, Stage

CHIP_TYPE = "sensor-c3"
SIZE = 64 << 10
BROWN_OUTS = 30_000  # in a million operations on the slots: about every other update of `SIZE` has one
BREAKS = 4_000  # in a million reads of the line


def program() -> Path:
    """The virtual ESP32 as a demo runs it: without sanitizers, which a first build would wait for."""
    host = HOME / "host"
    sources = [host / each for each in ("chip.cpp", "desk.cpp", "socket.cpp", "device.cpp")]
    return esp32.build("device", sources, ("-O1",))


def images(home: Path, behaviours: Mapping[str, Behaviour]) -> dict[str, Path]:
    """Version -> its image for these chips, healthy, unhealthy or crashing."""
    made = {version: home / f"{version}.bin" for version in behaviours}
    for version, path in made.items():
        behaviour = behaviours[version]
        words = "" if behaviour is Behaviour.HEALTHY else behaviour.value
        path.write_bytes(esp32.image(version, size=SIZE, behaviour=words))
    return made


class Chip(VirtualEsp32):
    """One of them."""

    def program(self) -> list[str]:
        return [str(program())]


@dataclass
class Chips:
    """Those of one stage."""

    stage: Stage
    every: list[Chip] = field(default_factory=list)

    def start(self, count: int, factory: Path) -> None:
        """So many new ones, enrolled with a claim token, with what the factory put on them."""
        words = ("device", "enroll", "--type", CHIP_TYPE, "--uses", str(count))
        shared = {
            "server": self.stage.facts["url"],
            "mqtt": self.stage.facts["mqtt"],
            "device_type": CHIP_TYPE,
            "product": PRODUCT,
            "claim": self.stage.skylift(*words)["claim"],
            "roots": str(self.stage.home / "roots"),
            "factory": str(factory),
            "poll": "2",
            "save_every": "8192",
            "brown_out": str(BROWN_OUTS),
            "calm": "1",
            "flaky": str(BREAKS),
        }
        for number in range(1, count + 1):
            name = f"chip-{number:02}"
            own = {"device_id": name, "seed": str(number)}
            self.every.append(Chip(self.stage.home / "chips" / name, shared | own))
            self.every[-1].start()

    def versions(self) -> list[str]:
        """What each runs, confirmed; "" for one on trial, or one that never came up."""
        return [chip.version() for chip in self.every]

    def power_cuts(self) -> int:
        return sum(len(re.findall("^the power went", chip.log, re.MULTILINE)) for chip in self.every)

    def worst_wear(self) -> int:
        """Erases of the sector that was erased most, of the slots of any."""
        return max((chip.status()["wear"]["slots"] for chip in self.every if chip.status()), default=0)

    def close(self) -> None:
        for chip in self.every:
            chip.kill()
