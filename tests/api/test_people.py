"""Users, scopes and the audit trail over HTTP, and every page of the dashboard; on both databases."""

import csv
import io
import re
from typing import Any

from skylift.engine import sample

from .conftest import Api

PASSWORD = "correct horse battery"


def cookies(api: Api, name: str = "ada", role: str = "admin") -> dict[str, str]:
    """Somebody new, signed in."""
    assert api.post("/api/users", {"name": name, "role": role, "password": PASSWORD}).status_code == 201
    form = {"name": name, "password": PASSWORD, "code": ""}
    answer = api.call("POST", "/ui/sign-in", token="", data=form)
    assert answer.status_code == 303, answer.text
    set_ = answer.headers["set-cookie"]
    assert "Secure" not in set_
    assert {"HttpOnly", "SameSite=lax", "Path=/ui"} <= {part.strip() for part in set_.split(";")}
    return {"Cookie": set_.partition(";")[0]}


def test_behind_tls_the_cookie_never_travels_without(api: Api) -> None:
    cookies(api)
    form = {"name": "ada", "password": PASSWORD, "code": ""}
    headers = {"X-Forwarded-Proto": "https"}
    answer = api.call("POST", "/ui/sign-in", token="", data=form, headers=headers)
    assert "Secure" in answer.headers["set-cookie"]


def test_whoever_types_the_servers_name_comes_to_the_dashboard(api: Api) -> None:
    for path in ("/", "/ui"):
        answer = api.call("GET", path, token="")
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/")
    welcome = api.call("GET", "/ui/", token="")
    assert welcome.headers["location"].startswith("/ui/sign-in")


def test_a_user_comes_changes_and_goes(api: Api) -> None:
    made = api.post("/api/users", {"name": "olga", "role": "operator", "password": PASSWORD})
    assert made.status_code == 201
    assert "password" not in made.text
    assert api.post("/api/users", {"name": "olga", "role": "viewer", "password": PASSWORD}).status_code == 409
    assert api.post("/api/users", {"name": "x", "role": "king", "password": PASSWORD}).status_code == 422
    short = api.post("/api/users", {"name": "x", "role": "viewer", "password": "short"})
    assert short.json()["detail"] == "password is '5 characters': 12 to 200 characters"
    changed = api.call("PATCH", "/api/users/olga", json={"role": "viewer", "disabled": True})
    assert (changed.json()["role"], changed.json()["disabled"]) == ("viewer", True)
    assert api.call("PATCH", "/api/users/nobody", json={}).status_code == 404
    listed = api.get("/api/users").json()["items"]
    assert [(user["name"], user["created_by"]) for user in listed] == [("olga", "admin")]


def test_the_audit_trail_says_who_what_before_and_after_and_no_cell_is_a_formula(api: Api) -> None:
    api.device("a")
    assert api.call("PATCH", "/api/devices/a", json={"labels": {"said": "=1+1"}}).status_code == 200
    assert api.call("PATCH", "/api/devices/a", json={"labels": {"said": "-2"}}).status_code == 200
    newest = api.get("/api/audit", params={"action": "device.labels", "limit": "1"}).json()
    assert newest["next"] == newest["items"][0]["id"]
    told = newest["items"][0]
    assert (told["actor"], told["subject"]) == ("admin", "a")
    assert (told["before"], told["after"]) == ({"labels": {"said": "=1+1"}}, {"labels": {"said": "-2"}})
    older = api.get("/api/audit", params={"action": "device", "cursor": str(newest["next"])}).json()
    assert [row["after"]["labels"]["said"] for row in older["items"]] == ["=1+1"]
    text = api.get("/api/audit/export", params={"format": "csv"}).text
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert "device.labels" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    every = api.get("/api/audit/export", params={"format": "json"}).json()
    assert [row["id"] for row in every] == sorted((row["id"] for row in every), reverse=True)


def test_a_token_is_refused_outside_its_scopes(api: Api) -> None:
    asked = {"name": "ci", "role": "admin", "scopes": ["releases"]}
    token = api.post("/api/tokens", asked).json()["token"]
    assert api.get("/api/releases", token=token).status_code == 200
    for path in ("/api/deployments", "/api/devices", "/api/users", "/api/audit"):
        answer = api.get(path, token=token)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    wrong = api.post("/api/tokens", {**asked, "scopes": ["rel"]})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "scopes[0]")


PATHS = (
    *("/", "/deployments", "/deployments?status=paused", "/devices", "/releases", "/groups", "/trust"),
    *(
        "/audit",
        "/settings",
        "/settings/channels",
        "/account",
        "/devices/a",
        "/devices/enroll",
        "/releases/new",
        "/groups/lab",
    ),
    *("/devices?q=device_type+%3D+sensor-v2+and+label.hw+%3D+b", "/devices?q=current_version+%3D+1.0.0"),
    *('/devices?q=device_id+~+"a*"', "/devices?status=any&after=a", "/devices/complete?q=label."),
    *("/groups?preview=1&query=not+current_version+<+1.0", "/devices.csv?q=device_type+%3D+sensor-v2"),
    *("/audit/csv", "/audit/json", "/audit?action=deployment", "/deployments/new?preview=1&phases=50,100"),
    "/deployments/count?phases=10,100",
)


def test_every_page_is_drawn_from_either_database(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    release = api.publish("1.1.0", image)
    for name in ("a", "b", "c"):
        api.check(name, api.device(name))
    api.post("/api/groups", {"name": "lab", "devices": ["a"]})
    made = api.deploy("1.1.0", failure_threshold_percent=10, failure_min_devices=1)
    token = "dev_a-0123456789abcdef"
    assert api.check("a", token).json()["update_available"]
    assert api.report("a", token, made, "failed", reason="no_space").status_code == 200
    api.tick()
    headers = cookies(api)
    more = (
        f"/releases/{release}",
        *(f"/deployments/{made}{part}" for part in ("", "/why", "/devices", "/devices?state=failed")),
    )
    for path in (*PATHS, *more):
        answer = api.call("GET", f"/ui{path}", token="", headers=headers)
        assert answer.status_code == 200, f"{path}: {answer.text[-2000:]}"
    shown = api.call("GET", f"/ui/deployments/{made}", token="", headers=headers).text
    assert "1 of 1 decided device failed or rolled back (100.0 %)" in shown
    assert re.search(r'<polyline class="line-failed" points="[\d., ]+"', shown)
    assert "no space" in shown


def test_an_operator_retries_goes_on_without_a_cohort_and_rolls_back_by_forms(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    for version in ("1.0.0", "1.1.0"):
        api.publish(version, image)
    tokens = {name: api.device(name) for name in ("a", "b", "c")}
    made = api.deploy("1.1.0", failure_threshold_percent=10, failure_min_devices=1)
    headers = cookies(api)

    def ends(name: str, state: str) -> None:
        assert api.check(name, tokens[name]).json()["deployment"] == made
        assert api.report(name, tokens[name], made, state).json()["recorded"] is True

    def press(verb: str, **form: str) -> Any:
        shown = api.call("GET", f"/ui/deployments/{made}", token="", headers=headers).text
        found = re.search(r'data-csrf="([^"]+)"', shown)
        assert found is not None
        data = {"csrf": found[1], **form}
        answer = api.call("POST", f"/ui/deployments/{made}/{verb}", token="", headers=headers, data=data)
        api.tick()
        return answer

    ends("a", "failed")
    assert press("retry").status_code == 303
    assert press("resume").status_code == 303
    ends("a", "failed")
    wrong = press("resume", without="device_id=c")
    assert (wrong.status_code, "retry its devices" in wrong.text) == (409, True)
    assert press("resume", without="device_id=").status_code == 422
    assert press("resume", without="device_id=a").status_code == 303
    shown = api.get(f"/api/deployments/{made}").json()
    assert (shown["status"], shown["without"], shown["left_out"]) == ("running", ["device_id=a"], 1)
    ends("b", "complete")
    api.clock.forward(seconds=1)
    assert press("rollback").status_code == 303
    newest = api.get("/api/deployments").json()["items"][0]
    assert newest["version"] == "1.0.0"
    assert api.get(f"/api/deployments/{newest['id']}").json()["devices"] == 1
    assert api.get(f"/api/deployments/{made}").json()["status"] == "aborted"


WRONG = {
    "/nothing": 404,
    "/deployments/dep_0": 404,
    "/releases/rel_0": 404,
    "/groups/none": 404,
    "/devices/none": 404,
    "/devices?q=colour+%3D+red": 422,
    "/devices?status=odd": 422,
    "/deployments?status=odd": 422,
    "/audit?under=x": 422,
    "/audit/xml": 404,
    "/settings/channels?state=odd": 422,
    "/settings/channels?before=x": 422,
    "/static/0/none.js": 404,
    "/deployments/new?preview=1&phases=ten": 422,
}


def test_a_page_that_cannot_be_is_said_in_a_sentence(api: Api) -> None:
    headers = cookies(api)
    for path, status in WRONG.items():
        answer = api.call("GET", f"/ui{path}", token="", headers=headers)
        assert (path, answer.status_code) == (path, status)
        assert '<p class="wrong" role="alert">' in answer.text


def test_the_sample_fleet_takes_an_update_and_goes(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    api.publish("1.1.0", image)
    play = sample.Sample(api.database, api.server.loop.chores[-1].checkin, api.server.loop.deadlines)  # type: ignore[attr-defined] # it is the sample's chore
    api.database.write(lambda conn: sample.switch_on(conn, "sensor-v2", "ada", api.clock()))
    api.database.write(lambda conn: sample.switch_on(conn, "sensor-v2", "ada", api.clock()))  # again: nothing
    play(api.clock())
    made = api.deploy("1.1.0", failure_threshold_percent=90)
    for _ in range(60):
        play(api.clock())
        api.tick()
        api.clock.forward(seconds=3)
    found = api.get(f"/api/deployments/{made}").json()
    assert found["status"] == "complete", found
    assert found["totals"]["complete"] + found["totals"]["rolled_back"] == sample.COUNT
    assert found["totals"]["complete"] > sample.COUNT / 2
    api.database.write(lambda conn: sample.switch_off(conn, "ada", api.clock(), api.server.loop.deadlines))
    listed = api.get("/api/devices", params={"status": "active"}).json()["items"]
    assert not listed
    api.database.write(lambda conn: sample.switch_on(conn, "sensor-v2", "ada", api.clock()))
    assert len(api.get("/api/devices", params={"status": "active"}).json()["items"]) == sample.COUNT
