"""Deltas around a published release: both ways, against the recent ones, made once."""

import random
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import wait_until
from skylift.core.ways import Means
from skylift.engine.deltas import DeltaPlanner
from skylift.engine.workshop import Bounds, Workshop
from skylift.firmware.delta import apply_delta
from skylift.store import devices, pieces, releases, tables
from skylift.testkit.trustlab import HARDWARE, PRODUCT, Lab


def firmware(version: int, size: int = 20_000) -> bytes:
    """Incompressible, and a little different from version to version."""
    body = bytearray(random.Random(1).randbytes(size))
    body[100 * version : 100 * version + 50] = random.Random(version).randbytes(50)
    return bytes(body)


def deltas(lab: Lab) -> dict[tuple[str, str], Any]:
    """(from, to) -> the delta."""
    found = {}
    with lab.database.read() as conn:
        for release in releases.page(conn, limit=100):
            for artifact in releases.artifacts_of(conn, release.id):
                if artifact.kind == "delta":
                    found[artifact.base_version, release.version] = artifact
    return found


@dataclass
class Maker:
    """Planner and workshop, one file after the other in this thread."""

    lab: Lab
    bounds: Bounds

    @property
    def planner(self) -> DeltaPlanner:
        bounds = self.bounds
        return DeltaPlanner(self.lab.database, self.lab.clock, bounds.max_ratio, bounds.cache)

    def __call__(self, payload: dict[str, Any]) -> None:
        self.planner(payload)
        self.work()

    def work(self) -> None:
        workshop = Workshop(self.lab.database, self.lab.blobs, self.lab.clock, self.bounds)
        while workshop.work():
            pass


def maker(lab: Lab, **bounds: Any) -> Maker:
    return Maker(lab, Bounds(**bounds))


def publish_all(lab: Lab, count: int) -> list[str]:
    made = []
    for number in range(count):
        lab.clock.forward(minutes=1)  # type: ignore[attr-defined] # the tests' clock
        made.append(lab.released(f"{number}", firmware(number)))
    return made


def test_deltas_are_made_both_ways_and_rebuild_the_exact_image(lab: Lab) -> None:
    old, new = publish_all(lab, 2)
    maker(lab)({"release": new})
    found = deltas(lab)
    assert set(found) == {("0", "1"), ("1", "0")}
    for (base, target), artifact in found.items():
        patch = lab.blobs.path(artifact.sha256).read_bytes()
        assert len(patch) == artifact.size < 0.7 * 20_000
        assert apply_delta(firmware(int(base)), patch) == firmware(int(target))
    with lab.database.read() as conn:
        base = releases.full_artifact(conn, old, HARDWARE)
        assert base is not None
        assert releases.delta_artifact(conn, new, HARDWARE, base.sha256) is not None
        assert releases.delta_artifact(conn, new, HARDWARE, "00" * 32) is None


def test_making_them_again_changes_nothing(lab: Lab) -> None:
    _, new = publish_all(lab, 2)
    maker(lab)({"release": new})
    before = deltas(lab)
    maker(lab)({"release": new})
    assert deltas(lab) == before
    assert list(lab.blobs.scratch.iterdir()) == []


def test_a_crash_between_two_deltas_costs_only_the_time(lab: Lab) -> None:
    """Killed after the first was named, after the second was stored: when its lease has ended, it is made."""
    _, new = publish_all(lab, 2)
    dying = maker(lab)
    writes = lab.database.write
    done = 0

    class Killed(BaseException):
        pass

    def write(deed: Any) -> Any:
        nonlocal done
        done += len(deltas(lab)) == 1
        if done == 2:  # the second's lease was the first
            raise Killed
        return writes(deed)

    lab.database.write = write  # type: ignore[method-assign] # the process dies in this call
    try:
        with pytest.raises(Killed):
            dying({"release": new})
    finally:
        lab.database.write = writes  # type: ignore[method-assign] # and comes back
    assert len(deltas(lab)) == 1
    lab.blobs.sweep(starting=True)
    dying.work()
    assert len(deltas(lab)) == 1, "somebody may be at it still"
    lab.clock.forward(hours=1)  # type: ignore[attr-defined] # the tests' clock
    dying.work()
    assert set(deltas(lab)) == {("0", "1"), ("1", "0")}


def test_only_the_five_most_recent_releases_get_deltas(lab: Lab) -> None:
    made = publish_all(lab, 8)
    maker(lab)({"release": made[-1]})
    assert {base for base, target in deltas(lab) if target == "7"} == {"2", "3", "4", "5", "6"}


def test_a_delta_that_is_not_worth_it_is_not_kept(lab: Lab) -> None:
    lab.released("0", random.Random(1).randbytes(20_000))
    new = lab.released("1", random.Random(2).randbytes(20_000))
    maker(lab)({"release": new})
    assert deltas(lab) == {}


def test_device_types_are_not_mixed(lab: Lab) -> None:
    lab.released("0", firmware(0), "sensor-v2", "sensor-v3")
    new = lab.released("1", firmware(1), "sensor-v3", "sensor-v4")
    maker(lab)({"release": new})
    found = deltas(lab)
    assert set(found) == {("0", "1"), ("1", "0")}
    assert {artifact.device_type for artifact in found.values()} == {"sensor-v3"}


def test_configurations_and_unpublished_releases_get_none(lab: Lab) -> None:
    lab.released("0", firmware(0))
    config = lab.released("cfg", b'{"a": 1}', kind="config")
    maker(lab)({"release": config})
    maker(lab)({"release": "rel_none"})
    lab.sealed("1", firmware(1))
    assert deltas(lab) == {}


def test_the_same_image_under_two_versions_gets_none(lab: Lab) -> None:
    lab.released("0", firmware(0))
    new = lab.released("1", firmware(0))
    maker(lab)({"release": new})
    assert deltas(lab) == {}


def test_another_products_release_is_no_base(lab: Lab) -> None:
    lab.ceremony(PRODUCT, "camera")
    lab.released("0", firmware(0), product="camera")
    new = lab.released("1", firmware(1))
    maker(lab)({"release": new})
    assert deltas(lab) == {}


def test_an_image_too_large_for_memory_is_left_whole_and_said_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skylift.engine import workshop as module

    monkeypatch.setattr(module, "MAX_IMAGE", 10_000)
    monkeypatch.setattr(module, "MAX_IMAGE_HDIFF", 10_000)
    _, new = publish_all(lab, 2)
    maker(lab)({"release": new})
    assert deltas(lab) == {}
    with lab.database.read() as conn:
        said = [row.data for row in conn.execute(tables.events.select()) if row.kind == "delta"]
    assert {(d["base_version"], d["skipped"]) for d in said if d["base_version"]} == {
        ("0", "larger than 10000 bytes"),
        ("1", "larger than 10000 bytes"),
    }


def test_a_delta_is_held_against_the_compressed_image(lab: Lab) -> None:
    """Half of the image is new: less than 0.7 of it raw, and no less than a compressor makes of it."""
    old = b"a line of text that says little " * 600 + random.Random(1).randbytes(2000)
    new = b"a line of text that says little " * 600 + random.Random(2).randbytes(2000)
    lab.released("0", old)
    lab.clock.forward(minutes=1)  # type: ignore[attr-defined] # the tests' clock
    release = lab.released("1", new)
    maker(lab)({"release": release})
    assert deltas(lab) == {}
    with lab.database.read() as conn:
        said = [row.data for row in conn.execute(tables.events.select()) if row.kind == "delta"]
    assert {event["skipped"] for event in said} == {"not below 0.7 of the full image, compressed"}


def test_the_ratio_is_a_setting(lab: Lab) -> None:
    publish_all(lab, 2)
    with lab.database.read() as conn:
        release = releases.page(conn, limit=1)[0]
    maker(lab, max_ratio=0.001)({"release": release.id})
    assert deltas(lab) == {}
    maker(lab)({"release": release.id})
    assert len(deltas(lab)) == 2


def test_what_most_devices_run_is_made_first(lab: Lab) -> None:
    """Two devices run release 1, none the others: the delta from it is the first that is there."""
    made = publish_all(lab, 3)
    enroll(lab, 2, "1")
    planned = maker(lab)
    planned.planner({"release": made[2]})
    workshop = Workshop(lab.database, lab.blobs, lab.clock, planned.bounds)
    while not deltas(lab):
        assert workshop.work()
    assert set(deltas(lab)) == {("1", "2")}


def enroll(lab: Lab, count: int, version: str, named: str = "d") -> None:
    """Devices that run this version."""
    now = lab.clock()
    start = random.Random(named).randrange(1 << 60)
    rows = [(f"{named}{k}", HARDWARE, f"{start + k:064x}", version, {}) for k in range(count)]
    lab.database.write(lambda conn: devices.insert_many(conn, rows, now))


def skipped(lab: Lab) -> set[str]:
    with lab.database.read() as conn:
        said = [row.data for row in conn.execute(tables.events.select()) if row.kind == "delta"]
    return {event["skipped"] for event in said if event["base_version"]}


def test_an_image_that_is_damaged_in_the_store_gets_no_delta(lab: Lab) -> None:
    old, new = publish_all(lab, 2)
    with lab.database.read() as conn:
        image = releases.full_artifact(conn, old, HARDWARE)
        assert image is not None
    lab.blobs.path(image.sha256).write_bytes(firmware(7))
    maker(lab)({"release": new})
    assert deltas(lab) == {}
    assert skipped(lab) == {"a stored image is not what its digest says"}


def test_an_encoder_that_dies_takes_nobody_with_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does when a mapped image is cut short under it: a bus error ends the process that reads it."""
    import sys

    from skylift.firmware import apart

    dies = lab.blobs.scratch / "dies"
    dies.write_text("#!/bin/sh\nkill -BUS $$\n")
    dies.chmod(0o755)
    _, new = publish_all(lab, 2)
    with monkeypatch.context() as patched:
        patched.setattr(apart.sys, "executable", str(dies))
        maker(lab)({"release": new})
    assert sys.executable != str(dies)
    assert deltas(lab) == {}
    assert skipped(lab) == {"the encoder was ended by SIGBUS"}
    lab.clock.forward(minutes=11)  # type: ignore[attr-defined] # the tests' clock
    maker(lab)({"release": new})
    assert set(deltas(lab)) == {("0", "1"), ("1", "0")}


# --- packed images, the cache, limits --------------------------------------------------------------------


def text(version: int, size: int = 30_000) -> bytes:
    """An image that packs to a tenth or so, different from version to version."""
    chance = random.Random(version)
    words = [b"alpha ", b"beta ", b"gamma ", b"delta ", chance.randbytes(40)]
    return b"".join(chance.choice(words) for _ in range(size))[:size]


def states(lab: Lab) -> dict[tuple[str, str], str]:
    """(kind, from) -> what became of it."""
    with lab.database.read() as conn:
        found = conn.execute(tables.pieces.select()).all()
    return {(row.kind, row.base_version): row.state for row in found}


def test_an_image_is_packed_and_what_packs_to_nothing_less_is_not_kept(lab: Lab) -> None:
    from skylift.firmware import packed

    new = lab.released("1", text(1))
    maker(lab)({"release": new})
    with lab.database.read() as conn:
        (piece,) = pieces.offered(conn, new, HARDWARE)
    assert piece.kind == "xz"
    assert piece.size < 0.9 * piece.target_size
    assert piece.memory == packed.memory("xz", piece.target_size)
    with lab.blobs.path(piece.sha256).open("rb") as file:
        assert b"".join(packed.unpack(file, "xz", piece.target_size)) == text(1)
    noise = lab.released("2", firmware(2))
    maker(lab)({"release": noise})
    with lab.database.read() as conn:
        assert [row.state for row in pieces.packed_of(conn, noise, HARDWARE)] == [pieces.REFUSED]


def test_zstd_is_made_where_a_device_takes_it_and_not_xz(lab: Lab) -> None:
    enroll(lab, 1, "0")

    def said(conn: Any) -> None:
        device = devices.find_device(conn, "d0")
        assert device is not None
        pieces.note_means(conn, device.pk, Means(1 << 20, frozenset({"zstd"})))

    lab.database.write(said)
    maker(lab)({"release": lab.released("1", text(1))})
    assert states(lab) == {("xz", ""): "made", ("zstd", ""): "made"}


def test_the_cache_keeps_within_its_budget_and_makes_again_what_is_hot(lab: Lab) -> None:
    """Three deltas, room for one: the one that most devices need stays. When they have moved, so does it."""
    made = publish_all(lab, 3)
    enroll(lab, 3, "1")
    small = maker(lab, cache=250)
    small({"release": made[2]})

    def there() -> set[tuple[str, str]]:
        found = deltas(lab)
        assert sum(artifact.size for artifact in found.values()) <= 250
        return set(found)

    (kept,) = there()
    assert kept == ("1", "2")
    evicted = {key for key, state in states(lab).items() if state == pieces.EVICTED}
    assert ("delta", "0") in evicted
    enroll(lab, 9, "0", "e")
    small.planner.again(lab.clock())
    small.work()
    assert there() == {("0", "2")}
    small.planner.again(lab.clock())
    small.work()
    assert there() == {("0", "2")}, "again: nothing changes"


def test_the_bytes_of_what_was_evicted_are_removed_later_unless_named_again(lab: Lab) -> None:
    from skylift.engine.unblob import Unblob

    made = publish_all(lab, 2)
    maker(lab)({"release": made[1]})
    one, other = (deltas(lab)[pair] for pair in (("0", "1"), ("1", "0")))
    unblob = Unblob(lab.database, lab.blobs)
    unblob({"sha256": one.sha256})
    assert lab.blobs.has(one.sha256), "it is named"
    with lab.database.read() as conn:
        row = pieces.of_delta(conn, other.release_id, HARDWARE, other.base_sha256)
    lab.database.write(lambda conn: pieces.remove_artifact(conn, row))
    unblob({"sha256": other.sha256})
    unblob({"sha256": other.sha256})
    assert not lab.blobs.has(other.sha256)


def test_an_encoder_has_its_memory_and_its_time(lab: Lab) -> None:
    publish_all(lab, 2)
    with lab.database.read() as conn:
        release = releases.page(conn, limit=1)[0].id
    maker(lab, memory=16 << 20)({"release": release})
    assert all(said.startswith("the encoder") for said in skipped(lab)), "it cannot even begin"
    assert deltas(lab) == {}
    lab.clock.forward(minutes=11)  # type: ignore[attr-defined] # the tests' clock
    maker(lab, seconds=0.001)({"release": release})
    assert "the encoder was ended after 0.001 seconds" in skipped(lab)
    lab.clock.forward(minutes=11)  # type: ignore[attr-defined] # the tests' clock
    maker(lab)({"release": release})
    assert set(deltas(lab)) == {("0", "1"), ("1", "0")}, "the third time it is made"


def test_what_fails_three_times_is_left_alone(lab: Lab) -> None:
    _, new = publish_all(lab, 2)
    for _ in range(4):
        maker(lab, seconds=0.001)({"release": new})
        lab.clock.forward(minutes=11)  # type: ignore[attr-defined] # the tests' clock
    assert set(states(lab).values()) == {pieces.FAILED}
    maker(lab)({"release": new})
    assert deltas(lab) == {}


def test_an_older_release_gets_a_delta_where_devices_run_it(lab: Lab) -> None:
    made = publish_all(lab, 8)
    enroll(lab, 1, "1")
    planner = maker(lab).planner
    planner({"release": made[-1]})
    wanted = {key[1] for key, _ in states(lab).items() if key[0] == "delta"}
    assert wanted >= {"1", "2", "3", "4", "5", "6"}
    assert "0" not in wanted


def test_a_workshop_that_is_stopped_leaves_its_file_wanted(lab: Lab) -> None:
    """At once, however long the file would take; the next start makes it."""
    _, new = publish_all(lab, 2)
    maker(lab).planner({"release": new})
    workshop = Workshop(lab.database, lab.blobs, lab.clock, Bounds())
    workshop.start()
    wait_until(lambda: set(states(lab).values()) != {pieces.WANTED})
    workshop.stop()
    assert pieces.MAKING not in states(lab).values()
    maker(lab).work()
    assert set(deltas(lab)) == {("0", "1"), ("1", "0")}
