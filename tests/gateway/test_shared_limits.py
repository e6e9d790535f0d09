"""Limits that several gateways share, counted by a real redis-server: exact, whoever asks whichever gateway;
and what happens while the store is away."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import wait_until
from gateway.backends import Echo, serving
from gateway.conftest import Answer, clear_of_the_minutes_edge
from gateway.door import Door
from gateway.redis import RedisServer
from skylift.gateway.helper.limits import Limits
from skylift.gateway.limits import Outcome, Rules, State, take_all
from skylift.gateway.policies import Algorithm, Key, KeyKind, Limit, RateLimit, Redis
from skylift.gateway.policies import Answer as Said


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


@pytest.fixture(scope="module")
def doors(limits_filter: Path) -> Iterator[tuple[Door, Door]]:
    """Two gateways."""
    one, two = Door(), Door()
    yield one, two
    one.close()
    two.close()


NATIVE = """
gateway: 1
services: {s: {targets: ['@backend']}}
routes:
  - name: %s
    path: /
    to: s
    policies:
      - limit: {count: %d, per: 1h, algorithm: %s, by: header, name: X-Who, redis: {port: %d, timeout: 5s}%s}
"""


def both(doors: tuple[Door, Door], text: str, backend: Echo, name: str = "gateway.yaml") -> None:
    for door in doors:
        door.open(text, {"backend": backend}, name)


def several(doors: tuple[Door, Door], count: int) -> list[Answer]:
    """So many requests of one client at once, half of them at each gateway."""
    answers: list[Answer] = []
    callers = [
        threading.Thread(target=lambda n=n: answers.append(doors[n % 2].ask("/", x_who="one")))
        for n in range(count)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return answers


@pytest.mark.parametrize("algorithm", ["sliding window", "token bucket", "leaky bucket"])
def test_two_gateways_let_exactly_the_number_in_together(
    doors: tuple[Door, Door], backend: Echo, store: RedisServer, algorithm: str
) -> None:
    both(doors, NATIVE % (algorithm.replace(" ", "-"), 7, algorithm, store.port, ""), backend)
    answers = several(doors, 20)
    passed = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 429]
    assert (len(passed), len(refused)) == (7, 13)
    assert sorted(answer.headers["ratelimit-remaining"] for answer in passed) == [str(n) for n in range(7)]
    assert all(1 <= int(answer.headers["retry-after"]) <= 3600 for answer in refused)
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in refused)
    assert doors[0].ask("/", x_who="another").status == 200


KONG = """
_format_version: "3.0"
services: [{name: s, url: 'http://@backend', routes: [{name: r, paths: [/]}]}]
plugins:
  - name: rate-limiting
    config:
      minute: 3
      hour: 100
      policy: redis
      limit_by: ip
      fault_tolerant: %s
      redis: {host: 127.0.0.1, port: %d, timeout: 5000}
"""


def test_kongs_policy_redis_is_its_calendar_and_its_headers(
    doors: tuple[Door, Door], backend: Echo, store: RedisServer
) -> None:
    both(doors, KONG % ("true", store.port), backend, "kong.yaml")
    clear_of_the_minutes_edge()
    answers = [doors[n % 2].ask("/") for n in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-minute"] for answer in answers] == ["2", "1", "0", "0"]
    assert answers[0].headers["x-ratelimit-limit-hour"] == "100"
    assert json.loads(answers[3].body)["message"] == "API rate limit exceeded"
    assert answers[3].headers["retry-after"] == answers[3].headers["ratelimit-reset"]


def test_a_cookie_counts_in_the_store_too(
    doors: tuple[Door, Door], backend: Echo, store: RedisServer
) -> None:
    text = (NATIVE % ("carts", 2, "token bucket", store.port, "")).replace(
        "header, name: X-Who", "cookie, name: cart"
    )
    both(doors, text, backend)
    for cart in ("one", "two"):
        answers = [doors[n % 2].ask("/", cookie=f"a=1; cart={cart}") for n in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]


HOPS = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: s, middlewares: [m]}}
  services: {s: {loadBalancer: {servers: [{url: 'http://@backend'}]}}}
  middlewares:
    m:
      rateLimit:
        average: 1
        period: 1h
        burst: 2
        redis: {endpoints: ['127.0.0.1:%d']}
        sourceCriterion: {ipStrategy: {depth: 1}}
"""


def test_an_address_by_depth_counts_in_the_store_too(
    doors: tuple[Door, Door], backend: Echo, store: RedisServer
) -> None:
    both(doors, HOPS % store.port, backend, "traefik.yaml")
    for who in ("192.0.2.1", "192.0.2.2"):
        answers = [doors[n % 2].ask("/", x_forwarded_for=f"9.9.9.{n}, {who}") for n in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]


SOLD = """
gateway: 1
services: {s: {targets: ['@backend']}}
plans:
  free: {count: 2, per: 1h, algorithm: sliding window, redis: {port: %d, timeout: 5s}}
  gold: {count: 5, per: 1h, algorithm: sliding window, redis: {port: %d, timeout: 5s}}
consumers:
  ada: {keys: [key-of-ada], plan: gold}
  bob: {keys: [key-of-bob], plan: free}
  eve: {keys: [key-of-eve]}
routes: [{name: sold, path: /, to: s, policies: [{api_key: {}}, {plan: {otherwise: free}}]}]
"""


@pytest.mark.parametrize(("consumer", "count"), [("ada", 5), ("bob", 2), ("eve", 2)])
def test_a_plan_is_one_count_over_several_gateways(
    doors: tuple[Door, Door], backend: Echo, store: RedisServer, consumer: str, count: int
) -> None:
    both(doors, SOLD % (store.port, store.port), backend)
    answers = [
        doors[n % 2].ask("/", x_api_key=f"key-of-{consumer}", x_sl_who="ada") for n in range(count + 2)
    ]
    assert [answer.status for answer in answers] == [200] * count + [429] * 2
    assert answers[0].headers["ratelimit-limit"] == str(count)
    assert [answer.headers["ratelimit-remaining"] for answer in answers[:count]] == [
        str(count - 1 - n) for n in range(count)
    ]
    assert "x-sl-who" not in backend.asked[-1]["headers"]


OWN = """
_format_version: "3.0"
services: [{name: s, url: 'http://@backend', routes: [{name: r, paths: [/]}]}]
consumers:
  - username: ada
    keyauth_credentials: [{key: k1}]
    plugins: [{name: rate-limiting, config: {hour: 4, policy: redis, redis: &r {host: 127.0.0.1, port: %d}}}]
  - {username: bob, keyauth_credentials: [{key: k2}]}
plugins:
  - name: key-auth
  - {name: rate-limiting, config: {hour: 1, policy: redis, redis: *r}}
"""


def test_a_consumers_own_plugin_counts_in_the_store(
    doors: tuple[Door, Door], backend: Echo, store: RedisServer
) -> None:
    both(doors, OWN % store.port, backend, "kong.yaml")
    ada = [doors[n % 2].ask("/", apikey="k1") for n in range(5)]
    bob = [doors[n % 2].ask("/", apikey="k2") for n in range(2)]
    assert [answer.status for answer in ada] == [200] * 4 + [429]
    assert [answer.status for answer in bob] == [200, 429]
    assert ada[0].headers["x-ratelimit-limit-hour"] == "4"


@pytest.mark.parametrize(("tolerant", "status"), [("true", 200), ("false", 500)])
def test_while_the_store_is_away_fault_tolerant_decides(
    doors: tuple[Door, Door], backend: Echo, store: RedisServer, tolerant: str, status: int
) -> None:
    both(doors, KONG % (tolerant, store.port), backend, "kong.yaml")
    store.stop()
    try:
        answers = [door.ask("/") for door in doors]
        assert [answer.status for answer in answers] == [status] * 2
        assert not [name for answer in answers for name in answer.headers if "ratelimit" in name]
        if status == 500:
            assert "An unexpected error occurred" in answers[0].body
    finally:
        store.start()
    assert {door.ask("/").status for door in doors} <= {200, 429}


@pytest.mark.parametrize(("tolerant", "status"), [("true", 200), ("false", 500)])
def test_a_helper_that_is_killed_is_the_same_and_is_back(
    doors: tuple[Door, Door], backend: Echo, store: RedisServer, tolerant: str, status: int
) -> None:
    door = doors[0]
    door.open(KONG % (tolerant, store.port), {"backend": backend}, "kong.yaml")
    restarts = door.supervisor.status.restarts
    helper = door.supervisor.helper
    os.kill(helper.pid, signal.SIGKILL)
    wait_until(lambda: not helper.running, 20, "it is dead")
    assert door.ask("/").status == status
    door.supervisor.look()
    assert door.supervisor.status.restarts == restarts + 1
    assert "ratelimit-limit" in door.ask("/").headers


ALGORITHMS = st.sampled_from(list(Algorithm))
LIMITS = st.lists(
    st.builds(
        Limit,
        st.integers(1, 4),
        st.sampled_from([1.0, 10.0, 60.0, 3600.0, 30 * 86400.0, 365 * 86400.0]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=2,
).map(tuple)
GAPS = st.lists(
    st.sampled_from([0.0, 0.1, 0.5, 1.0, 9.5, 59.0, 3600.0, 86400.0 * 20]), min_size=1, max_size=12
)
START = 1_795_867_230.0


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ALGORITHMS, LIMITS, GAPS, st.booleans(), st.sampled_from([0.0, 0.5]))
def test_the_store_decides_as_the_reference_does(
    store: RedisServer,
    algorithm: Algorithm,
    limits: tuple[Limit, ...],
    gaps: list[float],
    counts_refused: bool,
    max_delay: float,
) -> None:
    """Whatever the algorithm, its numbers and when requests come."""
    policy = RateLimit(
        "reference",
        algorithm,
        limits,
        Key(KeyKind.EVERYBODY),
        Said(429),
        redis=Redis("127.0.0.1", store.port),
        counts_refused=counts_refused,
        max_delay=max_delay,
    )
    rules, now = Rules(counts_refused, max_delay), START
    states: tuple[State | None, ...] = (None,) * len(limits)

    async def compare() -> None:
        nonlocal now, states
        counting = Limits()
        key = repr((algorithm, limits, gaps, counts_refused, max_delay, next(turn)))
        for gap in gaps:
            now += gap
            expected, states = take_all(algorithm, limits, states, now, rules)
            found = await counting.take(policy, key, now)
            assert rounded(found) == rounded(expected)
        await counting.close()

    asyncio.run(compare())


turn = iter(range(1 << 30))


def rounded(outcome: Outcome) -> list[object]:
    return [
        replace(
            verdict,
            reset=round(verdict.reset, 3) + 0.0,
            retry_after=round(verdict.retry_after, 3) + 0.0,
            delay=round(verdict.delay, 3) + 0.0,
        )
        for verdict in outcome.verdicts
    ]
