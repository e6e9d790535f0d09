"""Headers, paths and bodies that are one consumer's own: a real Envoy held against the reference."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.backends import Echo, serving
from gateway.door import Door
from skylift.gateway.match import decide
from skylift.gateway.request import make

CONFIG = r"""
services:
  - name: s
    url: http://@backend/base
    routes:
      - {name: plain, paths: [/plain]}
      - {name: header, paths: ['~/(?<what>x+)/'], headers: {apikey: ['~*^k']}, strip_path: false}
      - name: route
        paths: [/route]
        plugins: [{name: request-transformer, config: {add: {headers: ['X-Of:the route']}}}]
  - name: open
    url: http://@backend/open
    routes: [{name: open, paths: [/open]}]
consumers:
  - username: ada
    keyauth_credentials: [{key: k1}]
    plugins:
      - name: request-transformer
        config:
          add: {headers: ['X-Of:ada', 'X-Q:$(query_params.q)'], querystring: ['who:ada'], body: ['who:ada']}
          remove: {headers: [X-Secret]}
      - {name: response-transformer, config: {add: {headers: ['X-For:ada']}}}
  - username: bob the second
    keyauth_credentials: [{key: k2}]
    plugins:
      - name: request-transformer
        config:
          http_method: PUT
          replace: {uri: '/of/bob$(query_params.q)'}
          rename: {headers: ['X-Secret:X-Known']}
  - {username: eve, keyauth_credentials: [{key: k3}]}
plugins:
  - {name: key-auth, service: s, config: {hide_credentials: true}}
  - {name: request-transformer, config: {append: {headers: ['X-Of:everybody']}}}
"""


@pytest.fixture(scope="module")
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


@pytest.fixture(scope="module")
def several(door: Door, backend: Echo) -> Door:
    door.open(CONFIG, {"backend": backend}, "kong.yaml")
    return door


def asked(
    door: Door, method: str, target: str, headers: dict[str, str], body: str
) -> tuple[int, dict[str, str], Any]:
    line = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    line.request(method, target, body or None, headers)
    answer = line.getresponse()
    text = answer.read().decode()
    line.close()
    reached = json.loads(text) if '"service"' in text else None
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, reached


KEYS = st.sampled_from(("k1", "k2", "k3", "nobody's", None))
LIES = st.sampled_from(
    ({}, {"X-Consumer-Username": "ada"}, {"x-sl-variant": "route", "X-Consumer-Username": "bob the second"})
)
PATHS = st.sampled_from(("/plain/1", "/route", "/xx/2", "/open/3", "/open?apikey=k1"))


@settings(
    max_examples=80,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    key=KEYS,
    lies=LIES,
    path=PATHS,
    method=st.sampled_from(("GET", "POST")),
    secret=st.booleans(),
    body=st.sampled_from(("", '{"a": 1}')),
)
def test_a_consumer_gets_what_the_reference_says(
    several: Door, key: str | None, lies: dict[str, str], path: str, method: str, secret: bool, body: str
) -> None:
    headers = {**lies, **({"apikey": key} if key else {}), **({"X-Secret": "s"} if secret else {})}
    headers |= {"Content-Type": "application/json"} if body else {}
    target = path + ("&" if "?" in path else "?") + "q=7"
    own = {name: value for name, value in headers.items() if name not in lies}
    wanted = decide(several.gateway, make(method, target, tuple(own.items()), body=body.encode()))
    status, answer, seen = asked(several, method, target, headers, body)
    if wanted.reply is not None:
        assert (status, seen) == (wanted.reply.status, None)
        return
    assert wanted.sent is not None
    assert status == 200
    got_path, _, got_query = seen["path"].partition("?")
    assert (seen["method"], got_path) == (wanted.sent.method, wanted.sent.path)
    assert got_query == "&".join(f"{name}={value}" for name, value in wanted.sent.query)
    for name in ("X-Of", "X-Q", "X-Secret", "X-Known", "X-Consumer-Username"):
        told = [value for known, value in wanted.sent.headers if known.lower() == name.lower()]
        assert seen["headers"].get(name.lower(), "") == ",".join(told), name
    if wanted.sent.body:
        assert json.loads(seen["body"]) == json.loads(wanted.sent.body)
    assert answer.get("x-for") == ("ada" if wanted.consumer == "ada" else None)
