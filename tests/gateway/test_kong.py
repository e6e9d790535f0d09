"""Kong's files: order, paths, scopes, and every mistake with its place."""

from pathlib import Path
from textwrap import dedent

import pytest

from gateway.paper import NOON, fate, kong, seen
from skylift.gateway import tokens
from skylift.gateway.access import PerConsumer
from skylift.gateway.decision import NO_COUNTERS, World
from skylift.gateway.errors import Refused
from skylift.gateway.loading import loads
from skylift.gateway.match import decide
from skylift.gateway.model import Balance
from skylift.gateway.read import read, read_documents
from skylift.gateway.request import make

SEED = Path(__file__).parent / "seed"


# --- the user's own files ------------------------------------------------------------------------------


def test_the_users_routes_cut_their_prefix() -> None:
    made = read([SEED / "kong-routes.yaml"])
    sent = seen(made, "GET /api/users/7?x=1").sent
    assert sent is not None
    assert (sent.service, sent.path, sent.query, sent.host) == (
        "user-service",
        "/7",
        (("x", "1"),),
        "user-service:8080",
    )
    assert fate(made, "GET /api/orders") == "order-route"
    assert fate(made, "GET /api/other") == "404"


def test_the_users_limits_are_read_with_the_routes_they_name() -> None:
    made = read([SEED / "kong-rate-limiting.yaml", SEED / "kong-routes.yaml"])
    counters, statuses = NO_COUNTERS, []
    for _ in range(101):
        found = decide(made, make(url="/api/users"), World(now=NOON + 1), counters)
        counters = found.counters
        statuses.append(found.reply.status if found.reply else 200)
    assert statuses == [200] * 100 + [429]
    assert found.reply is not None
    told = dict(found.reply.headers)
    assert told["X-RateLimit-Limit-Minute"] == "100"
    assert told["X-RateLimit-Limit-Hour"] == "1000"
    assert told["Retry-After"] == told["RateLimit-Reset"] == "59"
    assert '"message":"API rate limit exceeded"' in found.reply.body
    other = decide(made, make(url="/api/orders"), World(now=NOON + 1), counters)
    assert other.sent is not None
    assert other.answer_headers == ()


def test_the_users_limit_alone_names_a_service_that_is_not_there() -> None:
    with pytest.raises(Refused, match=r"plugins\[0\].service is 'user-service': there is no service"):
        read([SEED / "kong-rate-limiting.yaml"])


def test_the_users_tokens_are_asked_for_everywhere_and_exp_is_looked_at() -> None:
    consumers = """
        consumers:
          - username: ada
            jwt_secrets: [{key: issuer, secret: a secret of more than thirty-two bytes}]
    """
    documents = [
        *loads((SEED / "kong-routes.yaml").read_text(), "routes.yaml"),
        *loads((SEED / "kong-jwt.yaml").read_text(), "jwt.yaml"),
        *loads(dedent(consumers), "consumers.yaml"),
    ]
    made = read_documents(documents)
    secret = b"a secret of more than thirty-two bytes"
    good, old, without = (
        tokens.make({"iss": "issuer", **exp}, secret) for exp in ({"exp": NOON + 9}, {"exp": NOON}, {})
    )
    assert fate(made, f"GET /api/users -H 'Authorization: Bearer {good}'") == "user-route"
    assert fate(made, f"GET /api/orders?jwt={good}") == "order-route"
    bodies = [seen(made, f"GET /api/users?jwt={token}").reply for token in (old, without)]
    assert [body.body for body in bodies if body] == ['{"exp":"token expired"}', '{"exp":"must be a number"}']
    nobody = seen(made, "GET /api/users").reply
    assert nobody is not None
    assert (nobody.status, nobody.body) == (401, '{"message":"Unauthorized"}')


def test_the_users_transformer_makes_an_id_and_says_that_this_is_ours() -> None:
    made = read([SEED / "kong-routes.yaml", SEED / "kong-request-transformer.yaml"])
    sent = seen(made, "GET /api/users -H 'X-Internal-Header: 1'").sent
    assert sent is not None
    told = dict(sent.headers)
    assert told["X-Request-ID"] == "UUID"
    assert told["X-Forwarded-Service"] == "user-service"
    assert "X-Internal-Header" not in told
    kept = seen(made, "GET /api/users -H 'X-Request-ID: mine'").sent
    assert kept is not None
    assert dict(kept.headers)["X-Request-ID"] == "mine", "add does not replace"
    assert [note.code for note in made.notes] == ["uuid_is_ours"]


def test_all_of_the_users_kong_files_are_one_configuration_in_any_order() -> None:
    files = sorted(SEED.glob("kong-*.yaml"))
    steps = [[step.name for step in route.steps] for route in read(files).ordered]
    assert steps == [
        ["path", "jwt", "request-transformer"],
        ["path", "jwt", "rate-limiting", "request-transformer"],
    ]
    assert [route.name for route in read(reversed(files)).ordered] == ["order-route", "user-route"]


# --- order and matching --------------------------------------------------------------------------------

ORDER = """
    _format_version: "3.0"
    services:
      - name: s
        url: http://s
        routes:
          - {name: short, paths: [/api]}
          - {name: long, paths: [/api/users]}
          - {name: regex, paths: ['~/api/users/\\d+']}
          - {name: first-regex, paths: ['~/api/users/\\d'], regex_priority: 5}
          - {name: host, paths: [/api], hosts: [a.example]}
          - {name: wild, paths: [/api/users], hosts: ['*.example']}
          - {name: one-header, paths: [/h], headers: {x: ['1']}}
          - {name: two-headers, paths: [/h], headers: {x: ['1'], y: ['2', '3']}}
          - {name: method, paths: [/m], methods: [PUT]}
          - {name: both, paths: [/long/path, /b]}
          - {name: header-regex, paths: [/r], headers: {user-agent: ['~*^curl/[0-9]+']}}
          - {name: port, hosts: ['p.test:9000']}
          - {name: right, hosts: ['right.*']}
"""


@pytest.mark.parametrize(
    ("request_line", "route"),
    [
        ("GET /apix", "short"),
        ("GET /api/users", "long"),
        ("GET /api/users/7", "first-regex"),
        ("GET /api/users -H 'Host: a.example'", "host"),
        ("GET /api/users -H 'Host: b.example'", "wild"),
        ("GET /api/users -H 'Host: example'", "long"),
        ("GET /h -H 'x: 1' -H 'Y: 3'", "two-headers"),
        ("GET /h -H 'X: 1'", "one-header"),
        ("GET /h -H 'X: 2'", "404"),
        ("GET /m", "404"),
        ("PUT /m", "method"),
        ("GET /b", "both"),
        ("GET /r -H 'User-Agent: CURL/8'", "header-regex"),
        ("GET http://p.test:9000/", "port"),
        ("GET http://p.test/", "404"),
        ("GET http://right.anything.at.all/", "right"),
        ("GET /../api/./users", "long"),
    ],
)
def test_kongs_order_is_kept(request_line: str, route: str) -> None:
    assert fate(kong(ORDER), request_line) == route


def test_a_route_with_two_paths_is_ordered_by_each() -> None:
    made = kong("""
        services:
          - name: s
            url: http://s
            routes:
              - {name: two, paths: [/a, /a/very/long]}
              - {name: middle, paths: [/a/very]}
    """)
    assert [fate(made, f"GET {path}") for path in ("/a/x", "/a/very/x", "/a/very/long/x")] == [
        "two",
        "middle",
        "two",
    ]


def test_https_only_answers_426_or_a_redirect() -> None:
    made = kong("""
        services:
          - name: s
            url: http://s
            routes:
              - {name: strict, paths: [/a], protocols: [https]}
              - {name: moved, paths: [/b], protocols: [https], https_redirect_status_code: 301}
    """)
    strict, moved = seen(made, "GET /a").reply, seen(made, "GET http://x.test/b").reply
    assert strict is not None
    assert moved is not None
    assert (strict.status, dict(strict.headers)["Upgrade"]) == (426, "TLS/1.2, HTTP/1.1")
    assert (moved.status, dict(moved.headers)["Location"]) == (301, "https://x.test/b")
    assert fate(made, "GET https://x.test/a") == "strict"


def test_preserve_host_and_the_services_path() -> None:
    made = kong("""
        services:
          - name: s
            url: https://backend.test/base/
            routes:
              - {name: kept, paths: [/k], preserve_host: true, strip_path: false}
              - {name: own, paths: [/o]}
    """)
    kept, own = seen(made, "GET http://me.test/k/1").sent, seen(made, "GET http://me.test/o/1").sent
    assert kept is not None
    assert own is not None
    assert (kept.host, kept.path) == ("me.test", "/base/k/1")
    assert (own.host, own.path) == ("backend.test", "/base/1")
    assert dict(own.headers)["X-Forwarded-Prefix"] == "/o"
    assert dict(own.headers)["X-Forwarded-Path"] == "/o/1"


# --- scopes --------------------------------------------------------------------------------------------

SCOPES = """
    services:
      - name: a
        url: http://a
        plugins: [{name: rate-limiting, config: {minute: 20}}]
        routes:
          - {name: a1, paths: [/a1]}
          - name: a2
            paths: [/a2]
            plugins: [{name: rate-limiting, config: {minute: 30}}]
      - name: b
        url: http://b
        routes: [{name: b1, paths: [/b1]}]
    consumers:
      - username: gold
        keyauth_credentials: [{key: k-gold}]
        plugins: [{name: rate-limiting, config: {minute: 500}}]
    plugins:
      - {name: key-auth, config: {anonymous: nobody}}
      - {name: rate-limiting, config: {minute: 10}}
      - {name: rate-limiting, consumer: gold, service: a, config: {minute: 900}}
"""


@pytest.mark.parametrize(
    ("path", "key", "limit"),
    [
        ("/a1", "", "20"),
        ("/a2", "", "30"),
        ("/b1", "", "10"),
        ("/a1", "k-gold", "900"),
        ("/a2", "k-gold", "900"),
        ("/b1", "k-gold", "500"),
    ],
)
def test_the_most_particular_configuration_wins(path: str, key: str, limit: str) -> None:
    made = kong(SCOPES.replace("consumers:", "consumers:\n      - username: nobody", 1))
    found = seen(made, f"GET {path} -H 'apikey: {key}'" if key else f"GET {path}")
    assert dict(found.answer_headers)["X-RateLimit-Limit-Minute"] == limit


def test_a_consumers_own_limit_is_a_plan() -> None:
    made = kong(SCOPES.replace("consumers:", "consumers:\n      - username: nobody", 1))
    (b1,) = (route for route in made.routes if route.name == "b1")
    (policy,) = (step.policy for step in b1.steps if step.name == "rate-limiting")
    assert isinstance(policy, PerConsumer)
    assert [name for name, _ in policy.plans] == ["gold"]


def test_what_is_disabled_is_as_if_it_were_not_there() -> None:
    made = kong("""
        services:
          - {name: away, url: 'http://off', enabled: false, routes: [{name: gone, paths: [/]}]}
          - name: there
            url: http://on
            routes: [{name: here, paths: [/], plugins: [{name: key-auth, enabled: false}]}]
        plugins: [{name: key-auth, config: {key_names: [wide]}}]
    """)
    assert fate(made, "GET /") == "401"
    assert [note.code for note in made.notes] == ["disabled", "disabled"]


def test_children_may_stand_at_top_level_and_name_their_parents() -> None:
    made = kong("""
        services: [{name: s, host: up}]
        routes: [{name: r, service: s, paths: [/r]}, {name: q, service: {name: s}, paths: [/q]}]
        upstreams: [{name: up, algorithm: least-connections}]
        targets: [{upstream: up, target: '10.0.0.1:81', weight: 5}, {upstream: up, target: 10.0.0.2}]
        consumers: [{username: ada}, {custom_id: '7'}]
        keyauth_credentials: [{consumer: ada, key: k}]
        acls: [{consumer: ada, group: staff}, {consumer: '7', group: staff}]
        plugins: [{name: key-auth, route: r}, {name: acl, route: r, config: {allow: [staff]}}]
    """)
    assert [(t.host, t.port, t.weight) for t in made.upstreams["up"].targets] == [
        ("10.0.0.1", 81, 5),
        ("10.0.0.2", 8000, 100),
    ]
    assert made.upstreams["up"].balance is Balance.LEAST_REQUESTS
    assert fate(made, "GET /r -H 'apikey: k'") == "r"
    assert fate(made, "GET /r") == "401"
    assert fate(made, "GET /q") == "q"
    told = seen(made, "GET /r -H 'apikey: k'").sent
    assert told is not None
    assert dict(told.headers)["X-Consumer-Groups"] == "staff"


# --- mistakes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("_format_version: '4.0'\nservices: []", "_format_version is '4.0': it must be one of 1.1, 2.1, 3.0"),
        ("servces: []\nroutes: []", "servces: unknown field (did you mean 'services'?)"),
        (
            "services: [{name: a, url: 'http://a', retires: 3}]",
            "kong.yaml:1: services[0].retires: unknown field (did you mean 'retries'?)",
        ),
        ("services: [{name: a, url: 'ftp://a'}]", "services[0].url is 'ftp://a': it must be http://"),
        ("services: [{name: a, url: 'http://a:x'}]", "its port must be a number"),
        ("services: [{name: a, url: 'http://a', host: b}]", "services[0].host: url says it already"),
        ("services: [{name: a}]", "services[0].host: it must be given"),
        ("services: [{name: a, host: a, retries: -1}]", "services[0].retries is -1: it must be"),
        ("services: [{name: a, host: a}, {name: a, host: b}]", "there is one of this name already"),
        ("services: {}", "services is {}: it must be a list"),
        ("services: [1]", "services[0] is 1: it must be a table of fields"),
        ("routes: [{name: r, paths: [/], service: usr}]\nservices: [{name: user, host: a}]", "no service of"),
        ("routes: [{name: r, paths: [/]}]", "it needs a service, or a plugin that answers"),
        ("routes: [{name: r}]", "at least one of methods, hosts, headers, paths"),
        ("routes: [{name: r, paths: [api]}]", "paths[0] is 'api': a path begins with /"),
        ("routes: [{name: r, paths: [/a//b]}]", "must be written as it is compared: /a/b"),
        ("routes: [{name: r, paths: ['~api']}]", "a regex path begins with ~/"),
        ("routes: [{name: r, paths: ['~/(a']}]", "not a regular expression"),
        ("routes: [{name: r, paths: ['~/(?=a)']}]", "look-around is not possible in RE2"),
        ("routes: [{name: r, hosts: ['a.*.b']}]", "a host is a name, *.name or name.*"),
        ("routes: [{name: r, headers: {Host: [a]}}]", "matched by hosts"),
        ("routes: [{name: r, methods: [get]}]", "methods[0] is 'get': it is upper case"),
        ("routes: [{name: r, paths: [/], protocols: [tcp]}]", "it must be one of http, https, grpc, grpcs"),
        ("routes: [{name: r, paths: [/], path_handling: v1}]", "only v0 is known here"),
        ("routes: [{name: r, paths: [/], sources: [{ip: 1.1.1.1}]}]", "belongs to streams"),
        ("plugins: [{name: rate-limitng}]", "there is no such plugin (did you mean 'rate-limiting'?)"),
        ("plugins: [{name: hmac-auth}]", "this plugin is not here: use jwt, key-auth or mutual TLS"),
        ("plugins: [{name: pre-function}]", "Lua of a file is not run"),
        ("plugins: [{name: rate-limiting}]", "at least one of second, minute"),
        ("plugins: [{name: rate-limiting, config: {minute: 10, hour: 5}}]", "must not be lower than minute"),
        ("plugins: [{name: rate-limiting, config: {minutes: 10, hour: 50}}]", "did you mean 'minute'?"),
        ("plugins: [{name: rate-limiting, config: {hour: 0}}]", "it must be a number above 0"),
        ("plugins: [{name: rate-limiting, config: {hour: 1, policy: cluster}}]", "without a database"),
        ("plugins: [{name: rate-limiting, config: {hour: 1, policy: redis}}]", "host and port of the store"),
        ("plugins: [{name: jwt, config: {claims_to_verify: [aud]}}]", "it must be one of exp, nbf"),
        ("plugins: [{name: jwt, consumer: a}]\nconsumers: [{username: a}]", "before it is known who comes"),
        ("plugins: [{name: acl}]", "exactly one of allow and deny"),
        ("plugins: [{name: ip-restriction, config: {allow: [10.0.0.0/99]}}]", "an address or a network"),
        ("plugins: [{name: request-transformer, config: {add: {headers: [x]}}}]", "it must be name:value"),
        ("plugins: [{name: request-transformer, config: {add: {headers: ['x y:z']}}}]", "a header's name"),
        ("plugins: [{name: request-transformer, config: {add: {headers: ['x:$(os.time())']}}}]", "is Lua"),
        ('plugins: [{name: request-transformer, config: {add: {headers: ["x:a\\r\\nb: c"]}}}]', "no control"),
        ("plugins: [{name: jwt}, {name: jwt}]", "jwt is configured for the same by"),
        ("consumers: [{username: a, jwt_secrets: [{key: k, algorithm: none, secret: s}]}]", "one of HS256"),
        ("consumers: [{username: a, jwt_secrets: [{key: k}]}]", "none is made up here"),
        ("consumers: [{username: a, jwt_secrets: [{key: k, algorithm: RS256}]}]", "a public key in PEM"),
        ("consumers: [{username: a, keyauth_credentials: [{key: k}, {key: k}]}]", "one of this name already"),
        ("consumers: [{}]", "username or custom_id must be given"),
        ("keyauth_credentials: [{key: k}]", "it must name its consumer"),
        ("keyauth_credentials: [{key: k, consumer: bob}]\nplugins: [{name: key-auth}]\nroutes: [{name: r, "
         "paths: [/], service: s}]\nservices: [{name: s, host: h}]", "there is no consumer of this name"),
        ("upstreams: [{name: u, hash_on: header}]", "hash_on header needs its name"),
        ("upstreams: [{name: u, targets: [{target: 'h:99999'}]}]", "a port from 1 to 65535"),
        ("vaults: [{name: v}]", "secrets are not fetched from vaults"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_its_place(text: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        kong(text)
    assert any(says in str(problem) for problem in refused.value.problems), refused.value.problems


def test_every_mistake_of_a_file_is_said_at_once() -> None:
    with pytest.raises(Refused, match="and 2 more") as refused:
        kong("services: [{name: a, url: 'ftp://a', x: 1}]\nplugins: [{name: nothing-like-it}]")
    assert len(refused.value.problems) == 3
