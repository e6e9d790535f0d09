"""A server, a signing desk and agents as real processes; one stage per module, for the tests of one story."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from skylift.testkit.image import Behaviour, build
from skylift.testkit.stage import Device, Stage, wait


def everywhere(version: str, *devices: Device) -> None:
    """Until these devices run this version and are healthy: on a busy machine one that does may need more
    than one question."""
    wait(lambda: all(device.version() == version for device in devices), f"everybody runs {version}")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server that runs, its ceremony held."""
    made = Stage(tmp_path_factory.mktemp("stage"))
    try:
        made.serve()
        made.ceremony()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def images(stage: Stage) -> dict[str, Path]:
    """Images by version; "sick" ends in -bad."""
    made = {}
    for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"):
        made[version] = build(stage.home / f"{version}.pyz", version)
    for version, behaviour in (
        ("2.0.0-bad", Behaviour.UNHEALTHY),
        ("2.0.1-bad", Behaviour.CRASHES),
        ("2.0.2-bad", Behaviour.HANGS),
    ):
        made[version] = build(stage.home / f"{version}.pyz", version, behaviour)
    return made
