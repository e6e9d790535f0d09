"""The ways of an update's bytes, end to end: a real server makes the files, real agents take them."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skylift.store import pieces, releases
from skylift.store.connect import normal, writing_engine
from skylift.testkit.image import build
from skylift.testkit.stage import DEVICE_TYPE, Device, Stage, wait

from .conftest import everywhere

pytestmark = pytest.mark.slow  # one story on each database: `--dist=loadfile` keeps it together
WORDS = b"what every version says, and a compressor makes little of. " * 5000
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]
GIVES = {"able": 64 << 20, "narrow": 8 << 20, "none": 0, "late": 64 << 20}


@pytest.fixture(scope="module", params=DATABASES)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("ways"))
    if request.param == "postgresql":
        cluster = request.getfixturevalue("cluster")
        made.settings["SKYLIFT_DATABASE_URL"] = cluster.url(cluster.fresh())
    try:
        made.serve()
        made.ceremony()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def fleet(stage: Stage) -> dict[str, Device]:
    """Four devices on 1.0.0, which is published; they differ in the memory that they give."""
    image = release(stage, "1.0.0")
    made = {}
    for name, memory in GIVES.items():
        (made[name],) = stage.enroll([name], image, "1.0.0", delta_memory_bytes=memory)
    wait(lambda: len(stage.client.get("/api/devices", current_version="1.0.0")["items"]) == 4, "enrolled")
    return made


def release(stage: Stage, version: str) -> Path:
    """An image that packs to two thirds, published."""
    path = build(stage.home / f"{version}.pyz", version)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("words.txt", (2026, 1, 1, 0, 0, 0)), WORDS)
    stage.publish(path, version)
    return path


def ways(stage: Stage, version: str) -> dict[str, Any]:
    stage.check_server()
    found = stage.client.get("/api/releases", limit=50)["items"]
    made = next(one for one in found if one["version"] == version)
    told: dict[str, Any] = stage.client.get(f"/api/releases/{made['id']}/ways")
    return told


def made(stage: Stage, version: str, *bases: str) -> None:
    """Until the release is there packed, and by deltas from these bases."""

    def there() -> bool:
        found = ways(stage, version)["made"]
        return {one["from"] for one in found if one["state"] == "made"} >= {None, *bases}

    wait(there, f"{version} packed, and from {', '.join(bases)}")


def deploy(stage: Stage, version: str, *devices: str) -> None:
    words = [word for device in devices for word in ("--device", device)]
    made = stage.skylift("deploy", "create", version, "--all-at-once", "--interval", "0", *words)
    stage.completed(made["id"])


def counted(stage: Stage, version: str, devices: int) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """(taken, passed over), once so many devices are counted: it is written behind."""
    wait(lambda: sum(ways(stage, version)["taken"].values()) == devices, f"{devices} counted")
    found = ways(stage, version)
    return found["taken"], found["passed"]


def test_each_device_gets_what_it_can_take(stage: Stage, fleet: dict[str, Device]) -> None:
    image = release(stage, "1.1.0")
    made(stage, "1.1.0", "1.0.0")
    deploy(stage, "1.1.0", "able", "narrow", "none")
    everywhere("1.1.0", *(fleet[name] for name in ("able", "narrow", "none")))
    everywhere("1.0.0", fleet["late"])
    taken, passed = counted(stage, "1.1.0", 3)
    assert taken == {"delta": 1, "packed": 1, "full": 1}
    assert passed == {"delta": {"memory": 2}}
    received = {name: fleet[name].journal()["received"] for name in ("able", "narrow", "none")}
    packed = next(one for one in ways(stage, "1.1.0")["made"] if one["kind"] == "xz")
    assert 0 < received["able"] < packed["size"] / 10
    assert received["narrow"] == packed["size"] < 0.8 * image.stat().st_size
    assert received["none"] == image.stat().st_size


def test_a_base_without_its_delta_goes_by_a_chain(stage: Stage, fleet: dict[str, Device]) -> None:
    """1.0.0 to 1.2.0 could not be made; 1.0.0 to 1.1.0 to 1.2.0 is there."""
    release(stage, "1.2.0")
    made(stage, "1.2.0", "1.1.0", "1.0.0")
    lose(stage, "1.2.0", "1.0.0")
    (row,) = (row for row in ways(stage, "1.2.0")["now"] if row["runs"] == "1.0.0")
    assert (row["way"], row["devices"], row["gives"]) == ("chain", 1, 64 << 20)
    assert row["words"].startswith("chain of 2: ")
    deploy(stage, "1.2.0", "able", "late")
    taken, passed = counted(stage, "1.2.0", 2)
    assert (taken, passed) == ({"delta": 1, "chain": 1}, {})
    everywhere("1.2.0", fleet["late"])


def lose(stage: Stage, version: str, base: str) -> None:
    """What the encoder would leave that failed three times."""
    url = stage.settings.get("SKYLIFT_DATABASE_URL") or f"sqlite:///{stage.server.data / 'skylift.db'}"
    engine = writing_engine(normal(url))
    with engine.begin() as conn:
        (target,) = releases.by_version(conn, version)
        (old,) = releases.by_version(conn, base)
        image = releases.full_artifact(conn, old.id, DEVICE_TYPE)
        assert image is not None
        row = pieces.of_delta(conn, target.id, DEVICE_TYPE, image.sha256)
        assert row is not None
        pieces.remove_artifact(conn, row)
        pieces.change(conn, [row.pk], pieces.FAILED, row.due_at)
    engine.dispose()


def test_a_delta_that_is_damaged_falls_back_to_the_full_image_and_is_counted(
    stage: Stage, fleet: dict[str, Device]
) -> None:
    release(stage, "1.3.0")
    made(stage, "1.3.0", "1.2.0")
    found = stage.client.get("/api/releases", limit=50)["items"]
    artifacts = next(one["artifacts"] for one in found if one["version"] == "1.3.0")
    delta = next(one for one in artifacts if one["base_version"] == "1.2.0")
    blob = stage.server.data / "blobs" / delta["sha256"][:2] / delta["sha256"]
    body = blob.read_bytes()
    blob.write_bytes(body[:-40] + bytes(40))
    deploy(stage, "1.3.0", "able")
    taken, passed = counted(stage, "1.3.0", 1)
    assert (taken, passed) == ({"packed": 1}, {"delta": {"broken": 1}})
    everywhere("1.3.0", fleet["able"])
    shown = stage.run("release", "show", "sensor/1.3.0")
    assert "taken" in shown.stdout
    assert "delta broken 1" in shown.stdout
    metrics = stage.client.raw("/metrics").decode()
    assert 'skylift_ways_total{reason="broken",way="delta"} 1.0' in metrics
    assert 'skylift_pieces{kind="delta",state="made"}' in metrics
