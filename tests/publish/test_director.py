"""Orders: what each device is told, in versions that only grow; silence where nothing is to be said."""

from time import thread_time

import pytest

from skylift.core.errors import Rejected, Unavailable
from skylift.engine import director, repos
from skylift.store import devices, trustfiles
from skylift.store.trustfiles import OrderRow
from skylift.testkit.trustlab import HARDWARE, PRODUCT, Lab, Line


def row(lab: Lab, device: Line) -> OrderRow | None:
    with lab.database.read() as conn:
        return trustfiles.order_of(conn, device.device_pk)


def test_a_device_without_an_order_has_no_row(lab: Lab) -> None:
    device = lab.enroll()
    lab.database.write(lambda conn: director.withdraw(conn, device.device_pk, lab.clock()))
    assert row(lab, device) is None


def test_every_change_of_an_order_is_a_new_version(lab: Lab) -> None:
    first, second = lab.released("1.0.0"), lab.released("1.1.0")
    device = lab.enroll()
    seen = []
    for release, attempt in ((first, 1), (second, 1), (second, 2), (None, 1), (first, 1)):
        device.order(release, attempt=attempt)
        found = row(lab, device)
        assert found is not None
        seen.append((found.version, found.timestamp_version))
    assert seen == [(n, n) for n in range(1, 6)]


def test_the_same_order_again_changes_nothing(lab: Lab) -> None:
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.order(release)
    before = row(lab, device)
    lab.clock.forward(hours=1)  # type: ignore[attr-defined] # the tests' clock
    device.order(release)
    assert row(lab, device) == before


def test_an_order_that_is_asked_for_late_is_signed_anew(lab: Lab) -> None:
    """At half of its life, and only when somebody asks."""
    device = lab.enroll()
    device.order(lab.released("1.0.0"))
    assert device.verify() is not None
    lab.clock.forward(hours=13)  # type: ignore[attr-defined] # the tests' clock
    found = row(lab, device)
    assert found is not None
    assert (found.version, found.timestamp_version) == (1, 1)
    assert device.verify() is not None
    found = row(lab, device)
    assert found is not None
    assert (found.version, found.timestamp_version) == (1, 2)
    lab.clock.forward(days=30)  # type: ignore[attr-defined] # the tests' clock
    assert device.verify() is not None
    found = row(lab, device)
    assert found is not None
    assert (found.version, found.timestamp_version) == (2, 3)


def test_orders_of_one_device_leave_another_alone(lab: Lab) -> None:
    release = lab.released("1.0.0")
    one, other = lab.enroll("dev-1"), lab.enroll("dev-2")
    one.order(release)
    assert one.verify() is not None
    assert other.verify() is None


def test_the_checks_answer_tells_which_versions_to_expect(lab: Lab) -> None:
    device = lab.enroll()
    lab.released("1.0.0")
    device.order(lab.released("1.1.0"))
    with lab.database.read() as conn:
        told = director.facts(conn, device.device_pk, PRODUCT)
    assert told == {
        "order": 1,
        "role": 2,
        "root_version": 1,
        "director_root_version": 1,
        "delegation_version": 1,
    }


def test_an_order_is_cheap(lab: Lab) -> None:
    """Offering runs in one transaction with it; it must not be felt (under a millisecond on the bench)."""
    release = lab.released("1.0.0")
    target = lab.target(release, HARDWARE)
    devices = [lab.enroll(f"dev-{number}") for number in range(50)]

    def assign_all(conn: director.Connection) -> float:
        started = thread_time()
        for device in devices:
            director.assign(conn, device.device_pk, target, lab.clock())
        return (thread_time() - started) / len(devices)

    # Of our own processor time, generously: machines are shared, and PostgreSQL is another process.
    assert lab.database.write(assign_all) < 0.01


def test_a_device_that_asks_while_its_order_changes_comes_again(lab: Lab) -> None:
    """Between its timestamp and its targets the order moved on: a missing file, not a bad signature."""
    first, second = lab.released("1.0.0"), lab.released("1.1.0")
    device = lab.enroll()
    device.order(first)
    honest = device.honest

    def moving(repo: str, filename: str) -> bytes:
        body = honest(repo, filename)
        if (repo, filename) == ("director", "timestamp.json"):
            device.order(second)
        return body

    device.honest = moving  # type: ignore[method-assign] # the server of this one moment
    with pytest.raises(Unavailable):
        device.verify()
    device.honest = honest  # type: ignore[method-assign] # and of the next
    found = device.verify()
    assert found is not None
    assert found.version == "1.1.0"


def test_names_that_are_no_files_are_not_found_on_either_database(lab: Lab) -> None:
    device = lab.enroll()
    with lab.database.read() as conn:
        row_of = devices.by_pk(conn, device.device_pk)
    assert row_of is not None
    now = lab.clock()
    for name in (
        "1.a\x00b.json",
        "\x00",
        "",
        ".json",
        "1.root.json.json",
        "1.\u0661.json",
        "9" * 50 + ".root.json",
    ):
        with pytest.raises(Rejected) as caught:
            repos.image(lab.database, lab.online, name, now)
        assert caught.value.code == "unknown_file"
        with pytest.raises(Rejected) as caught:
            repos.order(lab.database, lab.online, row_of, name, now)
        assert caught.value.code == "unknown_file"
