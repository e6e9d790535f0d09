"""The transparency log as the server keeps it: what is in it, when, and what is proved of it."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import skylift
from skylift.core import merkle
from skylift.engine import director, log, sample, signing
from skylift.store import devices, facts, trustfiles
from skylift.store import log as stored
from skylift.store.db import Connection
from skylift.trust.files import Targets, read
from skylift.trust.log import audit, log_keys, order_entry, verified

from .conftest import Api
from .test_bad_input import refused

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def lines(api: Api) -> list[str]:
    found, at = [], 0
    while True:
        page = api.get("/api/log/entries", params={"start": at, "limit": 3}, token="").json()
        found += [one["entry"] for one in page["items"]]
        if page["next"] is None:
            return found
        at = page["next"]


def said(api: Api) -> list[tuple[Any, ...]]:
    short = []
    for line in map(json.loads, lines(api)):
        if line["entry"] == "file":
            short.append((line["repo"], line["role"], line["version"]))
        else:
            short.append((line["deployment"], line["path"]))
    return short


@pytest.fixture
def offered(api: Api, image: bytes) -> str:
    """A deployment that was offered to two devices."""
    api.hold_ceremony()
    api.publish("1.1.0", image)
    tokens = {name: api.device(name) for name in ("dev-1", "dev-2")}
    made = api.deploy("1.1.0")
    for name, token in tokens.items():
        assert api.check(name, token).json()["deployment"] == made
    return made


def test_what_is_published_and_ordered_is_in_the_log_and_proved(api: Api, offered: str) -> None:
    found = said(api)
    with api.database.read() as conn:
        published = [(file.repo, file.role, file.version) for file in trustfiles.every(conn)]
    assert sorted(entry for entry in found if len(entry) == 3) == sorted(published)
    orders = [entry for entry in found if len(entry) == 2]
    assert orders == [(offered, "sensor/1.1.0/sensor-v2")]  # once, for both devices
    root = (api.desk.path / "public" / "director.root.json").read_bytes()
    answer = api.get("/api/log/checkpoint", params={"since": 3}, token="").json()
    checkpoint = verified(answer, log_keys(root))
    everything = [line.encode() for line in lines(api)]
    assert audit(everything, checkpoint, None) == checkpoint.size == len(found)
    for index, entry in enumerate(everything):
        leaf = merkle.leaf_hash(entry)
        asked = {"leaf": leaf.hex(), "size": checkpoint.size}
        told = api.get("/api/log/proof", params=asked, token="").json()
        steps = [bytes.fromhex(step) for step in told["proof"]]
        assert told["index"] == index
        assert merkle.includes(leaf, index, checkpoint.size, steps, bytes.fromhex(checkpoint.root))
    asked = {"first": 2, "second": checkpoint.size}
    steps = [bytes.fromhex(step) for step in api.get("/api/log/proof", params=asked).json()["proof"]]
    with api.database.read() as conn:
        first = bytes.fromhex(log.root_at(conn, 2) or "")
    assert merkle.extends(2, first, checkpoint.size, bytes.fromhex(checkpoint.root), steps)


def test_a_publication_that_fails_leaves_no_entry(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    before = said(api)

    def fails(conn: Connection) -> None:
        signing.publish_snapshot(conn, api.server.front._context.online, api.clock())  # type: ignore[attr-defined]
        assert stored.size(conn) == len(before) + 2
        raise RuntimeError("the power fails")

    with pytest.raises(RuntimeError):
        api.database.write(fails)
    assert said(api) == before


def test_what_was_there_before_the_log_is_taken_in_once(api: Api, offered: str) -> None:
    before = sorted(said(api))

    def forget(conn: Connection) -> None:
        conn.exec_driver_sql("DELETE FROM log_entries")
        conn.exec_driver_sql("DELETE FROM log_nodes")
        facts.put(conn, log.CAUGHT_UP, False)

    api.database.write(forget)
    assert said(api) == []
    for _ in range(2):
        api.database.write(lambda conn: log.catch_up(conn, api.clock()))
        assert sorted(said(api)) == before


@ON_SQLITE
def test_an_order_that_is_signed_again_is_no_new_entry(api: Api, offered: str) -> None:
    before = said(api)
    api.clock.forward(days=2)
    with api.database.read() as conn:
        device = devices.find_device(conn, "dev-1")
    assert device is not None
    api.database.write(lambda conn: director.renew(conn, device.pk, api.clock()))
    assert said(api) == before


@ON_SQLITE
def test_the_wrong_question_is_said_to_be_wrong(api: Api) -> None:
    def ask(**asked: Any) -> Any:
        return api.get("/api/log/proof", params=asked, token="")

    refused(ask(leaf="0" * 64, size=1), 422, "size")  # it is empty
    api.hold_ceremony()
    size = len(lines(api))
    refused(ask(leaf="0" * 64, size=size), 404, "leaf", "unknown_entry")
    refused(ask(leaf="0" * 64, size=size + 1), 422, "size")
    refused(ask(first=size, second=1), 422, "first")
    refused(ask(leaf="0" * 64), 422, "leaf")
    refused(ask(leaf="0" * 64, size=size, first=1, second=2), 422, "leaf")
    refused(ask(leaf="x", size=size), 422, "leaf")
    refused(api.get("/api/log/checkpoint", params={"since": -1}), 422, "since")


def test_a_checkpoint_of_another_log_is_seen_when_a_device_reports_it(api: Api, offered: str) -> None:
    size = len(lines(api))
    with api.database.read() as conn:
        mine = log.root_at(conn, size - 1)
    tokens = {name: f"dev_{name}-0123456789abcdef" for name in ("dev-1", "dev-2")}
    seen = {"dev-1": {"size": size - 1, "root": mine}, "dev-2": {"size": size + 9, "root": "0" * 64}}
    for name, token in tokens.items():
        assert api.report(name, token, offered, "failed", log=seen[name]).status_code == 200
    found = api.get("/api/log/witnessed").json()["items"]
    assert [(one["device_id"], one["agrees"], one["reports"]) for one in found] == [
        ("dev-2", False, 1),
        ("dev-1", True, 1),
    ]
    told = {
        name: [
            one["data"]["code"]
            for one in api.get(f"/api/devices/{name}/timeline").json()["items"]
            if one["kind"] == "report_refused"
        ]
        for name in tokens
    }
    assert told == {"dev-1": [], "dev-2": ["split_view"]}


@ON_SQLITE
def test_an_order_names_what_the_role_in_the_log_vouches_for(api: Api, offered: str) -> None:
    entries = [json.loads(line) for line in lines(api)]
    (order,) = [one for one in entries if one["entry"] == "order"]
    (role,) = [one for one in entries if one.get("role") == "sensor"]
    body = api.get(f"/image/{role['version']}.sensor.json").content
    image = read("sensor", body, Targets).signed.targets[order["path"]]
    assert (image.length, image.hashes["sha256"]) == (order["length"], order["sha256"])


# --- no order leaves the server unlogged ----------------------------------------------------------------


def test_orders_are_written_by_the_director_alone() -> None:
    """Whatever wants a device to install something goes through `director.assign`, which logs it: nothing
    else in the source writes the table of orders, and `assign` has one caller beside the director."""
    written, assigned = set(), set()
    source = Path(skylift.__file__).parent
    for path in source.rglob("*.py"):
        file = path.relative_to(source).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name | ast.Attribute):
                name = node.attr if isinstance(node, ast.Attribute) else node.id
                if name in ("director_orders", "set_order", "OrderRow"):
                    written.add(file)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("director.assign", "assign"):
                assigned.add(file)
    written -= {"store/tables/trust.py", "store/trustfiles.py"}
    assert written == {"engine/director.py"}
    assert assigned - {"testkit/trustlab.py"} == {"engine/director.py", "engine/checkin.py"}


def unlogged(api: Api) -> list[dict[str, Any]]:
    """Orders that stand and are not in the log."""
    have = set(lines(api))
    with api.database.read() as conn:
        standing = [order for order in trustfiles.distinct_orders(conn) if order]
    names = ("deployment", "path", "length", "sha256", "mandatory")
    assert standing
    return [o for o in standing if order_entry(*(o[n] for n in names)).decode() not in have]


def test_every_way_to_an_order_is_in_the_log(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        api.publish(version, image + version.encode())
    settings = json.dumps({"interval": 5}).encode()
    api.publish("c-1", settings, kind="config")
    tokens = {f"dev-{number}": api.device(f"dev-{number}") for number in range(1, 6)}
    api.post("/api/groups", {"name": "few", "devices": ["dev-2"]})
    runs = dict.fromkeys(tokens, "1.0.0")

    def checks(name: str, **query: str) -> Any:
        return api.check(name, tokens[name], runs[name], **query).json()

    def course(name: str, deployment: str, last: str, **more: Any) -> None:
        for state in ("downloading", "installing", "validating", last):
            assert api.report(name, tokens[name], deployment, state, **more).status_code == 200

    # To all, at once; with a nonce, as small devices ask; one fails, and is asked again.
    first = api.deploy("1.1.0", failure_threshold_percent=100)
    for name in tokens:
        assert checks(name, nonce="00ff00ff00ff00ff")["deployment"] == first
    assert unlogged(api) == []
    for name in tokens:
        course(name, first, "failed" if name == "dev-5" else "complete")
        runs[name] = runs[name] if name == "dev-5" else "1.1.0"
    assert api.post(f"/api/deployments/{first}:retry").json()["retried"] == 1
    assert unlogged(api) == []
    # One that comes before another, mandatory, to a group; its order is renewed past half of its life.
    second = api.deploy("1.2.0", target_devices=["dev-1", "dev-2"])
    assert checks("dev-2")["deployment"] == second
    urgent = api.deploy("1.3.0", target_devices=[], target_groups=["few"], priority=9, mandatory=True)
    assert checks("dev-2")["deployment"] == urgent
    api.clock.forward(days=2)
    for name in ("timestamp.json", "order.json"):
        assert api.get(f"/director/dev-2/{name}", token=tokens["dev-2"]).status_code == 200
    assert unlogged(api) == []
    # A configuration, and the way back of a whole deployment.
    api.post(f"/api/deployments/{urgent}:abort")
    api.post(f"/api/deployments/{second}:abort")
    settings_to = api.deploy("c-1", target_devices=["dev-3"])
    assert checks("dev-3")["deployment"] == settings_to
    assert unlogged(api) == []
    course("dev-3", settings_to, "complete")
    api.publish("1.0.0", image + b"1.0.0")
    back = api.post(f"/api/deployments/{first}:rollback").json()["deployments"]
    api.tick()
    assert checks("dev-4")["deployment"] in [one["id"] for one in back]
    assert unlogged(api) == []
    # The sample fleet, whose devices nobody asks for.
    api.database.write(lambda conn: sample.switch_on(conn, "sensor-v2", "test", api.clock()))
    many = api.deploy("1.3.0", target_devices=["sample-00", "sample-01"])
    api.tick()
    orders = [entry for entry in said(api) if len(entry) == 2]
    assert many in {entry[0] for entry in orders}
    assert unlogged(api) == []
    assert [entry[0] for entry in orders] == [first, second, urgent, settings_to, back[0]["id"], many]
