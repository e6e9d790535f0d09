"""The security floor at the server: what devices would refuse is refused before anybody is sent it."""

from typing import Any

from skylift.engine import floors
from skylift.store import devices

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


def deploy(api: Api, version: str, *devices: str, **more: Any) -> Any:
    body = {"firmware_version": version, "target_devices": list(devices), "all_at_once": True, **more}
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
    assert "skip_above_floor" in refused.json()["rule"]
    tried = {"firmware_version": "1.0.0", "target_devices": "all", "all_at_once": True}
    dry = api.post("/api/deployments", tried, params={"dry_run": "true"})
    assert (dry.status_code, dry.json()["code"]) == (409, "below_security_floor")
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


def raised(api: Api, image: bytes, *names: str) -> tuple[str, dict[str, str]]:
    """Devices that confirmed 1.1.0 and its floor of 2, coming from 1.0.0; the deployment, their tokens."""
    api.hold_ceremony()
    for version, security in (("1.0.0", 1), ("1.1.0", 2)):
        released(api, version, image + version.encode(), security)
    tokens = {name: api.device(name) for name in names}
    made = deploy(api, "1.1.0", *names).json()["id"]
    api.tick()
    for name, token in tokens.items():
        updated(api, name, token, made, "1.0.0", 2)
        api.check(name, token, "1.1.0")
    api.tick()
    return made, tokens


def test_a_deployment_may_go_on_without_the_devices_above_it_named_and_counted(
    api: Api, image: bytes
) -> None:
    _, tokens = raised(api, image, "dev-1", "dev-2")
    fresh = {name: api.device(name) for name in ("dev-3", "dev-4")}
    for name, token in fresh.items():
        api.check(name, token, "0.9.0")
    said = {"firmware_version": "1.0.0", "target_devices": "all", "all_at_once": True}
    without = {"devices": 2, "highest": 2, "device_ids": ["dev-1", "dev-2"]}
    counted = api.post("/api/deployments", said | {"skip_above_floor": True}, params={"dry_run": "true"})
    assert (counted.json()["devices"], counted.json()["above_floor"]) == (2, without)
    made = api.post("/api/deployments", said | {"skip_above_floor": True})
    assert (made.status_code, made.json()["devices"], made.json()["above_floor"]) == (201, 2, without)
    deployment = made.json()["id"]
    assert audited(api, deployment)
    api.tick()
    for name, token in tokens.items():
        assert not api.check(name, token, "1.1.0").json()["update_available"]
    assert api.check("dev-3", fresh["dev-3"], "0.9.0").json()["deployment"] == deployment
    # One that still waits is raised meanwhile: it is offered nothing, and waited for no more.
    with api.database.read() as conn:
        late = devices.find_device(conn, "dev-4")
    assert late is not None
    api.database.write(lambda conn: floors.note(conn, {late.pk: 3}, api.clock()))
    api.clock.forward(seconds=5)
    while api.server.courier.carry_one(api.clock()):
        pass
    assert not api.check("dev-4", fresh["dev-4"], "0.9.0").json()["update_available"]
    assert audited(api, deployment)
    for state in STATES:
        assert api.report("dev-3", fresh["dev-3"], deployment, state).status_code == 200
    done = api.report("dev-3", fresh["dev-3"], deployment, "complete", security_floor=1)
    assert done.status_code == 200
    for _ in range(3):
        api.clock.forward(minutes=61)
        api.tick()
    found = api.get(f"/api/deployments/{deployment}").json()
    assert (found["status"], found["totals"]["complete"]) == ("complete", 1)
    assert found["above_floor"]["device_ids"] == ["dev-1", "dev-2", "dev-4"]
    made_by = [one for one in api.get("/api/audit").json()["items"] if one["action"] == "deployment.create"]
    assert ["skip_above_floor" in str(one) for one in made_by] == [True, False]


def audited(api: Api, deployment: str) -> bool:
    """Whether every counter is what a full count says."""
    found = api.get(f"/api/deployments/{deployment}/audit").json()
    assert found["equal"], found["findings"]
    return True


def test_a_rollback_may_go_on_without_the_devices_above_it(api: Api, image: bytes) -> None:
    first, tokens = raised(api, image, "dev-1", "dev-2")
    with api.database.read() as conn:
        reset = devices.find_device(conn, "dev-2")
    assert reset is not None
    api.database.write(lambda conn: floors.note(conn, {reset.pk: 0}, api.clock()))
    back = api.post(f"/api/deployments/{first}:rollback")
    assert (back.status_code, back.json()["code"]) == (409, "below_security_floor")
    back = api.post(f"/api/deployments/{first}:rollback", {"skip_above_floor": True})
    assert back.status_code == 200, back.text
    (made,) = back.json()["deployments"]
    assert (made["devices"], made["above_floor"]["device_ids"]) == (1, ["dev-1"])
    api.tick()
    assert not api.check("dev-1", tokens["dev-1"], "1.1.0").json()["update_available"]
    assert api.check("dev-2", tokens["dev-2"], "1.1.0").json()["version"] == "1.0.0"


def test_nobody_is_left_where_all_are_above_it(api: Api, image: bytes) -> None:
    raised(api, image, "dev-1")
    refused = deploy(api, "1.0.0", "dev-1", skip_above_floor=True)
    assert (refused.status_code, refused.json()["code"]) == (422, "no_devices")
    assert "1 are above its security floor" in refused.json()["detail"]
