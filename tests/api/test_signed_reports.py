"""Reports that are of the device's own key, and those that are not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from conftest import TestClock
from skylift.trust import identity
from skylift.trust.authority import REASONS
from skylift.trust.identity import Purpose

from .conftest import Api, closed, opened
from .keyed import Keyed, enrolled
from .test_identity import ON_SQLITE, lists, refused

device = pytest.fixture(name="device")(enrolled)


@pytest.fixture
def offered(api: Api, device: Keyed, image: bytes) -> str:
    """The deployment that was offered to the device."""
    api.hold_ceremony()
    api.publish("1.1.0", image)
    made = api.deploy("1.1.0")
    assert api.check("dev-1", device.token).json()["deployment"] == made
    return made


def counted(api: Api) -> dict[str, float]:
    text = api.get("/metrics").text
    return {
        sample.labels["code"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "skylift_reports_refused_total"
    }


def test_a_signed_report_is_taken_and_the_time_line_says_by_which_key(
    api: Api, device: Keyed, offered: str
) -> None:
    for state in ("downloading", "installing", "validating"):
        assert api.report("dev-1", device.token, offered, state).status_code == 200
    assert device.send(device.body(offered, "complete")).json()["state"] == "complete"
    (done,) = [data for data in device.events("update") if data["state"] == "complete"]
    assert done["signed_by"] == device.shown["certificate"]["key"]
    assert device.shown["certificate"]["sequence"] == 1
    assert counted(api) == {}


@ON_SQLITE
def test_a_failure_that_goes_alone_is_marked_as_well(device: Keyed, offered: str) -> None:
    assert device.send(device.body(offered, "failed", reason="no_space")).status_code == 200
    (done,) = [data for data in device.events("update") if data["state"] == "failed"]
    assert done["signed_by"] == device.shown["certificate"]["key"]


def test_a_report_that_is_not_the_devices_own_is_refused_counted_and_told(
    api: Api, device: Keyed, offered: str
) -> None:
    body = device.body(offered, "failed")
    refused(device.post("/api/updates/status", body), 403, "Skylift-Signature", "report_unsigned")
    refused(device.send(body, key=identity.new_key()), 403, "Skylift-Signature", "report_forged")
    refused(device.send(body, purpose=Purpose.HEALTH), 403, "Skylift-Signature", "report_forged")
    good = identity.sign(device.key, Purpose.REPORT, body)
    altered = body.replace(b"failed", b"complete")
    refused(device.post("/api/updates/status", altered, good), 403, "Skylift-Signature", "report_forged")
    refused(device.post("/api/updates/status", body, "AAAA"), 403, "Skylift-Signature", "report_forged")
    assert device.state == "pending"
    assert counted(api) == {"report_unsigned": 1, "report_forged": 4}
    (told,) = device.events("report_refused")  # once a minute, however many come
    assert (told["code"], told["deployment"], told["state"]) == ("report_unsigned", offered, "failed")
    api.clock.forward(minutes=2)
    refused(device.send(body, key=identity.new_key()), 403, "Skylift-Signature", "report_forged")
    assert len(device.events("report_refused")) == 2


def test_a_report_replayed_for_another_deployment_or_after_a_newer_one_is_refused(
    api: Api, device: Keyed, offered: str, image: bytes
) -> None:
    first = device.body(offered, "failed")
    signature = identity.sign(device.key, Purpose.REPORT, first)
    assert device.post("/api/updates/status", first, signature).json() | {"retry_after": 0} == {
        "recorded": True,
        "state": "failed",
        "retry_after": 0,
    }
    again = device.post("/api/updates/status", first, signature)  # its answer was lost
    assert (again.status_code, again.json()["recorded"]) == (200, False)
    api.post(f"/api/deployments/{offered}:retry")
    api.post(f"/api/deployments/{offered}:resume")
    api.tick()
    assert api.check("dev-1", device.token).json()["attempt"] == 2
    moved = first.replace(offered.encode(), b"dep_another")
    refused(device.post("/api/updates/status", moved, signature), 403, code="report_forged")
    assert device.send(device.body(offered, "failed", attempt=2)).json()["recorded"]
    refused(device.post("/api/updates/status", first, signature), 409, "sequence", "report_replayed")
    unnumbered = json.dumps({"device_id": "dev-1", "deployment": offered, "state": "complete"}).encode()
    refused(device.send(unnumbered), 409, "sequence", "report_replayed")


def test_what_the_old_key_signs_counts_until_the_new_one_signs(device: Keyed, offered: str) -> None:
    old, new = device.key, identity.new_key()
    asked = identity.request(new, "dev-1").encode()
    body = {"csr": asked.decode(), "proof": identity.sign(old, Purpose.RENEWAL, asked)}
    assert device.api.post("/api/devices/dev-1/certificate", body, token=device.token).status_code == 200
    assert device.send(device.body(offered, "failed"), key=old).status_code == 200  # the answer was lost
    assert len(revoked(device.api)) == 0
    assert device.send(device.body(offered, "failed"), key=new).status_code == 200
    refused(device.send(device.body(offered, "failed"), key=old), 403, code="report_forged")
    device.api.clock.forward(seconds=2)  # the lists are made anew once a second
    assert revoked(device.api) == [REASONS["superseded"]], "its certificate neither"


def revoked(api: Api) -> list[Any]:
    """Why each certificate on the lists is there."""
    found = [one for each in lists(api).values() for one in each]
    return [one.extensions.get_extension_for_class(x509.CRLReason).value.reason for one in found]


@ON_SQLITE
def test_a_device_without_a_key_may_report_unless_signatures_are_required(api: Api, offered: str) -> None:
    tokens = {name: api.device(name) for name in ("dev-2", "dev-3")}
    for name, token in tokens.items():
        assert api.check(name, token).json()["deployment"] == offered
    assert api.report("dev-2", tokens["dev-2"], offered, "failed").status_code == 200
    reports = api.server.front._context.reports  # type: ignore[attr-defined] # as the setting would build it
    reports._many._proofs = replace(reports._many._proofs, required=True)
    assert api.report("dev-3", tokens["dev-3"], offered, "downloading").status_code == 200
    last = api.report("dev-3", tokens["dev-3"], offered, "failed")
    refused(last, 403, "Skylift-Signature", "report_unsigned")


@ON_SQLITE
def test_a_word_of_health_is_signed_too(api: Api, device: Keyed, offered: str) -> None:
    path = "/api/devices/dev-1/health"
    body = json.dumps({"healthy": True, "sequence": 5}).encode()
    refused(device.post(path, body), 403, "Skylift-Signature", "report_unsigned")
    refused(
        device.post(path, body, identity.sign(device.key, Purpose.REPORT, body)), 403, code="report_forged"
    )
    signature = identity.sign(device.key, Purpose.HEALTH, body)
    assert device.post(path, body, signature).status_code == 200
    late = json.dumps({"healthy": False, "sequence": 4}).encode()
    sick = identity.sign(device.key, Purpose.HEALTH, late)
    refused(device.post(path, late, sick), 409, "sequence", "report_replayed")
    # A stage bears no signature, but not if it bears a word of health.
    refused(
        api.report("dev-1", device.token, offered, "downloading", healthy=True), 403, code="report_unsigned"
    )
    token = api.device("dev-2")
    assert api.post("/api/devices/dev-2/health", {"healthy": True}, token=token).status_code == 200


def test_after_a_restart_an_old_signed_word_is_still_a_replay(
    tmp_path: Path, database_url: str, clock: TestClock, image: bytes
) -> None:
    """Words of health and reports count with one sequence; a restarted server knows how far it is."""
    path = "/api/devices/dev-1/health"

    def word(sequence: int, healthy: bool) -> tuple[bytes, str]:
        body = json.dumps({"healthy": healthy, "sequence": sequence}).encode()
        return body, identity.sign(device.key, Purpose.HEALTH, body)

    first = opened(tmp_path, database_url, clock)
    device = Keyed(first)
    assert device.enroll().status_code == 201
    first.hold_ceremony()
    first.publish("1.1.0", image)
    deployment = first.deploy("1.1.0")
    assert first.check("dev-1", device.token).json()["deployment"] == deployment
    for number in (3, 4):
        assert device.post(path, *word(number, True)).status_code == 200
    first.server.seen.flush()
    assert device.shown["certificate"]["sequence"] == 4
    device.sequence = 4
    report = device.body(deployment, "failed")
    assert device.send(report).status_code == 200
    for number in (6, 7):
        assert device.post(path, *word(number, number == 7)).status_code == 200
    closed(first)
    second = opened(tmp_path, database_url, clock)
    try:
        device.api = second
        for number in (3, 6):
            refused(device.post(path, *word(number, True)), 409, "sequence", "report_replayed")
        refused(device.send(report), 409, "sequence", "report_replayed")
        assert device.post(path, *word(7, True)).status_code == 200  # the latest, whose answer was lost
        assert device.post(path, *word(8, True)).status_code == 200
    finally:
        closed(second)


@ON_SQLITE
def test_the_sequence_of_a_key_is_none_of_the_next_ones(api: Api, device: Keyed) -> None:
    """A device that was reset and enrolls anew counts from one."""
    path = "/api/devices/dev-1/health"
    body = json.dumps({"healthy": True, "sequence": 900}).encode()
    assert device.post(path, body, identity.sign(device.key, Purpose.HEALTH, body)).status_code == 200
    assert api.post("/api/devices/dev-1:decommission").status_code == 200
    device.key = identity.new_key()
    assert device.enroll().status_code in (200, 201)
    api.server.seen.flush()  # the old word comes late
    assert device.shown["certificate"]["sequence"] == 0
    body = json.dumps({"healthy": True, "sequence": 1}).encode()
    assert device.post(path, body, identity.sign(device.key, Purpose.HEALTH, body)).status_code == 200
