"""Plans: an API that is sold by limits, on a real Envoy. Every consumer has its own plan's count, whoever is
nobody in particular the plan that is for everybody."""

from collections.abc import Iterator

import pytest

from gateway.backends import Echo, serving
from gateway.door import Door
from skylift.gateway import tokens

SOLD = """
gateway: 1
services: {api: {targets: ['@api']}}
plans:
  free: {count: 2, per: 1h, algorithm: sliding window}
  gold: {count: 5, per: 1h, algorithm: sliding window}
consumers:
  ada: {keys: [key-of-ada], plan: gold, groups: [staff]}
  bob: {keys: [key-of-bob], plan: free}
  eve: {keys: [key-of-eve]}
routes:
  - {name: sold, path: /api, to: api, policies: [{api_key: {}}, {plan: {otherwise: free}}]}
  - {name: inside, path: /staff, to: api, policies: [{api_key: {}}, {groups: {allow: [staff]}}]}
"""


@pytest.fixture(scope="module")
def sold(door: Door) -> Iterator[Door]:
    with serving(Echo("api")) as echo:
        door.open(SOLD, {"api": echo})
        yield door


@pytest.mark.parametrize(("consumer", "count"), [("ada", 5), ("bob", 2), ("eve", 2)])
def test_every_consumer_has_its_plans_count_and_is_told_of_it(sold: Door, consumer: str, count: int) -> None:
    answers = [sold.ask("/api/x", x_api_key=f"key-of-{consumer}") for _ in range(count + 2)]
    assert [answer.status for answer in answers] == [200] * count + [429] * 2
    first, refused = answers[0], answers[-1]
    assert first.headers["ratelimit-limit"] == str(count)
    assert first.headers["ratelimit-remaining"] == str(count - 1)
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["content-type"].startswith("application/")
    assert '"status": 429' in refused.body


def test_groups_are_the_consumers(sold: Door) -> None:
    statuses = {name: sold.ask("/staff", x_api_key=f"key-of-{name}").status for name in ("ada", "bob", "x")}
    assert statuses == {"ada": 200, "bob": 403, "x": 401}


CLAIMED = """
gateway: 1
services: {api: {targets: ['@api']}}
routes:
  - name: tokens
    path: /
    to: api
    policies:
      - jwt: {issuer: id, secret: a secret that is longer than thirty-two bytes}
      - limit: {count: 2, per: 1h, algorithm: sliding window, by: claim, name: tenant}
"""


def test_a_limit_counts_by_what_the_verified_token_says(door: Door) -> None:
    secret = b"a secret that is longer than thirty-two bytes"
    with serving(Echo("api")) as echo:
        door.open(CLAIMED, {"api": echo})
        for tenant in ("one", "two"):
            claims = {"iss": "id", "exp": 9999999999, "tenant": tenant}
            made = [tokens.make({**claims, "n": n}, secret) for n in range(3)]
            answers = [door.ask("/", authorization=f"Bearer {token}", x_sl_key=token) for token in made]
            assert [answer.status for answer in answers] == [200, 200, 429]
        assert not [name for name in echo.asked[-1]["headers"] if name.startswith("x-sl-")]


COUNTED = """
gateway: 1
services: {api: {targets: ['@api']}}
routes: [{name: carts, path: /, to: api, policies: [{limit: {count: 2, per: 1h, by: cookie, name: cart.id}}]}]
"""


def test_a_limit_counts_by_a_cookie_and_by_the_address_where_there_is_none(door: Door) -> None:
    with serving(Echo("api")) as echo:
        door.open(COUNTED, {"api": echo})
        for cart in ("cart.id=1", "a=1; cart.id=2; b=2"):
            answers = [door.ask("/", cookie=cart, x_sl_key=str(n)) for n in range(3)]
            assert [answer.status for answer in answers] == [200, 200, 429]
        for nobody in ({}, {"cookie": "cart=1"}, {"cookie": "xcart.id=7"}):
            assert door.ask("/", **nobody).status == (429 if "xcart.id" in str(nobody) else 200)
        assert echo.asked[0]["headers"]["cookie"] == "cart.id=1"
