"""Deltas around a published release: both ways, against the recent ones, made once."""

import random
from typing import Any

import pytest

from skylift.engine.deltas import DeltaMaker
from skylift.firmware.delta import apply_delta
from skylift.store import releases
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


def maker(lab: Lab) -> DeltaMaker:
    return DeltaMaker(lab.database, lab.blobs, lab.clock)


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
    """Killed after the first was named, after the second was stored: the next run makes what is missing."""
    _, new = publish_all(lab, 2)
    dying = maker(lab)
    writes = lab.database.write
    done = 0

    class Killed(BaseException):
        pass

    def write(deed: Any) -> Any:
        nonlocal done
        done += 1
        if done == 2:
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
    maker(lab)({"release": new})
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
    from skylift.engine import deltas as module
    from skylift.store import tables

    monkeypatch.setattr(module, "MAX_IMAGE", 10_000)
    monkeypatch.setattr(module, "MAX_IMAGE_HDIFF", 10_000)
    _, new = publish_all(lab, 2)
    maker(lab)({"release": new})
    assert deltas(lab) == {}
    with lab.database.read() as conn:
        said = [row.data for row in conn.execute(tables.events.select()) if row.kind == "delta"]
    assert {(d["base_version"], d["skipped"]) for d in said} == {
        ("0", "larger than 10000 bytes"),
        ("1", "larger than 10000 bytes"),
    }


def test_a_delta_is_held_against_the_compressed_image(lab: Lab) -> None:
    """Half of the image is new: less than 0.7 of it raw, and no less than a compressor makes of it."""
    from skylift.store import tables

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
    DeltaMaker(lab.database, lab.blobs, lab.clock, max_ratio=0.001)({"release": release.id})
    assert deltas(lab) == {}
    maker(lab)({"release": release.id})
    assert len(deltas(lab)) == 2


def test_what_most_devices_run_is_made_first(lab: Lab) -> None:
    """Two devices run release 1, none the others: the delta from it is the first that is there."""
    from skylift.engine import deltas as module
    from skylift.store import devices

    made = publish_all(lab, 3)
    now = lab.clock()
    rows = [(f"d{k}", HARDWARE, f"{k:064x}", "1", {}) for k in range(2)]
    lab.database.write(lambda conn: devices.insert_many(conn, rows, now))
    with lab.database.read() as conn:
        first, *_ = module._pairs(conn, made[2])
    assert first[2] == "1"


def skipped(lab: Lab) -> set[str]:
    from skylift.store import tables

    with lab.database.read() as conn:
        said = [row.data for row in conn.execute(tables.events.select()) if row.kind == "delta"]
    return {event["skipped"] for event in said}


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
    maker(lab)({"release": new})
    assert set(deltas(lab)) == {("0", "1"), ("1", "0")}
