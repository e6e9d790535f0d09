"""What Envoy is given, before it is: the files that it reads, and no more filters than it takes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from skylift.gateway.envoy import process
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.envoy.edge import NOTHING_MORE, Extras
from skylift.gateway.envoy.snapshot import Json, discovery
from skylift.gateway.loading import load, loads
from skylift.gateway.read import read_documents


def routes(count: int) -> list[Json]:
    return [{"name": f"r{n}", "match": {"prefix": f"/{n}"}, "route": {"cluster": "c"}} for n in range(count)]


def test_a_files_version_is_its_contents_whatever_the_order_of_the_words() -> None:
    listed = routes(3)
    turned = [dict(reversed(route.items())) for route in listed]
    assert discovery(listed) == discovery(turned)
    assert discovery(listed).version != discovery(routes(2)).version
    read = json.loads(discovery(listed).body)
    assert read == {"version_info": discovery(listed).version, "resources": listed}


def test_a_file_of_many_routes_is_one_line() -> None:
    """Indented, Python writes it without its encoder in C: five times the time, twice the bytes."""
    assert discovery(routes(100)).body.count(b"\n") == 1


KONG = """
_format_version: "3.0"
services:
  - name: things
    url: http://127.0.0.1:9
    routes: [{name: things, paths: [/things]}]
    plugins: [{name: request-transformer, config: {CONFIG}}]
"""


def a_route(config: str, extras: Extras = NOTHING_MORE) -> tuple[list[str], Json]:
    """The filters of a listener, by name, and its route of this transformer."""
    snapshot = compiled(read_documents(loads(KONG.replace("CONFIG", config), "kong.yaml")), extras)
    manager = snapshot.listeners[0]["default_filter_chain"]["filters"][0]["typed_config"]
    routes = snapshot.routes[0]["virtual_hosts"][0]["routes"]
    return [f["name"] for f in manager["http_filters"]], next(r for r in routes if r["name"] == "things")


@pytest.mark.parametrize(
    ("config", "filters"),
    [
        ('add: {headers: ["X-Id:$(uuid)", "X-One:1"]}, remove: {headers: [X-Two]}', 0),
        ('add: {headers: ["X-Id:$(headers.x_one)"]}', 1),
        ('add: {headers: ["X-One:1"], querystring: ["q:1"]}', 1),
        ('rename: {headers: ["X-One:X-Two"]}', 1),
        ('replace: {headers: ["X-One:1"]}, append: {headers: ["X-One:2"]}', 1),
        ('append: {headers: ["X-Forwarded-Path:/"]}', 1),
        ('add: {headers: ["X-One:1"]}, replace: {uri: "/$(headers.x_one)"}', 1),
    ],
)
def test_headers_are_the_routers_work_where_their_order_is_nothing(config: str, filters: int) -> None:
    names, route = a_route(config)
    assert len(names) == filters + 1
    assert ("typed_per_filter_config" in route) == bool(filters)


@pytest.mark.parametrize("counted", [False, True])
def test_a_services_numbers_are_kept_where_somebody_reads_them(counted: bool) -> None:
    snapshot = compiled(
        read_documents(loads(KONG.replace("CONFIG", ""), "kong.yaml")), Extras(counted=counted)
    )
    manager = snapshot.listeners[0]["default_filter_chain"]["filters"][0]["typed_config"]
    assert manager["http_filters"][-1]["typed_config"]["dynamic_stats"] is counted


PLUGINS = """
_format_version: "3.0"
services: [{name: s, url: 'http://127.0.0.1:9', routes: [{name: r, paths: [/]}]}]
plugins: [EACH]
"""


@pytest.mark.parametrize(
    ("plugins", "held"),
    [
        ("", False),
        ("{name: key-auth}", False),
        ("{name: request-termination}", False),
        ("{name: key-auth}, {name: request-termination}", True),
    ],
)
def test_headers_have_a_clock_of_their_own_where_an_answer_from_here_may_be_held(
    plugins: str, held: bool
) -> None:
    snapshot = compiled(read_documents(loads(PLUGINS.replace("EACH", plugins), "kong.yaml")))
    manager = snapshot.listeners[0]["default_filter_chain"]["filters"][0]["typed_config"]
    assert manager.get("request_headers_timeout") == ("15s" if held else None)
    assert manager["stream_idle_timeout"] == ("300s" if held else "15s")


def test_whatever_leads_to_a_backend_has_its_own_time_of_silence() -> None:
    """Else the clock for headers would go on for its answer."""
    ways = 0
    for file in (Path(__file__).resolve().parents[2] / "conformance" / "gateway").glob("*.yaml"):
        for row in load([file])[0].value["rows"]:
            snapshot = compiled(read_documents(loads(row["config"], f"{file.stem}.yaml")))
            for way in ways_to_backends(snapshot.routes):
                ways += 1
                assert "idle_timeout" in way, row["feature"]
    assert ways > 60


def ways_to_backends(what: object) -> Iterator[Json]:
    if isinstance(what, dict):
        if isinstance(way := what.get("route"), dict):
            yield way
        for value in what.values():
            yield from ways_to_backends(value)
    elif isinstance(what, list | tuple):
        for value in what:
            yield from ways_to_backends(value)


@pytest.mark.parametrize(
    ("wanted", "files", "clients"),
    [(20_000, 1 << 20, 20_000), (20_000, 20_000, 9_000), (20_000, 1024, 460), (100, 1024, 100)],
)
def test_clients_leave_as_many_files_for_backends_as_they_take(wanted: int, files: int, clients: int) -> None:
    assert process.clients(wanted, files) == clients
    assert 2 * clients < files


def test_a_herd_is_let_in_bit_by_bit() -> None:
    snapshot = compiled(read_documents(loads(PLUGINS.replace("EACH", ""), "kong.yaml")))
    assert [listener["max_connections_to_accept_per_socket_event"] for listener in snapshot.listeners] == [8]
