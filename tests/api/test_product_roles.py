"""Roles for single products: more than what somebody may do everywhere, for one product, and nothing else."""

import pytest

from .conftest import Api, Furnished

PASSWORD = "correct horse battery"


@pytest.fixture
def fleet(furnished: Furnished, image: bytes) -> Api:
    """Two products, a published release of each; two devices; olga, who only looks, and operates sensors."""

    def furnish(api: Api) -> None:
        api.hold_ceremony("sensor", "camera")
        api.publish("1.1.0", image)
        made = api.post("/api/releases", {"product": "camera", "version": "1.1.0"}).json()["id"]
        api.upload(made, image)
        api.post(f"/api/releases/{made}:seal")
        for number in (1, 2):
            api.sign(number, "camera")
        for name in ("a", "b"):
            api.check(name, api.device(name))

    made = furnished("products", furnish)
    made.post("/api/users", {"name": "olga", "role": "viewer", "password": PASSWORD})
    return made


def deploy(api: Api, product: str, token: str) -> tuple[int, str]:
    body = {"firmware_version": "1.1.0", "product": product, "target_devices": "all", "all_at_once": True}
    answer = api.post("/api/deployments", body, token=token)
    return answer.status_code, answer.json().get("id", answer.json().get("detail"))


def test_a_token_acts_on_its_product_and_on_nothing_else(fleet: Api, image: bytes) -> None:
    body = {"name": "ci", "role": "viewer", "products": {"sensor": "operator"}}
    token = fleet.post("/api/tokens", body).json()["token"]
    status, own = deploy(fleet, "sensor", token)
    assert status == 201
    assert deploy(fleet, "camera", token) == (403, "role is viewer: operator for camera is needed")
    _, other = deploy(fleet, "camera", fleet.admin)
    for verb in ("pause", "resume", "promote", "retry", "rollback", "approve", "abort"):
        mine = fleet.post(f"/api/deployments/{own}:{verb}", token=token).status_code
        theirs = fleet.post(f"/api/deployments/{other}:{verb}", token=token).status_code
        assert (verb, mine != 403, theirs) == (verb, True, 403)
    assert fleet.call("DELETE", f"/api/deployments/{other}", token=token).status_code == 403
    assert fleet.call("DELETE", f"/api/deployments/{own}", token=token).status_code == 204
    assert (
        fleet.post("/api/deployments/dep_0:pause", token=token).status_code == 403
    )  # not even whether it is
    for product, status in (("sensor", 201), ("camera", 403)):
        asked = {"product": product, "version": "1.2.0"}
        assert fleet.post("/api/releases", asked, token=token).status_code == status
        made = fleet.post("/api/releases", {"product": product, "version": "1.3.0"}).json()["id"]
        query = {"release": made, "device_type": "sensor-v2"}
        sent = fleet.call("POST", "/api/artifacts", params=query, content=image, token=token)
        assert sent.status_code == status
        sealed = fleet.post(f"/api/releases/{made}:seal", token=token)
        assert sealed.status_code == (200 if status == 201 else 403)
        back = fleet.post(f"/api/releases/{made}:withdraw", {"reason": "x"}, token=token)
        assert back.status_code == (200 if status == 201 else 403)
    # What belongs to no product is nobody's by a product's role.
    assert fleet.post("/api/groups", {"name": "g", "devices": ["a"]}, token=token).status_code == 403
    assert fleet.post("/api/devices/a:decommission", token=token).status_code == 403
    assert fleet.get("/api/users", token=token).status_code == 403
    wrong = fleet.post("/api/tokens", {**body, "products": {"sensor": "king"}})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "role")


def test_an_admin_of_a_product_says_who_may_do_what_to_it_and_no_more(fleet: Api) -> None:
    body = {"name": "lead", "role": "viewer", "products": {"sensor": "admin"}}
    lead = fleet.post("/api/tokens", body).json()["token"]
    given = fleet.call("PUT", "/api/users/olga/products/sensor", json={"role": "operator"}, token=lead)
    assert (given.status_code, given.json()["products"]) == (200, {"sensor": "operator"})
    other = fleet.call("PUT", "/api/users/olga/products/camera", json={"role": "operator"}, token=lead)
    assert other.status_code == 403
    assert fleet.call("PATCH", "/api/users/olga", json={"role": "admin"}, token=lead).status_code == 403
    taken = fleet.call("DELETE", "/api/users/olga/products/sensor", token=lead)
    assert taken.json()["products"] == {}
    trail = fleet.get("/api/audit", params={"action": "user.product_role"}).json()["items"]
    assert [(row["actor"], row["before"]["role"], row["after"]["role"]) for row in trail] == [
        ("lead", "operator", None),
        ("lead", None, "operator"),
    ]


def test_pages_have_the_buttons_of_ones_products_and_refuse_the_others(fleet: Api) -> None:
    fleet.call("PUT", "/api/users/olga/products/sensor", json={"role": "operator"})
    form = {"name": "olga", "password": PASSWORD, "code": ""}
    answer = fleet.call("POST", "/ui/sign-in", token="", data=form)
    cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}

    def see(path: str) -> str:
        found = fleet.call("GET", f"/ui{path}", token="", headers=cookie)
        assert found.status_code == 200, found.text
        return found.text

    csrf = see("/").partition('data-csrf="')[2].partition('"')[0]

    def press(path: str, **form: str) -> int:
        return fleet.call(
            "POST", f"/ui{path}", token="", headers=cookie, data={"csrf": csrf, **form}
        ).status_code

    own, other = deploy(fleet, "sensor", fleet.admin)[1], deploy(fleet, "camera", fleet.admin)[1]
    assert 'data-verb="pause"' in see(f"/deployments/{own}")
    assert 'data-verb="pause"' not in see(f"/deployments/{other}")
    assert (press(f"/deployments/{own}/pause"), press(f"/deployments/{other}/pause")) == (303, 403)
    wizard = see("/deployments/new")
    assert "sensor 1.1.0" in wizard
    assert "camera 1.1.0" not in wizard
    releases = {row["product"]: row["id"] for row in fleet.get("/api/releases").json()["items"]}
    plan = {"to": "all", "phases": "100", "threshold": "10", "gate": "threshold", "action": "pause"}
    assert press("/deployments/new", release=releases["camera"], **plan) == 403
    assert press("/deployments/new", release=releases["sensor"], **plan) == 303
    assert press("/releases", product="camera", version="3.0.0", kind="image") == 403
    assert press("/releases", product="sensor", version="3.0.0", kind="image") == 303
    draft = fleet.post("/api/releases", {"product": "camera", "version": "4.0.0"}).json()["id"]
    assert press(f"/releases/{draft}/seal") == 403
    assert press("/uploads", release=draft, device_type="sensor-v2", name="x", size="10") == 403
    assert press("/groups", what="create", name="x") == 403
    assert "New release" in see("/releases")


def test_an_account_with_no_product_of_its_own_is_what_it_was(fleet: Api) -> None:
    token = fleet.post("/api/tokens", {"name": "v", "role": "viewer"}).json()["token"]
    assert deploy(fleet, "sensor", token) == (403, "role is viewer: operator is needed")
    operator = fleet.post("/api/tokens", {"name": "o", "role": "operator"}).json()["token"]
    assert deploy(fleet, "camera", operator)[0] == 201
