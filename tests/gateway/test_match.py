"""The reference matcher: order, reasons, policies in order, what the backend sees."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.gateway import tokens
from skylift.gateway.access import (
    Acl,
    CredentialPlace,
    Fault,
    From,
    IpList,
    Jwt,
    JwtKey,
    PerConsumer,
    Policy,
    Refusals,
)
from skylift.gateway.conditions import ALWAYS, All, AnyOf, Condition, Not, Part, Test, holds, why_not
from skylift.gateway.decision import NO_COUNTERS, World
from skylift.gateway.effects import effect
from skylift.gateway.match import decide
from skylift.gateway.model import (
    Consumer,
    Destination,
    Dialect,
    Forwarding,
    Gateway,
    Route,
    Service,
    Step,
    Target,
    Upstream,
)
from skylift.gateway.policies import (
    Algorithm,
    Answer,
    Edit,
    JoinBase,
    Key,
    KeyKind,
    Limit,
    LimitHeaders,
    RateLimit,
    RequestTransform,
    Verb,
    Where,
)
from skylift.gateway.request import Request, make
from skylift.gateway.template import Source, Var, plain
from skylift.gateway.text import Kind, Text

NOON = 1_795_867_200.0
SECRET = b"a secret of more than thirty-two bytes"


def prefix(path: str) -> Test:
    return Test(Part.PATH, (Text(Kind.PREFIX, path),))


def gateway(routes: Iterable[Route], **more: object) -> Gateway:
    made = Gateway(
        Dialect.NATIVE,
        tuple(routes),
        services={"users": Service("users", "users")},
        upstreams={"users": Upstream("users", (Target("user-service", 8080),))},
    )
    return replace(made, **more)  # type: ignore[arg-type]


def route(name: str, when: Condition, *policies: Policy, rank: int = 0, **more: object) -> Route:
    steps = tuple(Step(type(policy).__name__, policy) for policy in policies)
    made = Route(name, when, (Destination("users"),), steps, rank=(rank,))
    return replace(made, **more)  # type: ignore[arg-type]


# --- which route ---------------------------------------------------------------------------------------


def test_the_highest_rank_takes_the_request_and_the_others_say_why_not() -> None:
    made = gateway(
        [
            route("all", ALWAYS),
            route("users", prefix("/users"), rank=6),
            route(
                "admins", All((prefix("/users"), Test(Part.HEADER, (Text(Kind.EXACT, "1"),), "x"))), rank=9
            ),
        ]
    )
    found = decide(made, make(url="/users/7"))
    assert found.route is not None
    assert found.route.name == "users"
    assert [(miss.route.name, miss.reasons, miss.asked) for miss in found.misses] == [
        ("admins", ("header x is absent",), True),
        ("all", ("it would take it too, but comes later",), False),
    ]


def test_equal_ranks_are_tried_as_written() -> None:
    found = decide(gateway([route("first", ALWAYS), route("second", ALWAYS)]), make())
    assert found.route is not None
    assert found.route.name == "first"


def test_no_route_is_the_gateways_own_404() -> None:
    found = decide(gateway([route("a", prefix("/a"))]), make(url="/b"))
    assert found.reply is not None
    assert (found.reply.status, found.reply.body) == (404, "not found\n")
    assert found.sent is None
    assert found.misses[0].reasons == ("path /b does not begin with /a",)


def test_only_the_wrong_scheme_has_its_own_answer_unless_another_route_takes_it() -> None:
    secure = route("secure", prefix("/a"), schemes=("https",), wrong_scheme=Answer(426, plain("use HTTPS")))
    found = decide(gateway([secure]), make(url="/a"))
    assert found.reply is not None
    assert found.reply.status == 426
    assert decide(gateway([secure, route("any", ALWAYS)]), make(url="/a")).sent is not None
    assert decide(gateway([secure]), make(url="https://localhost/a")).sent is not None


leaves = st.builds(
    Test,
    st.sampled_from([Part.PATH, Part.METHOD, Part.HOST]),
    st.lists(st.builds(Text, st.sampled_from([Kind.EXACT, Kind.PREFIX]), st.sampled_from(["/", "/a", "GET"])))
    .filter(bool)
    .map(tuple),
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(All, st.lists(inner, max_size=3).map(tuple))
        | st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=8,
)


@given(trees, st.sampled_from(["/", "/a", "/ab"]), st.sampled_from(["GET", "PUT"]))
def test_there_are_reasons_exactly_where_a_condition_fails(when: Condition, path: str, method: str) -> None:
    request = Request(method=method, path=path)
    assert bool(why_not(when, request)) != holds(when, request)
    assert holds(Not(when), request) != holds(when, request)


# --- policies in order --------------------------------------------------------------------------------

LIMITED = RateLimit(
    "users",
    Algorithm.FIXED_WINDOW,
    (Limit(2, 60, name="Minute"), Limit(5, 3600, name="Hour")),
    Key(KeyKind.CONSUMER),
    Answer(429, plain("slow down"), headers=(("Retry-After", (Var(Source.LIMIT_RESET),)),)),
    LimitHeaders.KONG,
    counts_refused=True,
)
TOKENS = Jwt(
    (CredentialPlace(From.HEADER, "authorization", "Bearer"), CredentialPlace(From.QUERY, "jwt")),
    (JwtKey("issuer", ("HS256",), SECRET, consumer="ada"),),
    Refusals(Answer(401, plain("no")), ((Fault.EXPIRED, Answer(401, plain("token expired"))),)),
)


def test_a_limit_counts_until_it_refuses_and_says_when_to_come_back() -> None:
    made = gateway([route("users", ALWAYS, LIMITED)])
    counters, seen = NO_COUNTERS, []
    for second in range(3):
        found = decide(made, make(), World(now=NOON + 10 + second), counters)
        counters = found.counters
        seen.append(dict(found.reply.headers if found.reply else found.answer_headers))
    assert [each["X-RateLimit-Remaining-Minute"] for each in seen] == ["1", "0", "0"]
    assert seen[2]["Retry-After"] == "48"
    assert seen[2]["RateLimit-Limit"] == "2"
    other = decide(made, make(client="192.0.2.9"), World(now=NOON + 12), counters)
    assert other.sent is not None, "without a consumer the address counts"


@pytest.mark.parametrize(
    ("claims", "body"),
    [
        ({"iss": "issuer", "exp": NOON + 60}, None),
        ({"iss": "issuer", "exp": NOON}, "token expired"),
        ({"iss": "issuer", "nbf": NOON + 60}, "no"),
        ({"iss": "issuer", "exp": "soon"}, "no"),
        ({"iss": "stranger"}, "no"),
        ({}, "no"),
    ],
)
def test_a_token_passes_or_says_what_the_dialect_says(claims: dict[str, object], body: str | None) -> None:
    made = gateway([route("users", ALWAYS, TOKENS)])
    headers = (("Authorization", f"Bearer {tokens.make(claims, SECRET)}"),)
    found = decide(made, make(headers=headers), World(now=NOON))
    assert (found.reply.body if found.reply else None) == body


def test_no_algorithm_is_no_signature() -> None:
    token = tokens.make({"iss": "issuer"}, SECRET)
    header = tokens.encoded(b'{"alg":"none","typ":"JWT"}')
    for forged in (
        f"{header}.{token.split('.')[1]}.",
        f"{header}.{token.split('.')[1]}.{token.split('.')[2]}",
    ):
        found = decide(
            gateway([route("users", ALWAYS, TOKENS)]), make(headers=(("Authorization", f"Bearer {forged}"),))
        )
        assert found.reply is not None
        assert "unsigned" in found.reply.why


def test_two_different_tokens_are_none() -> None:
    one, two = (tokens.make({"iss": "issuer", "n": n}, SECRET) for n in (1, 2))
    found = decide(
        gateway([route("users", ALWAYS, TOKENS)]),
        make(url=f"/?jwt={one}", headers=(("Authorization", f"Bearer {two}"),)),
    )
    assert found.reply is not None
    assert "more than one" in found.reply.why


def test_policies_run_in_their_order_and_the_first_refusal_ends_it() -> None:
    refuse = IpList((), ("192.0.2.0/24",), Answer(403, plain("not from here")))
    found = decide(gateway([route("users", ALWAYS, refuse, TOKENS)]), make(), World(now=NOON))
    assert found.reply is not None
    assert found.reply.status == 403
    assert [ran.step.name for ran in found.ran] == ["IpList"]


def test_who_is_authenticated_decides_about_groups_and_plans() -> None:
    gold = replace(LIMITED, limits=(Limit(100, 60, name="Minute"),))
    made = gateway(
        [
            route(
                "users",
                ALWAYS,
                TOKENS,
                Acl(("admins",), (), Refusals(Answer(403))),
                PerConsumer(LIMITED, (("ada", gold),)),
            )
        ],
        consumers={"ada": Consumer("ada", id="1", groups=("admins",))},
        forwarding=Forwarding(consumer_headers=True),
    )
    token = tokens.make({"iss": "issuer"}, SECRET)
    headers = (("Authorization", f"Bearer {token}"), ("X-Consumer-Username", "mallory"))
    found = decide(made, make(headers=headers), World(now=NOON))
    assert found.sent is not None
    assert found.consumer == "ada"
    assert ("X-Consumer-Username", "ada") in found.sent.headers
    assert ("X-Consumer-Username", "mallory") not in found.sent.headers
    assert ("X-Consumer-Groups", "admins") in found.sent.headers
    assert dict(found.answer_headers)["X-RateLimit-Limit-Minute"] == "100"


def test_what_the_backend_sees() -> None:
    edits = (
        Edit(Verb.REMOVE, Where.HEADER, "x-internal"),
        Edit(Verb.RENAME, Where.HEADER, "old", ("New",)),
        Edit(Verb.REPLACE, Where.HEADER, "absent", ("x",)),
        Edit(Verb.ADD, Where.HEADER, "X-Request-ID", (Var(Source.UUID),)),
        Edit(Verb.APPEND, Where.QUERY, "q", ("2",)),
        Edit(Verb.ADD, Where.BODY, "by", ("gateway",)),
    )
    users = route(
        "users",
        prefix("/api"),
        JoinBase("/v1", True),
        RequestTransform(edits),
        path=Text(Kind.PREFIX, "/api"),
    )
    request = make(
        "POST",
        "/api/users?q=1",
        (("X-Internal", "1"), ("Old", "o"), ("Content-Type", "application/json")),
        body=b'{"a": 1}',
    )
    sent = decide(gateway([users]), request, World(uuid="UUID")).sent
    assert sent is not None
    assert (sent.method, sent.path, sent.host) == ("POST", "/v1/users", "user-service:8080")
    assert sent.query == (("q", "1"), ("q", "2"))
    assert sent.body == b'{"a": 1, "by": "gateway"}'
    names = dict(sent.headers)
    assert names["New"] == "o"
    assert names["X-Request-ID"] == "UUID"
    assert names["X-Forwarded-For"] == "192.0.2.1"
    assert not {"X-Internal", "Old", "absent"} & set(names)


def test_every_policy_has_an_effect() -> None:
    from typing import get_args

    def flat(union: object) -> Iterable[type]:
        for part in get_args(union) or ():
            yield from flat(part) if get_args(part) else [part]

    for policy in flat(Policy):
        assert effect(policy.__new__(policy))
