"""`gateway diff`: which requests change their fate, and nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.paper import kong
from skylift.gateway.compare import compare
from skylift.gateway.conditions import holds
from skylift.gateway.decision import World
from skylift.gateway.loading import loads
from skylift.gateway.read import read, read_documents
from skylift.gateway.request import parse
from skylift.gateway.sample import example, of_route
from skylift.gateway.text import Kind, Text

SEED = Path(__file__).parent / "seed"
BEFORE = (SEED / "kong-routes.yaml").read_text()
NOON = World(now=1_795_867_200.0)


def sentences(after: str) -> list[str]:
    return [word for change in compare(kong(BEFORE), kong(after), NOON).changes for word in change.what]


def test_nothing_changes_between_a_file_and_itself_in_another_order() -> None:
    files = sorted(SEED.glob("kong-*.yaml"))
    found = compare(read(files), read(reversed(files)), NOON)
    assert found.changes == ()
    assert found.tried > 8


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("- /api/users", "- /api/people", "it went to user-service, now to the gateway's own 404"),
        ("http://user-service:8080", "http://user-service:8080/v1", "the backend saw path /7, now /v1/7"),
        ("http://user-service:8080", "http://other:8080", "saw Host user-service:8080, now other:8080"),
        ("- /api/orders", "- /api", "now to order-service"),
        (
            "_format_version",
            "plugins: [{name: rate-limiting, config: {minute: 5}}]\n_format_version",
            "rate-limiting did not run, now it does",
        ),
        (
            "_format_version",
            "plugins: [{name: key-auth}]\n_format_version",
            "without credentials it got the backend, now 401 (key-auth: no API key (apikey))",
        ),
    ],
)
def test_a_change_is_said_in_words(old: str, new: str, says: str) -> None:
    assert any(says in sentence for sentence in sentences(BEFORE.replace(old, new, 1)))


def test_behind_authentication_changes_are_seen_too() -> None:
    locked = "plugins: [{name: key-auth}]\n"
    before, after = (
        kong(locked + BEFORE),
        kong(locked + BEFORE.replace("strip_path: true", "strip_path: false", 1)),
    )
    (change, *_) = compare(before, after, NOON).changes
    assert any("the backend saw path" in sentence for sentence in change.what)


@given(st.sampled_from(["/v[0-9]+/x", "^a|b$", r"/(?<id>\d{2,3})/[^/]+", "(?:ab)*c", r"\w+\.test", "[^x]y?"]))
def test_an_example_of_a_pattern_matches_it(pattern: str) -> None:
    assert Text(Kind.REGEX_SEARCH, pattern).matches(example(pattern))


def test_every_route_is_met_by_a_representative_written_as_explain_takes_it() -> None:
    made = read_documents(
        loads("""
http:
  services: {s: {loadBalancer: {servers: [{url: 'http://a'}]}}}
  routers:
    a: {rule: 'Host(`*.a.test`) && PathPrefix(`/x`) && Method(`PUT`) && Query(`q`, `1`)', service: s}
    b:
      rule: (HostRegexp(`^b[0-9]+$`) || Header(`X`, `1`)) && !Path(`/no`) && ClientIP(`10.0.0.0/8`)
      service: s
""")
    )
    from skylift.gateway.compare import written

    for route in made.routes:
        found = list(of_route(route))
        assert found
        assert all(holds(route.when, request) for request in found)
        assert all(holds(route.when, parse(written(request))) for request in found)
