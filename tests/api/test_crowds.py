"""More than anybody should ask for at once: a clear error, or it waits and goes on. On both databases."""

import asyncio
import threading
from typing import Any

import httpx2
import sqlalchemy as sa

from skylift.core.lifecycle import DeploymentStatus
from skylift.core.query import Facts, matches, parse
from skylift.engine import deployments as deeds
from skylift.engine.checkin import recount as uneven
from skylift.store import members, tables
from skylift.store.db import Connection

from .conftest import Api
from .test_bad_input import refused

CROWD = 100


def copies(conn: Connection, deployment: str, count: int, status: DeploymentStatus) -> None:
    """The same deployment again and again, with its phases."""
    many = sa.select(sa.literal(0).label("n")).cte("many", recursive=True)
    many = many.union_all(sa.select(many.c.n + 1).where(many.c.n < count - 1))
    name = sa.literal("dep_copy") + sa.cast(many.c.n + 100_000, sa.Text)
    for table, key in ((tables.deployments, "id"), (tables.phases, "deployment_id")):
        made = {key: name, "status": sa.literal(status.value)}
        values = [made.get(column.name, column) for column in table.columns]
        rows = sa.select(*values).select_from(table.join(many, sa.true())).where(table.c[key] == deployment)
        conn.execute(sa.insert(table).from_select([column.name for column in table.columns], rows))


def test_ten_thousand_deployments_behind_it_make_no_poll_and_no_page_slower(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    api.publish("1.1.0", image)
    token = api.device("dev-1")
    deployment = api.deploy("1.1.0")
    assert api.check("dev-1", token).json()["deployment"] == deployment
    assert api.report("dev-1", token, deployment, "complete").status_code == 200
    api.tick()
    api.database.write(lambda conn: copies(conn, deployment, 10_000, DeploymentStatus.COMPLETE))
    looked = api.server.loop.lives.get()
    assert looked == ({}, [])
    page = api.get("/api/deployments", params={"limit": 100}).json()
    assert (len(page["items"]), bool(page["next"])) == (100, True)
    assert api.check("dev-1", token, "1.1.0").json()["update_available"] is False
    assert api.get("/metrics").status_code == 200
    api.device("dev-2")
    assert api.deploy("1.1.0", target_devices=["dev-2"])


def test_live_deployments_have_a_limit_and_the_way_back_has_none(
    api: Api, image: bytes, monkeypatch: Any
) -> None:
    api.hold_ceremony()
    api.publish("1.0.0", image)
    api.publish("1.1.0", image)
    token = api.device("dev-1")
    api.device("dev-2")
    api.check("dev-1", token)
    first = api.deploy("1.1.0", all_at_once=False, phases=[{"count": 2, "gate": "manual"}])
    api.check("dev-1", token)
    api.report("dev-1", token, first, "complete")
    monkeypatch.setattr(deeds, "MAX_LIVE", 3)
    api.database.write(lambda conn: copies(conn, first, 2, DeploymentStatus.PAUSED))
    body = {"firmware_version": "1.1.0", "target_devices": "all"}
    problem = refused(api.post("/api/deployments", body), 409, "deployments", "too_many_deployments")
    assert "at most 3;" in problem["detail"]
    assert api.get("/api/deployments").json()["items"][0]["id"] == "dep_copy100001"
    back = api.post(f"/api/deployments/{first}:rollback")
    assert (back.status_code, len(back.json()["deployments"])) == (200, 1), back.text


def test_a_thousand_live_deployments_are_considered_at_a_poll(api: Api, image: bytes) -> None:
    """As many as there may be: none wants this device, and all are asked."""
    api.hold_ceremony()
    api.publish("1.1.0", image)
    token = api.device("dev-1")
    deployment = api.deploy("1.1.0")
    api.database.write(lambda conn: copies(conn, deployment, deeds.MAX_LIVE - 1, DeploymentStatus.PAUSED))
    api.server.loop.lives.invalidate()
    assert len(api.server.loop.lives.get()[1]) == deeds.MAX_LIVE
    assert api.check("dev-1", token, "1.1.0").json()["update_available"] is False
    with api.database.read() as conn:
        seen = conn.execute(sa.select(tables.devices.c.current_version)).scalar_one()
    assert seen == "1.1.0"


def test_a_crowd_at_the_door_is_answered_and_nothing_of_it_is_lost(api: Api, image: bytes) -> None:
    """A whole tenant's devices at the same moment: checks first, then every report twice."""
    api.hold_ceremony()
    api.publish("1.1.0", image)
    tokens = {f"dev-{n}": api.device(f"dev-{n}") for n in range(CROWD)}
    deployment = api.deploy("1.1.0")

    async def all_at_once() -> list[int]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=api.client.base_url, limits=limits, timeout=120) as client:

            async def check(name: str, token: str) -> int:
                query = {"device_id": name, "device_type": "sensor-v2", "current_version": "1.0.0"}
                answer = await client.get("/api/updates/check", params=query, headers=bearer(token))
                assert answer.json()["deployment"] == deployment
                return answer.status_code

            async def report(name: str, token: str, state: str) -> int:
                body = {"device_id": name, "deployment": deployment, "state": state}
                answer = await client.post("/api/updates/status", json=body, headers=bearer(token))
                return answer.status_code

            codes = await asyncio.gather(*(check(*device) for device in tokens.items()))
            for state in ("downloading", "complete"):
                twice = [report(*device, state) for device in tokens.items() for _ in range(2)]
                codes += await asyncio.gather(*twice)
            return codes

    assert set(asyncio.run(all_at_once())) == {200}
    api.tick()
    found = api.get(f"/api/deployments/{deployment}").json()
    assert (found["status"], found["totals"]["complete"]) == ("complete", CROWD)
    with api.database.read() as conn:
        assert uneven(conn, deployment) == {}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_pattern_that_is_all_stars_ends(api: Api) -> None:
    """Matching it by trying everything would outlast us all; in SQL, and in Python."""
    name = "a" * 64
    api.device(name)
    pattern = "*a" * 24 + "*b"
    query = f'device_id ~ "{pattern}"'
    made = api.post("/api/groups", {"name": "stars", "query": query})
    assert made.status_code == 201, made.text
    assert api.get("/api/groups/stars").json()["size"] == 0
    assert not matches(parse(query), Facts(name, "sensor-v2", None, None, {}))


def test_a_question_that_takes_too_long_is_taken_back_and_said(api: Api, monkeypatch: Any) -> None:
    """On both databases: by the API, by the writer's side of it, and nobody else is held up."""
    count = members.count

    def endless(conn: Connection, scope: Any) -> int:
        n = sa.select(sa.literal(1).label("n")).cte("n", recursive=True)
        n = n.union_all(sa.select(n.c.n + 1).where(n.c.n < 10**9))
        conn.execute(sa.select(sa.func.count()).select_from(n))
        return count(conn, scope)

    api.device("dev-1")
    query = {"name": "greedy", "query": 'device_id ~ "*"'}
    assert api.post("/api/groups", {**query, "name": "before"}).status_code == 201
    monkeypatch.setattr(members, "count", endless)
    monkeypatch.setattr("skylift.store.db.QUESTION_S", 0.3)
    for answer in (api.get("/api/groups/before"), api.post("/api/groups", query)):
        problem = refused(answer, 422, "query", "too_slow")
        assert "takes longer than 0.3 seconds over this fleet" in problem["detail"]
        assert problem["rule"] == "answers within 0.3 seconds"
    monkeypatch.undo()  # what ends is given its usual time
    assert {group["name"] for group in api.get("/api/groups").json()["items"]} == {"before"}
    assert api.get("/api/groups/before").json()["size"] == 1, "the connection is as good as new"
    assert api.post("/api/groups", query).status_code == 201
    assert api.get("/api/groups/greedy").json()["size"] == 1


def test_a_group_is_counted_where_nobody_waits_for_it(api: Api, monkeypatch: Any) -> None:
    """Never in the one writer, behind which every report of the fleet would queue."""
    counted, count = [], members.count

    def watched(conn: Connection, scope: Any) -> int:
        counted.append(threading.current_thread().name)
        return count(conn, scope)

    monkeypatch.setattr(members, "count", watched)
    api.device("dev-1")
    made = api.post("/api/groups", {"name": "all", "query": "not device_type = other"})
    assert (made.status_code, made.json()["size"]) == (201, 1)
    assert counted
    assert "skylift-writer" not in counted
