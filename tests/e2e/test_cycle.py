"""Create, sign, upload, deploy, monitor, roll back: through the CLI, on a real server, with real agents."""

import json
from pathlib import Path

import pytest

from skylift.testkit.stage import Device, Stage, wait

from .conftest import everywhere

pytestmark = pytest.mark.slow  # one story, chapter after chapter: `--dist=loadfile` keeps it together


@pytest.fixture(scope="module")
def fleet(stage: Stage, images: dict[str, Path]) -> list[Device]:
    """Three devices on 1.0.0, which is published too."""
    stage.publish(images["1.0.0"], "1.0.0")
    devices = stage.enroll(["dev-1", "dev-2", "dev-3"], images["1.0.0"], "1.0.0")
    wait(lambda: len(stage.client.get("/api/devices", current_version="1.0.0")["items"]) == 3, "enrolled")
    return devices


def configured(fleet: list[Device], config: dict[str, int]) -> None:
    wait(lambda: all(device.runs().get("config") == config for device in fleet), f"all have {config}")


def deploy(stage: Stage, version: str, *words: str) -> str:
    found: str = stage.skylift("deploy", "create", version, "--interval", "0", *words)["id"]
    return found


def test_a_release_goes_out_by_delta_and_is_proved_after_boot(
    stage: Stage, images: dict[str, Path], fleet: list[Device]
) -> None:
    stage.release(images["1.1.0"], "1.1.0")
    stage.wait_for_delta("1.1.0")
    assert stage.completed(deploy(stage, "1.1.0", "--all"))["complete"] == 3
    everywhere("1.1.0", *fleet)
    full = images["1.1.0"].stat().st_size
    assert all(0 < device.journal()["received"] < full / 10 for device in fleet)


def test_the_wait_of_deploy_status_ends_with_the_promised_exit_code(
    stage: Stage, fleet: list[Device]
) -> None:
    newest = stage.client.get("/api/deployments")["items"][0]["id"]
    assert stage.run("deploy", "status", newest, "--wait", "--timeout", "2m").returncode == 0


@pytest.mark.parametrize(
    ("version", "reason"),
    [("2.0.0-bad", "health_check_failed"), ("2.0.1-bad", "health_check_failed")],
)
def test_a_bad_image_falls_back_and_the_deployment_stops_itself(
    stage: Stage, images: dict[str, Path], fleet: list[Device], version: str, reason: str
) -> None:
    stage.publish(images[version], version)
    made = deploy(stage, version, "--all")
    found = stage.ended(made)
    assert found["status"] == "paused"
    assert found["paused_by"] == "failure_threshold"
    everywhere("1.1.0", *fleet)
    totals = stage.deployment(made)["totals"]
    assert totals["complete"] == 0
    assert totals["rolled_back"] == 1  # the one canary of three devices
    assert reason in found["status_reason"]
    assert stage.run("deploy", "status", made, "--wait").returncode == 4
    assert stage.run("deploy", "abort", made, "--yes").returncode == 0
    assert stage.run("deploy", "status", made, "--wait").returncode == 3


def test_a_half_signed_release_cannot_be_deployed(
    stage: Stage, images: dict[str, Path], fleet: list[Device]
) -> None:
    about = ("--product", "sensor", "--version", "1.2.0", "--device-type", "sensor-v2")
    made = stage.skylift("release", "create", str(images["1.2.0"]), *about)
    half = stage.sign(made["id"], 1)
    assert (half["signatures"], half["threshold"], half["published"]) == (1, 2, False)
    refused = stage.run("deploy", "create", "1.2.0", "--all")
    assert refused.returncode == 1
    assert refused.stderr.startswith("skylift: firmware_version is '1.2.0': the release is signing")
    assert stage.sign(made["id"], 2)["published"]


def test_a_device_that_loses_power_in_the_middle_resumes_and_completes(
    stage: Stage, fleet: list[Device]
) -> None:
    victim = fleet[0]
    made = deploy(stage, "1.2.0", "--device", victim.name, "--all-at-once")

    def begun() -> bool:
        updates = stage.client.get(f"/api/deployments/{made}/devices")["items"]
        return any(update["state"] != "pending" for update in updates)

    wait(begun, "the device has begun")
    victim.kill()
    victim.start()
    assert stage.completed(made)["complete"] == 1
    everywhere("1.2.0", victim)


def test_a_server_that_is_killed_in_the_middle_goes_on_where_it_was(
    stage: Stage, images: dict[str, Path], fleet: list[Device]
) -> None:
    stage.publish(images["1.3.0"], "1.3.0")
    made = deploy(stage, "1.3.0", "--all")
    stage.kill_server()
    stage.serve()
    assert stage.completed(made)["complete"] == 3
    everywhere("1.3.0", *fleet)


def test_a_configuration_goes_out_the_same_way_and_a_bad_one_falls_back(
    stage: Stage, fleet: list[Device]
) -> None:
    good, bad = stage.home / "good.json", stage.home / "bad.json"
    good.write_text(json.dumps({"interval": 30}))
    bad.write_text(json.dumps({"interval": 10, "break_health": True}))
    stage.release(good, "config-1", "--kind", "config")
    assert stage.completed(deploy(stage, "config-1", "--all"))["complete"] == 3
    configured(fleet, {"interval": 30})
    everywhere("1.3.0", *fleet)

    stage.publish(bad, "config-2", kind="config")
    stopped = stage.ended(deploy(stage, "config-2", "--all"))
    assert stopped["paused_by"] == "failure_threshold"
    everywhere("1.3.0", *fleet)
    configured(fleet, {"interval": 30})
    stage.skylift("deploy", "abort", stopped["id"], "--yes")


def test_an_image_that_is_altered_on_the_server_is_never_booted(
    stage: Stage, images: dict[str, Path], fleet: list[Device]
) -> None:
    release = stage.publish(images["1.4.0"], "1.4.0")
    stage.wait_for_delta("1.4.0")
    for artifact in stage.client.get("/api/artifacts", release=release)["items"]:
        blob = stage.home / "data" / "blobs" / artifact["sha256"][:2] / artifact["sha256"]
        body = bytearray(blob.read_bytes())
        body[len(body) // 2] ^= 0xFF
        blob.write_bytes(body)
    found = stage.ended(deploy(stage, "1.4.0", "--device", "dev-1", "--all-at-once"))
    assert found["status"] == "paused"
    assert "hash_mismatch" in found["status_reason"]
    everywhere("1.3.0", fleet[0])
    stage.skylift("deploy", "abort", found["id"], "--yes")


def test_the_operators_rollback_sends_everybody_back(stage: Stage, fleet: list[Device]) -> None:
    newest = next(d for d in stage.client.get("/api/deployments")["items"] if d["version"] == "1.3.0")
    back = stage.skylift("deploy", "rollback", newest["id"], "--yes")
    assert {made["version"] for made in back["deployments"]} == {"1.1.0", "1.2.0"}
    for made in back["deployments"]:
        stage.completed(made["id"])
    went = ["1.1.0", "1.1.0", "1.2.0"]
    wait(lambda: sorted(device.version() for device in fleet) == went, "everybody runs what was before")
