"""Traefik's rules: what each takes, what is wrong with one, and which of several wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.paper import fate, traefik
from skylift.gateway.conditions import holds
from skylift.gateway.request import make, parse
from skylift.gateway.traefik.rule import MATCHERS, RuleFault
from skylift.gateway.traefik.rule import parse as rule


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


def test_every_matcher_of_the_grammar_is_in_the_table() -> None:
    assert len(MATCHERS) == 11


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
