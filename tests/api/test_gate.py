"""Health, the statistical gate and targeted blame over HTTP, on both databases."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from skylift.store import tables

from .conftest import Api, Furnished
from .test_bad_input import refused


@pytest.fixture
def fleet(furnished: Furnished, image: bytes) -> Api:
    """A ceremony, 1.0.0 and 1.1.0, two dozen devices of which every third is of hardware rev-b."""

    def furnish(api: Api) -> None:
        api.hold_ceremony()
        api.publish("1.0.0", image)
        api.publish("1.1.0", image)
        for number in range(24):
            name = f"d{number:02}"
            body = {
                "device_id": name,
                "device_type": "sensor-v2",
                "token": token(name),
                "labels": {"hw": "rev-b" if number % 3 == 0 else "rev-a"},
            }
            assert api.post("/api/devices", body).status_code == 201

    return furnished("fleet", furnish)


def token(name: str) -> str:
    return f"dev_{name}-0123456789abcdef"


def update(api: Api, name: str, deployment: str) -> None:
    """One device's run: rev-b falls back."""
    answer = api.check(name, token(name)).json()
    assert answer["deployment"] == deployment
    if int(name[1:]) % 3 == 0:
        said = api.report(name, token(name), deployment, "rolled_back", reason="boot_failed")
    else:
        said = api.report(name, token(name), deployment, "complete")
    assert said.status_code == 200, said.text


def stopped(api: Api, **config: Any) -> str:
    deployment = api.deploy("1.1.0", failure_threshold_percent=30, **config)
    for number in range(24):
        if api.get(f"/api/deployments/{deployment}").json()["status"] != "running":
            break
        update(api, f"d{number:02}", deployment)
    assert api.get(f"/api/deployments/{deployment}").json()["paused_by"] == "failure_threshold"
    return deployment


def test_the_gate_is_shown_where_it_stands(fleet: Api) -> None:
    bounds = [{"name": "temperature", "max": 80.0}]
    deployment = fleet.deploy("1.1.0", gate="statistical", false_alarm_rate=0.01, health_metrics=bounds)
    update(fleet, "d01", deployment)
    found = fleet.get(f"/api/deployments/{deployment}").json()
    assert found["gate"] == "statistical"
    state = found["gate_state"]
    assert 0 < state["evidence"] < 1
    assert state["stops_at"] == pytest.approx(100)
    assert state["health_metrics"] == bounds
    assert fleet.get("/api/deployments").json()["items"][0]["gate"] == "statistical"


def test_the_statistical_gate_pauses_over_http_with_its_sentence(fleet: Api) -> None:
    deployment = stopped(fleet, gate="statistical", failure_min_devices=4)
    found = fleet.get(f"/api/deployments/{deployment}").json()
    assert "1 % expected: by chance at most once in" in found["status_reason"]
    assert found["totals"]["rolled_back"] < 4


def test_explain_leads_to_going_on_without_the_cohort(fleet: Api) -> None:
    deployment = stopped(fleet)
    found = fleet.get(f"/api/deployments/{deployment}/explain").json()
    assert found["suspects"][0]["cohort"] == "label.hw=rev-b"
    go_on, roll_back = found["offers"]
    answer = fleet.post(go_on["post"], go_on["body"])
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["without"] == ["label.hw=rev-b"]
    assert shown["left_out"] == found["suspects"][0]["decided"]
    assert shown["totals"]["rolled_back"] == 0
    done = fleet.post(roll_back["post"], roll_back["body"])
    assert done.status_code == 200
    assert done.json()["deployments"] == []  # none of them was updated


def test_a_retry_and_a_resume_repeated_under_their_keys_are_done_once(fleet: Api) -> None:
    deployment = stopped(fleet)
    failed = fleet.get(f"/api/deployments/{deployment}").json()["totals"]["rolled_back"]
    path, body = f"/api/deployments/{deployment}", {"without": ["label.hw=rev-b"]}
    for verb, asked in (("retry", {"devices": ["d00", "d04"]}), ("retry", {}), ("resume", body)):
        key = {"Idempotency-Key": f"{verb} {len(asked)}"}
        said = [fleet.call("POST", f"{path}:{verb}", json=asked, headers=key) for _ in range(2)]
        assert [answer.status_code for answer in said] == [200, 200], said[0].text
        assert said[0].json() == said[1].json()
    assert failed > 0
    assert fleet.post(f"{path}:retry", {}).json()["retried"] == 0, "all of them had their second attempt"
    shown = fleet.get(path).json()
    assert (shown["status"], shown["without"]) == ("running", ["label.hw=rev-b"])


def test_roll_back_only_a_cohort(fleet: Api) -> None:
    deployment = fleet.deploy("1.1.0")
    for name in ("d01", "d02", "d04"):
        update(fleet, name, deployment)
    fleet.clock.forward(seconds=1)
    answer = fleet.post(f"/api/deployments/{deployment}:rollback", {"only": 'device_id in ("d01", "d04")'})
    assert answer.status_code == 200, answer.text
    (made,) = answer.json()["deployments"]
    assert made["devices"] == 2
    assert fleet.get(f"/api/deployments/{deployment}").json()["status"] == "running"


@pytest.mark.parametrize(
    ("verb", "body", "field", "code"),
    [
        ("resume", {"without": ["label.hw="]}, "query", "bad_query"),
        ("resume", {"without": ["group=nobody"]}, "without", "unknown_group"),
        ("resume", {"without": [""]}, None, None),
        ("resume", {"without": ["a=b"] * 21}, None, None),
        ("resume", {"expected_failure_percent": 0}, None, None),
        ("rollback", {"only": "hw"}, "query", "bad_query"),
        ("rollback", {"only": "x" * 2001}, None, None),
        ("rollback", {"onyl": "label.hw=rev-b"}, None, None),
    ],
)
def test_a_wrong_cohort_names_what_is_wrong(
    fleet: Api, verb: str, body: dict[str, Any], field: str | None, code: str | None
) -> None:
    deployment = stopped(fleet)
    before = fleet.get(f"/api/deployments/{deployment}").json()
    refused(fleet.post(f"/api/deployments/{deployment}:{verb}", body), 422, field, code)
    assert fleet.get(f"/api/deployments/{deployment}").json() == before


def test_explain_of_nothing_is_not_found(api: Api) -> None:
    refused(api.get("/api/deployments/dep_nothing/explain"), 404, None, "unknown_deployment")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"gate": "luck"}, "gate"),
        ({"false_alarm_rate": 0}, "false_alarm_rate"),
        ({"expected_failure_percent": 99}, "expected_failure_percent"),
        ({"health_metrics": [{"name": "t"}]}, "health_metrics[0]"),
        ({"health_metrics": [{"name": "../t", "max": 1}]}, "health_metrics[0].name"),
        ({"health_metrics": [{"name": "t", "max": 1, "avg": 3}]}, "health_metrics[0].avg"),
        ({"health_metrics": [{"name": "t", "max": 1}]}, "health_metrics"),  # the gate that looks is missing
    ],
)
def test_a_wrong_gate_names_field_value_and_rule(fleet: Api, given: dict[str, Any], field: str) -> None:
    body = {"firmware_version": "1.1.0", "target_devices": "all", **given}
    refused(fleet.post("/api/deployments", body), 422, field)


# --- health ----------------------------------------------------------------------------------------------


def said(api: Api, name: str) -> Any:
    """What is kept of the device's health."""
    api.server.seen.flush()
    question = (
        sa.select(tables.health)
        .join(tables.devices, tables.devices.c.pk == tables.health.c.device_pk)
        .where(tables.devices.c.device_id == name)
    )
    with api.database.read() as conn:
        return conn.execute(question).first()


def test_a_device_says_how_it_is_any_time(fleet: Api) -> None:
    body = {"healthy": True, "metrics": {"temperature": 41.5}}
    answer = fleet.post("/api/devices/d01/health", body, token=token("d01"))
    assert answer.status_code == 200, answer.text
    assert 270 <= answer.json()["retry_after"] <= 330
    kept = said(fleet, "d01")
    assert (kept.healthy, kept.metrics) == (True, {"temperature": 41.5})
    shown = fleet.get("/api/devices/d01").json()["health"]
    assert (shown["healthy"], shown["metrics"]) == (True, {"temperature": 41.5})
    assert fleet.get("/api/devices/d02").json()["health"] is None
    fleet.clock.forward(seconds=60)
    assert fleet.post("/api/devices/d01/health", {"healthy": False}, token=token("d01")).status_code == 200
    kept = said(fleet, "d01")  # only the latest word counts
    assert (kept.healthy, kept.metrics) == (False, {})
    assert fleet.get("/api/devices/d01").json()["last_seen"] is not None


def test_a_status_report_carries_health_too(fleet: Api) -> None:
    deployment = fleet.deploy("1.1.0")
    assert fleet.check("d01", token("d01")).json()["deployment"] == deployment
    answer = fleet.report("d01", token("d01"), deployment, "complete", healthy=False, metrics={"load": 3})
    assert answer.status_code == 200, answer.text
    assert (said(fleet, "d01").healthy, said(fleet, "d01").metrics) == (False, {"load": 3.0})
    assert said(fleet, "d02") is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"metrics": {"t": NaN}}',
        b'{"metrics": {"t": Infinity}}',
        b'{"metrics": {"t": 1e999}}',
        b'{"metrics": {"t": ' + b"9" * 400 + b"}}",
        b'{"metrics": {"t": "hot"}}',
        b'{"metrics": {"../t": 1}}',
        b'{"metrics": {"\\u0000": 1}}',
        b'{"metrics": {"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}}',
        b'{"healthy": "maybe"}',
        b'{"mood": "fine"}',
        b"[]",
        b"{",
    ],
)
def test_health_that_is_none_is_refused_and_nothing_is_kept(fleet: Api, body: bytes) -> None:
    answer = fleet.call(
        "POST",
        "/api/devices/d01/health",
        token=token("d01"),
        content=body,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said(fleet, "d01") is None


def test_only_the_device_itself_says_how_it_is(fleet: Api) -> None:
    path, body = "/api/devices/d01/health", {"healthy": False}
    refused(fleet.post(path, body, token=token("d02")), 403, "device_id", "foreign_token")
    refused(fleet.post(path, body, token="dev_nobody"), 401, None)
    refused(fleet.post(path, body, token=""), 401, None, "no_token")
    refused(fleet.post(path, body), 401, None)  # an operator is no device
    assert said(fleet, "d01") is None


def test_the_server_watches_updated_devices_beside_a_control_group(fleet: Api) -> None:
    """The chore is part of the running server: a silent half of the updated devices shows in the numbers."""
    for number in range(24):
        fleet.check(f"d{number:02}", token(f"d{number:02}"))
    fleet.server.seen.flush()
    phases = [{"percent": 25, "min_minutes": 900}, {"percent": 100}]
    deployment = fleet.deploy("1.1.0", gate="statistical", phases=phases, all_at_once=False)
    updated = [
        name
        for name in (f"d{number:02}" for number in range(24))
        if fleet.check(name, token(name)).json().get("deployment") == deployment
    ]
    assert len(updated) == 6
    for name in updated:
        assert fleet.report(name, token(name), deployment, "complete").status_code == 200
    fleet.clock.forward(seconds=20)
    fleet.tick()  # sets are begun
    fleet.clock.forward(seconds=400)
    for number in range(24):
        if f"d{number:02}" not in updated[:3]:
            fleet.check(f"d{number:02}", token(f"d{number:02}"))
    fleet.server.seen.flush()
    fleet.clock.now += timedelta(seconds=600)
    fleet.tick()  # and judged
    state = fleet.get(f"/api/deployments/{deployment}").json()["gate_state"]
    assert (state["sets_updated"], state["sets_control"]) == (3, 0)


def test_only_devices_that_are_compared_are_asked_how_they_are(fleet: Api) -> None:
    """A million devices that say so every ten minutes would be 1,700 requests a second for nobody."""
    names = [f"d{number:02}" for number in range(24)]

    def asked() -> set[str]:
        fleet.server.loop.lives.invalidate()
        answers = {name: fleet.check(name, token(name)).json() for name in names}
        return {name for name, answer in answers.items() if answer.get("report_health")}

    assert asked() == set()
    fleet.server.seen.flush()
    phases = [{"percent": 25, "min_minutes": 900}, {"percent": 100}]
    deployment = fleet.deploy("1.1.0", gate="statistical", phases=phases, all_at_once=False)
    offers = {name: fleet.check(name, token(name)).json() for name in names}
    updated = {name for name in names if offers[name].get("deployment") == deployment}
    for name in updated:
        assert fleet.report(name, token(name), deployment, "complete").status_code == 200
    assert asked() == set()
    fleet.clock.forward(seconds=20)
    fleet.server.seen.flush()
    fleet.tick()  # sets are begun
    compared = asked()
    with fleet.server.database.read() as conn:
        of = sa.select(tables.devices.c.device_id).join(tables.matches)
        assert compared == set(conn.execute(of).scalars()) >= updated
    same = fleet.get(
        "/api/updates/check",
        params={"device_id": "d00", "current_version": "1.0.0", "device_type": "sensor-v2"},
        token=token("d00"),
        headers={"If-None-Match": '"nothing"'},
    )
    assert same.status_code == (200 if "d00" in compared else 304)
    fleet.clock.now += timedelta(seconds=1000)
    fleet.tick()  # and judged
    assert asked() == set()
