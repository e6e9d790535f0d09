"""Kong's plugins: what each does with a request, and the policies that they become."""

from dataclasses import replace

import pytest

from gateway.paper import kong, seen
from skylift.gateway import tokens
from skylift.gateway.access import ApiKey, BasicAuth, IpList, Jwt
from skylift.gateway.match import decide
from skylift.gateway.model import Gateway
from skylift.gateway.policies import KeyKind, RateLimit, SizeLimit
from skylift.gateway.request import make


def one(plugin: str, config: str = "{}") -> Gateway:
    return kong(f"""
        services: [{{name: s, url: 'http://s', routes: [{{name: r, paths: [/]}}]}}]
        consumers:
          - username: ada
            acls: [{{group: staff}}]
            keyauth_credentials: [{{key: k1}}]
            basicauth_credentials: [{{username: ada, password: secret}}]
        plugins: [{{name: {plugin}, config: {config}}}]
    """)


def policy_of(gateway: Gateway, name: str) -> object:
    return next(step.policy for step in gateway.routes[0].steps if step.name == name)


@pytest.mark.parametrize(
    ("config", "request_line", "status", "message"),
    [
        ("{}", "GET /", 401, "No API key found in request"),
        ("{}", "GET / -H 'apikey: no'", 401, "Unauthorized"),
        ("{}", "GET /?apikey=k1&apikey=k1", 401, "Duplicate API key found"),
        ("{}", "GET /?apikey=k1", None, ""),
        ("{key_names: [x-key]}", "GET / -H 'X-Key: k1'", None, ""),
        ("{key_in_query: false}", "GET /?apikey=k1", 401, "No API key found in request"),
        ("{run_on_preflight: false}", "OPTIONS /", None, ""),
        ("{anonymous: ada}", "GET /", None, ""),
    ],
)
def test_api_keys(config: str, request_line: str, status: int | None, message: str) -> None:
    found = seen(one("key-auth", config), request_line)
    assert (found.reply.status if found.reply else None) == status
    assert message in (found.reply.body if found.reply else "")


def test_ways_in_that_allow_an_anonymous_are_alternatives() -> None:
    made = kong("""
        services: [{name: s, url: 'http://s', routes: [{name: r, paths: [/]}]}]
        consumers:
          - {username: nobody}
          - username: ada
            keyauth_credentials: [{key: k1}]
            jwt_secrets: [{key: issuer, secret: a secret of more than thirty-two bytes}]
        plugins:
          - {name: jwt, config: {anonymous: nobody}}
          - {name: key-auth, config: {anonymous: nobody}}
    """)
    token = tokens.make({"iss": "issuer"}, b"a secret of more than thirty-two bytes")
    who = [
        seen(made, f"GET /{query}").consumer for query in (f"?jwt={token}", "?apikey=k1", "", "?apikey=k2")
    ]
    assert who == ["ada", "ada", "nobody", "nobody"]


def test_a_hidden_key_goes_no_further() -> None:
    sent = seen(one("key-auth", "{hide_credentials: true}"), "GET /?apikey=k1&x=1 -H 'apikey: k1'").sent
    assert sent is not None
    assert sent.query == (("x", "1"),)
    assert "apikey" not in dict(sent.headers)


def test_a_secret_is_not_in_a_sentence_or_a_picture_of_the_model() -> None:
    made = one("key-auth")
    assert "k1" not in repr(made.routes)
    assert "k1" not in repr(made.consumers)


@pytest.mark.parametrize(
    ("config", "client", "status"),
    [
        ("{allow: [10.0.0.0/8]}", "10.1.1.1", None),
        ("{allow: [10.0.0.0/8]}", "192.0.2.1", 403),
        ("{deny: [10.0.0.0/8]}", "10.1.1.1", 403),
        ("{allow: [10.0.0.0/8], deny: [10.1.0.0/16]}", "10.1.1.1", 403),
        ("{allow: ['2001:db8::/32'], status: 404}", "192.0.2.1", 404),
    ],
)
def test_addresses(config: str, client: str, status: int | None) -> None:
    found = decide(one("ip-restriction", config), make(client=client))
    assert (found.reply.status if found.reply else None) == status
    if status == 403:
        assert found.reply is not None
        assert f"IP address not allowed: {client}" in found.reply.body


@pytest.mark.parametrize(
    ("plugin", "config", "request_line", "status"),
    [
        ("request-size-limiting", "{allowed_payload_size: 3, size_unit: bytes}", "POST / -d abcd", 413),
        ("request-size-limiting", "{allowed_payload_size: 3, size_unit: bytes}", "POST / -d abc", None),
        ("request-size-limiting", "{require_content_length: true}", "POST / -d abc", 411),
        ("request-termination", "{status_code: 418, message: tea}", "GET /", 418),
        ("acl", "{allow: [staff]}", "GET /", 401),
        ("redirect", "{location: 'https://new.test'}", "GET /", 301),
        ("correlation-id", "{header_name: X-Id, echo_downstream: true}", "GET /", None),
        ("cors", "{origins: ['https://a.test']}", "GET /", None),
        ("proxy-cache", "{strategy: memory}", "GET /", None),
        ("basic-auth", "{}", "GET /", 401),
    ],
)
def test_other_plugins(plugin: str, config: str, request_line: str, status: int | None) -> None:
    found = seen(one(plugin, config), request_line)
    assert (found.reply.status if found.reply else None) == status


def test_what_plugins_become() -> None:
    assert policy_of(one("request-size-limiting"), "request-size-limiting") == replace(
        policy_of(one("request-size-limiting"), "request-size-limiting"),  # type: ignore[type-var]
        request=128 << 20,
    )
    limit = policy_of(one("rate-limiting", "{hour: 5, limit_by: header, header_name: x}"), "rate-limiting")
    assert isinstance(limit, RateLimit)
    assert (limit.key.kind, limit.key.name, limit.bucket) == (KeyKind.HEADER, "x", "r:s")
    basic = policy_of(one("basic-auth"), "basic-auth")
    assert isinstance(basic, BasicAuth)
    assert basic.users[0].value == "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="
    assert isinstance(policy_of(one("key-auth"), "key-auth"), ApiKey)
    assert isinstance(policy_of(one("jwt"), "jwt"), Jwt)
    assert isinstance(policy_of(one("ip-restriction", "{deny: ['::1']}"), "ip-restriction"), IpList)
    assert isinstance(policy_of(one("request-size-limiting"), "request-size-limiting"), SizeLimit)


TRANSFORM = """{
    remove: {headers: [X-Old], querystring: [gone]},
    rename: {headers: ['X-A:X-B'], querystring: ['a:b']},
    replace: {headers: ['X-Here:new', 'Host:other.test'], uri: '/made/$(uri_captures.id)'},
    add: {headers: ['X-Path:$(query_params.q or "none")', 'X-Here:no'], body: ['by:gateway']},
    append: {headers: ['X-Here:more']},
    http_method: put}"""


def test_the_transformers_verbs_run_in_kongs_order() -> None:
    made = kong(f"""
        services:
          - name: s
            url: http://s
            routes:
              - name: r
                paths: ['~/users/(?<id>\\d+)']
                plugins: [{{name: request-transformer, config: {TRANSFORM}}}]
    """)
    request = (
        "POST '/users/7?gone=1&a=2' -H 'X-Old: 1' -H 'X-A: a' -H 'X-Here: old' "
        "-H 'Content-Type: application/json' -d '{}'"
    )
    sent = seen(made, request).sent
    assert sent is not None
    assert (sent.method, sent.path, sent.host, sent.query) == ("PUT", "/made/7", "other.test", (("b", "2"),))
    assert [value for name, value in sent.headers if name == "X-Here"] == ["new", "more"]
    told = dict(sent.headers)
    assert told["X-B"] == "a"
    assert told["X-Path"] == "none"
    assert "X-Old" not in told
    assert sent.body == b'{"by": "gateway"}'
