"""The poll's shortcut says what the long way says, and never more; 304; when to come again."""

import threading
from typing import Any

import pytest

from skylift.api import device as long_way
from skylift.engine.pace import Load, Pace

from .conftest import Api

LONG = {"way": "long"}  # a parameter that the shortcut leaves to the long way


@pytest.fixture
def ways(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which checks went the long way."""
    gone: list[str] = []
    look = long_way._look

    def noted(request: Any, context: Any) -> Any:
        gone.append(request.query_params.get("device_id", ""))
        return look(request, context)

    monkeypatch.setattr(long_way, "_look", noted)
    return gone


def same(api: Api, name: str, token: str, version: str) -> dict[str, Any]:
    """The answer of both ways, which must be one; without the time, which is drawn."""
    short, long = api.check(name, token, version), api.check(name, token, version, **LONG)
    assert short.status_code == long.status_code == 200, short.text + long.text
    assert short.headers["etag"] == long.headers["etag"]
    said, at_length = short.json(), long.json()
    assert said.pop("retry_after") * 2 > at_length.pop("retry_after") * 1
    assert said == at_length
    answer: dict[str, Any] = said
    return answer


def test_a_poll_with_nothing_to_do_takes_no_long_way(api: Api, ways: list[str]) -> None:
    token = api.device("dev-1")
    assert api.check("dev-1", token).json()["update_available"] is False  # its first: facts are written
    assert ways == ["dev-1"]
    ways.clear()
    for _ in range(3):
        assert api.check("dev-1", token).json()["update_available"] is False
    assert ways == []
    assert api.server.seen._contacts, "it counts as heard"


def test_both_ways_say_the_same_at_every_station(api: Api, image: bytes, ways: list[str]) -> None:
    api.hold_ceremony()
    api.publish("1.1.0", image)
    tokens = {name: api.device(name) for name in ("dev-1", "dev-2", "dev-3")}
    for name, token in tokens.items():
        assert same(api, name, token, "1.0.0") == {"update_available": False}
    made = api.deploy("1.1.0", all_at_once=False, phases=[{"count": 1}, {"percent": 100}])
    offered = [name for name, token in tokens.items() if same(api, name, token, "1.0.0")["update_available"]]
    assert len(offered) == 1
    (first,) = offered
    later = next(name for name in tokens if name != first)
    ways.clear()
    assert api.check(later, tokens[later]).json()["retry_after"] <= 66, "its phase opens later: soon again"
    assert ways == [], "a closed phase is known without a look"
    for state in ("downloading", "installing", "validating", "complete"):
        assert api.report(first, tokens[first], made, state).json()["recorded"] is True
    assert same(api, first, tokens[first], "1.1.0") == {"update_available": False}
    assert api.post(f"/api/deployments/{made}:abort").status_code == 200
    api.tick()
    for name in tokens:
        assert (
            same(api, name, tokens[name], "1.1.0" if name == first else "1.0.0")["update_available"] is False
        )


def test_whoever_has_no_business_here_is_refused_the_same(api: Api) -> None:
    token, other = api.device("dev-1"), api.device("dev-2")
    api.check("dev-1", token)
    for held, name, more in (
        (other, "dev-1", {}),
        ("unknown-token-0123456789", "dev-1", {}),
        ("", "dev-1", {}),
        (token, "dev-9", {}),
        (token, "dev-1", {"device_type": "gate"}),
        (token, "dev-1", {"image_sha256": "xyz"}),
    ):
        asked = {"device_id": name, "current_version": "1.0.0", "device_type": "sensor-v2", **more}
        short = api.get("/api/updates/check", params=asked, token=held)
        long = api.get("/api/updates/check", params={**asked, **LONG}, token=held)
        assert short.status_code == long.status_code >= 400, (held, name)
        assert short.json() == long.json()


def test_a_decommissioned_device_is_refused_at_once(api: Api) -> None:
    token = api.device("dev-1")
    for _ in range(2):
        assert api.check("dev-1", token).status_code == 200
    assert api.post("/api/devices/dev-1:decommission").status_code == 200
    assert api.check("dev-1", token).status_code == 401


def test_what_has_not_changed_is_304_with_the_time_to_come_again(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    api.publish("1.1.0", image)
    token = api.device("dev-1")

    def ask(tag: str) -> Any:
        asked = {"device_id": "dev-1", "current_version": "1.0.0", "device_type": "sensor-v2"}
        return api.get("/api/updates/check", params=asked, token=token, headers={"If-None-Match": tag})

    nothing = ask('"other"')
    assert nothing.status_code == 200
    for _ in range(2):
        again = ask(nothing.headers["etag"])
        assert (again.status_code, again.content) == (304, b"")
        assert 270 <= int(again.headers["retry-after"]) <= 330
    api.deploy("1.1.0")
    something = ask(nothing.headers["etag"])
    assert something.status_code == 200
    assert something.json()["update_available"] is True
    assert ask(something.headers["etag"]).status_code == 304
    assert ask(nothing.headers["etag"]).status_code == 200


def test_devices_are_sent_away_for_longer_while_the_writer_is_behind(api: Api, image: bytes) -> None:
    """What waits for the one writer makes every answer later, and only that long."""
    api.hold_ceremony()
    api.publish("1.1.0", image)
    token = api.device("dev-1")
    deployment = api.deploy("1.1.0", target_devices=["dev-1"], draft=True)
    api.check("dev-1", token)
    held, go_on = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        held.set()
        assert go_on.wait(60)

    waits = [api.database.submit(hold)]
    assert held.wait(60)
    waits += [api.database.submit(lambda _: None) for _ in range(1_000)]
    try:
        told = [api.check("dev-1", token).json()["retry_after"] for _ in range(5)]
        assert min(told) >= 810, "a thousand of them: three times as long"
    finally:
        go_on.set()
    for wait in waits:
        wait.result(60)
    assert api.check("dev-1", token).json()["retry_after"] < 600
    assert api.get(f"/api/deployments/{deployment}").json()["status"] == "draft"


def test_who_is_at_an_update_is_spread_too() -> None:
    at_it = {Pace(300, 60, 30).busy() for _ in range(500)}
    assert (min(at_it), max(at_it)) == (27, 33)
    assert min(Pace(300, 60, 30, lambda: 3.0).busy() for _ in range(50)) >= 81


def test_a_herd_is_spread_and_comes_less_often_to_a_busy_server() -> None:
    quiet = [Pace(300, 60, 30).idle() for _ in range(500)]
    assert 270 <= min(quiet) < 280
    assert 320 < max(quiet) <= 330
    waits = [0]
    load = Load(lambda: waits[0])
    assert load() == 1.0
    waits[0] = 1_000
    assert load() == 3.0
    assert min(Pace(300, 60, 30, load).idle() for _ in range(50)) >= 810
    waits[0] = 10**9
    assert load() == 10.0, "and is still heard of"
    waits[0] = 0
    for _ in range(50):
        load.note_lag(0.2)
    assert 2.9 < load() <= 3.0
    for _ in range(50):
        load.note_lag(0.0)
    assert load() < 1.01
