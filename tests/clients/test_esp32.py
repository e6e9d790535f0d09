"""The ESP32 clients, in C++ and in MicroPython, against a real server over real HTTP: their whole cycle, and
servers that lie.

Every lie ends in the same way: a named reason reached the server, and what ran before still runs, byte by
byte.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from skylift.testkit import hostile
from skylift.testkit.esp32 import VirtualEsp32
from skylift.testkit.hostile import Answer, Asked, Proxy
from skylift.testkit.stage import wait

pytestmark = pytest.mark.slow
LIFECYCLE = json.loads(
    (Path(__file__).resolve().parents[2] / "conformance" / "lifecycle" / "vectors.json").read_text()
)
IMAGE_BLOB = r"^/api/blobs/"
cpp_alone = pytest.mark.parametrize("kind", ["c++"])  # deltas need native code


def said(proxy: Proxy, device: VirtualEsp32) -> list[dict[str, object]]:
    """What this device has reported, in order."""
    name = device.settings["device_id"]
    return [report for _, report in list(proxy.reports) if report["device_id"] == name]


def slot(device: VirtualEsp32, number: int, size: int) -> bytes:
    """What stands at the beginning of a slot."""
    at = 10 * 4096 + number * 512 * 1024
    return (device.home / "flash.bin").read_bytes()[at : at + size]


def refused(desk, proxy, device, version: str, reason: str, words: str) -> None:
    """The update fails for this reason, is reported once, and the device runs what it ran, untouched."""
    factory = desk.images["1.0.0"].read_bytes()
    found = desk.ended(desk.deploy(device, version))
    assert (found["state"], found["reason"]) == ("failed", reason), found
    last = said(proxy, device)[-1]
    assert words in str(last["error_message"])
    assert (device.version(), device.status()["slot"]) == ("1.0.0", 0)
    assert slot(device, 0, len(factory)) == factory
    assert device.log.count("boot:") == 1


# --- the cycle ----------------------------------------------------------------------------------------


def test_an_update_is_verified_installed_tried_and_confirmed(desk, proxy, device) -> None:
    one = device(deltas="0", mqtt=desk.stage.facts["mqtt"])
    new = desk.images["1.1.0"].read_bytes()
    assert desk.ended(desk.deploy(one, "1.1.0"))["state"] == "complete"
    reports = said(proxy, one)
    assert [r["state"] for r in reports if r["state"] != "downloading"] == [
        "installing",
        "validating",
        "complete",
    ]
    verdicts = {(row["at"], row["said"]): row["verdict"] for row in LIFECYCLE["reports"]}
    words = ["pending", *(str(r["state"]) for r in reports)]
    assert {verdicts[at, word] for at, word in pairwise(words)} <= {"move", "refresh"}
    percents = [r["progress"] for r in reports if r["state"] == "downloading"]
    assert percents == sorted(percents)
    assert len(percents) > 8  # every ten percent, each time the download goes on by Range
    assert reports[-1]["image_sha256"] == hashlib.sha256(new).hexdigest()
    wait(lambda: one.version() == "1.1.0", "it is confirmed")
    assert one.status()["slot"] == 1
    assert slot(one, 1, len(new)) == new
    assert sum("Range" in asked.headers for asked in proxy.asked) >= 8
    # Again: nothing changes, and the next update goes to the other slot.
    assert desk.ended(desk.deploy(one, "1.2.0"))["state"] == "rolled_back"


@pytest.mark.parametrize(
    ("version", "reason"),
    [("1.2.0", "health_check_failed"), ("1.3.0", "boot_failed")],
    ids=["unhealthy", "crashes"],
)
def test_a_bad_image_falls_back_and_says_why(desk, device, version: str, reason: str) -> None:
    one = device()
    found = desk.ended(desk.deploy(one, version))
    assert (found["state"], found["reason"]) == ("rolled_back", reason)
    wait(lambda: one.version() == "1.0.0", "the old image runs again")


@cpp_alone
def test_a_delta_is_applied_while_it_comes_in(desk, proxy, device) -> None:
    desk.stage.wait_for_delta("1.1.0")
    one = device()
    assert desk.ended(desk.deploy(one, "1.1.0"))["state"] == "complete"
    fetched = {asked.where for asked in proxy.asked if asked.where.startswith("/api/blobs/")}
    whole = f"/api/blobs/{hashlib.sha256(desk.images['1.1.0'].read_bytes()).hexdigest()}"
    assert len(fetched) == 1
    assert whole not in fetched, "the whole image was fetched"
    assert next(report for report in said(proxy, one) if report["state"] == "installing")["way"] == "delta"
    assert slot(one, 1, 1 << 16)[:1] == b"\xe9"


CUTS = {"c++": {"brown_out": "8000"}, "micropython": {"cut_each": "7"}}


def test_the_power_may_go_at_any_time(desk, device, kind: str) -> None:
    """Again and again, on a line that breaks too: it arrives all the same, on a chip with wear counters."""
    one = device(flaky="20000", deltas="0", save_every="8192", seed="5", **CUTS[kind])
    for _ in range(3):
        one.kill()
        one.start()
    assert desk.ended(desk.deploy(one, "1.1.0"))["state"] == "complete"
    wait(lambda: one.version() == "1.1.0", "the new image is confirmed")
    assert one.log.count("the power went") > 0
    assert 0 < one.status()["wear"]["slots"] < 60


def test_a_device_rolls_back_by_itself_when_it_is_told_to(desk, device) -> None:
    one = device()
    deployment = desk.deploy(one, "1.1.0")
    desk.ended(deployment)
    one.kill()
    one.start(rollback="1")
    wait(lambda: desk.update(deployment)["state"] == "rolled_back", "the success is withdrawn")
    wait(lambda: one.version() == "1.0.0", "the other slot is confirmed")
    assert desk.update(deployment)["reason"] == "aborted"


def test_an_operator_who_aborts_stops_a_download(desk, proxy, device) -> None:
    one = device(deltas="0")
    proxy.lie(IMAGE_BLOB, hostile.instead(b"", 503, ("Retry-After", "1")))
    deployment = desk.deploy(one, "1.1.0")
    wait(lambda: desk.update(deployment).get("state") == "downloading", "it downloads")
    desk.stage.client.post(f"/api/deployments/{deployment}:abort")
    wait(lambda: "the server has ended this update" in one.log, "it hears of it")
    assert one.version() == "1.0.0"


# --- servers that lie ---------------------------------------------------------------------------------


def fake_image(asked: Asked, go: Callable[[], Answer]) -> Answer:
    """Another image of the same length, wherever the download goes on."""
    found = go()
    return replace(found, body=bytes(byte ^ 1 if at > 400 else byte for at, byte in enumerate(found.body)))


LIES = {
    "about the hash": (fake_image, "hash_mismatch", "not what was signed"),
    "about the length": (hostile.shortened(5000), "download_error", "another length"),
    "by redirecting elsewhere": (
        hostile.instead(b"", 302, ("Location", "http://198.51.100.7/evil.bin")),
        "download_error",
        "redirects to another place",
    ),
    "with a page of HTML": (
        hostile.instead(
            b"<html><body>Log in to the hotel's network</body></html>", 200, ("Content-Type", "text/html")
        ),
        "download_error",
        "another length",
    ),
    "that there is no image": (hostile.withheld(404), "download_error", "does not give the image"),
    "with an image for another chip": (
        hostile.changed(lambda body: body[:12] + b"\x09" + body[13:] if len(body) > 60000 else body),
        "wrong_hardware",
        "another chip",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_about_the_image_gets_nothing_installed(desk, proxy, device, lie: str) -> None:
    told, reason, words = LIES[lie]
    one = device(deltas="0")
    proxy.lie(IMAGE_BLOB, told)
    refused(desk, proxy, one, "1.1.0", reason, words)


def test_a_server_that_lies_about_size_and_hash_in_its_answer_is_not_believed(desk, proxy, device) -> None:
    """The check's words are hints: what is signed is installed."""
    one = device(deltas="0")
    proxy.lie(
        "check",
        lambda asked, go: _with(go(), sha256="00" * 32, size=7, url="http://198.51.100.7/x", version="9"),
    )
    assert desk.ended(desk.deploy(one, "1.1.0"))["state"] == "complete"


def _with(answer: Answer, **values: object) -> Answer:
    told = json.loads(answer.body)
    return replace(answer, body=json.dumps(told | values).encode()) if told["update_available"] else answer


def test_an_image_on_another_host_is_not_fetched(desk, proxy, device) -> None:
    one = device(deltas="0")
    proxy.lie("check", lambda asked, go: _with(go(), url="http://198.51.100.7/x"))
    refused(desk, proxy, one, "1.1.0", "download_error", "another host")


RULES = {
    "c++": {
        "device": "another device",
        "nonce": "nonce is not ours",
        "log": "log does not go on",
        "unproved": "log does not have",
        "html": "log does not go on",
    },
    "micropython": {
        "device": "order: this device",
        "nonce": "order: nonce",
        "log": "log: goes on",
        "unproved": "log: proofs",
        "html": "form",
    },
}


def test_an_order_for_another_device_is_refused(desk, proxy, device, kind: str) -> None:
    one, other = device(deltas="0"), device(deltas="0")
    other.kill()
    token = next(
        a.headers["Authorization"]
        for a in proxy.asked
        if f"device_id={other.settings['device_id']}&" in a.path
    )
    desk.deploy(other, "1.1.0")
    proxy.forward(Asked("GET", _check(other), {"Authorization": token}, b""))  # its order is made

    def others(asked: Asked, go: Callable[[], Answer]) -> Answer:
        path = asked.path.replace(one.settings["device_id"] + "/", other.settings["device_id"] + "/")
        return proxy.forward(Asked("GET", path, {"Authorization": token}, b""))

    proxy.lie("order.json", others)
    refused(desk, proxy, one, "1.1.0", "signature_invalid", RULES[kind]["device"])


def _check(device: VirtualEsp32) -> str:
    told = device.settings
    who = f"device_id={told['device_id']}&device_type={told['device_type']}"
    return f"/api/updates/check?{who}&current_version=1.0.0"


def test_an_old_answer_to_another_question_is_refused(desk, proxy, device, kind: str) -> None:
    one = device(deltas="0")
    proxy.lie("order.json", lambda asked, go: proxy.forward(replace(asked, path=asked.path[:-2] + "00")))
    refused(desk, proxy, one, "1.1.0", "metadata_rollback", RULES[kind]["nonce"])


def test_an_image_larger_than_the_slot_is_refused(desk, proxy, device) -> None:
    refused(desk, proxy, device(), "1.5.0", "no_space", "larger than the slot")


def test_an_image_that_was_signed_for_another_chip_is_refused(desk, proxy, device) -> None:
    """Signed for this device type by mistake: its header says what it is for."""
    refused(desk, proxy, device(deltas="0"), "1.4.0", "wrong_hardware", "another chip")


def test_a_worn_key_value_store_begins_no_update(desk, proxy, device) -> None:
    one = device(deltas="0")
    one.kill()
    one.start(worn="1")
    deployment = desk.deploy(one, "1.1.0")
    wait(lambda: "cannot be written" in one.log, "it says so")
    assert one.version() == "1.0.0"
    assert slot(one, 1, 4096) == b"\xff" * 4096, "something was written without a journal"
    assert desk.ended(deployment)["reason"] == "install_error"


def test_a_slot_that_cannot_be_written_is_an_install_error(desk, proxy, device) -> None:
    one = device(deltas="0")
    one.kill()
    one.start(broken="1")
    found = desk.ended(desk.deploy(one, "1.1.0"))
    assert (found["state"], found["reason"]) == ("failed", "install_error")
    assert one.version() == "1.0.0"


def test_an_empty_key_value_store_costs_no_trust(desk, device) -> None:
    """As after a full erase of its partition: the factory's roots are in the firmware, the token comes
    anew."""
    one = device(deltas="0")
    one.kill()
    flash = bytearray((one.home / "flash.bin").read_bytes())
    flash[2 * 4096 : 10 * 4096] = b"\xff" * (8 * 4096)
    (one.home / "flash.bin").write_bytes(flash)
    one.settings["claim"] = ""  # spent; and nobody gives out another
    one.start()
    wait(lambda: "not answered with 200" in one.log, "the server does not know it")
    assert one.version() == "1.0.0"


def test_without_a_clock_the_nonce_shows_that_an_order_is_new(desk, device) -> None:
    one = device(deltas="0", no_clock="1")
    assert desk.ended(desk.deploy(one, "1.1.0"))["state"] == "complete"


@cpp_alone
def test_a_delta_for_another_base_is_given_up_for_the_whole_image(desk, proxy, device) -> None:
    desk.stage.wait_for_delta("1.2.0")
    one = device()
    releases = desk.stage.client.get("/api/releases", limit=50)["items"]
    others = [a for r in releases if r["version"] == "1.2.0" for a in r["artifacts"] if a["kind"] == "delta"]
    body = desk.stage.client.raw(f"/api/blobs/{others[0]['sha256']}")
    base = hashlib.sha256(desk.images["1.0.0"].read_bytes()).hexdigest()
    delta = {
        "url": "/api/blobs/evil",
        "sha256": "11" * 32,
        "size": len(body),
        "base_sha256": base,
        "memory": 16384,
    }
    wrong = body[:30] + b"\x77" * 16 + body[46:62]
    wrong += _crc(wrong) + body[66:]
    proxy.lie("check", lambda asked, go: _with(go(), delta=delta))
    proxy.lie("blobs/evil", hostile.instead(wrong))
    assert desk.ended(desk.deploy(one, "1.1.0"))["state"] == "complete"
    assert "the delta is of no use: base" in one.log
    told = next(report for report in said(proxy, one) if report["state"] == "installing")
    assert (told["way"], told["passed"]) == ("full", {"delta": "base"})


def _crc(body: bytes) -> bytes:
    import zlib

    return zlib.crc32(body).to_bytes(4, "little")


def test_a_server_that_closes_at_every_byte_is_only_slow(desk, proxy, device) -> None:
    """Each answer but the image breaks off at some byte, ever later; then the image every few thousand
    bytes."""
    one = device(deltas="0")
    asked_before: dict[str, int] = {}

    def breaks(asked: Asked, go: Callable[[], Answer]) -> Answer:
        found = go()
        seen = asked_before[asked.where] = asked_before.get(asked.where, -1) + 1
        whole = found.head(len(found.body)) + found.body
        if asked.where.startswith("/api/blobs/"):
            return replace(found, raw=iter((whole[:9000],)))
        return found if seen % 3 == 2 else replace(found, raw=iter((whole[: seen * 97 % len(whole)],)))

    proxy.lie("order.json|/image/|blobs|status", breaks)
    assert desk.ended(desk.deploy(one, "1.1.0"))["state"] == "complete"


@pytest.mark.parametrize("status", [204, 301, 404, 418, 500, 503])
def test_anything_but_200_means_no_update_now(desk, proxy, device, status: int) -> None:
    one = device()
    proxy.lie("check", hostile.instead(b"<html>no</html>", status, ("Retry-After", "1")))
    before = len(proxy.asked)
    wait(lambda: len(proxy.asked) > before + 1, "it asks again")
    assert one.process is not None
    assert one.process.poll() is None
    assert one.version() == "1.0.0"


def test_a_log_that_goes_another_way_than_the_pinned_one_is_noticed(desk, proxy, device, kind: str) -> None:
    """The device was made when the log had two entries, and other ones than this server shows."""
    one = device(log_size="2", log_root="11" * 32)
    refused(desk, proxy, one, "1.1.0", "signature_invalid", RULES[kind]["log"])
    assert any(asked.where == "/api/log/compact" for asked in proxy.asked)


@pytest.mark.parametrize("lie", ["unproved", "html"])
def test_what_the_log_does_not_prove_is_not_installed(desk, proxy, device, kind: str, lie: str) -> None:
    bodies = {"unproved": b'{"consistency":[],"inclusions":[]}', "html": b"<html>no</html>"}
    one = device(deltas="0")
    proxy.lie("log/compact", hostile.instead(bodies[lie]))
    refused(desk, proxy, one, "1.1.0", "signature_invalid", RULES[kind][lie])


def test_a_device_follows_the_log_from_update_to_update(desk, proxy, device) -> None:
    """It asks for what came since, and reports which log it was shown."""
    one = device(deltas="0")
    for version in ("1.1.0", "1.2.0"):
        desk.ended(desk.deploy(one, version))
    asked = [a.path for a in proxy.asked if a.where == "/api/log/compact"]
    assert "since=0" in asked[0]
    assert "since=0" not in asked[-1]


@cpp_alone
def test_a_device_says_how_it_is(desk, proxy, device) -> None:
    """Before a check, and of an image that stays: its verdict and its numbers."""
    one = device(deltas="0", health="1")
    name = one.settings["device_id"]

    def word() -> dict[str, object]:
        return dict(desk.stage.client.get(f"/api/devices/{name}").get("health") or {})

    wait(lambda: word().get("healthy") is True, "it says that it is well")
    assert word()["metrics"] == {"temperature": -29.5, "uptime": 7}
    assert desk.ended(desk.deploy(one, "1.1.0"))["state"] == "complete"
    assert said(proxy, one)[-1]["healthy"] is True
    one.kill()
    one.start(unwell="1")
    wait(lambda: word().get("healthy") is False, "it says that it is not")


@cpp_alone
def test_a_device_says_how_it_is_once_a_day_and_when_it_is_asked(desk, proxy, device) -> None:
    one = device(deltas="0")
    words = f"/api/devices/{one.settings['device_id']}/health"

    def told(where: str) -> int:
        return sum(asked.where == where for asked in proxy.asked)

    wait(lambda: told("/api/updates/check") > 3, "it checks and checks")
    assert told(words) == 1

    def asks(asked: Asked, go: Callable[[], Answer]) -> Answer:
        found = go()
        return replace(found, body=json.dumps(json.loads(found.body) | {"report_health": True}).encode())

    proxy.lie("check", asks)
    wait(lambda: told(words) > 2, "it says so")


@cpp_alone
def test_an_image_that_moved_on_the_same_server_is_not_followed(desk, proxy, device) -> None:
    """No redirect is: what is signed is on the server that was asked, or it is not there."""
    one = device(deltas="0")
    proxy.lie(IMAGE_BLOB, hostile.instead(b"", 302, ("Location", "/api/blobs/elsewhere")))
    refused(desk, proxy, one, "1.1.0", "download_error", "redirects to another place")
    assert not any(asked.where == "/api/blobs/elsewhere" for asked in proxy.asked)


@pytest.mark.parametrize("kind", ["micropython"])
def test_a_device_that_is_asked_says_how_it_is(desk, proxy, device) -> None:
    """As a gate asks those that it compares; whoever is not asked says nothing."""
    one = device()
    name = one.settings["device_id"]
    where = f"/api/devices/{name}"
    assert desk.stage.client.get(where)["health"] is None

    def asks(asked: Asked, go: Callable[[], Answer]) -> Answer:
        found = go()
        return replace(found, body=json.dumps(json.loads(found.body) | {"report_health": True}).encode())

    proxy.lie("check", asks)
    wait(lambda: desk.stage.client.get(where)["health"], "it says so")
    said = desk.stage.client.get(where)["health"]
    assert said["healthy"] is True
    assert said["metrics"]["flash_operations"] > 0
