"""The security floor at the server: what devices would refuse is refused before anybody is sent it."""

from typing import Any

from .conftest import Api

STATES = ("downloading", "installing", "validating")


def released(api: Api, version: str, image: bytes, security: int) -> str:
    body = {"product": "sensor", "version": version, "security_version": security}
    release: str = api.post("/api/releases", body).json()["id"]
    assert api.upload(release, image).status_code == 201
    assert api.post(f"/api/releases/{release}:seal").status_code == 200
    for number in (1, 2):
        assert api.sign(number).status_code == 200
    return release


def updated(api: Api, name: str, token: str, deployment: str, frm: str, floor: int) -> None:
    api.check(name, token, frm)
    for state in STATES:
        assert api.report(name, token, deployment, state).status_code == 200
    assert api.report(name, token, deployment, "complete", security_floor=floor).status_code == 200


def deploy(api: Api, version: str, *devices: str) -> Any:
    body = {"firmware_version": version, "target_devices": list(devices), "all_at_once": True}
    return api.post("/api/deployments", body)


def test_below_the_floor_is_refused_with_the_reason_and_above_it_one_may_roll_back(
    api: Api, image: bytes
) -> None:
    api.hold_ceremony()
    for version, security in (("1.0.0", 1), ("1.1.0", 2), ("1.2.0", 2)):
        released(api, version, image + version.encode(), security)
    token, other = api.device("dev-1"), api.device("dev-2")
    api.check("dev-2", other, "0.9.0")
    first = deploy(api, "1.0.0", "dev-1").json()["id"]
    api.tick()
    updated(api, "dev-1", token, first, "0.9.0", 1)
    api.tick()
    second = deploy(api, "1.1.0", "dev-1").json()["id"]
    api.tick()
    updated(api, "dev-1", token, second, "1.0.0", 2)
    api.check("dev-1", token, "1.1.0")
    refused = deploy(api, "1.0.0", "dev-1", "dev-2")
    assert refused.status_code == 409
    assert refused.json()["code"] == "below_security_floor"
    assert "1 of the devices, such as dev-1, have confirmed up to 2" in refused.json()["detail"]
    back = api.post(f"/api/deployments/{second}:rollback")
    assert (back.status_code, back.json()["code"]) == (409, "below_security_floor")
    assert deploy(api, "1.0.0", "dev-2").status_code == 201, "a device without that floor"
    third = deploy(api, "1.2.0", "dev-1").json()["id"]
    api.tick()
    updated(api, "dev-1", token, third, "1.1.0", 2)
    api.check("dev-1", token, "1.2.0")
    again = api.post(f"/api/deployments/{third}:rollback")
    assert again.status_code in (200, 201), again.text
    assert len(again.json()["deployments"]) == 1, "1.1.0 is older, and at the same floor"


def test_a_floor_is_a_number_from_0(api: Api) -> None:
    token = api.device("dev-1")
    for floor in (-1, 2**31, "high"):
        assert api.report("dev-1", token, "dep_1", "complete", security_floor=floor).status_code == 422
