"""An update on one device, from the order to the proof: what goes well."""

import hashlib
import json
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from skylift.core.errors import Rejected, TrustError
from skylift.core.lifecycle import Reason
from skylift.firmware.delta import create_delta
from skylift.testkit.image import Behaviour

from .conftest import Depot, Device, MakeDevice

Make = Callable[..., bytes]


def test_a_full_image_is_installed_proved_and_only_then_told_complete(
    device: Device, depot: Depot, image: Make
) -> None:
    new = image("1.1.0")
    depot.offer(new, "1.1.0")
    device.until(lambda: depot.reports and depot.last["state"] == "complete")
    assert depot.states() == ["downloading", "installing", "validating", "complete"]
    assert depot.last["image_sha256"] == hashlib.sha256(new).hexdigest()
    with urllib.request.urlopen(f"http://127.0.0.1:{device.port}/health") as answer:
        assert json.load(answer)["version"] == "1.1.0"
    assert device.slot("a").read_bytes() == device.factory.read_bytes(), "the old image stays to fall back to"
    device.until(device.settled)
    before = len(depot.reports)
    device.again()
    device.step()
    assert (device.version, len(depot.reports)) == ("1.1.0", before), "again: nothing changes"


def test_the_check_tells_what_runs(device: Device, depot: Depot) -> None:
    device.until(lambda: depot.checks)
    assert depot.checks[0].keys() >= {"memory", "codecs"}, "and what it gives for an update"
    assert {name: said for name, said in depot.checks[0].items() if name not in ("memory", "codecs")} == {
        "device_id": ["dev-1"],
        "current_version": ["1.0.0"],
        "device_type": ["board"],
        "image_sha256": [hashlib.sha256(device.factory.read_bytes()).hexdigest()],
    }


def test_a_delta_is_taken_where_its_base_runs(
    device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    base, new = device.factory.read_bytes(), image("1.1.0")
    assert create_delta(base, new, tmp_path / "patch") is not None
    patch = (tmp_path / "patch").read_bytes()
    depot.offer(new, "1.1.0", delta=(base, patch))
    device.until(lambda: depot.states()[-1:] == ["complete"])
    assert depot.sent == len(patch)
    assert device.slot("b").read_bytes() == new


@pytest.mark.parametrize("wrong", ["base", "garbage", "cut", "flipped", "larger"])
def test_a_delta_with_anything_wrong_gives_way_to_the_full_image(
    wrong: str, device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    base, new = device.factory.read_bytes(), image("1.1.0")
    assert create_delta(base, new, tmp_path / "patch") is not None
    patch = (tmp_path / "patch").read_bytes()
    bad = {
        "base": patch,
        "garbage": hashlib.shake_256(b"garbage").digest(3000),
        "cut": patch[:-1],
        "flipped": patch[:200] + bytes([patch[200] ^ 1]) + patch[201:],
        "larger": new + b"more",
    }[wrong]
    depot.offer(new, "1.1.0", delta=(b"another" if wrong == "base" else base, bad))
    device.until(lambda: depot.states()[-1:] == ["complete"])
    assert device.slot("b").read_bytes() == new
    if wrong != "base":
        assert "delta not used" in depot.last["error_message"], "and the report says so"


def test_a_trial_that_fails_its_health_check_falls_back_and_says_so(
    device: Device, depot: Depot, image: Make, make_device: MakeDevice
) -> None:
    device = make_device(health_deadline_seconds=2.0)
    depot.offer(image("2.0.0", Behaviour.UNHEALTHY), "2.0.0")
    device.until(lambda: depot.states()[-1:] == ["rolled_back"])
    assert depot.last["reason"] == "health_check_failed"
    assert "500" in depot.last["error_message"]
    assert "complete" not in depot.states()
    device.until(device.settled)
    assert device.version == "1.0.0"


@pytest.mark.parametrize("behaviour", [Behaviour.CRASHES, Behaviour.HANGS])
def test_an_image_that_never_starts_falls_back(
    behaviour: Behaviour, depot: Depot, image: Make, make_device: MakeDevice
) -> None:
    device = make_device(health_deadline_seconds=2.0)
    depot.offer(image("2.0.0", behaviour), "2.0.0")
    device.until(lambda: depot.states()[-1:] == ["rolled_back"])
    assert depot.last["reason"] in ("health_check_failed", "boot_failed")
    device.until(device.settled)
    assert device.version == "1.0.0"


def test_a_trial_that_loses_power_at_every_boot_falls_back_within_the_limit(
    device: Device, depot: Depot, image: Make
) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: device.boot.facts("image").trial_tag)
    for _ in range(device.config.boot_attempts):
        device.again()
        device.on()
        assert device.version == "1.1.0"
    device.again()
    device.on()
    assert device.version == "1.0.0"
    device.until(lambda: depot.states()[-1:] == ["rolled_back"])
    assert depot.last["reason"] == "boot_failed"


def test_a_slot_whose_bytes_changed_is_never_booted(device: Device, depot: Depot, image: Make) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: depot.states()[-1:] == ["complete"])
    device.until(device.settled)
    body = bytearray(device.slot("b").read_bytes())
    body[-1] ^= 1
    device.again()
    device.slot("b").write_bytes(bytes(body))
    device.on()
    assert device.version == "1.0.0"
    device.until(lambda: depot.states()[-1:] == ["rolled_back"])
    assert depot.last["reason"] == "hash_mismatch"


def test_a_confirmed_image_that_crashes_in_a_loop_gives_way_to_the_former_and_withdraws_its_success(
    depot: Depot, image: Make, make_device: MakeDevice
) -> None:
    device = make_device()
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: depot.states()[-1:] == ["complete"])
    device.until(device.settled)
    for _ in range(device.config.boot_attempts):
        device.again()
        device.on()
        assert device.version == "1.1.0"
        assert device.boot._process is not None
        device.boot._process.kill()
        device.boot._process.wait()
        assert device.step() is None, "the agent sees that it died, and asks for a boot"
    device.until(lambda: depot.states()[-1:] == ["rolled_back"])
    assert (depot.last["reason"], device.version) == ("boot_failed", "1.0.0")


def test_a_configuration_is_an_update_like_any_other(device: Device, depot: Depot) -> None:
    depot.offer(b'{"interval": 30}', "c1", kind="config")
    device.until(lambda: depot.states()[-1:] == ["complete"])
    with urllib.request.urlopen(f"http://127.0.0.1:{device.port}/health") as answer:
        assert json.load(answer)["config"] == {"interval": 30}
    device.until(lambda: "config_version" in depot.checks[-1])
    assert depot.checks[-1]["config_version"] == ["c1"]
    assert device.slot("a").read_bytes() == device.factory.read_bytes()


def test_a_configuration_that_breaks_health_falls_back_to_the_former(
    depot: Depot, make_device: MakeDevice
) -> None:
    device = make_device()
    depot.offer(b'{"interval": 30}', "c1", kind="config")
    device.until(lambda: depot.states()[-1:] == ["complete"])
    device.config = replace(device.config, health_deadline_seconds=2.0)
    depot.offer(b'{"break_health": true}', "c2", kind="config", deployment="dep_2")
    device.until(lambda: depot.states("dep_2")[-1:] == ["rolled_back"])
    assert depot.last["reason"] == "health_check_failed"
    device.until(device.settled)
    assert device.boot.versions()[:2] == ("1.0.0", "c1")


def test_the_floor_rises_only_with_the_confirmation(device: Device, depot: Depot, image: Make) -> None:
    depot.offer(image("1.1.0"), "1.1.0", security_version=7)
    device.until(lambda: device.boot.facts("image").trial_tag)
    assert device.journal.floor == 0
    device.until(lambda: depot.states()[-1:] == ["complete"])
    assert device.journal.floor == 7


def test_what_updates_never_touch_is_untouched(device: Device, depot: Depot, image: Make) -> None:
    shared = device.config.state_dir / "shared"
    (shared / "app.db").write_bytes(b"the application's own")
    token = (shared / "token").read_bytes()
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: depot.states()[-1:] == ["complete"])
    assert ((shared / "app.db").read_bytes(), (shared / "token").read_bytes()) == (
        b"the application's own",
        token,
    )


def test_an_order_that_does_not_verify_is_told_once_and_nothing_is_downloaded(
    device: Device, depot: Depot, image: Make
) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    device.refusal = TrustError(Reason.SIGNATURE_INVALID, "no release key vouches for it " * 40)
    depot.report_status["failed"] = 409
    for _ in range(4):
        device.step()
    failed = [report for report in depot.reports if report["state"] == "failed"]
    assert len(failed) == 1
    assert failed[0]["reason"] == "signature_invalid"
    assert len(failed[0]["error_message"]) <= 500
    assert depot.asked == []
    assert not device.slot("b").exists()


def test_no_roots_no_installation(tmp_path: Path, depot: Depot, device: Device) -> None:
    (device.roots / "director.root.json").unlink()
    from skylift.agent.board import prepare

    with pytest.raises(Rejected, match=r"director\.root\.json"):
        prepare(device.config, device.disk)
