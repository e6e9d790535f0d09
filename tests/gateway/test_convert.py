"""`gateway convert`: what is written means the same, or the loss is named."""

import json
from pathlib import Path
from textwrap import dedent

import pytest

from skylift.cli.app import run
from skylift.gateway.convert import convert
from skylift.gateway.decision import World
from skylift.gateway.loading import loads
from skylift.gateway.model import Dialect
from skylift.gateway.read import read, read_documents

SEED = Path(__file__).parent / "seed"
NOON = World(now=1_795_867_200.0)

KONG = """
services:
  - name: s
    url: http://s:81
    retries: 0
    routes:
      - {name: short, paths: [/api], preserve_host: true}
      - {name: regex, paths: ['~/api/users/\\d+'], strip_path: false}
      - {name: host, hosts: ['*.a.test', b.test], methods: [GET, PUT]}
      - {name: header, paths: [/h], headers: {x-v: ['v1'], user-agent: ['~*^curl']}}
      - {name: two, paths: [/one, /another]}
"""
TRAEFIK = """
http:
  services: {s: {loadBalancer: {servers: [{url: 'http://s:81'}, {url: 'http://t:82', weight: 3}]}}}
  routers:
    exact: {rule: 'Path(`/exact`)', service: s}
    prefix: {rule: 'PathPrefix(`/prefix`) && Method(`GET`)', service: s}
    either: {rule: 'Host(`a.test`) || PathPrefix(`/either`)', service: s}
    full: {rule: 'Host(`a.test`) && Header(`X-V`, `v1`) && PathPrefix(`/prefix`)', service: s}
"""


def converted(text: str, to: Dialect) -> tuple[str, tuple[str, ...], list[str]]:
    found = convert(read_documents(loads(dedent(text), "x.yaml")), to, NOON)
    return found.text, found.lost, [word for change in found.differs for word in change.what]


@pytest.mark.parametrize(("text", "to"), [(KONG, Dialect.TRAEFIK), (TRAEFIK, Dialect.KONG)])
def test_routes_mean_the_same_in_the_other_dialect(text: str, to: Dialect) -> None:
    _, lost, differs = converted(text, to)
    assert differs == []
    assert lost == ()


@pytest.mark.parametrize(
    ("text", "to", "says"),
    [
        (
            "http: {routers: {r: {rule: '!Path(`/a`)', service: s}}, SERVICES}",
            Dialect.KONG,
            "Kong has no not",
        ),
        (
            "http: {routers: {r: {rule: 'Query(`a`, `1`)', service: s}}, SERVICES}",
            Dialect.KONG,
            "no field for it",
        ),
        (
            "http: {routers: {r: {rule: 'Path(`/`)', service: s, middlewares: [m]}}, SERVICES, "
            "middlewares: {m: {forwardAuth: {address: 'http://a'}}}}",
            Dialect.KONG,
            "ForwardAuth: no plugin of Kong",
        ),
        ("plugins: [{name: jwt}]", Dialect.TRAEFIK, "Jwt: Traefik has no middleware for it"),
        ("plugins: [{name: rate-limiting, config: {minute: 5}}]", Dialect.TRAEFIK, "a token bucket, near it"),
        ("consumers: [{username: a}]", Dialect.TRAEFIK, "Traefik has none"),
        (
            "plugins: [{name: ip-restriction, config: {deny: [10.0.0.0/8]}}]",
            Dialect.TRAEFIK,
            "denied addresses",
        ),
    ],
)
def test_what_is_lost_is_named(text: str, to: Dialect, says: str) -> None:
    whole = text.replace("SERVICES", "services: {s: {loadBalancer: {servers: [{url: 'http://s'}]}}}")
    if not whole.startswith("http"):
        whole += "\nservices: [{name: s, url: 'http://s', routes: [{name: r, paths: [/]}]}]"
    _, lost, _ = converted(whole, to)
    assert any(says in sentence for sentence in lost), lost


def test_lost_authentication_is_seen_by_requests_too() -> None:
    found = convert(read(sorted(SEED.glob("kong-*.yaml"))), Dialect.TRAEFIK, NOON)
    assert any("without credentials it got 401" in word for change in found.differs for word in change.what)


def test_the_command_writes_and_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["gateway", "convert", str(SEED / "kong-routes.yaml"), "--to", "traefik"]
    monkeypatch.setattr("sys.argv", ["skylift", *words])
    assert run() == 3, "retries are lost"
    said = capsys.readouterr()
    assert "PathPrefix(`/api/users`)" in said.out
    assert "lost: service user-service: its 5 retries" in said.err
    monkeypatch.setattr("sys.argv", ["skylift", *words, "--json"])
    run()
    found = json.loads(capsys.readouterr().out)
    assert found["differs"] == []
    assert read_documents(loads(found["text"])).dialect is Dialect.TRAEFIK
    monkeypatch.setattr("sys.argv", ["skylift", *words[:-1], "caddy"])
    assert run() == 2
