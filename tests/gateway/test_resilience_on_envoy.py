"""Backends on a real Envoy: how one of several is chosen, what happens while some of them fail, what is sent
again; what the gateway tells of requests: a line of JSON, a span; one configuration of several gateways."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import wait_until
from gateway.backends import Echo, serving
from gateway.conftest import Start, ask
from gateway.door import Door
from skylift.core.errors import Unavailable
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.envoy.edge import Extras
from skylift.gateway.envoy.source import source
from skylift.gateway.loading import loads
from skylift.gateway.model import Listener
from skylift.gateway.read import read_documents
from skylift.testkit.ports import free_port


@pytest.fixture
def one() -> Iterator[Echo]:
    with serving(Echo("one")) as echo:
        yield echo


@pytest.fixture
def two() -> Iterator[Echo]:
    with serving(Echo("two")) as echo:
        yield echo


NATIVE = """
gateway: 1
services:
  s:
    targets: [%s]
    timeout: {connect: 1s, idle: 5s}
%s
routes:
  - {name: r, path: /, to: s, policies: [%s]}
"""
BOTH = "'@one', '@two'"


def opened(
    door: Door, one: Echo, two: Echo, targets: str = BOTH, service: str = "", policies: str = ""
) -> None:
    door.open(NATIVE % (targets, service, policies), {"one": one, "two": two})


def answered(door: Door, count: int, **headers: str) -> Counter[str]:
    return Counter(json.loads(door.ask("/", **headers).body)["service"] for _ in range(count))


def test_targets_are_asked_by_their_weights(door: Door, one: Echo, two: Echo) -> None:
    opened(door, one, two, "{address: '@one', weight: 3}, {address: '@two', weight: 1}")
    found = answered(door, 40)
    assert 24 <= found["one"] <= 36
    assert found["two"] >= 4


def test_targets_in_reserve_are_asked_when_the_others_are_gone(door: Door, one: Echo, two: Echo) -> None:
    health = "    health: {path: /healthz, interval: 100ms}"
    opened(door, one, two, "'@one', {address: '@two', priority: 1}", health)
    wait_until(lambda: set(answered(door, 5)) == {"one"}, 20, "the first rank is asked alone")
    one.status = 503
    wait_until(lambda: set(answered(door, 5)) == {"two"}, 20, "the reserve is asked")


def test_a_target_that_fails_its_health_check_is_left_out(door: Door, one: Echo, two: Echo) -> None:
    opened(door, one, two, BOTH, "    health: {path: /healthz, interval: 100ms}")
    wait_until(lambda: set(answered(door, 10)) == {"one", "two"}, 20, "both are asked")
    one.status = 500
    wait_until(lambda: set(answered(door, 10)) == {"two"}, 20, "the failing one is left out")
    one.status = 200
    wait_until(lambda: set(answered(door, 10)) == {"one", "two"}, 20, "and comes back")
    assert any(asked["path"] == "/healthz" for asked in one.asked)


def test_a_target_that_fails_real_requests_is_put_aside(door: Door, one: Echo, two: Echo) -> None:
    opened(door, one, two, BOTH, "    eject: {after: 2, for: 1h}")
    one.status = 500
    wait_until(lambda: set(answered(door, 10)) == {"two"}, 20, "it is put aside")


def test_a_failed_request_is_tried_at_another_target(door: Door, one: Echo, two: Echo) -> None:
    one.status = 503
    opened(door, one, two, policies="{retry: {tries: 2, statuses: [503]}}")
    assert [door.ask("/").status for _ in range(6)] == [200] * 6
    assert one.asked, "it was asked first at least once"


def test_a_target_that_is_not_there_costs_nobody_his_request(door: Door, one: Echo, two: Echo) -> None:
    opened(door, one, two, f"'127.0.0.1:{free_port()}', '@two'", policies="{retry: {tries: 3}}")
    assert answered(door, 6) == {"two": 6}


def test_what_may_not_be_sent_twice_is_not(door: Door, one: Echo, two: Echo) -> None:
    one.status = two.status = 503
    opened(door, one, two, policies="{retry: {tries: 2, statuses: [503]}}")
    assert door.ask("/", "POST", "pay").status == 503
    assert len(one.asked) + len(two.asked) == 1
    assert door.ask("/").status == 503
    assert len(one.asked) + len(two.asked) == 4


def test_a_whole_exchange_has_its_time(door: Door, one: Echo, two: Echo) -> None:
    opened(door, one, two, policies="{timeout: {after: 200ms}}")
    one.gate.clear()
    two.gate.clear()
    try:
        assert door.ask("/").status == 504
    finally:
        one.gate.set()
        two.gate.set()


WEIGHTED = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: w}}
  services:
    w: {weighted: {services: [{name: a, weight: 3}, {name: b, weight: 1}]}}
    a: {loadBalancer: {servers: [{url: 'http://@one'}]}}
    b: {loadBalancer: {servers: [{url: 'http://@two'}]}}
"""
MIRRORED = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: m}}
  services:
    m: {mirroring: {service: a, mirrors: [{name: b, percent: 100}]}}
    a: {loadBalancer: {servers: [{url: 'http://@one'}]}}
    b: {loadBalancer: {servers: [{url: 'http://@two'}]}}
"""


def test_a_canary_gets_its_part(door: Door, one: Echo, two: Echo) -> None:
    door.open(WEIGHTED, {"one": one, "two": two}, "t.yaml")
    found = answered(door, 60)
    assert 1 <= found["two"] <= 40
    assert found["one"] + found["two"] == 60


def test_a_mirror_sees_what_its_service_sees_and_answers_nobody(door: Door, one: Echo, two: Echo) -> None:
    door.open(MIRRORED, {"one": one, "two": two}, "t.yaml")
    two.status = 500
    assert answered(door, 3) == {"one": 3}
    wait_until(lambda: len(two.asked) == 3, 20, "the mirror was asked")


STICKY = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: s}}
  services:
    s:
      loadBalancer:
        servers: [{url: 'http://@one'}, {url: 'http://@two'}]
        sticky: {cookie: {name: stay, httpOnly: true, secure: true, sameSite: strict}}
"""


def test_a_cookie_keeps_a_client_at_its_target(door: Door, one: Echo, two: Echo) -> None:
    door.open(STICKY, {"one": one, "two": two}, "t.yaml")
    first = door.ask("/")
    cookie, *attributes = first.headers["set-cookie"].split("; ")
    assert cookie.startswith("stay=")
    assert {"httponly", "secure", "samesite=strict"} <= {word.lower() for word in attributes}
    assert answered(door, 8, cookie=cookie) == {json.loads(first.body)["service"]: 8}
    assert set(answered(door, 8)) == {"one", "two"}


HASHED = """
_format_version: "3.0"
services: [{name: s, host: up, routes: [{name: r, paths: [/]}]}]
upstreams:
  - name: up
    hash_on: header
    hash_on_header: X-Who
    targets: [{target: '@one'}, {target: '@two'}]
"""


def test_a_hash_keeps_a_client_at_its_target(door: Door, one: Echo, two: Echo) -> None:
    door.open(HASHED, {"one": one, "two": two}, "kong.yaml")
    each = [answered(door, 2, x_who=f"client-{n}") for n in range(40)]
    assert all(len(found) == 1 for found in each)
    assert {name for found in each for name in found} == {"one", "two"}


# --- what is told of requests -------------------------------------------------------------------------------


def test_every_request_is_a_line_of_json_and_a_span(supervised: Start, one: Echo, tmp_path: Path) -> None:
    log, port = tmp_path / "access.log", free_port()
    with serving(Echo("spans", body="{}")) as spans:
        text = (NATIVE % ("'@one'", "", "{correlation_id: {}}")).replace("@one", f"127.0.0.1:{one.port}")
        gateway = read_documents(loads(text, "gateway.yaml"))
        here = replace(gateway, listeners=(Listener("web", port, "127.0.0.1"),))
        extras = Extras(str(log), f"http://127.0.0.1:{spans.port}/v1/traces")
        supervised(lambda: compiled(here, extras))
        trace = "0af7651916cd43dd8448eb211c80319c"
        ask(port, "/x", x_request_id="r1", traceparent=f"00-{trace}-b7ad6b7169203331-01")
        seen = one.asked[-1]["headers"]
        assert seen["traceparent"].split("-")[1] == trace
        wait_until(lambda: log.exists() and log.read_text().count("\n"), 30, "the line is written")
        line = json.loads(log.read_text().splitlines()[0])
        assert (line["method"], line["path"], line["status"]) == ("GET", "/x", 200)
        assert (line["route"], line["service"], line["request_id"], line["trace"]) == ("r", "s", "r1", trace)
        wait_until(lambda: spans.asked, 30, "the span is sent")
        assert spans.asked[0]["path"] == "/v1/traces"


class Published:
    """A document behind a URL, with its entity tag."""

    def __init__(self, echo: Echo) -> None:
        self.echo = echo
        self.say("first", '"1"')

    def say(self, words: str, tag: str) -> None:
        self.echo.body = f"gateway: 1\nroutes: [{{path: /, policies: [{{respond: {{body: {words}}}}}]}}]\n"
        self.echo.headers = {"etag": tag}


def test_several_gateways_of_one_url_are_one_configuration(supervised: Start) -> None:
    with serving(Echo("config", kind="application/yaml")) as echo:
        published, ports = Published(echo), (free_port(), free_port())
        url = f"http://127.0.0.1:{echo.port}/gateway.yaml"
        gateways = [supervised(source([url], {"web": ("127.0.0.1", port)}, Extras())) for port in ports]
        assert [ask(port).body for port in ports] == ["first", "first"]
        echo.asked.clear()
        echo.status = 304
        gateways[0].look()
        assert echo.asked[-1]["headers"]["if-none-match"] == '"1"'
        echo.status = 200
        published.say("second", '"2"')
        for gateway in gateways:
            gateway.look()
        assert [ask(port).body for port in ports] == ["second", "second"]
        echo.body = "gateway: 2"
        echo.headers = {"etag": '"3"'}
        gateways[0].look()
        assert "version 1" in gateways[0].status.error
        echo.status = 500
        gateways[1].look()
        assert "answers 500" in gateways[1].status.error
        assert [ask(port).body for port in ports] == ["second", "second"]
    gateways[1].look()
    assert "does not answer" in gateways[1].status.error
    assert ask(ports[1]).body == "second"
    with pytest.raises(Unavailable):
        source([url], {}, Extras())()
