"""Traefik's middlewares: what each does with a request, users' files, and a breaker's expression."""

import re
from pathlib import Path

import pytest

from gateway.paper import seen, traefik
from skylift.gateway.access import BasicAuth
from skylift.gateway.errors import Refused
from skylift.gateway.model import Gateway
from skylift.gateway.policies import CircuitBreaker, Retry, Trips
from skylift.gateway.traefik.breaker import BreakerFault, conditions


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
