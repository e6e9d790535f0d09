"""What `gateway check` says: each finding by a small configuration that has it, and one that has not."""

from pathlib import Path
from textwrap import dedent, indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.gateway.conditions import All, AnyOf, Condition, Not, Part, Test, holds
from skylift.gateway.explode import explodes
from skylift.gateway.implies import covers, implies
from skylift.gateway.lint import Severity, lint
from skylift.gateway.loading import loads
from skylift.gateway.read import read, read_documents
from skylift.gateway.request import Request
from skylift.gateway.text import Kind, Text

SEED = Path(__file__).parent / "seed"


def codes(text: str) -> set[str]:
    found = lint(read_documents(loads(dedent(text), "kong.yaml")))
    return {finding.code for finding in found if finding.severity is not Severity.NOTE}


def routes(text: str) -> str:
    """Kong's file with these routes."""
    return f"services:\n  - name: s\n    url: http://s\n    routes:\n{indent(dedent(text), '      ')}"


USERS = "consumers: [{username: ada, keyauth_credentials: [{key: k}], acls: [{group: staff}]}]\n"


@pytest.mark.parametrize(
    ("code", "has", "has_not"),
    [
        (
            "shadowed_route",
            "- {name: a, paths: [/a], methods: [GET], headers: {x: ['1']}}\n"
            "- {name: b, paths: [/b]}\n- {name: c, paths: ['~/b'], regex_priority: 1}\n"
            "- {name: d, paths: ['~/b/c'], methods: [GET]}\n- {name: e, paths: [/a/b]}\n"
            "- {name: f, paths: ['~/b'], regex_priority: 0}",
            "- {name: a, paths: [/a]}\n- {name: b, paths: [/a/b]}",
        ),
        (
            "equal_routes",
            "- {name: a, paths: [/a]}\n- {name: b, paths: [/a]}",
            "- {name: a, paths: [/a]}\n- {name: b, paths: [/a], methods: [GET]}",
        ),
        (
            "explosive_regex",
            "- {name: a, paths: ['~/(a+)+$']}",
            "- {name: a, paths: ['~/(?<x>[a-z]+)(/[a-z]+)*']}",
        ),
    ],
)
def test_routes(code: str, has: str, has_not: str) -> None:
    assert code in codes(routes(has))
    assert code not in codes(routes(has_not))


@pytest.mark.parametrize(
    ("code", "has", "has_not"),
    [
        ("locks_everyone_out", "plugins: [{name: jwt}]", "plugins: [{name: key-auth}]"),
        (
            "locks_everyone_out",
            "plugins: [{name: key-auth}, {name: acl, config: {allow: [admins]}}]",
            "plugins: [{name: key-auth}, {name: acl, config: {allow: [staff]}}]",
        ),
        (
            "locks_everyone_out",
            "plugins: [{name: ip-restriction, config: {allow: [10.1.0.0/16], deny: [10.0.0.0/8]}}]",
            "plugins: [{name: ip-restriction, config: {allow: [10.0.0.0/8], deny: [10.1.0.0/16]}}]",
        ),
        (
            "shared_limit",
            "plugins: [{name: rate-limiting, config: {minute: 5, limit_by: service}}]",
            "plugins: [{name: rate-limiting, config: {minute: 5, limit_by: ip}}]",
        ),
        (
            "limit_without_consumer",
            "plugins: [{name: rate-limiting, config: {minute: 5}}]",
            "plugins: [{name: key-auth}, {name: rate-limiting, config: {minute: 5}}]",
        ),
        (
            "health_behind_authentication",
            "plugins: [{name: key-auth}]",
            "plugins: [{name: key-auth, route: r}]\nroutes: [{name: health, service: s, paths: [/health, "
            "/healthz, /livez, /readyz, /ready, /live, /ping, /status]}]",
        ),
        (
            "acl_without_authentication",
            "plugins: [{name: acl, config: {allow: [staff]}}]",
            "plugins: [{name: key-auth}, {name: acl, config: {allow: [staff]}}]",
        ),
        ("secret_in_clear", "plugins: [{name: key-auth}]", ""),
        (
            "weak_secret",
            "plugins: [{name: jwt}]\njwt_secrets: [{consumer: ada, key: i, secret: short}]",
            "plugins: [{name: jwt}]\njwt_secrets: [{consumer: ada, key: i, secret: a secret of more than "
            "thirty-two bytes}]",
        ),
        (
            "tokens_without_end",
            "plugins: [{name: jwt}]\njwt_secrets: [{consumer: ada, key: i, secret: short}]",
            "plugins: [{name: jwt, config: {claims_to_verify: [exp]}}]\n"
            "jwt_secrets: [{consumer: ada, key: i, secret: short}]",
        ),
        (
            "open_credentials",
            "plugins: [{name: cors, config: {credentials: true}}]",
            "plugins: [{name: cors, config: {credentials: true, origins: ['https://a.test']}}]",
        ),
        (
            "no_targets",
            "upstreams: [{name: s, targets: [{target: 'a:1', weight: 0}]}]",
            "upstreams: [{name: s, targets: [{target: 'a:1'}]}]",
        ),
    ],
)
def test_policies(code: str, has: str, has_not: str) -> None:
    base = routes("- {name: r, paths: [/]}") + "\n" + USERS
    assert code in codes(f"{base}{has}\n")
    assert code not in codes(f"{base}{has_not}\n")


def test_a_route_of_two_equal_paths_is_not_its_own_rival() -> None:
    assert "equal_routes" not in codes(routes("- {name: a, paths: [/a, /a]}"))


def test_of_very_many_routes_the_shadowed_one_is_still_found_and_what_is_alike_is_said_once() -> None:
    names = "\n".join(f"- {{name: r{n}, paths: [/r{n:04}]}}" for n in range(400))
    many = routes(f"{names}\n- {{name: low, paths: ['~/r0007$'], regex_priority: 0}}\n")
    many += "plugins: [{name: key-auth}, {name: rate-limiting, config: {minute: 5, limit_by: service}}]\n"
    made = read_documents(loads(f"{many}{USERS}", "kong.yaml"))
    found = [finding for finding in lint(made) if finding.code == "shared_limit"]
    assert ["(and 400 more like it)" in finding.sentence for finding in found] == [True]
    assert not [finding for finding in lint(made) if finding.code == "shadowed_route"]
    twice = many.replace("/r0399]", "/r0007]")
    again = lint(read_documents(loads(f"{twice}{USERS}", "kong.yaml")))
    assert [f.sentence for f in again if f.code == "equal_routes"] == [
        "route r399 is equal to r7 (kong.yaml: services[0].routes[7])"
    ]


def test_the_users_files_and_what_is_said_of_them() -> None:
    kong = lint(read(sorted(SEED.glob("kong-*.yaml"))))
    assert {finding.code for finding in kong} == {"locks_everyone_out", "local_limit", "uuid_is_ours"}
    assert {finding.severity for finding in kong} == {Severity.WARNING, Severity.NOTE}
    traefik = lint(read(sorted(SEED.glob("traefik-*.yaml"))))
    assert {finding.severity for finding in traefik} == {Severity.NOTE}


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*b",
        "(ab|.b)*",
        r"(\w+\s?)+$",
        "(/.*)*x",
        "((a+)b?)+",
        "(?:(?:a+)+)",
        "(x+x+)+y",
    ],
)
def test_patterns_that_explode(pattern: str) -> None:
    assert explodes(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "/a/.*",
        "(/[a-z]+)*",
        r"/v\d+/(?<id>[^/]+)",
        "(a|b)*",
        "(ab)+",
        "(a+b)+",
        r"^(\d{1,3}\.){3}\d+$",
        "a+b+c+",
    ],
)
def test_patterns_that_do_not(pattern: str) -> None:
    assert not explodes(pattern)


# --- the arithmetic of shadowing -----------------------------------------------------------------------

texts = st.builds(
    Text,
    st.sampled_from([Kind.EXACT, Kind.PREFIX, Kind.SEGMENT, Kind.SUFFIX, Kind.ONE_LABEL, Kind.REGEX_START]),
    st.sampled_from(["/", "/a", "/a/", "/a/b", "a", ".a", "b.a", ""]),
    st.booleans(),
)
values = st.sampled_from(["/", "/a", "/A", "/a/", "/a/b", "/ab", "a", ".a", "b.a", "c.b.a", "x.a", ""])


@given(texts, texts, values)
def test_what_covers_takes_all_that_it_covers(outer: Text, inner: Text, value: str) -> None:
    if covers(outer, inner) and inner.matches(value):
        assert outer.matches(value)


leaves = st.builds(
    Test,
    st.sampled_from([Part.PATH, Part.HOST, Part.METHOD]),
    st.lists(texts, min_size=1, max_size=2).map(tuple),
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(All, st.lists(inner, max_size=2).map(tuple))
        | st.builds(AnyOf, st.lists(inner, max_size=2).map(tuple))
    ),
    max_leaves=4,
)


@given(trees, trees, values, values, values)
def test_what_is_implied_holds(narrow: Condition, wide: Condition, path: str, host: str, method: str) -> None:
    request = Request(method=method, path=path, host=host)
    if implies(narrow, wide) and holds(narrow, request):
        assert holds(wide, request)


@given(trees, leaves)
def test_narrowing_is_seen(tree: Condition, leaf: Test) -> None:
    assert implies(All((tree, leaf)), tree)
    assert implies(tree, AnyOf((leaf, tree)))
