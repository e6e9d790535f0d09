"""Deployments to many devices wait for a second person."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import TestClock
from skylift.testkit.receivers import Receiver, receiver

from .conftest import Api, closed, opened

PASSWORD = "correct horse battery"


@pytest.fixture
def api(tmp_path: Path, database_url: str, clock: TestClock, image: bytes) -> Iterator[Api]:
    """A server where one person decides on two devices at most; three devices."""
    made = opened(tmp_path, database_url, clock, approval_above_devices=2)
    made.hold_ceremony()
    made.publish("1.1.0", image)
    for name in ("a", "b", "c"):
        made.check(name, made.device(name))
    yield made
    closed(made)


@pytest.fixture
def ear() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def second(api: Api, name: str = "olga", role: str = "operator") -> str:
    token: str = api.post("/api/tokens", {"name": name, "role": role}).json()["token"]
    return token


def offered(api: Api, name: str = "a") -> bool:
    found: bool = api.check(name, f"dev_{name}-0123456789abcdef").json()["update_available"]
    return found


def test_nobody_is_offered_anything_until_another_person_has_said_yes(api: Api, ear: Receiver) -> None:
    api.post("/api/channels", {"name": "ci", "kind": "webhook", "address": ear.url})
    body = {"firmware_version": "1.1.0", "target_devices": "all"}
    assert api.post("/api/deployments", body, params={"dry_run": "true"}).json()["needs_approval"]
    made = api.deploy("1.1.0")
    shown = api.get(f"/api/deployments/{made}").json()
    assert (shown["status"], shown["paused_by"]) == ("paused", "approval")
    assert shown["sentence"] == (
        "sensor 1.1.0 is paused: 3 devices are more than 2: waits for a second person's approval"
    )
    assert shown["approval"] == {"above": 2, "by": None, "at": None}
    assert not offered(api)
    for verb, code in (("approve", "second_person_needed"), ("resume", "approval_needed")):
        refused = api.post(f"/api/deployments/{made}:{verb}")
        assert (refused.status_code in (403, 409), refused.json()["code"]) == (True, code)
    viewer = api.post(f"/api/deployments/{made}:approve", token=second(api, "vera", "viewer"))
    assert (viewer.status_code, viewer.json()["code"]) == (403, "role_too_low")
    api.tick()
    assert not offered(api)
    olga = second(api)
    assert api.post(f"/api/deployments/{made}:approve", token=olga).json()["status"] == "scheduled"
    assert api.post(f"/api/deployments/{made}:approve", token=olga).status_code == 200  # again: as if done
    api.tick()
    assert offered(api)
    shown = api.get(f"/api/deployments/{made}").json()
    assert (shown["status"], shown["approval"]["by"]) == ("running", "olga")
    trail = api.get("/api/audit", params={"subject": made}).json()["items"]
    assert [(row["actor"], row["action"]) for row in trail] == [
        ("olga", "deployment.approve"),
        ("admin", "deployment.create"),
    ]
    while api.server.courier.carry_one(api.clock(), ["delivery"]):
        pass
    told = [json.loads(one.body)["type"] for one in ear.taken]
    assert told == [f"deployment.{what}" for what in ("created", "approval", "approved", "started")]


def test_as_many_as_one_person_may_need_nobody_else(api: Api) -> None:
    few = api.deploy("1.1.0", target_devices=["a", "b"])
    assert offered(api)
    refused = api.post(f"/api/deployments/{few}:approve", token=second(api))
    assert (refused.status_code, refused.json()["code"]) == (409, "no_approval_needed")


def test_a_deployment_that_grows_beyond_the_number_on_its_way_waits_then(api: Api) -> None:
    api.post("/api/groups", {"name": "lab", "devices": ["a", "b"]})
    made = api.deploy("1.1.0", target_devices=[], target_groups=["lab"])
    assert offered(api)
    assert api.call("PUT", "/api/groups/lab/devices", json={"add": ["c"]}).status_code < 300
    while api.server.courier.carry_one(api.clock(), ["recount"]):
        pass
    api.clock.forward(seconds=11)
    api.tick()
    assert api.get(f"/api/deployments/{made}").json()["paused_by"] == "approval"
    assert not offered(api, "c")
    assert api.post(f"/api/deployments/{made}:approve", token=second(api)).json()["status"] == "running"
    api.tick()
    assert offered(api, "c")


def test_a_draft_does_not_slip_by_and_abort_is_a_no(api: Api) -> None:
    made = api.deploy("1.1.0", draft=True)
    assert api.post(f"/api/deployments/{made}:resume").status_code == 200
    api.tick()
    assert api.get(f"/api/deployments/{made}").json()["paused_by"] == "approval"
    olga = second(api)
    assert (
        api.post(f"/api/deployments/{made}:abort", {"reason": "no"}, token=olga).json()["status"] == "aborted"
    )
    refused = api.post(f"/api/deployments/{made}:approve", token=olga)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_approval_needed")


def test_the_page_has_the_button_and_says_who_is_missing(api: Api) -> None:
    cookies = {}
    for name in ("ada", "olga"):
        api.post("/api/users", {"name": name, "role": "operator", "password": PASSWORD})
        form = {"name": name, "password": PASSWORD, "code": ""}
        answer = api.call("POST", "/ui/sign-in", token="", data=form)
        cookies[name] = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    preview = api.call("GET", "/ui/deployments/new?preview=1&phases=100", token="", headers=cookies["ada"])
    assert "it will wait until a second person has approved it" in preview.text
    csrf = preview.text.partition('data-csrf="')[2].partition('"')[0]
    release = api.get("/api/releases").json()["items"][0]["id"]
    form = {"csrf": csrf, "release": release, "to": "all", "phases": "100", "threshold": "10",
            "gate": "threshold", "action": "pause", "preview": "1"}  # fmt: skip
    made = api.call("POST", "/ui/deployments/new", token="", headers=cookies["ada"], data=form)
    page = made.headers["location"].partition("?")[0]
    api.tick()
    shown = api.call("GET", page, token="", headers=cookies["olga"]).text
    assert "waits for a second person&#39;s approval" in shown
    assert 'data-verb="approve">' in shown
    assert 'data-verb="resume" hidden' in shown
    own = api.call("POST", f"{page}/approve", token="", headers=cookies["ada"], data={"csrf": csrf})
    assert (own.status_code, "whoever created a deployment does not approve it" in own.text) == (403, True)
    csrf = shown.partition('data-csrf="')[2].partition('"')[0]
    done = api.call("POST", f"{page}/approve", token="", headers=cookies["olga"], data={"csrf": csrf})
    assert done.headers["location"] == f"{page}?done=approve"
    api.tick()
    assert offered(api)
