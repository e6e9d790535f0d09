"""Strings that databases, terminals and encoders choke on: refused or kept, never an inner error."""

import json
from typing import Any

import pytest

from .conftest import Api
from .test_bad_input import refused

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
NASTY = {"half a character": "\ud800", "a null": "a\0b", "very long": "x" * 100_000, "nothing": ""}


def send(api: Api, method: str, path: str, body: Any) -> Any:
    return api.call(
        method, path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )


@pytest.mark.parametrize("nasty", NASTY.values(), ids=NASTY.keys())
def test_no_string_in_a_body_is_an_inner_error(api: Api, nasty: str) -> None:
    api.hold_ceremony()
    token = api.device("dev-1")
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/api/claims", {"device_type": "t"}),
        (
            "POST",
            "/api/devices",
            {"device_id": "d", "device_type": "t", "token": "t" * 20, "labels": {"a": "b"}},
        ),
        ("PATCH", "/api/devices/dev-1", {"labels": {"a": "b"}}),
        ("POST", "/api/groups", {"name": "g", "query": "device_id = x"}),
        ("POST", "/api/groups", {"name": "g", "devices": ["dev-1"]}),
        ("POST", "/api/tokens", {"name": "n", "role": "viewer"}),
        ("POST", "/api/releases", {"product": "sensor", "version": "1", "notes": "n", "kind": "image"}),
        ("POST", "/api/deployments", {"firmware_version": "1", "target_devices": ["a"]}),
        (
            "POST",
            "/api/deployments",
            {"firmware_version": "1", "target_devices": "all", "window": {"a": "b"}},
        ),
        ("POST", "/api/deployments", {"release": "1", "target_groups": ["a"], "phases": [{"name": "n"}]}),
        ("POST", "/api/deployments/dep_1:pause", {"reason": "r"}),
        ("POST", "/api/deployments/dep_1:retry", {"devices": ["a"]}),
        ("PUT", "/api/groups/g/devices", {"add": ["a"]}),
        ("POST", "/api/enroll", {"claim": "c", "device_id": "d", "device_type": "t", "token": "t" * 20}),
    ]
    for method, path, body in bodies:
        for spoiled in spoil(body, nasty):
            answer = send(api, method, path, spoiled)
            assert answer.status_code < 500, (path, spoiled, answer.text)
            json.loads(answer.content)
    report = {
        "device_id": "dev-1",
        "deployment": "dep_1",
        "state": "complete",
        "error_message": "e",
        "version": "1",
    }
    for spoiled in spoil(report, nasty):
        answer = api.call(
            "POST",
            "/api/updates/status",
            content=json.dumps(spoiled),
            token=token,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code in (404, 403, 409, 422), (spoiled, answer.text)


def spoil(value: Any, nasty: str) -> list[Any]:
    """The same with one string replaced, once for each string and each name in it."""
    if isinstance(value, str):
        return [nasty]
    if isinstance(value, list):
        return [
            [*value[:n], bad, *value[n + 1 :]] for n, one in enumerate(value) for bad in spoil(one, nasty)
        ]
    if isinstance(value, dict):
        changed = [{**value, name: bad} for name, one in value.items() for bad in spoil(one, nasty)]
        return [*changed, {**value, nasty: "x"}]
    return []


@pytest.mark.parametrize("nasty", ["%00", "%ed%a0%80", "%2e%2e%2f", "a" * 5000])
def test_no_string_in_a_path_or_query_is_an_inner_error(api: Api, nasty: str) -> None:
    token = api.device("dev-1")
    for path in (
        "/api/devices/{}",
        "/api/devices/{}/timeline",
        "/api/groups/{}",
        "/api/deployments/{}",
        "/api/deployments/{}/events",
        "/api/releases/{}",
        "/api/blobs/{}",
        "/image/{}",
        "/director/{}/x.json",
        "/director/dev-1/{}",
        "/api/trust/pending/{}",
        "/api/devices?cursor={}",
        "/api/devices?group={}",
        "/api/devices?device_type={}",
        "/api/devices?status={}",
        "/api/devices?current_version={}",
        "/api/groups?cursor={}",
        "/api/releases?cursor={}",
        "/api/releases?product={}",
        "/api/deployments?cursor={}",
        "/api/deployments?status={}",
        "/api/artifacts?release={}",
        "/{}",
        "/api/updates/check?device_id={}&current_version=1&device_type=t",
        "/api/updates/check?device_id=dev-1&current_version={}&device_type=sensor-v2",
    ):
        for held in (None, token):
            answer = api.get(path.format(nasty), token=held)
            assert answer.status_code < 500, (path, nasty, answer.text)


def test_a_null_in_an_address_is_refused_by_its_name(api: Api) -> None:
    """Also by who may act on one product only: whose it is, the server asks its database first."""
    body = {"name": "ci", "role": "viewer", "products": {"sensor": "operator"}}
    token = api.post("/api/tokens", body).json()["token"]
    for method, path, field in (
        ("POST", "/api/artifacts?release=%00", "release"),
        ("POST", "/api/artifacts?release=rel_1&%00=", "\0"),
        ("DELETE", "/api/releases/%00", "path"),
        ("POST", "/api/releases/rel_%00:seal", "path"),
        ("POST", "/api/releases/%00/sbom", "path"),
        ("POST", "/api/deployments/%00:pause", "path"),
        ("PUT", "/api/users/%00/products/sensor", "path"),
        ("GET", "/ui/releases/%00", "path"),
        ("GET", "/ui/deployments/dep_%00/live", "path"),
    ):
        for held in (None, token):
            problem = refused(api.call(method, path, token=held), 422, field)
            assert problem["rule"] == "has no null in it"
    sent = api.call("POST", "/ui/sign-in", content="name=a%00&password=b", headers=FORM)
    assert sent.status_code == 422, sent.text


def test_deep_bodies_are_refused(api: Api) -> None:
    for path in ("/api/deployments", "/api/updates/status", "/api/groups", "/api/trust/ceremony"):
        for deep in (b"[" * 200_000, b'{"a":' * 100_000, b'{"window":' * 5000 + b"1" + b"}" * 5000):
            answer = api.call("POST", path, content=deep, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500, (path, deep[:20], answer.text)
            assert {"field", "rule"} <= answer.json().keys(), (path, deep[:20], answer.text)
