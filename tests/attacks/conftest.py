"""One server and one signed repository for every attack of a module; a device with its own proxy for each."""

from collections.abc import Callable, Iterator

import pytest

from skylift.testkit.victims import Scene, Victim

MakeVictim = Callable[..., Victim]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("scene"))
    yield made
    made.close()


@pytest.fixture
def make_victim(scene: Scene) -> Iterator[MakeVictim]:
    made: list[Victim] = []

    def make(**settings: object) -> Victim:
        made.append(scene.victim(**settings))  # type: ignore[arg-type] # its own names
        return made[-1]

    yield make
    for victim in made:
        victim.close()


@pytest.fixture
def victim(make_victim: MakeVictim, scene: Scene) -> Victim:
    """A device on 1.0.0 that has an order to 1.1.0."""
    made = make_victim()
    scene.order(made)
    return made
