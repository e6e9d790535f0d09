"""The reference matcher and a real Envoy, held against each other on generated files and requests."""

import http.client
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skylift.core.errors import Rejected
from skylift.gateway.access import Policy
from skylift.gateway.change import joined
from skylift.gateway.conditions import All, AnyOf, Condition, Not, Part, Test, holds
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.envoy.paths import Case, cases
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.snapshot import Snapshot
from skylift.gateway.envoy.supervisor import Supervisor
from skylift.gateway.match import decide
from skylift.gateway.model import (
    Destination,
    Dialect,
    Gateway,
    Listener,
    Route,
    Service,
    Step,
    Target,
    Upstream,
)
from skylift.gateway.policies import AddPrefix, Answer, JoinBase, ReplacePath, Respond, StripPrefix
from skylift.gateway.request import Request, make, normal_path
from skylift.gateway.template import plain
from skylift.gateway.text import Kind, Text
from skylift.testkit.ports import free_port

EXAMPLES = int(os.environ.get("SKYLIFT_GATEWAY_EXAMPLES", "4"))  # each is AT_ONCE configurations
AT_ONCE = 12  # configurations in one Envoy, a listener each: starting one each would take all day
SEGMENTS = ("api", "apix", "v1", "users", "a")
HOSTS = ("a.test", "b.test", "x.a.test", "y.x.a.test")


def texts(kinds: dict[Kind, st.SearchStrategy[str]]) -> st.SearchStrategy[Text]:
    return st.one_of(*(values.map(lambda v, k=kind: Text(k, v)) for kind, values in kinds.items()))


paths = st.lists(st.sampled_from(SEGMENTS), max_size=3).map(lambda parts: "/" + "/".join(parts))
regexes = st.sampled_from(("/api/(users|v1)", "/a", "users$", "^/v1", "/[a-z]+/users", "(?i)/API"))
PATHS = texts(
    {
        Kind.EXACT: paths,
        Kind.PREFIX: paths,
        Kind.SEGMENT: paths,
        Kind.REGEX_START: regexes,
        Kind.REGEX_SEARCH: regexes,
        Kind.REGEX_FULL: regexes,
    }
)
HOST_TEXTS = texts(
    {
        Kind.EXACT: st.sampled_from(HOSTS),
        Kind.SUFFIX: st.just(".a.test"),
        Kind.ONE_LABEL: st.just(".a.test"),
        Kind.REGEX_SEARCH: st.sampled_from(("^[ab]", "a")),
    }
)
VALUES = texts(
    {
        Kind.EXACT: st.sampled_from(("one", "two")),
        Kind.PREFIX: st.just("o"),
        Kind.REGEX_SEARCH: st.sampled_from(("^t", "o$")),
        Kind.PRESENT: st.just(""),
    }
)
# A regular expression sees a parameter's first value only (docs/gateway): generated requests have several.
PLAIN_VALUES = texts(
    {Kind.EXACT: st.sampled_from(("one", "two", "")), Kind.PREFIX: st.just("o"), Kind.PRESENT: st.just("")}
)
TESTS = st.one_of(
    st.lists(PATHS, min_size=1, max_size=2).map(lambda t: Test(Part.PATH, tuple(t))),
    st.lists(HOST_TEXTS, min_size=1, max_size=2).map(lambda t: Test(Part.HOST, tuple(t))),
    st.sampled_from(("GET", "POST", "PUT")).map(lambda m: Test(Part.METHOD, (Text(Kind.EXACT, m),))),
    VALUES.map(lambda t: Test(Part.HEADER, (t,), "X-Kind")),
    PLAIN_VALUES.map(lambda t: Test(Part.QUERY, (t,), "q")),
    st.sampled_from(("127.0.0.0/8", "10.0.0.0/8", "127.0.0.1")).map(
        lambda n: Test(Part.CLIENT, (Text(Kind.NETWORK, n),))
    ),
)


def _tree(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(several.map(All), several.map(AnyOf), inner.map(Not))


CONDITIONS: st.SearchStrategy[Condition] = st.recursive(TESTS, _tree, max_leaves=5)


@st.composite
def gateways(draw: st.DrawFn) -> Gateway:
    """Routes that say their name, so that no backend is needed to see which one took a request."""
    routes = []
    for number in range(draw(st.integers(1, 6))):
        name = f"r{number}"
        says = Step("says", Respond(Answer(200, plain(name))))
        rank = (draw(st.integers(0, 3)),)
        routes.append(Route(name, draw(CONDITIONS), (), (says,), rank))
    if draw(st.booleans()):  # so many that paths are looked up, not tried one after the other
        says = Step("says", Respond(Answer(200, plain("crowd"))))
        crowd = (Test(Part.PATH, (Text(Kind.PREFIX, f"/crowd/{n}"),)) for n in range(15))
        routes += [Route(f"c{n}", test, (), (says,), (1,)) for n, test in enumerate(crowd)]
    return Gateway(Dialect.NATIVE, tuple(routes), not_found=Answer(404, plain("nothing")))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    path = draw(paths) + draw(st.sampled_from(("", "", "/", "/crowd/3")))
    query = draw(st.sampled_from(("", "?q=one", "?q=two&q=one", "?q=", "?p=one")))
    headers = draw(st.sampled_from(((), (("X-Kind", "one"),), (("X-Kind", "two"),))))
    host = draw(st.sampled_from((*HOSTS, "other.test", "A.test")))
    return make(
        draw(st.sampled_from(("GET", "POST", "PUT"))),
        path.replace("//", "/") + query,
        (*headers, ("Host", host)),
        client="127.0.0.1",
    )


class Bench:
    """One Envoy with many listeners, each with a configuration of its own."""

    def __init__(self) -> None:
        self.ports = [free_port() for _ in range(AT_ONCE)]
        self.now = self._all([Gateway(Dialect.NATIVE)] * AT_ONCE)
        self.supervisor = Supervisor(lambda: self.now, lambda _: None, Options(concurrency=1))
        self.supervisor.start()

    def _all(self, gateways_: list[Gateway]) -> Snapshot:
        parts = []
        for number, (gateway, port) in enumerate(zip(gateways_, self.ports, strict=True)):
            listener = Listener(f"listener-{number}", port, "127.0.0.1")
            fields = {name: getattr(gateway, name) for name in ("dialect", "routes", "not_found")}
            parts.append(compiled(Gateway(listeners=(listener,), **fields)))
        return Snapshot(
            tuple(listener for part in parts for listener in part.listeners),
            tuple(table for part in parts for table in part.routes),
            (),
        )

    def take(self, gateways_: list[Gateway]) -> None:
        self.now = self._all(gateways_)
        self.supervisor.look()
        assert self.supervisor.status.error == ""

    def ask(self, number: int, request: Request) -> str:
        line = http.client.HTTPConnection("127.0.0.1", self.ports[number], timeout=20)
        try:
            line.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            line.putheader("Host", request.host)
            for name, value in request.headers:
                line.putheader(name, value)
            line.putheader("Content-Length", "0")
            line.endheaders()
            return line.getresponse().read().decode()
        finally:
            line.close()


@pytest.fixture(scope="module")
def bench(envoy: Path) -> Iterator[Bench]:
    made = Bench()
    yield made
    made.supervisor.stop()


@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],  # shrinking would publish for minutes
    derandomize=EXAMPLES < 10,  # a long run looks for new ones: SKYLIFT_GATEWAY_EXAMPLES
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_envoy_takes_the_route_that_the_reference_takes(bench: Bench, data: st.DataObject) -> None:
    made = data.draw(st.lists(gateways(), min_size=AT_ONCE, max_size=AT_ONCE))
    bench.take(made)
    for number, gateway in enumerate(made):
        for request in data.draw(st.lists(requests(), min_size=8, max_size=8)):
            wanted = decide(gateway, request).reply
            assert wanted is not None
            routes = [f"{route.id} {route.rank}: {route.when}" for route in gateway.ordered]
            assert bench.ask(number, request) == wanted.body, "\n".join([str(request), *routes])


# --- paths ---------------------------------------------------------------------------------------------


def rewritten(found: list[Case], path: str) -> str:
    """What Envoy makes of a path: the first case that is meant, its pattern replaced wherever it matches."""
    request = make("GET", path)
    for case in found:
        if all(holds(literal.test, request) == literal.wanted for literal in case.way):
            return re.sub(case.pattern, case.substitution, path) if case.rewrites else path
    raise AssertionError("no case is meant")


segments = st.lists(st.sampled_from(("api", "users", "x")), max_size=3)
any_path = st.tuples(segments, st.booleans()).map(
    lambda made: normal_path("/" + "/".join(made[0]) + ("/" if made[1] else ""))
)
PLAIN = st.one_of(
    any_path.map(lambda p: Text(Kind.PREFIX, p)),
    st.sampled_from(("/api", "/(api|users)", "/api/(.*)x")).map(lambda r: Text(Kind.REGEX_START, r)),
)


@given(path=any_path, cut=PLAIN, base=any_path, strip=st.booleans())
def test_kongs_joined_path_is_what_the_rewrite_makes(path: str, cut: Text, base: str, strip: bool) -> None:
    if not cut.matches(path):
        return
    policy = JoinBase(base, strip)
    assert rewritten(cases([policy], cut), path) == joined(path, cut, policy)


CHAINS = st.lists(
    st.one_of(
        any_path.map(AddPrefix),
        st.lists(any_path, min_size=1, max_size=2).map(lambda p: StripPrefix(tuple(p))),
    ),
    max_size=2,
)


@given(path=any_path, chain=CHAINS, last=st.none() | any_path.map(ReplacePath))
def test_traefiks_chains_of_path_middlewares_are_one_rewrite_or_refused(
    path: str, chain: list[Policy], last: ReplacePath | None
) -> None:
    policies: list[Policy] = [*chain, *([last] if last else [])]
    try:
        made = cases(policies, None)
    except Rejected:
        strips = [n for n, policy in enumerate(policies) if isinstance(policy, StripPrefix)]
        assert any(n > 0 for n in strips)  # only a cut behind another change
        return
    service, upstream = Service("s", "s"), Upstream("s", (Target("127.0.0.1", 1),))
    steps = tuple(Step("path", policy) for policy in policies)
    route = Route("r", Test(Part.PATH, (Text(Kind.PREFIX, "/"),)), (Destination("s"),), steps)
    on_paper = Gateway(
        Dialect.TRAEFIK, (route,), MappingProxyType({"s": service}), MappingProxyType({"s": upstream})
    )
    sent = decide(on_paper, make("GET", path)).sent
    assert sent is not None
    assert rewritten(made, path) == sent.path
