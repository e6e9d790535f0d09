"""The transparency log as the server keeps it: what is in it, when, and what is proved of it."""

import json
from typing import Any

import pytest

from skylift.core import merkle
from skylift.engine import director, log, signing
from skylift.store import devices, facts, trustfiles
from skylift.store import log as stored
from skylift.store.db import Connection
from skylift.trust.files import Targets, read
from skylift.trust.log import audit, log_keys, verified

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
