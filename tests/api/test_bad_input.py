"""Bad input: a clear answer that names field, value and rule; nothing half done, nothing lost."""

import http.client
import socket
import struct
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from conftest import TestClock
from skylift.store.tables import metadata
from skylift.testkit import esp32

from .conftest import Api, Furnished


@pytest.fixture
def fleet(furnished: Furnished, image: bytes) -> Api:
    """A ceremony, a published 1.1.0, one device on 1.0.0."""

    def furnish(api: Api) -> None:
        api.hold_ceremony()
        api.publish("1.1.0", image)
        api.device("dev-1")

    return furnished("fleet", furnish)


@pytest.fixture
def ready(furnished: Furnished) -> Api:
    """A ceremony, and nothing else."""
    return furnished("ceremony", lambda api: api.hold_ceremony())


TOKEN = "dev_dev-1-0123456789abcdef"


def half_said(api: Api, path: str, size: int) -> httpx2.Response:
    """A head that announces a body of this size, and one byte of it: no client library says so little."""
    where = api.client.base_url
    with socket.create_connection((where.host, where.port), timeout=60) as line:
        head = f"POST {path} HTTP/1.1\r\nHost: {where.host}\r\nAuthorization: Bearer {api.admin}\r\n"
        line.sendall(f"{head}Content-Length: {size}\r\nConnection: close\r\n\r\nx".encode())
        answer = http.client.HTTPResponse(line)
        answer.begin()
        return httpx2.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def contents(api: Api) -> dict[str, list[Any]]:
    """Everything in the database that a refused request must not touch."""
    left_out = {"seen", "events", "audit"}
    with api.database.read() as conn:
        return {
            table.name: [tuple(row) for row in conn.execute(sa.select(table))]
            for table in metadata.sorted_tables
            if table.name not in left_out
        }


def refused(answer: Any, status: int, field: str | None, code: str | None = None) -> dict[str, Any]:
    """A problem document that names what it should."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"] == f"/problems/{body['code']}"
    if field is not None:
        assert body["field"] == field
        assert field.split("[")[0] in body["detail"]
        assert body["rule"]
    if code is not None:
        assert body["code"] == code
    return body


# --- images ------------------------------------------------------------------------------------------


@pytest.fixture
def draft(ready: Api) -> str:
    return ready.draft("2.0.0")


def nothing_kept(api: Api) -> bool:
    blobs = api.server.settings.data_dir / "blobs"
    return not [path for path in blobs.rglob("*") if path.is_file()]


def test_an_empty_image_is_refused(ready: Api, draft: str) -> None:
    refused(ready.upload(draft, b""), 422, "body", "empty_image")
    assert nothing_kept(ready)


@pytest.mark.parametrize("cut", [100, 1000, -1])
def test_a_corrupt_image_is_refused(ready: Api, draft: str, image: bytes, cut: int) -> None:
    refused(ready.upload(draft, image[:cut]), 422, "body", "corrupt_image")
    assert nothing_kept(ready)


def test_an_esp_image_whose_segment_ends_behind_the_file_is_refused(ready: Api, draft: str) -> None:
    header = bytes([0xE9, 1, 2, 0x20]) + struct.pack("<I", 0x40080000) + bytes(4) + struct.pack("<H", 5)
    body = header.ljust(24, b"\0") + struct.pack("<II", 0x3C000020, 1 << 20) + bytes(100)
    refused(ready.upload(draft, body), 422, "body", "corrupt_image")


def test_an_image_for_another_chip_than_before_is_refused_unless_the_hardware_did_change(ready: Api) -> None:
    first = ready.draft("1.0.0")
    assert ready.upload(first, esp32.image("1.0.0", size=4096)).status_code == 201
    assert ready.post(f"/api/releases/{first}:seal").status_code == 200
    second = ready.draft("1.1.0")
    other = esp32.image("1.1.0", size=4096, chip=esp32.CHIP_ESP32)
    problem = refused(ready.upload(second, other), 409, "body", "wrong_chip")
    assert problem["detail"] == "body is an image for ESP32: sensor-v2 had one for ESP32-C3 until now"
    assert ready.upload(second, other, other_chip="true").json()["facts"]["chip"] == "ESP32"


def test_a_huge_image_is_refused_before_it_is_read(ready: Api, draft: str) -> None:
    answer = half_said(ready, f"/api/artifacts?release={draft}&device_type=sensor-v2", 1 << 40)
    refused(answer, 413, "body", "too_large")
    assert nothing_kept(ready)


def test_an_image_with_another_digest_than_announced_is_refused(ready: Api, draft: str, image: bytes) -> None:
    refused(ready.upload(draft, image, sha256="0" * 64), 422, "sha256", "hash_mismatch")
    assert nothing_kept(ready)


def test_a_second_image_for_the_same_device_type_is_refused(ready: Api, draft: str, image: bytes) -> None:
    assert ready.upload(draft, image).status_code == 201
    refused(ready.upload(draft, image), 409, "device_type", "duplicate_artifact")


def test_a_duplicate_version_is_refused(fleet: Api) -> None:
    before = contents(fleet)
    answer = fleet.post("/api/releases", {"product": "sensor", "version": "1.1.0"})
    body = refused(answer, 409, "version", "duplicate_version")
    assert body["value"] == "1.1.0"
    assert contents(fleet) == before


def test_a_release_of_a_product_without_keys_is_refused(fleet: Api) -> None:
    answer = fleet.post("/api/releases", {"product": "toaster", "version": "1"})
    refused(answer, 409, "product", "unknown_product")


def test_nothing_can_be_released_before_the_ceremony(api: Api) -> None:
    refused(api.post("/api/releases", {"product": "sensor", "version": "1"}), 409, "trust", "no_ceremony")


def test_a_configuration_that_is_neither_json_nor_toml_is_refused(ready: Api) -> None:
    release = ready.draft("c1", "config")
    refused(ready.upload(release, b"{"), 422, "body", "bad_config")
    refused(ready.upload(release, b"[1, 2]"), 422, "body", "bad_config")
    refused(ready.upload(release, b"x" * 70_000), 422, "body")
    assert ready.upload(release, b'{"interval": 30}').status_code == 201


# --- deployments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"failure_threshold_percent": 101}, 422, "failure_threshold_percent"),
        ({"target_devices": ["nobody"]}, 422, "target_devices[0]"),
        ({"target_devices": None, "target_groups": ["no-such-group"]}, 422, "target_groups[0]"),
        ({"firmware_version": "9.9.9"}, 404, "firmware_version"),
        ({"rollout_percentage": 0}, 422, "rollout_percentage"),
        ({"target_devices": None}, 422, "target_devices"),
        ({"speed": "fast"}, 422, "speed"),
        ({"phases": [{"percent": 50}, {"percent": 20}]}, 422, "phases[1].percent"),
    ],
)
def test_an_impossible_deployment_is_refused_and_changes_nothing(
    fleet: Api, change: dict[str, Any], status: int, field: str
) -> None:
    fleet.check("dev-1", TOKEN)
    before = contents(fleet)
    asked = {"firmware_version": "1.1.0", "target_devices": "all", **change}
    refused(fleet.post("/api/deployments", asked), status, field)
    assert contents(fleet) == before


def test_a_deployment_that_nobody_needs_is_refused(fleet: Api) -> None:
    fleet.check("dev-1", TOKEN, "1.1.0")
    asked = {"firmware_version": "1.1.0", "target_devices": "all"}
    refused(fleet.post("/api/deployments", asked), 422, "target_devices", "no_devices")


# --- devices -----------------------------------------------------------------------------------------


def test_a_token_of_another_device_is_refused(fleet: Api) -> None:
    other = fleet.device("dev-2")
    deployment = fleet.deploy("1.1.0")
    assert fleet.check("dev-1", TOKEN).json()["update_available"] is True
    before = contents(fleet)
    refused(fleet.check("dev-1", other), 403, "device_id", "foreign_token")
    refused(fleet.report("dev-1", other, deployment, "complete"), 403, "device_id", "foreign_token")
    refused(fleet.get("/director/dev-1/timestamp.json", token=other), 403, "device_id")
    assert contents(fleet) == before


@pytest.mark.parametrize("token", ["", "dev_unknown", "op_unknown"])
def test_no_token_and_unknown_tokens_are_refused(fleet: Api, token: str) -> None:
    answer = fleet.check("dev-1", token)
    refused(answer, 401, None)
    assert answer.headers["www-authenticate"] == "Bearer"
    refused(fleet.get("/api/deployments", token=token), 401, None)


def test_a_wrong_device_type_is_refused(fleet: Api) -> None:
    refused(fleet.check("dev-1", TOKEN, device_type="toaster"), 409, "device_type", "wrong_device_type")


def test_a_replayed_status_changes_nothing_twice(fleet: Api) -> None:
    deployment = fleet.deploy("1.1.0")
    fleet.check("dev-1", TOKEN)
    first = fleet.report("dev-1", TOKEN, deployment, "downloading", attempt=1).json()
    assert 27 <= first.pop("retry_after") <= 33
    assert first == {"recorded": True, "state": "downloading"}
    done = fleet.report("dev-1", TOKEN, deployment, "complete", attempt=1).json()
    assert done["recorded"]
    before = contents(fleet)
    for state in ("complete", "downloading", "failed"):
        again = fleet.report("dev-1", TOKEN, deployment, state, attempt=1)
        assert (again.status_code, again.json()["recorded"]) == (200, False)
    assert contents(fleet) == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"state": "dancing"}, "state"),
        ({"state": None}, "state"),
        ({"progress": 101}, "progress"),
        ({"progress": "half"}, "progress"),
        ({"reason": "bad luck"}, "reason"),
        ({"error_message": "x" * 501}, "error_message"),
        ({"image_sha256": "abc"}, "image_sha256"),
        ({"attempt": 0}, "attempt"),
        ({"surprise": 1}, "surprise"),
        ({"started_at": "yesterday"}, "started_at"),
    ],
)
def test_a_malformed_status_is_refused_by_field_value_and_rule(
    fleet: Api, change: dict[str, Any], field: str
) -> None:
    deployment = fleet.deploy("1.1.0")
    fleet.check("dev-1", TOKEN)
    before = contents(fleet)
    body = {"device_id": "dev-1", "deployment": deployment, "state": "downloading", **change}
    refused(fleet.post("/api/updates/status", body, token=TOKEN), 422, field)
    assert contents(fleet) == before


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"state": 1e999}'])
def test_a_status_that_is_no_json_object_is_refused(fleet: Api, body: bytes) -> None:
    answer = fleet.call(
        "POST", "/api/updates/status", content=body, token=TOKEN, headers={"Content-Type": "application/json"}
    )
    refused(answer, 422, None)


def test_a_status_for_a_deployment_that_was_never_offered_is_refused(fleet: Api) -> None:
    refused(fleet.report("dev-1", TOKEN, "dep_unknown", "complete"), 404, "deployment", "unknown_update")


def test_a_complete_that_proves_another_image_is_refused(fleet: Api) -> None:
    deployment = fleet.deploy("1.1.0")
    fleet.check("dev-1", TOKEN)
    answer = fleet.report("dev-1", TOKEN, deployment, "complete", image_sha256="0" * 64)
    refused(answer, 409, "image_sha256", "wrong_image")
    view = fleet.get(f"/api/deployments/{deployment}").json()
    assert view["totals"]["complete"] == 0


def body_of(size: int) -> Iterator[bytes]:
    for _ in range(size >> 16):
        yield b"x" * (1 << 16)


def test_a_body_of_100_mb_is_refused(fleet: Api) -> None:
    refused(fleet.call("POST", "/api/updates/status", content=b"x" * (100 << 20), token=TOKEN), 413, "body")


def test_a_body_that_does_not_say_its_size_is_counted_as_it_comes(fleet: Api) -> None:
    unannounced = body_of(100 << 20)
    refused(fleet.call("POST", "/api/updates/status", content=unannounced, token=TOKEN), 413, "body")


# --- clocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z"])
def test_a_devices_clock_is_taken_down_and_not_believed(fleet: Api, at: str) -> None:
    deployment = fleet.deploy("1.1.0")
    fleet.check("dev-1", TOKEN)
    answer = fleet.report("dev-1", TOKEN, deployment, "downloading", started_at=at, completed_at=at)
    assert answer.status_code == 200
    fleet.tick()
    assert fleet.get(f"/api/deployments/{deployment}").json()["totals"]["downloading"] == 1


def test_a_server_clock_that_jumps_loses_nothing(fleet: Api, clock: TestClock) -> None:
    deployment = fleet.deploy("1.1.0")
    fleet.check("dev-1", TOKEN)
    clock.forward(days=-400)
    assert fleet.report("dev-1", TOKEN, deployment, "downloading").json()["recorded"]
    fleet.tick()
    clock.now += timedelta(days=400)
    assert fleet.report("dev-1", TOKEN, deployment, "complete").json()["recorded"]
    fleet.tick()
    view = fleet.get(f"/api/deployments/{deployment}").json()
    assert (view["status"], view["totals"]["complete"]) == ("complete", 1)


# --- roles and repeats ---------------------------------------------------------------------------------


def test_each_role_may_do_what_it_is_for_and_no_more(fleet: Api) -> None:
    made = {
        role: fleet.post("/api/tokens", {"name": role, "role": role}).json()["token"]
        for role in ("viewer", "operator")
    }
    claim = {"device_type": "sensor-v2"}
    assert fleet.get("/api/deployments", token=made["viewer"]).status_code == 200
    refused(fleet.post("/api/claims", claim, token=made["viewer"]), 403, "role", "role_too_low")
    assert fleet.post("/api/claims", claim, token=made["operator"]).status_code == 201
    refused(fleet.get("/api/tokens", token=made["operator"]), 403, "role", "role_too_low")
    refused(fleet.post("/api/tokens", {"name": "x", "role": "king"}), 422, "role")
    refused(fleet.get("/api/deployments", token=TOKEN), 401, None)


def test_the_same_post_with_the_same_key_is_done_once(fleet: Api) -> None:
    asked = {"firmware_version": "1.1.0", "target_devices": "all"}
    key = {"Idempotency-Key": "once"}
    first = fleet.post("/api/deployments", asked, headers=key)
    again = fleet.post("/api/deployments", asked, headers=key)
    assert first.status_code == again.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    assert len(fleet.get("/api/deployments").json()["items"]) == 1
    other = fleet.post("/api/deployments", {**asked, "mandatory": True}, headers=key)
    refused(other, 409, "Idempotency-Key", "idempotency_conflict")


def test_unknown_paths_and_methods_are_problems_too(api: Api) -> None:
    refused(api.get("/api/nothing"), 404, None)
    refused(api.call("DELETE", "/api/deployments"), 405, None)
    assert api.get("/healthz", token="").json() == {"status": "ok"}
    assert api.get("/readyz", token="").json() == {"status": "ok"}
    refused(api.get("/metrics", token=""), 401, None)
    assert b"skylift_deployments" in api.get("/metrics").content


def test_an_enrollment_whose_answer_got_lost_can_be_repeated(api: Api, clock: TestClock) -> None:
    claim = api.post("/api/claims", {"device_type": "sensor-v2", "uses": 1}).json()["claim"]
    body = {"claim": claim, "device_id": "new-1", "device_type": "sensor-v2", "token": "t" * 32}
    assert api.post("/api/enroll", body, token="").status_code == 201
    assert api.post("/api/enroll", body, token="").status_code == 200
    refused(api.post("/api/enroll", {**body, "token": "u" * 32}, token=""), 409, "device_id")
    refused(api.post("/api/enroll", {**body, "device_id": "new-2"}, token=""), 403, "claim")
    late = api.post("/api/claims", {"uses": 5, "expires_in_hours": 1}).json()["claim"]
    clock.forward(hours=2)
    refused(api.post("/api/enroll", {**body, "claim": late, "device_id": "new-3"}, token=""), 403, "claim")


def test_a_decommissioned_device_is_out(fleet: Api) -> None:
    deployment = fleet.deploy("1.1.0")
    fleet.check("dev-1", TOKEN)
    assert fleet.post("/api/devices/dev-1:decommission").status_code == 200
    refused(fleet.check("dev-1", TOKEN), 401, None)
    totals = fleet.get(f"/api/deployments/{deployment}").json()["totals"]
    assert (totals["pending"], totals["canceled"]) == (0, 1)


def test_the_problem_says_nothing_of_the_inside(fleet: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret inner detail")

    monkeypatch.setattr("skylift.api.groups.groups.page", broken)
    answer = fleet.get("/api/groups")
    refused(answer, 500, None, "internal_error")
    assert "secret" not in answer.text


def test_half_a_character_is_refused_and_answered_in_whole_ones(fleet: Api) -> None:
    answer = fleet.call(
        "POST",
        "/api/groups",
        content=b'{"name": "\\ud800", "devices": []}',
        headers={"Content-Type": "application/json"},
    )
    refused(answer, 422, "name")
