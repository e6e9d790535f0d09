"""Mutated bytes into every parser that strangers reach: few here, a million in `bench trust --full`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from skylift.settings import Settings
from skylift.testkit import fuzz
from skylift.testkit.fuzz import Findings, Target
from skylift.wiring import SkyliftServer, build

from .conftest import FINDS


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    def server(folder: Path, admin: str) -> SkyliftServer:
        return build(Settings(data_dir=folder, mqtt_url="off", admin_token=admin))

    with fuzz.targets(tmp_path_factory.mktemp("fuzz"), server) as made:
        yield made


def test_mutated_bytes_break_no_parser_and_install_nothing(targets: dict[str, Target]) -> None:
    found = fuzz.run(targets, 3000, 1)
    assert found.uncaught == []
    assert found.installed == 0
    assert found.inputs >= 3000
    assert found.slowest_ms.keys() == targets.keys()


def test_honest_seeds_are_let_in_where_mutants_are_not(targets: dict[str, Target]) -> None:
    """Else the fuzzing would show nothing: what is refused would be refused for another reason."""
    found = Findings()
    for target in targets.values():
        for seed in target.seeds:
            fuzz.try_one(target, seed, found)
    assert found.uncaught == []
    assert found.installed == 0


@pytest.mark.parametrize("path", sorted(FINDS.iterdir()), ids=lambda path: path.name)
def test_what_was_found_once_is_found_no_more(path: Path, targets: dict[str, Target]) -> None:
    name = next(name for name in targets if fuzz.stem(name) == path.name.partition(".")[0])
    found = Findings()
    fuzz.try_one(targets[name], path.read_bytes(), found)
    assert found.uncaught == []
    assert found.installed == 0
