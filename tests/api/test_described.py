"""What a release takes from its image, by an upload through the API."""

from typing import Any

import pytest

from skylift.testkit import esp32

from .conftest import Api, Furnished
from .test_bad_input import refused


def seal(api: Api, release: str) -> str:
    assert api.post(f"/api/releases/{release}:seal").status_code == 200
    return release


def send(api: Api, body: bytes, **query: str) -> tuple[int, dict[str, Any]]:
    answer = api.call("POST", "/api/artifacts", params=query, content=body)
    return answer.status_code, answer.json()


def image(version: str, **more: object) -> bytes:
    return esp32.image(version, size=4096, **more)  # type: ignore[arg-type] # by its own names


def _known(api: Api) -> None:
    api.hold_ceremony()
    release = api.draft("1.0.0")
    assert api.upload(release, image("1.0.0"), "sensor-c3").status_code == 201
    assert api.upload(release, image("1.0.0", chip=esp32.CHIP_ESP32), "sensor-v1").status_code == 201
    seal(api, release)


@pytest.fixture
def known(furnished: Furnished) -> Api:
    """Two device types of one product: a C3's and an ESP32's."""
    return furnished("two chips", _known)


def test_a_product_and_an_image_are_a_release(known: Api) -> None:
    """Version, hardware and security version: as the image says."""
    status, made = send(known, image("1.1.0", security_version=3), product="sensor")
    assert (status, made["device_type"]) == (201, "sensor-c3")
    release = known.get(f"/api/releases/{made['release']}").json()
    told = {name: release[name] for name in ("product", "version", "security_version", "status", "kind")}
    assert told == {
        "product": "sensor",
        "version": "1.1.0",
        "security_version": 3,
        "status": "draft",
        "kind": "image",
    }
    # Again: that version is there.
    status, problem = send(known, image("1.1.0"), product="sensor")
    assert (status, problem["code"]) == (409, "duplicate_version")


def test_a_release_of_security_version_0_takes_its_images(known: Api) -> None:
    release = known.draft("1.1.0")
    assert known.upload(release, image("1.1.0", security_version=2), "sensor-c3").status_code == 201
    assert known.get(f"/api/releases/{release}").json()["security_version"] == 2
    more = image("1.1.0", security_version=5, chip=esp32.CHIP_ESP32)
    problem = refused(known.upload(release, more, "sensor-v1"), 409, "body", "wrong_security_version")
    assert problem["rule"] == "at most 2, or a release of 5"
    less = image("1.1.0", security_version=1, chip=esp32.CHIP_ESP32)
    assert known.upload(release, less, "sensor-v1").status_code == 201
    assert known.get(f"/api/releases/{release}").json()["security_version"] == 2


def test_a_security_version_that_no_release_can_have_is_refused(known: Api) -> None:
    release = known.draft("1.1.0")
    refused(known.upload(release, image("1.1.0", security_version=1 << 31), "sensor-c3"), 422, "body")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (image("1.1.0", chip=9), "no release of sensor had an image for ESP32-S3 before"),
        (b"just bytes", "the image does not say for which chip it is"),
    ],
)
def test_hardware_that_the_image_does_not_settle_is_asked_for(known: Api, body: bytes, why: str) -> None:
    release = known.draft("1.1.0")
    answer = known.call("POST", "/api/artifacts", params={"release": release}, content=body)
    problem = refused(answer, 422, "device_type", "device_type_needed")
    assert problem["detail"].endswith(why)
    assert not known.get(f"/api/releases/{release}").json()["artifacts"]


def test_two_device_types_of_one_chip_are_told_apart_by_the_project(known: Api) -> None:
    release = known.draft("1.1.0")
    other = image("1.1.0", project="camera")
    assert known.upload(release, other, "camera-c3").status_code == 201
    seal(known, release)
    status, made = send(known, image("1.2.0", project="camera"), product="sensor")
    assert (status, made["device_type"]) == (201, "camera-c3")
    status, problem = send(known, image("1.3.0", project="toaster"), product="sensor")
    assert (status, problem["code"]) == (422, "device_type_needed")
    status, made = send(known, image("1.4.0", project="sensor"), product="sensor")
    assert (status, made["device_type"]) == (201, "sensor-c3")


@pytest.mark.parametrize("body", [b"just bytes", b"#!/bin/sh\nexit 0\n"])
def test_a_device_type_of_a_chip_takes_nothing_else(known: Api, body: bytes) -> None:
    """Not even a file that no longer says what it is: a head that was damaged on its way looks like that."""
    release = known.draft("1.1.0")
    problem = refused(known.upload(release, body, "sensor-c3"), 409, "body", "wrong_chip")
    assert problem["detail"] == "body is no image of a chip: sensor-c3 had one for ESP32-C3 until now"
    assert known.upload(release, body, "sensor-c3", other_chip="true").status_code == 201


def test_a_configuration_is_for_any_chip(known: Api) -> None:
    config = known.draft("c1", kind="config")
    assert known.upload(config, b'{"every": 5}', "sensor-c3").status_code == 201
    seal(known, config)
    release = known.draft("1.1.0")  # and is no image that the next one is held against
    other = image("1.1.0", chip=esp32.CHIP_ESP32)
    refused(known.upload(release, other, "sensor-c3"), 409, "body", "wrong_chip")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "release"),
        ({"release": "rel_1", "product": "sensor"}, "release"),
        ({"product": "no such name!"}, "product"),
        ({"product": "sensor", "device_type": ""}, "device_type"),
        ({"product": "sensor", "version": "no such version!"}, "version"),
        ({"product": "sensor", "version": "1.0.0"}, "version"),
        ({"product": "sensor", "kind": "script"}, "kind"),
        ({"product": "sensor", "notes": "a null: \0"}, "notes"),
        ({"product": "sensor", "notes": "x" * 10_001}, "notes"),
        ({"product": "sensor", "security_version": "-1"}, "security_version"),
        ({"product": "sensor", "security_version": "2147483648"}, "security_version"),
        ({"product": "toaster"}, "product"),
        ({"release": "rel_1", "version": "1.1.0"}, "version"),
        ({"release": "rel_1"}, "release"),
        ({"release": "rel_1", "seal": "yes"}, "seal"),
        ({"product": "sensor", "other_chip": "1"}, "other_chip"),
        ({"product": "sensor", "securityversion": "3"}, "securityversion"),
    ],
)
def test_an_upload_that_nothing_could_mend_is_refused_before_its_bytes(
    known: Api, query: dict[str, str], field: str
) -> None:
    """Which are not even an image."""
    answer = known.call("POST", "/api/artifacts", params=query, content=b"")
    assert (answer.status_code in (404, 409, 422), answer.json()["field"]) == (True, field)
    assert [r["version"] for r in known.get("/api/releases").json()["items"]] == ["1.0.0"]


def test_a_release_is_made_and_sealed_with_its_image(known: Api) -> None:
    """As its words say, where they say something; in one go."""
    about = {"version": "1.1.0-rc1", "security_version": "4", "notes": "größer \n& schneller"}
    status, made = send(known, image("1.1.0"), product="sensor", seal="true", **about)
    assert status == 201
    release = known.get(f"/api/releases/{made['release']}").json()
    told = {name: release[name] for name in ("version", "security_version", "notes", "status")}
    assert told == {**about, "security_version": 4, "status": "signing"}
    status, made = send(
        known, b'{"a": 1}', product="sensor", kind="config", version="c1", device_type="sensor-c3"
    )
    assert (status, known.get(f"/api/releases/{made['release']}").json()["kind"]) == (201, "config")


@pytest.mark.parametrize(
    ("body", "query", "code"),
    [
        (b"just bytes", {}, "wrong_chip"),
        (image("1.1.0", security_version=5), {"security_version": "3"}, "wrong_security_version"),
        (image("1.1.0", chip=9), {"device_type": None}, "device_type_needed"),
        (image("1.1.0"), {"sha256": "0" * 64}, "hash_mismatch"),
        (image("1.1.0")[:-1], {}, "corrupt_image"),
        (b"", {}, "empty_image"),
    ],
)
def test_a_refused_image_makes_no_release_and_is_not_kept(
    known: Api, body: bytes, query: dict[str, str | None], code: str
) -> None:
    blobs = known.server.settings.data_dir / "blobs"
    before = sorted(path for path in blobs.rglob("*") if path.is_file())
    named = {"product": "sensor", "device_type": "sensor-c3", "version": "1.1.0", "seal": "true", **query}
    given = {name: value for name, value in named.items() if value is not None}
    status, problem = send(known, body, **given)
    assert (status in (409, 422), problem["code"]) == (True, code)
    assert [r["version"] for r in known.get("/api/releases").json()["items"]] == ["1.0.0"]
    assert sorted(path for path in blobs.rglob("*") if path.is_file()) == before
    given.pop("sha256", None)
    given["device_type"] = "sensor-c3"
    assert send(known, image("1.1.0"), **given)[0] == 201  # the same again, with a good one


def test_only_a_draft_is_deleted(known: Api) -> None:
    """Its version is free again; the audit says who did it."""
    status, made = send(known, image("1.1.0"), product="sensor")
    assert status == 201
    where = f"/api/releases/{made['release']}"
    assert known.call("DELETE", where, token="").status_code == 401
    assert known.call("DELETE", where).status_code == 204
    assert known.get(where).status_code == 404
    refused(known.call("DELETE", where), 404, "release", "unknown_release")
    _, made = send(known, image("1.1.0"), product="sensor", seal="true")
    refused(known.call("DELETE", f"/api/releases/{made['release']}"), 409, "release", "release_sealed")


def test_a_version_that_the_image_does_not_say_is_asked_for(known: Api) -> None:
    status, problem = send(known, b"just bytes", product="sensor", device_type="other")
    assert (status, problem["code"]) == (422, "version_needed")


def test_who_may_not_release_makes_no_draft_by_an_image(known: Api) -> None:
    answer = known.call(
        "POST", "/api/artifacts", params={"product": "sensor"}, content=image("1.1.0"), token=""
    )
    assert answer.status_code == 401
    assert [r["version"] for r in known.get("/api/releases").json()["items"]] == ["1.0.0"]
