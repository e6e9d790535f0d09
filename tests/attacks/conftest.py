"""One server and one signed repository for every attack of a module, a device with its own proxy for each;
and repositories of all kinds for the client that the conformance suite drives."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from skylift.testkit import hostile
from skylift.testkit.loot import Loot
from skylift.testkit.victims import Scene, Victim
from skylift.trust import files

from .simulated import Client, Host, Simulated, hosting

MakeVictim = Callable[..., Victim]

SIGNATURE, HASH = "signature_invalid", "hash_mismatch"
EXPIRED, ROLLBACK = "metadata_expired", "metadata_rollback"
CHECK, BLOB = "^/api/updates/check", "^/api/blobs/"
FINDS = Path(__file__).parent / "finds"  # what fuzzing found


def no_delta(victim: Victim) -> None:
    victim.proxy.lie(CHECK, hostile.said(delta=None))


def ordered(victim: Victim, loot: Loot, *images: files.TargetFile, **more: object) -> None:
    victim.proxy.files(victim.name, loot.order(victim, *images, **more))  # type: ignore[arg-type]


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


# --- the conformance suite's place -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with hosting() as made:
        yield made


@pytest.fixture
def make_client(tmp_path: Path) -> Callable[[Simulated, str], Client]:
    """A client with a folder of its own, for this repository at this URL."""
    numbers = count()

    def make(simulated: Simulated, url: str) -> Client:
        folder = tmp_path / f"client-{next(numbers)}"
        folder.mkdir()
        return Client(simulated, url, folder)

    return make


@pytest.fixture
def client(host: Host, make_client: Callable[[Simulated, str], Client]) -> Client:
    """A client and a new repository."""
    simulated = Simulated()
    return make_client(simulated, host.serve(simulated))


@pytest.fixture
def other() -> Simulated:
    """A repository that is not the client's."""
    return Simulated()
