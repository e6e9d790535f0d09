"""Traefik's files and resources: the user's own, services, and every mistake with its place."""

from pathlib import Path

import pytest

from gateway.paper import NOON, fate, seen, traefik
from skylift.gateway.access import ForwardAuth, Trust
from skylift.gateway.decision import NO_COUNTERS, World
from skylift.gateway.errors import Refused
from skylift.gateway.match import decide
from skylift.gateway.model import Destination, Gateway, Mirror
from skylift.gateway.policies import RateLimit
from skylift.gateway.read import read
from skylift.gateway.request import make

SEED = Path(__file__).parent / "seed"


# --- the user's own files ------------------------------------------------------------------------------


def test_the_users_route_limits_first_and_then_asks_the_auth_service() -> None:
    made = read(sorted(SEED.glob("traefik-*.yaml")))
    (route,) = made.routes
    assert [step.name for step in route.steps] == ["rate-limit", "auth"]
    limit, auth = (step.policy for step in route.steps)
    assert isinstance(limit, RateLimit)
    assert (limit.limits[0].count, limit.limits[0].seconds, limit.limits[0].burst) == (100, 60.0, 50)
    assert limit.max_delay == 0.5
    assert isinstance(auth, ForwardAuth)
    assert (auth.url, auth.trust) == ("http://auth-service:8080/verify", Trust.ALL)
    sent = seen(made, "GET http://api.test/api/users/7").sent
    assert sent is not None
    assert (sent.path, sent.host, sent.upstream) == ("/api/users/7", "api.test", "user-service:8080")
    assert made.endpoints("user-service", 8080) == (("user-service", 8080),)
    assert fate(made, "GET /api/orders") == "404"
    assert "old_api_version" in {note.code for note in made.notes}


def test_fifty_of_the_users_requests_pass_at_once_and_the_next_is_held_or_refused() -> None:
    made, counters, statuses = read(sorted(SEED.glob("traefik-*.yaml"))), NO_COUNTERS, []
    for _ in range(52):
        found = decide(made, make(url="/api/users"), World(now=NOON), counters)
        counters = found.counters
        statuses.append(found.reply.status if found.reply else 200)
    assert statuses == [200] * 50 + [429] * 2
    assert found.reply is not None
    assert found.reply.body == "Too Many Requests"
    assert dict(found.reply.headers)["Retry-After"] == "1"
    early = decide(made, make(url="/api/users"), World(now=NOON + 0.4), counters)
    assert early.sent is not None, "0.6 s make a token: after 0.4 s it is held for 0.2 s, below 0.5 s"
    assert "held for 0.2 s" in early.ran[0].said


@pytest.mark.parametrize("status", [401, 302, 204])
def test_what_the_auth_service_says_is_the_answer_unless_it_is_2xx(status: int) -> None:
    made = read(sorted(SEED.glob("traefik-*.yaml")))
    world = World(now=NOON, ask=lambda policy, request: (status, {"Location": "/login"}))
    found = decide(made, make(url="/api/users"), world)
    assert (found.reply.status if found.reply else 204) == status


# --- services ------------------------------------------------------------------------------------------


def services(text: str, name: str = "s") -> Gateway:
    return traefik(f"""
        http:
          routers: {{r: {{rule: 'PathPrefix(`/`)', service: {name}}}}}
          services:
            a: {{loadBalancer: {{servers: [{{url: 'http://a:81'}}]}}}}
            b: {{loadBalancer: {{servers: [{{url: 'https://b'}}], passHostHeader: false}}}}
            c: {{loadBalancer: {{servers: [{{url: 'h2c://c:83', weight: 3}}, {{url: 'h2c://c2'}}]}}}}
            {text}
    """)


@pytest.mark.parametrize(
    ("text", "to", "mirrors"),
    [
        ("s: {weighted: {services: [{name: a, weight: 3}, {name: b}]}}", (("a", 3), ("b", 1)), ()),
        (
            "s: {weighted: {services: [{name: n, weight: 5}, {name: c, weight: 5}]}}\n"
            "            n: {weighted: {services: [{name: a, weight: 1}, {name: b, weight: 2}]}}",
            (("a", 1), ("b", 2), ("c", 3)),
            (),
        ),
        ("s: {mirroring: {service: a, mirrors: [{name: b, percent: 10}]}}", (("a", 1),), (("b", 10.0),)),
        ("s: {failover: {service: a, fallback: b}}", (("a", 1),), ()),
    ],
)
def test_services_made_of_services(
    text: str, to: tuple[tuple[str, int], ...], mirrors: tuple[tuple[str, float], ...]
) -> None:
    made = services(text)
    assert made.routes[0].to == tuple(Destination(*each) for each in to)
    assert made.routes[0].mirrors == tuple(Mirror(*each) for each in mirrors)
    assert made.upstreams["a"].fallback == ("b" if "failover" in text else "")


def test_settings_of_servers() -> None:
    made = traefik("""
        http:
          routers: {r: {rule: 'PathPrefix(`/`)', service: s}}
          serversTransports: {t: {insecureSkipVerify: true, forwardingTimeouts: {dialTimeout: 2s}}}
          services:
            s:
              loadBalancer:
                servers: [{url: 'https://a'}, {url: 'https://b:8443/path'}]
                strategy: p2c
                serversTransport: t
                passHostHeader: false
                sticky: {cookie: {name: stay, secure: true, httpOnly: true}}
                healthCheck: {path: /health, interval: 5s, timeout: 1, status: 204}
                passiveHealthCheck: {maxFailedAttempts: 4, failureWindow: 1m}
    """)
    upstream, service = made.upstreams["s"], made.services["s"]
    assert [(t.host, t.port) for t in upstream.targets] == [("a", 443), ("b", 8443)]
    assert upstream.active is not None
    assert (upstream.active.path, upstream.active.interval, upstream.active.statuses) == (
        "/health",
        5.0,
        ((204, 204),),
    )
    assert upstream.passive is not None
    assert (upstream.passive.http_failures, upstream.passive.window) == (4, 60.0)
    assert upstream.sticky is not None
    assert upstream.sticky.cookie == "stay"
    assert service.timeouts.connect == 2.0
    assert service.tls is not None
    assert not service.tls.verify
    assert "path_of_server" in {note.code for note in made.notes}
    assert str(upstream.balance) == "power of two choices"


# --- resources -----------------------------------------------------------------------------------------

RESOURCES = """
    apiVersion: traefik.io/v1alpha1
    kind: IngressRoute
    metadata: {name: shop, namespace: prod, labels: {a: b}}
    spec:
      entryPoints: [websecure]
      tls: {secretName: shop-cert}
      routes:
        - match: Host(`shop.test`)
          services: [{name: web, port: 80, weight: 9}, {name: web-new, port: 80}]
          middlewares: [{name: short}]
        - match: Host(`shop.test`) && PathPrefix(`/api`)
          services: [{name: split, kind: TraefikService}]
          middlewares: [{name: all, namespace: shared}]
    ---
    apiVersion: traefik.io/v1alpha1
    kind: Middleware
    metadata: {name: short, namespace: prod}
    spec: {stripPrefix: {prefixes: [/x]}}
    ---
    apiVersion: traefik.io/v1alpha1
    kind: Middleware
    metadata: {name: all, namespace: shared}
    spec: {chain: {middlewares: [{name: short, namespace: prod}, {name: short, namespace: prod}]}}
    ---
    apiVersion: traefik.io/v1alpha1
    kind: TraefikService
    metadata: {name: split, namespace: prod}
    spec:
      mirroring:
        name: api
        port: 8080
        mirrors: [{name: shadow, port: 8080, percent: 5}]
    ---
    inventory: {'web.prod': ['10.0.0.1', '10.0.0.2:8000']}
"""


def test_resources_are_the_same_model() -> None:
    made = traefik(RESOURCES)
    shop, api = made.routes
    assert (shop.name, api.name) == ("prod/shop-0", "prod/shop-1")
    assert shop.to == (Destination("prod/web:80", 9), Destination("prod/web-new:80", 1))
    assert api.to == (Destination("prod/api:8080"),)
    assert api.mirrors == (Mirror("prod/shadow:8080", 5.0),)
    assert [step.name for step in api.steps] == ["prod/short", "prod/short"]
    assert made.endpoints("web.prod", 80) == (("10.0.0.1", 80), ("10.0.0.2", 8000))
    assert fate(made, "GET https://shop.test/api", "websecure") == "prod/shop-1"
    assert [(listener.name, listener.tls) for listener in made.listeners] == [("websecure", True)]


def test_entry_points_and_certificates_may_stand_in_a_file() -> None:
    made = traefik("""
        entryPoints:
          web: {address: ':8080', forwardedHeaders: {trustedIPs: [10.0.0.0/8]}}
          websecure: {address: '127.0.0.1:8443', http: {tls: {}}}
        tls: {certificates: [{certFile: /a.crt, keyFile: /a.key}]}
        http:
          services: {s: {loadBalancer: {servers: [{url: 'http://a'}]}}}
          routers: {r: {rule: 'PathPrefix(`/`)', service: s}}
    """)
    web, secure = made.listeners
    assert (web.port, web.address, web.tls, web.certificate) == (8080, "0.0.0.0", False, "")
    assert (secure.port, secure.address, secure.tls, secure.certificate) == (
        8443,
        "127.0.0.1",
        True,
        "/a.crt",
    )
    proxied = make(headers=(("X-Forwarded-For", "203.0.113.9"),), client="10.1.1.1")
    sent = decide(made, proxied).sent
    assert sent is not None
    assert dict(sent.headers)["X-Forwarded-For"] == "203.0.113.9, 10.1.1.1"


# --- mistakes ------------------------------------------------------------------------------------------

FILE = """
http:
  services: {s: {loadBalancer: {servers: [{url: 'http://a'}]}}}
  routers: {r: {rule: 'Path(`/`)', service: s%s}}
  middlewares: {m: {%s}}
"""


@pytest.mark.parametrize(
    ("router", "middleware", "says"),
    [
        (", middlewares: [x]", "compress: {}", "of this name; Traefik would answer 404"),
        (", middlewares: [mm]", "compress: {}", "(did you mean 'm'?)"),
        (", middlewres: []", "compress: {}", "http.routers.r.middlewres: unknown field (did you mean"),
        (", entryPoints: [wbe]", "compress: {}", "there is no entry point of this name"),
        (", ruleSyntax: v2", "compress: {}", "rules are version 3's"),
        (", priority: x", "compress: {}", "priority is 'x': it must be a whole number"),
        ("", "compres: {}", "there is no such middleware (did you mean 'compress'?)"),
        ("", "compress: {}, retry: {}", "exactly one type, this one compress, retry"),
        ("", "plugin: {x: {}}", "this middleware is not here: plugins are not run"),
        ("", "jwt: {}", "that is Traefik Hub's"),
        ("", "digestAuth: {}", "use basicAuth, forwardAuth or tokens"),
        ("", "rateLimit: {averge: 1}", "m.rateLimit.averge: unknown field (did you mean 'average'?)"),
        ("", "rateLimit: {average: -1}", "it must be a whole number from 0"),
        ("", "rateLimit: {average: 1, period: soon}", "it must be a duration such as 30s"),
        ("", "rateLimit: {average: 1, period: 0}", "above 0"),
        ("", "rateLimit: {sourceCriterion: {requestHost: true, requestHeaderName: x}}", "exclude"),
        ("", "forwardAuth: {}", "address: it must be given"),
        ("", "forwardAuth: {address: 'auth:80'}", "it must be http:// or https://"),
        ("", "ipAllowList: {sourceRange: [10.0.0]}", "an address or a network"),
        ("", "stripPrefix: {}", "at least one prefix"),
        ("", "replacePathRegex: {regex: '(a', replacement: b}", "not a regular expression"),
        ("", "circuitBreaker: {expression: 'Foo() > 1'}", "is no comparison (>) of NetworkErrorRatio"),
        ("", "circuitBreaker: {expression: 'ResponseCodeRatio(1) > 1'}", "takes 4 numbers"),
        ("", "circuitBreaker: {expression: 'a && b'}", "'a && b' is no comparison"),
        ("", "basicAuth: {users: ['a:plain']}", "it must be user:hash"),
        ("", "retry: {attempts: 2, status: [9-8]}", "it must be a status"),
        ("", "headers: {customRequestHeaders: {'a b': c}}", "it must be a header's name"),
        ("", "chain: {middlewares: [m]}}, n: {compress: {}", ""),
        (", middlewares: [m]", "chain: {middlewares: [m]}", "it leads to itself: m -> m"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_its_place(router: str, middleware: str, says: str) -> None:
    if not says:
        assert traefik(FILE % (router, middleware)), "a chain that nothing uses is not unfolded"
        return
    with pytest.raises(Refused) as refused:
        traefik(FILE % (router, middleware))
    assert any(says in str(problem) for problem in refused.value.problems), refused.value.problems


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s: {loadBalancer: {servers: [{url: 'ftp://x'}]}}", "it must be http://, https:// or h2c://"),
        ("s: {loadBalancer: {}, weighted: {}}", "exactly one of loadBalancer"),
        ("s: {weighted: {services: [{name: x}]}}", "there is no service of this name"),
        ("s: {weighted: {services: [{name: s}]}}", "it leads to itself: s -> s"),
        ("s: {failover: {service: a, fallback: s}}", "it leads to itself"),
        ("s: {loadBalancer: {servers: [{url: 'http://x'}, {url: 'https://y'}]}}", "speak one scheme"),
        (
            "s: {loadBalancer: {servers: [{url: 'http://x'}], serversTransport: t}}",
            "no transport of this name",
        ),
        ("s: {highestRandomWeight: {}}", "clients are kept by sticky cookies"),
        ("t: {loadBalancer: {servers: [{url: 'http://x'}]}}", "there is no service of this name"),
    ],
)
def test_a_mistake_in_a_service(text: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        services(text)
    assert any(says in str(problem) for problem in refused.value.problems), refused.value.problems


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("traefik.io/v1alpha1\n    kind: IngressRoute", "traefik.io/v1\n    kind: IngressRoute", "one of"),
        ("kind: IngressRoute\n", "kind: IngresRoute\n", "no such resource (did you mean 'IngressRoute'?)"),
        ("kind: IngressRoute\n", "kind: IngressRouteTCP\n", "only HTTP is routed here"),
        ("{name: web, port: 80, weight: 9}", "{name: web, port: http}", "only the cluster knows"),
        ("{name: web, port: 80, weight: 9}", "{name: web}", "it must be a number from 1 to 65535"),
        ("{name: web, port: 80, weight: 9}", "{name: 'web@file', port: 80}", "cannot stand here"),
        ("[{name: short}]", "[{name: shrt}]", "there is no middleware of this name"),
        ("match: Host(`shop.test`)\n", "match: Hots(`a`)\n", "did you mean Host?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_resource(old: str, new: str, says: str) -> None:
    assert old in RESOURCES
    with pytest.raises(Refused) as refused:
        traefik(RESOURCES.replace(old, new, 1))
    assert any(says in str(problem) for problem in refused.value.problems), refused.value.problems


def test_two_dialects_are_not_one_configuration() -> None:
    with pytest.raises(Refused, match="speak one dialect"):
        read([SEED / "kong-routes.yaml", SEED / "traefik-ingressroute.yaml"])
