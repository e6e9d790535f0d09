"""The native form: order, policies that Kong and Traefik have no words for, plans, every mistake."""

from textwrap import dedent

import pytest

from skylift.gateway import tokens
from skylift.gateway.access import Introspection, Jwt, OAuth2Login, PerConsumer, RequireClaim
from skylift.gateway.decision import NO_COUNTERS, Decision, World
from skylift.gateway.errors import Refused
from skylift.gateway.lint import lint
from skylift.gateway.loading import loads
from skylift.gateway.match import decide
from skylift.gateway.model import Gateway, Target
from skylift.gateway.policies import Aggregate, Algorithm, ConvertBody, Media, RateLimit, StaleOnError
from skylift.gateway.read import read_documents
from skylift.gateway.request import parse

NOON = 1_795_867_200.0
SECRET = "a secret of more than thirty-two bytes"

FLEET = """
gateway: 1
listen:
  - {name: web, port: 8080, address: 127.0.0.1}
services:
  fleet:
    targets: ['10.0.0.1:8000', {address: '10.0.0.2:8000', weight: 3, priority: 1}]
    host: client
    timeout: {connect: 1s, idle: 5m}
    health: {path: /healthz, interval: 2s}
    eject: {after: 3, for: 10s}
  users: {targets: [users], protocol: https, sticky_cookie: stay}
plans:
  free: {count: 2, per: 1m, algorithm: sliding window}
  gold: {count: 100, per: 1m, algorithm: sliding window}
consumers:
  ada: {groups: [staff], keys: [key-of-ada], plan: gold}
  bob: {keys: [key-of-bob], plan: free}
shared:
  known: {api_key: {header: X-Key}}
policies:
  - correlation_id: {}
routes:
  - name: health
    path_exact: /health
    policies: [{respond: {body: ok}}]
  - name: sold
    path: /api
    policies: [known, {plan: {otherwise: free}}, {rewrite: {strip: /api}}]
    to: fleet
  - name: operators
    path: [/ops, /admin]
    methods: [GET, POST]
    headers: {X-Version: [v1, v2], X-Debug: false}
    policies:
      - jwt: {issuer: id, secret: a secret of more than thirty-two bytes, claim_headers: {role: X-Role}}
      - require: {claim: role, any: [operator]}
    to: [{service: fleet, weight: 9}, {service: users}]
  - name: ruled
    rule: "HostRegexp(`^[a-z]+[.]test$`) && !Method(`PUT`)"
    to: users
  - name: raised
    path: /api/raised
    priority: 1
    to: users
"""


def native(text: str, name: str = "gateway.yaml") -> Gateway:
    return read_documents(loads(dedent(text), name))


def seen(request: str, gateway: Gateway | None = None) -> Decision:
    return decide(gateway or native(FLEET), parse(request), World(now=NOON))


@pytest.mark.parametrize(
    ("request_line", "fate"),
    [
        ("GET /health", "200"),
        ("GET /api/x", "401"),
        ("GET /apix", "404"),
        ("GET /api/x -H 'X-Key: key-of-ada'", "sold"),
        ("GET /api/raised", "raised"),
        ("GET /ops -H 'X-Version: v2'", "401"),
        ("GET /ops -H 'X-Version: v3'", "404"),
        ("GET /ops -H 'X-Version: v2' -H 'X-Debug: 1'", "404"),
        ("PUT /ops -H 'X-Version: v2'", "404"),
        ("GET http://abc.test/", "ruled"),
        ("PUT http://abc.test/", "404"),
    ],
)
def test_routes_are_tried_as_written_whole_segments(request_line: str, fate: str) -> None:
    found = seen(request_line)
    assert (str(found.reply.status) if found.reply else found.route and found.route.name) == fate


def test_answers_are_problem_documents_and_tell_nothing() -> None:
    reply = seen("GET /api/x").reply
    assert reply is not None
    assert reply.body == '{"title": "Unauthorized", "status": 401}'
    assert dict(reply.headers)["Content-Type"] == "application/problem+json"


def test_plans_are_each_consumers_own_limit() -> None:
    made, statuses = native(FLEET), {}
    for consumer in ("ada", "bob"):
        counters, statuses[consumer] = NO_COUNTERS, []
        for _ in range(4):
            request = parse(f"GET /api/x -H 'X-Key: key-of-{consumer}'")
            found = decide(made, request, World(now=NOON), counters)
            counters = found.counters
            statuses[consumer].append(found.reply.status if found.reply else 200)
    assert statuses == {"ada": [200] * 4, "bob": [200, 200, 429, 429]}
    (sold,) = (route for route in made.routes if route.name == "sold")
    plan = next(step.policy for step in sold.steps if step.name == "plan")
    assert isinstance(plan, PerConsumer)
    assert {name for name, _ in plan.plans} == {"ada", "bob"}


def test_roles_come_from_the_token() -> None:
    operator, guest = (
        tokens.make({"iss": "id", "exp": NOON + 9, "role": role}, SECRET.encode())
        for role in ("operator", "x")
    )
    words = "GET /admin -H 'X-Version: v1' -H 'Authorization: Bearer"
    passed, refused = seen(f"{words} {operator}'"), seen(f"{words} {guest}'")
    assert passed.sent is not None
    assert dict(passed.sent.headers)["X-Role"] == "operator"
    assert refused.reply is not None
    assert refused.reply.status == 403
    assert "claim role is x, asked for is operator" in refused.reply.why


def test_services_are_what_is_written() -> None:
    made = native(FLEET)
    fleet = made.upstreams["fleet"]
    assert fleet.targets == (Target("10.0.0.1", 8000), Target("10.0.0.2", 8000, 3, 1))
    assert fleet.active is not None
    assert (fleet.active.path, fleet.active.interval) == ("/healthz", 2.0)
    assert fleet.passive is not None
    assert (fleet.passive.http_failures, fleet.passive.eject_for) == (3, 10.0)
    assert made.services["fleet"].timeouts.idle == 300.0
    assert made.upstreams["users"].targets == (Target("users", 443),)
    assert made.services["users"].tls is not None


EVERY_POLICY = """
gateway: 1
services: {a: {targets: [a]}, b: {targets: [b]}}
routes:
  - path: /
    to: a
    policies:
      - limit: {count: 5, algorithm: leaky bucket, burst: 9, also: [{count: 100, per: 1h}], redis: {}}
      - in_flight: {amount: 10}
      - login:
          authorization_url: https://id/auth
          token_url: https://id/token
          client_id: me
          client_secret: s
          cookie_secret: 0123456789abcdef0123456789abcdef
          pass_bearer: true
      - introspection: {url: 'https://id/introspect', client_id: me, client_secret: s, scopes: [read]}
      - require: {all: [read, write]}
      - addresses: {allow: [10.0.0.0/8]}
      - bots: {allow: [Pingdom], deny: [curl]}
      - log: {file: /var/log/a.log}
      - forward_auth: {url: 'http://auth/verify'}
      - retry: {statuses: [503]}
      - timeout: {after: 3s}
      - breaker: {}
      - stale: {max_age: 1h}
      - cache: {for: 1m}
      - cors: {}
      - compress: {}
      - max_body: {bytes: 10}
      - convert: {client: json, backend: xml, root: order}
      - aggregate:
          sources: {me: {service: a, path: /me}, orders: {service: b, path: '/o/$(query_params.id)'}}
      - request: {headers: {set: {X-Id: $(uuid)}, remove: [X-Old]}, query: {add: {a: '1'}}}
      - response: {headers: {remove: [Server]}}
      - redirect: {scheme: https}
"""


def test_every_policy_is_read_and_none_is_forgotten() -> None:
    from skylift.gateway.native.policies import TYPES

    made = native(EVERY_POLICY)
    (route,) = made.routes
    by_name = {step.name: step.policy for step in route.steps}
    limit, stale = by_name["limit"], by_name["stale"]
    assert isinstance(limit, RateLimit)
    assert (limit.algorithm, limit.limits[0].burst, len(limit.limits)) == (Algorithm.LEAKY_BUCKET, 9, 2)
    assert limit.redis is not None
    assert isinstance(by_name["login"], OAuth2Login)
    assert isinstance(by_name["introspection"], Introspection)
    assert isinstance(by_name["require"], RequireClaim)
    assert isinstance(stale, StaleOnError)
    assert by_name["convert"] == ConvertBody(Media.JSON, Media.XML, "order")
    aggregate = by_name["aggregate"]
    assert isinstance(aggregate, Aggregate)
    assert [source.service for source in aggregate.sources] == ["a", "b"]
    assert set(TYPES) - set(by_name) == {"jwt", "api_key", "groups", "respond", "rewrite", "correlation_id"}
    assert not [finding for finding in lint(made) if finding.severity == "error"]


def test_toml_is_the_same_form_and_names_may_stand_in_another_file() -> None:
    toml = """
        gateway = 1
        [[routes]]
        name = "r"
        path = "/"
        to = "s"
        policies = ["known"]
    """
    yaml = "gateway: 1\nservices: {s: {targets: [h]}}\nshared: {known: {api_key: {}}}\n"
    more = "gateway: 1\nconsumers: {ada: {keys: [k]}}\n"
    documents = [*loads(dedent(toml), "a.toml"), *loads(yaml, "b.yaml"), *loads(more, "c.yaml")]
    made = read_documents(documents)
    assert decide(made, parse("GET /x -H 'X-API-Key: k'")).sent is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gateway: 2", "this is version 1 of the form"),
        ("gateway: 1\nrutes: []", "rutes: unknown field (did you mean 'routes'?)"),
        ("gateway: 1\nservices: {a: {}}", "at least one host:port"),
        ("gateway: 1\nservices: {a: {targets: ['b:0']}}", "a port from 1 to 65535"),
        ("gateway: 1\nroutes: [{path: /, to: a}]", "there is no service of this name"),
        ("gateway: 1\nroutes: [{path: api}]", "a path begins with /"),
        ("gateway: 1\nroutes: [{path: /a/../b}]", "requests have it as /b"),
        ("gateway: 1\nroutes: [{rule: 'Foo(`x`)'}]", "there is no matcher Foo"),
        ("gateway: 1\npolicies: [{limt: {}}]", "there is no such policy (did you mean 'limit'?)"),
        ("gateway: 1\npolicies: [{limit: {}}]", "count: it must be given"),
        ("gateway: 1\npolicies: [{limit: {count: 1}, cors: {}}]", "exactly one type, this one limit, cors"),
        ("gateway: 1\npolicies: [nothing]", "there is no shared policy of this name"),
        ("gateway: 1\npolicies: [{limit: {count: 1, by: header}}]", "need a name"),
        ("gateway: 1\npolicies: [{jwt: {issuer: a}}]", "exactly one of secret, public_key, jwks, jwks_url"),
        (
            "gateway: 1\npolicies: [{jwt: {issuer: a, secret: b, algorithms: [none]}}]",
            "unsigned is no signature",
        ),
        ("gateway: 1\npolicies: [{jwt: {issuer: a, secret: b, algorithms: [RS256]}}]", "never both"),
        ("gateway: 1\npolicies: [{jwt: {issuer: a, jwks_url: b, algorithms: [HS256]}}]", "never both"),
        ("gateway: 1\npolicies: [{require: {}}]", "exactly one of any and all"),
        ("gateway: 1\npolicies: [{convert: {client: xml}}]", "nothing to convert"),
        ("gateway: 1\npolicies: [{plan: {otherwise: x}}]", "there is no plan of this name"),
        ("gateway: 1\nconsumers: {a: {keys: [k]}, b: {keys: [k]}}", "another consumer has this key"),
        ("gateway: 1\nlisten: [{port: 1, certificate: a}]", "certificate and key go together"),
        ("gateway: 1\npolicies: [{login: {cookie_secret: short}}]", "at least 32 characters"),
        ("gateway: 1\npolicies: [{rewrite: {}}]", "exactly one of strip, add, path, regex"),
        ("gateway: 1\npolicies: [{request: {headers: {set: {a: $(os.time())}}}}]", "is not known"),
    ],
)
def test_a_mistake_is_said_with_its_place(text: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        native(text)
    assert any(says in str(problem) for problem in refused.value.problems), refused.value.problems


def test_a_token_needs_an_end_unless_said_otherwise() -> None:
    made = native(FLEET)
    (ops,) = (route for route in made.routes if route.name == "operators")
    jwt = next(step.policy for step in ops.steps if isinstance(step.policy, Jwt))
    assert jwt.required == {"exp"}
