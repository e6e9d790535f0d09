"""A bad server, a bad line, a bad disk: the update ends with its reason, or goes on where it was."""

import errno
import os
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from skylift.agent.disk import Disk
from skylift.firmware.delta import create_delta

from .conftest import Depot, Device, Fault, MakeDevice, moved

Make = Callable[..., bytes]
MANY = 3 << 20  # more than what is made durable at once


def ended(depot: Depot, *states: str) -> Callable[[], bool]:
    return lambda: depot.states()[-1:] != [] and depot.states()[-1] in states


def test_an_image_that_is_not_what_was_signed_is_refused(device: Device, depot: Depot, image: Make) -> None:
    depot.faults[depot.offer(image("1.1.0"), "1.1.0")] = Fault(flip=True)
    device.until(ended(depot, "failed"))
    assert depot.last["reason"] == "hash_mismatch"
    device.until(device.settled)
    assert device.version == "1.0.0"
    assert device.boot.facts("image").trial_tag == ""


def test_endless_data_is_cut_at_the_signed_length(device: Device, depot: Depot, image: Make) -> None:
    new = image("1.1.0")
    depot.faults[depot.offer(new, "1.1.0")] = Fault(endless=True)
    device.until(ended(depot, "complete"))
    assert device.slot("b").read_bytes() == new, "the image was whole, and not a byte more was written"
    assert device.journal.received == len(new)


def test_an_image_longer_than_signed_is_refused(device: Device, depot: Depot, image: Make) -> None:
    new = image("1.1.0")
    depot.offer(new, "1.1.0")
    assert depot.order is not None
    depot.order = moved(depot.order, length=len(new) - 100)
    device.until(ended(depot, "failed"))
    assert depot.last["reason"] == "hash_mismatch"
    assert device.slot("b").stat().st_size == len(new) - 100


def test_an_image_for_which_there_is_no_room_is_not_begun(device: Device, depot: Depot, image: Make) -> None:
    depot.offer(image("1.1.0"), "1.1.0", length=1 << 60)
    device.until(ended(depot, "failed"))
    assert depot.last["reason"] == "no_space"
    assert depot.asked == []


def test_an_image_that_the_server_does_not_have_is_a_download_error(
    device: Device, depot: Depot, image: Make
) -> None:
    depot.blobs.pop(depot.offer(image("1.1.0"), "1.1.0"))
    device.until(ended(depot, "failed"))
    assert depot.last["reason"] == "download_error"


def test_a_broken_download_goes_on_where_it_was(device: Device, depot: Depot, image: Make) -> None:
    new = image("1.1.0", size=MANY)
    path = depot.offer(new, "1.1.0")
    depot.faults[path] = Fault(close_after=(1 << 20) + 300_000)
    device.until(ended(depot, "complete"))
    ranges = [asked for where, asked, _ in depot.asked if where == path]
    assert ranges[0] == ""
    assert len(ranges) >= 3
    assert all(asked != "" for asked in ranges[1:])
    assert depot.sent < 1.6 * len(new)
    assert device.slot("b").read_bytes() == new


def test_a_server_that_closes_at_every_chunk_only_slows_it_down(
    device: Device, depot: Depot, image: Make
) -> None:
    new = image("1.1.0")
    depot.faults[depot.offer(new, "1.1.0")] = Fault(close_after=20_000)
    device.until(ended(depot, "complete"), steps=40)
    assert depot.sent <= 1.2 * len(new)


def test_a_server_that_does_not_resume_is_asked_for_the_whole(
    device: Device, depot: Depot, image: Make
) -> None:
    new = image("1.1.0", size=MANY)
    path = depot.offer(new, "1.1.0")
    depot.faults[path] = Fault(close_after=(1 << 20) + 300_000)
    device.until(lambda: device.journal.offset > 0)
    device.until(lambda: "waiting" in device.log[-1])
    depot.faults[path] = Fault(ignore_range=True)
    device.until(ended(depot, "complete"), steps=40)


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(short=1000)])
def test_a_download_that_never_succeeds_ends_and_makes_room_for_another_order(
    fault: Fault, depot: Depot, image: Make, make_device: MakeDevice
) -> None:
    device = make_device(download_deadline_seconds=0.2)
    depot.faults[depot.offer(image("1.1.0"), "1.1.0")] = fault
    device.until(lambda: depot.asked)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        device.step()
    depot.offer(image("1.2.0"), "1.2.0", deployment="dep_2")
    device.until(lambda: depot.states("dep_2")[-1:] == ["complete"], steps=60)


@pytest.mark.parametrize("wrong", ["missing", "shorter than told"])
def test_a_delta_that_cannot_be_had_gives_way_to_the_full_image(
    wrong: str, device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    base, new = device.factory.read_bytes(), image("1.1.0")
    assert create_delta(base, new, tmp_path / "patch") is not None
    depot.offer(new, "1.1.0", delta=(base, (tmp_path / "patch").read_bytes()))
    if wrong == "missing":
        depot.blobs.pop(depot.answer["delta"]["url"])
    else:
        depot.answer["delta"]["size"] += 10
    device.until(ended(depot, "complete", "failed"), steps=40)
    assert depot.states()[-1] == "complete"


class FullDisk(Disk):
    """A disk on which, from some moment on, images cannot be written."""

    full = False

    def _do(self, operation: str, path: Path, act: Callable[[], Any], data: bytes = b"") -> Any:
        if self.full and operation == "write" and len(data) > 4096:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return act()


def test_a_disk_that_fills_up_while_writing_is_told(
    depot: Depot, image: Make, make_device: MakeDevice
) -> None:
    disk = FullDisk()
    device = make_device(disk=disk)
    disk.full = True
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(ended(depot, "failed"))
    assert depot.last["reason"] == "no_space"


def test_a_disk_that_fills_up_while_a_delta_is_written_is_told(
    depot: Depot, image: Make, make_device: MakeDevice, tmp_path: Path
) -> None:
    disk = FullDisk()
    device = make_device(disk=disk)
    base, new = device.factory.read_bytes(), image("1.1.0")
    assert create_delta(base, new, tmp_path / "patch") is not None
    depot.offer(new, "1.1.0", delta=(base, (tmp_path / "patch").read_bytes()))
    disk.full = True
    device.until(ended(depot, "failed"), steps=40)
    assert depot.last["reason"] == "no_space"


# --- reports -----------------------------------------------------------------------------------------


def test_a_refused_report_does_not_hold_up_the_others(device: Device, depot: Depot, image: Make) -> None:
    depot.report_status = {"installing": 409, "validating": 422}
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(ended(depot, "complete"))
    device.until(device.settled)


def test_reports_wait_for_the_network_and_come_in_order(device: Device, depot: Depot, image: Make) -> None:
    depot.report_status = dict.fromkeys(("downloading", "installing", "validating", "complete"), 503)
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(
        lambda: device.boot.facts("image").confirmed_tag == "dep_1/1" and device.journal.order is None
    )
    assert [report["state"] for report in device.journal.reports] == [
        "downloading",
        "installing",
        "validating",
        "complete",
    ]
    device.again()
    depot.report_status, depot.reports = {}, []
    device.until(ended(depot, "complete"))
    assert depot.states() == ["downloading", "installing", "validating", "complete"]
    assert device.version == "1.1.0"


def test_an_update_that_the_server_has_canceled_is_stopped_before_it_is_armed(
    device: Device, depot: Depot, image: Make
) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    depot.held["dep_1"] = "canceled"
    device.until(lambda: depot.reports)
    depot.answer = {}
    for _ in range(3):
        device.step()
    assert device.settled()
    assert device.boot.facts("image").trial_tag == ""
    assert device.version == "1.0.0"


def test_an_old_reports_canceled_does_not_stop_another_order(
    device: Device, depot: Depot, image: Make
) -> None:
    depot.held["dep_0"] = "canceled"
    depot.offer(image("1.1.0"), "1.1.0")
    old = {"deployment": "dep_0", "attempt": 1, "state": "failed", "reason": "download_error"}
    depot.report_status = {"failed": 503, "downloading": 503}
    device.file.save(device.journal.queue(old))
    device.until(lambda: device.journal.order is not None)
    depot.report_status = {}
    for _ in range(30):
        device.step()
    assert depot.states() == ["downloading", "installing", "validating", "complete"]


def test_canceled_after_arming_comes_too_late(device: Device, depot: Depot, image: Make) -> None:
    depot.report_status = dict.fromkeys(("downloading", "installing", "validating"), 503)
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: device.boot.facts("image").trial_tag)
    depot.report_status, depot.held["dep_1"] = {}, "canceled"
    depot.answer = {}
    for _ in range(6):
        device.step()
    assert device.boot.facts("image").confirmed_tag == "dep_1/1"


# --- the check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 301, 400, 401, 403, 404, 409, 429, 500, 503])
def test_anything_but_200_is_no_update_now(status: int, device: Device, depot: Depot, image: Make) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    depot.check_status = status
    for _ in range(3):
        device.step()
    assert (device.journal.order, device.version) == (None, "1.0.0")


def test_the_servers_own_time_to_come_again_is_respected(device: Device, depot: Depot) -> None:
    depot.check_status, depot.retry_after = 503, "17"
    assert device.step() == 17


def test_a_time_to_come_again_has_its_bounds(device: Device, depot: Depot) -> None:
    depot.check_status, depot.retry_after = 503, "99999999999"
    rest = device.step()
    assert rest is not None
    assert rest <= 86_400


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"update_available": "yes"}', b"\xff\xfe", b"{" * 70_000]
)
def test_an_answer_that_makes_no_sense_is_no_update_now(body: bytes, device: Device, depot: Depot) -> None:
    depot.check_body = body
    for _ in range(3):
        device.step()
    depot.check_body = None
    before = len(depot.checks)
    device.until(lambda: len(depot.checks) > before)
    assert (device.journal.order, device.version) == (None, "1.0.0")


def test_hints_that_lie_change_nothing_that_is_installed(device: Device, depot: Depot, image: Make) -> None:
    new = image("1.1.0")
    depot.offer(new, "1.1.0")
    lie = {"version": "9", "sha256": "0" * 64, "size": 1, "url": "/nowhere", "kind": "config", "delta": [1]}
    depot.answer |= lie
    device.until(ended(depot, "complete"))
    assert device.slot("b").read_bytes() == new


def test_the_token_is_told_to_the_devices_own_server_only(device: Device, depot: Depot, image: Make) -> None:
    told: list[str | None] = []
    new = image("1.1.0")

    class Elsewhere(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            told.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.send_header("Content-Length", str(len(new)))
            self.end_headers()
            self.wfile.write(new)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        depot.offer(new, "1.1.0")
        depot.answer["url"] = f"http://127.0.0.1:{server.server_port}/image"
        device.until(ended(depot, "complete"))
    finally:
        server.shutdown()
        server.server_close()
    assert told == [None]
