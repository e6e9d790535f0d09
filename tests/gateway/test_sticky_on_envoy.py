"""A cookie that keeps a client at one of several services: a real Envoy held against the reference."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.backends import Echo, serving
from gateway.door import Door
from skylift.gateway.decision import World
from skylift.gateway.errors import Refused
from skylift.gateway.loading import loads
from skylift.gateway.match import decide
from skylift.gateway.model import label
from skylift.gateway.read import read_documents
from skylift.gateway.request import make

CONFIG = """
http:
  routers:
    main: {rule: 'PathPrefix(`/`)', service: split, middlewares: [cut]}
    copied: {rule: 'PathPrefix(`/copied/of/it`)', service: copied}
  middlewares: {cut: {stripPrefix: {prefixes: [/cut]}}}
  services:
    split:
      weighted:
        services: [{name: a, weight: 3}, {name: b}, {name: spare, weight: 0}]
        sticky:
          cookie: {name: kept.at, httpOnly: true, secure: true, sameSite: lax, maxAge: 60, domain: a.test}
    COPIED
    a: {loadBalancer: {servers: [{url: 'http://@a'}]}}
    b: {loadBalancer: {servers: [{url: 'http://@b'}]}}
    spare: {loadBalancer: {servers: [{url: 'http://@spare'}]}}
"""
COPIED = "copied: {mirroring: {service: split, mirrors: [{name: spare, percent: 100}]}}"
NAMES = ("a", "b", "spare")


@pytest.fixture(scope="module")
def kept(door: Door) -> Iterator[Door]:
    with serving(Echo("a")) as a, serving(Echo("b")) as b, serving(Echo("spare")) as spare:
        door.open(CONFIG.replace("COPIED", COPIED), {"a": a, "b": b, "spare": spare}, "traefik.yaml")
        yield door


def service_of(body: str) -> str:
    return body.partition('"service": "')[2].partition('"')[0]


def test_a_client_stays_where_its_first_answer_came_from(kept: Door) -> None:
    first = kept.ask("/")
    name = service_of(first.body)
    attributes = "Path=/; Domain=a.test; Max-Age=60; HttpOnly; Secure; SameSite=Lax"
    assert first.headers["set-cookie"] == f"kept.at={label(name)}; {attributes}"
    for _ in range(12):
        again = kept.ask("/cut/x", Cookie=f"other=1; kept.at={label(name)}")
        assert service_of(again.body) == name
        assert '"path": "/x"' in again.body
        assert "set-cookie" not in again.headers


def test_who_has_no_cookie_is_sent_by_weight(kept: Door) -> None:
    seen = Counter(service_of(kept.ask("/").body) for _ in range(120))
    assert set(seen) == {"a", "b"}
    assert seen["a"] > seen["b"], "three of four"


COOKIES = st.lists(
    st.sampled_from(
        (*(f"kept.at={label(name)}" for name in NAMES), "kept.at=nobody", f"at={label('a')}", "x=1")
    ),
    max_size=3,
    unique_by=lambda cookie: cookie.partition("=")[0],
)


@settings(
    max_examples=60,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(cookies=COOKIES, path=st.sampled_from(("/", "/cut/y", "/copied/of/it")))
def test_envoy_asks_the_service_that_the_reference_asks(kept: Door, cookies: list[str], path: str) -> None:
    headers = {"Cookie": "; ".join(cookies)} if cookies else {}
    ways = [
        decide(kept.gateway, make("GET", path, tuple(headers.items())), World(choose=choose))
        for choose in (0.0, 0.9)
    ]
    wanted = {each.sent.service for each in ways if each.sent is not None}
    found = kept.ask(path, **headers)
    assert service_of(found.body) in wanted
    told = [dict(each.answer_headers).get("Set-Cookie") for each in ways]
    assert found.headers.get("set-cookie") in told


def test_a_sticky_service_inside_another_is_refused_by_name() -> None:
    inside = CONFIG.replace("    COPIED\n", "")
    inside = inside.replace("service: copied", "service: outer")
    inside += "    outer: {weighted: {services: [{name: split}, {name: b}]}}\n"
    with pytest.raises(Refused, match="a sticky service stands in no other weighted one"):
        read_documents(loads(inside, "traefik.yaml"))
