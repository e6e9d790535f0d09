"""What a device does when all is well, and when its own disk, clock or line is not."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.testkit.trustlab import Lab, Line
from skylift.trust.roles import DIRECTOR, IMAGE
from skylift.trust.verify import DeviceTrust


class PowerCut(BaseException):
    """Nothing after this happens."""


@contextmanager
def power_fails_at(write: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The power fails just before the n-th change of the file system; the list tells which came before."""
    changes: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            if len(changes) == write:
                raise PowerCut
            changes.append(name)
            return real(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        for name in ("replace", "symlink", "remove", "mkdir"):
            patch.setattr(os, name, counted(name, getattr(os, name)))
        yield changes


def damage(path: Path) -> Iterator[None]:
    """This file in every state a power cut may leave it in."""
    whole = path.read_bytes()
    for body in (b"", whole[: len(whole) // 2], b"\0" * len(whole), None):
        if body is None:
            path.unlink()
        else:
            path.write_bytes(body)
        yield


def test_nothing_ordered_is_an_answer(lab: Lab) -> None:
    device = lab.enroll()
    assert device.verify() is None
    assert not [name for repo, name, _ in device.asked if repo == IMAGE]  # nothing to look up there


def test_an_order_tells_what_to_install_and_why(lab: Lab) -> None:
    release = lab.released("2.0.0", b"bytes of the image", security_version=3)
    device = lab.enroll()
    device.order(release, attempt=2)
    found = device.verify()
    assert found is not None
    assert (found.version, found.kind, found.security_version) == ("2.0.0", "image", 3)
    assert (found.deployment, found.attempt, found.mandatory) == ("dep_1", 2, False)
    assert found.length == len(b"bytes of the image")


def test_a_withdrawn_order_is_no_order(lab: Lab) -> None:
    device = lab.enroll()
    device.order(lab.released("1.0.0"))
    assert device.verify() is not None
    device.order(None)
    assert device.verify() is None
    assert device.verify() is None  # again: nothing changes


def test_a_second_look_fetches_only_what_is_new(lab: Lab) -> None:
    device = lab.enroll()
    device.order(lab.released("1.0.0"))
    assert device.verify() is not None
    device.asked.clear()
    assert device.verify() is not None
    assert sorted(name for _, name, _ in device.asked) == [
        *("2.root.json", "2.root.json", "timestamp.json", "timestamp.json")
    ]


def test_every_file_torn_by_a_power_cut_costs_only_a_new_fetch(lab: Lab) -> None:
    device = lab.enroll()
    lab.rotate_director()
    device.order(lab.released("1.0.0"))
    expected = device.verify()
    assert expected is not None
    files = [path for path in device.trust.directory.rglob("*") if path.is_file()]
    assert len(files) >= 10
    for path in files:
        for _ in damage(path):
            assert device.verify() == expected, path.name


def test_all_files_torn_at_once_cost_only_a_new_fetch(lab: Lab) -> None:
    device = lab.enroll()
    device.order(lab.released("1.0.0"))
    expected = device.verify()
    for path in device.trust.directory.rglob("*.json"):
        if path.is_file():
            path.write_bytes(b"")
    assert device.verify() == expected


def test_the_power_fails_at_every_write_of_every_check(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """From every disk an interrupted check leaves behind, the next one comes to the same result."""
    first, second = lab.released("1.0.0"), lab.released("1.1.0")
    cuts = 0
    for begun in (False, True):
        for write in range(100):
            device = lab.enroll(f"dev-{begun}-{write}")
            if begun:
                device.order(first)
                assert device.verify() is not None
            device.order(second)
            with power_fails_at(write, monkeypatch) as changes:
                try:
                    device.verify()
                except PowerCut:
                    cuts += 1
            found = device.verify()
            assert found is not None
            assert found.version == "1.1.0"
            assert not list(device.trust.directory.rglob("tmp*"))
            if len(changes) < write:
                break  # the check was through before the cut
    assert cuts >= 20


def test_a_torn_cache_is_never_taken_for_trust(lab: Lab) -> None:
    """Files that somebody wrote into the cache verify like any other, beginning at the factory's root."""
    release = lab.released("1.0.0")
    mine, other = lab.enroll("dev-a"), lab.enroll("dev-b")
    other.order(release)
    assert other.verify() is not None
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        target = mine.trust.directory / DIRECTOR / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((other.trust.directory / DIRECTOR / name).read_bytes())
    mine.order(None)
    with pytest.raises(TrustError):
        mine.verify()  # it is told, not obeyed
    assert mine.trust.device_id == "dev-a"


def test_a_factory_without_a_usable_root_installs_nothing(lab: Lab) -> None:
    device = lab.enroll()
    device.order(lab.released("1.0.0"))
    for bad in (b"", b"{}", device.honest(IMAGE, "timestamp.json")):
        trust = DeviceTrust(
            lab.directory / "bare", device.trust.image_root, bad, "dev-1", device.trust.hardware
        )
        with pytest.raises(TrustError) as caught:
            Line(lab, device.device_pk, trust).verify()
        assert caught.value.code == Reason.SIGNATURE_INVALID


def test_a_disk_that_takes_nothing_is_trouble_not_an_attack(lab: Lab) -> None:
    device = lab.enroll()
    device.trust.directory.mkdir(parents=True)
    (device.trust.directory / DIRECTOR).write_text("in the way")
    with pytest.raises(Unavailable):
        device.verify()


def test_a_clock_in_1970_is_corrected_by_the_build_time(lab: Lab) -> None:
    device = lab.enroll()
    device.order(lab.released("1.0.0"))
    assert device.verify(now=datetime.fromtimestamp(0, UTC)) is not None


def test_a_build_after_the_files_expired_takes_them_for_old(lab: Lab) -> None:
    device = lab.enroll()
    device.order(lab.released("1.0.0"))
    with pytest.raises(TrustError) as caught:
        device.verify(now=datetime.fromtimestamp(0, UTC), build_time=lab.clock().replace(year=2027))
    assert caught.value.code == Reason.METADATA_EXPIRED


def test_a_clock_in_2100_is_told_and_recovers(lab: Lab) -> None:
    device = lab.enroll()
    device.order(lab.released("1.0.0"))
    with pytest.raises(TrustError) as caught:
        device.verify(now=datetime(2100, 1, 1, tzinfo=UTC))
    assert caught.value.code == Reason.METADATA_EXPIRED
    assert device.verify() is not None


def test_a_device_from_the_shelf_follows_every_root(lab: Lab) -> None:
    """It has the first root only; the online key was replaced six times since."""
    device = lab.enroll()
    for _ in range(6):
        lab.rotate_director()
    device.order(lab.released("1.0.0"))
    assert device.verify() is not None
    assert (device.trust.directory / DIRECTOR / "root.json").resolve().name == "7.root.json"


def test_a_missing_root_in_the_middle_of_the_chain_stops_there(lab: Lab) -> None:
    device = lab.enroll()
    for _ in range(2):
        lab.rotate_director()
    device.order(lab.released("1.0.0"))
    device.lies = {(DIRECTOR, "2.root.json"): device.honest(DIRECTOR, "3.root.json")}
    with pytest.raises(TrustError):
        device.verify()
    device.lies = {}
    assert device.verify() is not None


def test_a_product_may_be_called_like_a_temporary_file(lab: Lab) -> None:
    lab.ceremony("sensor", "tmp-x")
    device = lab.enroll()
    device.order(lab.released("1.0.0", product="tmp-x"))
    assert device.verify() is not None
    device.asked.clear()
    assert device.verify() is not None
    assert "1.tmp-x.json" not in [name for _, name, _ in device.asked]
