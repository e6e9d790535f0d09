"""Kong's files as people have them: written for older versions, dumped by decK, full of its defaults."""

import pytest

from skylift.gateway.access import Acl, IpList, Jwt
from skylift.gateway.decision import World
from skylift.gateway.errors import Refused
from skylift.gateway.loading import loads
from skylift.gateway.match import decide
from skylift.gateway.model import Gateway
from skylift.gateway.policies import Cors, RateLimit
from skylift.gateway.read import read_documents
from skylift.gateway.request import parse

ONE = "services: [{name: s, url: 'http://s', routes: [{name: r, paths: [/]}]}]\n"


def read(text: str) -> Gateway:
    return read_documents(loads(text, "kong.yaml"))


def refusal(text: str) -> str:
    with pytest.raises(Refused) as refused:
        read(text)
    return " / ".join(map(str, refused.value.problems))


def plugin(text: str) -> object:
    """The policy of the one plugin behind the path's own step."""
    return read(ONE + f"plugins: [{text}]").routes[0].steps[1].policy


def route_of(gateway: Gateway, request: str) -> str:
    found = decide(gateway, parse(request), World(now=0.0)).route
    return found.name if found else ""


DUMPED = """
_format_version: "3.0"
_workspace: default
_info:
  select_tags: [shop]
  defaults:
    service: {retries: 1, connect_timeout: 2000}
    route: {strip_path: false, protocols: [https]}
    upstream: {healthchecks: {passive: {unhealthy: {http_failures: 3}}}}
_plugin_configs:
  strict: {minute: 5, policy: local, fault_tolerant: true}
services:
  - name: shop
    host: shop
    port: 8080
    protocol: http
    path: null
    client_certificate: null
    ca_certificates: null
    retries: 3
    tags: [shop]
    routes:
      - {name: own, paths: [/own], strip_path: true, protocols: [http], https_redirect_status_code: 426}
      - {name: given, paths: [/given], sources: null, destinations: null, snis: null, headers: null}
    plugins: [{name: rate-limiting, _config: strict, config: {hour: 9}, protocols: [grpc, http, https]}]
upstreams:
  - name: shop
    healthchecks: {active: {concurrency: 10}, passive: {unhealthy: {timeouts: 2}}}
    targets: [{target: '10.0.0.1:80', weight: 100}]
"""


def test_a_dump_of_deck_is_read_with_its_defaults_and_shared_configurations() -> None:
    gateway = read(DUMPED)
    own, given = gateway.routes
    assert (own.schemes, given.schemes) == (("http",), ("https",))
    retry = gateway.services["shop"].retry
    assert retry
    assert retry.tries == 3
    assert gateway.services["shop"].timeouts.connect == 2
    passive = gateway.upstreams["shop"].passive
    assert passive
    assert (passive.http_failures, passive.timeouts) == (3, 2)
    limit = own.steps[1].policy
    assert isinstance(limit, RateLimit)
    assert [each.count for each in limit.limits] == [5, 9]
    assert any("default" in note.sentence or "_workspace" in note.sentence for note in gateway.notes)


def test_defaults_are_those_of_their_own_document() -> None:
    other = "---\nroutes: [{name: plain, paths: [/plain], service: shop}]\n"
    assert read(DUMPED + other).routes[-1].schemes == ("http", "https")


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("_info: {defaults: {consumer: {}}}", "_info.defaults.consumer"),
        ("_info: {nonsense: 1}", "_info.nonsense"),
        ("plugins: [{name: jwt, _config: nobody}]", "there is no such entry of _plugin_configs"),
        ("plugins: [{name: jwt, protocols: [https]}]", "a plugin runs for http and https"),
        ("plugins: [{name: openid-connect}]", "Kong Enterprise's; the native form has the login"),
        ("plugins: [{name: request-validator}]", "request-size-limiting"),
        ("plugins: [{name: jwt, config: {anonymous: nobody}}]", "there is no consumer of this name"),
        (
            "consumers: [{username: a, keyauth_credentials: [{key: '{vault://env/key}'}]}]",
            "consumers[0].keyauth_credentials[0].key",
        ),
        ("plugins: [{name: cors, config: {origins: ['https://(a']}}]", "origins[0]"),
    ],
)
def test_what_is_not_here_is_said_with_its_place(field: str, says: str) -> None:
    assert says in refusal(ONE + field)


def test_a_path_of_an_older_format_is_a_regex_where_it_looks_like_one() -> None:
    paths = r"['/users/\d+$', /plain-1.0/~x]"
    service = f"services: [{{name: s, url: 'http://s', routes: [{{name: r, paths: {paths}}}]}}]"
    old = read(f'_format_version: "2.1"\n{service}')
    assert route_of(old, "GET /users/7") == "r"
    assert route_of(old, "GET /users/seven") == ""
    assert route_of(old, "GET /plain-1.0/~x/y") == "r"
    assert any(note.code == "unmarked_regex" for note in old.notes)
    assert route_of(read(f'_format_version: "3.0"\n{service}'), "GET /users/7") == ""


@pytest.mark.parametrize(
    "store",
    ["redis: {host: r, port: 6380, timeout: 100}", "redis_host: r, redis_port: 6380, redis_timeout: 100"],
)
def test_a_store_stands_in_a_table_or_in_the_older_flat_fields(store: str) -> None:
    policy = plugin(f"{{name: rate-limiting, config: {{minute: 1, policy: redis, {store}}}}}")
    assert isinstance(policy, RateLimit)
    assert policy.redis
    assert (policy.redis.host, policy.redis.port, policy.redis.timeout) == ("r", 6380, 0.1)


def test_flat_fields_of_a_limit_that_is_counted_here_mean_nothing() -> None:
    empty = "redis_host: null, redis_port: 6379, redis_database: 0, redis_ssl: false, redis_ssl_verify: false"
    policy = plugin(f"{{name: rate-limiting, config: {{minute: 1, policy: local, {empty}}}}}")
    assert isinstance(policy, RateLimit)
    assert policy.redis is None


def test_lists_have_their_former_names_too() -> None:
    groups = plugin("{name: acl, config: {whitelist: [staff]}}")
    addresses = plugin("{name: ip-restriction, config: {blacklist: [10.0.0.0/8]}}")
    assert isinstance(groups, Acl)
    assert isinstance(addresses, IpList)
    assert (groups.allow, addresses.deny) == (("staff",), ("10.0.0.0/8",))


def test_an_anonymous_consumer_is_named_by_its_id_too() -> None:
    text = ONE + "consumers: [{username: guest, id: 11111111-2222-3333-4444-555555555555}]\n"
    jwt = read(text + "plugins: [{name: jwt, config: {anonymous: 11111111-2222-3333-4444-555555555555}}]")
    policy = jwt.routes[0].steps[1].policy
    assert isinstance(policy, Jwt)
    assert policy.anonymous == "guest"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.test", True),
        ("https://www.shop.test", True),
        ("https://evil.test/https://www.shop.test", False),
        ("https://www.shop.test.evil.test", False),
        ("http://plain.test:8080", True),
        ("http://xplain.test", False),
    ],
)
def test_origins_are_texts_expressions_or_hosts(origin: str, allowed: bool) -> None:
    origins = r"['https://a.test', 'https://[a-z]+\.shop\.test$', plain.test]"
    gateway = read(ONE + f"plugins: [{{name: cors, config: {{origins: {origins}}}}}]")
    assert isinstance(gateway.routes[0].steps[1].policy, Cors)
    found = decide(gateway, parse(f"GET / -H 'Origin: {origin}'"), World(now=0.0))
    assert ("is allowed" in found.ran[1].said) is allowed
