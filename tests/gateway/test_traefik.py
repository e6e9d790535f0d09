"""Traefik's files and resources: the rules' grammar, order, middlewares, services, and every mistake."""

import re
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.gateway.access import BasicAuth, ForwardAuth, Trust
from skylift.gateway.conditions import holds
from skylift.gateway.decision import NO_COUNTERS, Decision, World
from skylift.gateway.errors import Refused
from skylift.gateway.loading import loads
from skylift.gateway.match import decide
from skylift.gateway.model import Destination, Gateway, Mirror
from skylift.gateway.policies import CircuitBreaker, RateLimit, Retry, Trips
from skylift.gateway.read import read, read_documents
from skylift.gateway.request import make, parse
from skylift.gateway.traefik.breaker import BreakerFault, conditions
from skylift.gateway.traefik.rule import MATCHERS, RuleFault
from skylift.gateway.traefik.rule import parse as rule

SEED = Path(__file__).parent / "seed"
NOON = 1_795_867_200.0


def traefik(text: str) -> Gateway:
    return read_documents(loads(dedent(text), "traefik.yaml"))


def fate(gateway: Gateway, request: str, listener: str = "") -> str:
    """The route, or the status."""
    found = decide(gateway, parse(request), World(now=NOON), listener=listener)
    if found.reply is not None:
        return str(found.reply.status)
    assert found.route is not None
    return found.route.name


def seen(gateway: Gateway, request: str) -> Decision:
    return decide(gateway, parse(request), World(now=NOON))


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


# --- rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "request_line", "takes"),
    [
        ("Host(`a.test`)", "GET http://A.test:81/", True),
        ("Host(`a.test.`)", "GET http://a.test/", True),
        ("Host(`*.a.test`)", "GET http://b.a.test/", True),
        ("Host(`*.a.test`)", "GET http://c.b.a.test/", False),
        ("Host(`*`)", "GET http://c.b.a.test/", True),
        ("HostRegexp(`^a\\.`)", "GET http://a.test/", True),
        ("HostRegexp(`test`)", "GET http://a.test.x/", True),
        ("Path(`/a`)", "GET /a?x=1", True),
        ("Path(`/a`)", "GET /a/", False),
        ("Path(`/caf\u00e9`)", "GET /caf%c3%a9", True),
        ("PathPrefix(`/products`)", "GET /products-for-sale", True),
        ("PathRegexp(`/v[0-9]+/`)", "GET /api/v2/x", True),
        ("Method(`post`)", "POST /", True),
        ("Header(`X-A`, `v`)", "GET / -H 'x-a: v'", True),
        ("Header(`X-A`, `v`)", "GET / -H 'x-a: V'", False),
        ("Header(`Host`, `a.test`)", "GET http://a.test/", True),
        ("HeaderRegexp(`X-A`, `^v[12]$`)", "GET / -H 'X-A: v2'", True),
        ("Query(`a`, `1`)", "GET /?a=2&a=1", True),
        ("Query(`a`)", "GET /?a", True),
        ("Query(`a`)", "GET /?a=1", False),
        ("QueryRegexp(`a`, `^[0-9]+$`)", "GET /?a=17", True),
        ("ClientIP(`192.0.2.0/24`)", "GET /", True),
        ("ClientIP(`2001:db8::1`)", "GET /", False),
        ("!Method(`GET`)", "GET /", False),
        ("!(Method(`GET`) && Path(`/a`))", "GET /b", True),
        ("!(Method(`GET`) || Path(`/a`))", "GET /b", False),
        ("!!Path(`/a`)", "GET /a", True),
        ("Path(`/a`) || Path(`/b`) && Method(`PUT`)", "GET /a", True),
        ("(Path(`/a`) || Path(`/b`)) && Method(`PUT`)", "GET /a", False),
        ('HOST("a.test")&&pathprefix(`/`)', "GET http://a.test/", True),
        ('Header("X-A", "a\\"b\\x41")', "GET / -H 'X-A: a\"bA'", True),
    ],
)
def test_what_a_rule_takes(text: str, request_line: str, takes: bool) -> None:
    assert holds(rule(text), parse(request_line)) == takes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        ("Host('a')", "texts stand in backticks or double quotes"),
        ("Host(`a`", ") was expected at the end"),
        ("Host(`a`) Path(`/`)", "nothing was expected at 'Path(`/`)'"),
        ("Host(`a`) &&", "a matcher such as PathPrefix(`/api`) was expected at the end"),
        ("Host(`a`, `b`)", "Host takes 1 text, not 2; several values were version 2's"),
        ("Header(`a`)", "Header takes 2 texts, not 1"),
        ("Host()", "Host takes texts in backticks"),
        ("PathPrefx(`/a`)", "there is no matcher PathPrefx (did you mean PathPrefix?)"),
        ("hOST(`a`)", "there is no matcher hOST (did you mean Host?)"),
        ("Path(`a`)", "a path begins with /"),
        ("Path(`/a/../b`)", "matches nothing: requests have it as /b"),
        ("PathRegexp(`(`)", "not a regular expression"),
        ("HostRegexp(`(?!a)`)", "look-around is not possible in RE2"),
        ("Host(`{sub:[a-z]+}.a.test`)", "* stands for one label"),
        ("Host(`\u00e9.test`)", "a host is ASCII"),
        ("ClientIP(`10.0.0.0/33`)", "an address or a network"),
        ("(" * 70 + "Path(`/`)" + ")" * 70, "nested at most 64 deep"),
        ("!" * 3000 + "Path(`/`)", "nested at most 64 deep"),
        ("Path(`/`)" + " " * 4000, "at most 4000 characters"),
        ('Path("/\\q")', "is no escape"),
    ],
)
def test_what_is_wrong_with_a_rule(text: str, says: str) -> None:
    with pytest.raises(RuleFault) as fault:
        rule(text)
    assert says in str(fault.value)


@given(
    st.lists(st.sampled_from([*"()!,&|`\"' /aA", "Host(", "Path(`/`)", "&&", "||"]), max_size=12).map("".join)
)
def test_reading_a_rule_ends_with_a_condition_or_a_sentence(text: str) -> None:
    try:
        holds(rule(text), make())
    except RuleFault as e:
        assert str(e)  # noqa: PT017 - either is right, only other exceptions are not


# --- order ---------------------------------------------------------------------------------------------

ORDER = """
    http:
      services: {s: {loadBalancer: {servers: [{url: 'http://backend:81'}]}}}
      routers:
        short: {rule: 'PathPrefix(`/api`)', service: s}
        long: {rule: 'PathPrefix(`/api`) && Method(`GET`)', service: s}
        regex: {rule: 'HostRegexp(`[a-z]+\\.traefik\\.com`)', service: s}
        exact: {rule: 'Host(`foobar.traefik.com`)', service: s}
        raised: {rule: 'Path(`/api/x`)', service: s, priority: 1000}
        lowered: {rule: 'PathPrefix(`/`) && !Header(`A-Very-Long-Name`, `x`)', service: s, priority: -1}
        secure: {rule: 'Path(`/secure`)', service: s, tls: {}, entryPoints: [websecure]}
        only-web: {rule: 'Path(`/web`) && Method(`GET`)', service: s, entryPoints: [web]}
"""


@pytest.mark.parametrize(
    ("request_line", "listener", "route"),
    [
        ("GET /api", "", "long"),
        ("POST /apix", "", "short"),
        ("GET /api/x", "", "raised"),
        ("GET http://foobar.traefik.com/", "", "regex"),
        ("GET http://foobar2.traefik.org/", "", "lowered"),
        ("GET /secure", "", "lowered"),
        ("GET https://x.test/secure", "websecure", "secure"),
        ("GET https://x.test/api", "websecure", "404"),
        ("GET /web", "web", "only-web"),
        ("GET /web", "other", "lowered"),
    ],
)
def test_the_longest_rule_wins_unless_a_priority_is_given(
    request_line: str, listener: str, route: str
) -> None:
    assert fate(traefik(ORDER), request_line, listener) == route


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


# --- middlewares ---------------------------------------------------------------------------------------


def with_middleware(text: str) -> Gateway:
    return traefik(f"""
        http:
          services: {{s: {{loadBalancer: {{servers: [{{url: 'http://a'}}]}}}}}}
          routers: {{r: {{rule: 'PathPrefix(`/`)', service: s, middlewares: [m]}}}}
          middlewares: {{m: {{{text}}}}}
    """)


@pytest.mark.parametrize(
    ("text", "request_line", "path"),
    [
        ("stripPrefix: {prefixes: [/api, /v1]}", "GET /v1/x", "/x"),
        ("stripPrefix: {prefixes: [/api]}", "GET /api", "/"),
        ("stripPrefixRegex: {regex: ['/[a-z]+/[0-9]+']}", "GET /foo/12/x", "/x"),
        ("addPrefix: {prefix: /foo}", "GET /bar", "/foo/bar"),
        ("replacePath: {path: /new}", "GET /old?x=1", "/new"),
        ("replacePathRegex: {regex: '^/foo/(.*)', replacement: '/bar/$1'}", "GET /foo/x", "/bar/x"),
    ],
)
def test_paths(text: str, request_line: str, path: str) -> None:
    sent = seen(with_middleware(text), request_line).sent
    assert sent is not None
    assert sent.path == path


@pytest.mark.parametrize(
    ("text", "request_line", "status", "said"),
    [
        ("redirectScheme: {scheme: https}", "GET http://a.test/x?y=1", 302, "https://a.test/x?y=1"),
        (
            "redirectScheme: {permanent: true, port: '8443'}",
            "GET http://a.test/",
            301,
            "https://a.test:8443/",
        ),
        (
            "redirectRegex: {regex: '^http://a.test/(.*)', replacement: 'http://b.test/${1}'}",
            "GET http://a.test/x",
            302,
            "http://b.test/x",
        ),
        ("ipAllowList: {sourceRange: [10.0.0.0/8]}", "GET /", 403, "Forbidden"),
        ("ipWhiteList: {sourceRange: [10.0.0.0/8]}", "GET / --client 10.0.0.1", None, ""),
        (
            "ipAllowList: {sourceRange: [10.0.0.0/8], ipStrategy: {depth: 2}, rejectStatusCode: 404}",
            "GET / -H 'X-Forwarded-For: 1.1.1.1, 10.0.0.1, 2.2.2.2'",
            None,
            "",
        ),
        (
            "ipAllowList: {sourceRange: [10.0.0.0/8], ipStrategy: {excludedIPs: [192.168.0.0/16]}}",
            "GET / -H 'X-Forwarded-For: 10.0.0.1, 192.168.1.1'",
            None,
            "",
        ),
        ("buffering: {maxRequestBodyBytes: 2}", "POST / -d abc", 413, "Request Entity Too Large"),
        ("basicAuth: {users: ['a:{SHA}x']}", "GET /", 401, "401 Unauthorized"),
        (
            "headers: {accessControlAllowOriginList: ['*']}",
            "OPTIONS / -H 'Origin: https://x.test' -H 'Access-Control-Request-Method: PUT'",
            200,
            "",
        ),
        ("inFlightReq: {amount: 3}", "GET /", None, ""),
        ("compress: {}", "GET /", None, ""),
        ("rateLimit: {average: 0}", "GET /", None, ""),
        ("contentType: {}", "GET /", None, ""),
    ],
)
def test_middlewares(text: str, request_line: str, status: int | None, said: str) -> None:
    found = seen(with_middleware(text), request_line)
    assert (found.reply.status if found.reply else None) == status
    if found.reply and said:
        assert said in (found.reply.body, dict(found.reply.headers).get("Location"), found.reply.body.strip())


def test_headers_are_set_and_deleted() -> None:
    made = with_middleware("headers: {customRequestHeaders: {X-New: '1', X-Old: '', Host: other.test}}")
    sent = seen(made, "GET / -H 'X-Old: 1' -H 'X-New: 0'").sent
    assert sent is not None
    assert sent.host == "other.test"
    assert dict(sent.headers)["X-New"] == "1"
    assert "X-Old" not in dict(sent.headers)


def test_a_retry_counts_all_attempts_and_a_breaker_is_its_comparisons() -> None:
    (step,) = (
        with_middleware("retry: {attempts: 4, initialInterval: 100ms, status: [502-504]}").routes[0].steps
    )
    assert step.policy == Retry(3, ((502, 504),), interval=0.1)
    breaker = "circuitBreaker: {expression: 'NetworkErrorRatio() > 0.3 || LatencyAtQuantileMS(50.0) > 100'}"
    (step,) = with_middleware(breaker).routes[0].steps
    assert isinstance(step.policy, CircuitBreaker)
    assert step.policy.when == (((Trips.NETWORK_ERRORS, (), 0.3),), ((Trips.LATENCY, (50.0,), 100.0),))


SHA = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="  # password


def basic_auth(words: str) -> BasicAuth:
    (step,) = with_middleware(f"basicAuth: {{{words}}}").routes[0].steps
    assert isinstance(step.policy, BasicAuth)
    return step.policy


def test_users_of_a_file_are_users_and_go_before_those_that_are_written(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_text(f"# who may\n\nada:{SHA}\n bob:$apr1$abcdefgh$MbLznTJAdyT56DBhYgoRl.  \n")
    found = basic_auth(f"usersFile: '{file}', users: ['ada:$2y$05$old', 'eve:{SHA}']")
    assert {user.name: user.value for user in found.users} == {
        "ada": SHA,
        "bob": "$apr1$abcdefgh$MbLznTJAdyT56DBhYgoRl.",
        "eve": SHA,
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"ada:{SHA}x\n# a\nbob:plain\n", "line 3 must be user:hash"),
        (b"no colon", "line 1 must be user:hash"),
        (b"\xff:{SHA}x", "it cannot be read: it is not UTF-8"),
        (b"# nobody\n", "without users nobody could pass"),
        (None, "it cannot be read: No such file or directory"),
        (b"#" * ((8 << 20) + 1), "a file has at most 8 MiB"),
    ],
)
def test_a_users_file_that_does_not_hold_is_a_mistake(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "htpasswd"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Refused, match=re.escape(says)) as refused:
        basic_auth(f"usersFile: '{file}'")
    assert "plain" not in str(refused.value)


NETWORK, LATE = (Trips.NETWORK_ERRORS, (), 0.3), (Trips.LATENCY, (50.0,), 100.0)
FAILED = (Trips.STATUS_RATIO, (500.0, 600.0, 0.0, 600.0), 0.25)


@pytest.mark.parametrize(
    ("expression", "when"),
    [
        ("N && L", ((NETWORK, LATE),)),
        ("N || L && S", ((NETWORK,), (LATE, FAILED))),
        ("N && L || S", ((NETWORK, LATE), (FAILED,))),
        ("(N || L) && S", ((NETWORK, FAILED), (LATE, FAILED))),
        ("((N))", ((NETWORK,),)),
        ("S&&(N||L)", ((FAILED, NETWORK), (FAILED, LATE))),
    ],
)
def test_a_breakers_comparisons_are_joined_by_and_before_or(expression: str, when: object) -> None:
    for short, long in (
        ("N", "NetworkErrorRatio() > 0.3"),
        ("L", "LatencyAtQuantileMS(50.0) > 100"),
        ("S", "ResponseCodeRatio(500, 600, 0, 600) > 0.25"),
    ):
        expression = re.sub(rf"\b{short}\b", long, expression)
    assert conditions(expression) == when


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "a comparison is missing at the end"),
        ("NetworkErrorRatio() > 1 &&", "a comparison is missing at the end"),
        ("&& NetworkErrorRatio() > 1", "a comparison is missing before &&"),
        ("(NetworkErrorRatio() > 1", "a ( is not closed"),
        ("NetworkErrorRatio() > 1)", "&& or || is missing before )"),
        ("NetworkErrorRatio() > 1 NetworkErrorRatio() > 2", "&& or || is missing before the network error"),
        ("NetworkErrorRatio() < 1", "is no comparison (>)"),
        ("!NetworkErrorRatio() > 1", "is no comparison (>)"),
        ("(" * 5000, "is no comparison (>)"),
        (
            " && ".join(["(NetworkErrorRatio() > 1 || NetworkErrorRatio() > 2)"] * 4),
            "more than 16 comparisons",
        ),
        (" || ".join(["NetworkErrorRatio() > 1"] * 17), "more than 16 comparisons"),
    ],
)
def test_a_breakers_expression_that_means_nothing_is_refused(expression: str, says: str) -> None:
    with pytest.raises(BreakerFault, match=re.escape(says)):
        conditions(expression)


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


def test_every_matcher_of_the_grammar_is_in_the_table() -> None:
    assert len(MATCHERS) == 11
