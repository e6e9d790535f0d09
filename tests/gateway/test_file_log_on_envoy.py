"""Kong's file-log on a real Envoy: which requests are told where, and what is told of them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends import Echo, serving
from gateway.door import Door
from skylift.gateway.errors import Refused
from skylift.gateway.loading import loads
from skylift.gateway.match import decide
from skylift.gateway.read import read_documents
from skylift.gateway.request import parse

CONFIG = """
services:
  - name: users
    url: http://@backend/base
    routes:
      - name: a
        paths: [/a]
        plugins: [{name: file-log, config: {path: PLACE/a.log}}]
      - {name: it's, paths: [/b], plugins: [{name: key-auth}]}
consumers:
  - username: ada
    keyauth_credentials: [{key: k1}]
    plugins: [{name: file-log, config: {path: PLACE/ada.log}}]
  - {username: bob, keyauth_credentials: [{key: k2}]}
plugins: [{name: file-log, config: {path: PLACE/all.log, custom_fields_by_lua: {}}}]
"""


@pytest.fixture
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


def lines(file: Path, wanted: int) -> list[dict[str, Any]]:
    """What a log says, once it says so much; Envoy writes it a moment later."""
    until = time.monotonic() + 60
    while (text := file.read_text() if file.exists() else "").count("\n") < wanted:
        assert time.monotonic() < until, text
        time.sleep(0.05)
    return [json.loads(line) for line in text.splitlines()]


def paths(found: list[dict[str, Any]]) -> list[str]:
    return [line["request"]["uri"] for line in found]


def test_a_request_is_told_in_the_log_that_its_route_and_consumer_have(
    door: Door, backend: Echo, tmp_path: Path
) -> None:
    door.open(CONFIG.replace("PLACE", str(tmp_path)), {"backend": backend}, "kong.yaml")
    assert door.ask("/a/1?x=1", "POST", "four", User_Agent="me/1").status == 200
    assert door.ask("/b/1", apikey="k1").status == 200
    assert door.ask("/b/2", apikey="k2").status == 200
    assert door.ask("/b/3").status == 401
    assert door.ask("/nowhere").status == 404
    everything = lines(tmp_path / "all.log", 3)
    assert paths(everything) == ["/b/2", "/b/3", "/nowhere"]
    assert [line["response"]["status"] for line in everything] == [200, 401, 404]
    assert everything[0]["consumer"]["username"] == "bob"
    assert everything[2]["request"]["url"] == f"http://127.0.0.1:{door.port}/nowhere"
    assert paths(lines(tmp_path / "ada.log", 1)) == ["/b/1"]
    (line,) = lines(tmp_path / "a.log", 1)
    assert (line["route"], line["service"]) == ({"name": "a"}, {"name": "users"})
    assert line["request"]["method"] == "POST"
    assert line["request"]["size"] == 4
    assert line["request"]["url"] == f"http://127.0.0.1:{door.port}/a/1?x=1"
    assert line["request"]["headers"]["user-agent"] == "me/1"
    assert line["upstream_uri"] == "/base/1?x=1"
    assert line["client_ip"] == "127.0.0.1"
    assert abs(int(line["started_at"]) / 1000 - time.time()) < 3600
    assert line["latencies"]["request"] >= line["latencies"]["proxy"] >= 0


def test_the_reference_tells_of_a_refused_request_too(tmp_path: Path) -> None:
    text = CONFIG.replace("PLACE", str(tmp_path)).replace("@backend", "s")
    gateway = read_documents(loads(text, "kong.yaml"))
    found = decide(gateway, parse("GET /b"))
    assert found.reply is not None
    assert found.reply.status == 401
    assert found.ran[-1].said == f"told in a line of {tmp_path}/all.log"


def test_a_log_without_a_whole_path_and_lua_are_refused() -> None:
    log = "plugins: [{name: file-log, config: {path: a.log, custom_fields_by_lua: {a: return 1}}}]"
    with pytest.raises(Refused) as refused:
        read_documents(loads(log, "kong.yaml"))
    said = " / ".join(map(str, refused.value.problems))
    assert "config.path" in said
    assert "Lua of a file is not run" in said
