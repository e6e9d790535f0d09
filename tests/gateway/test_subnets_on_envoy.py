"""`ipv6Subnet`: IPv6 addresses of one subnet are one client. On paper, and on a real Envoy."""

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends import Echo, serving
from gateway.door import Door
from gateway.redis import RedisServer
from skylift.gateway.decision import World
from skylift.gateway.match import decide
from skylift.gateway.request import make
from skylift.gateway.text import in_network, over_subnets, subnet_of

CONFIG = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: s, middlewares: [NAME]}}
  services: {s: {loadBalancer: {servers: [{url: 'http://@backend'}]}}}
  middlewares: {NAME: {MIDDLEWARE}}
"""


@pytest.fixture(scope="module")
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


TRUSTED = "entryPoints: {web: {address: ':80', forwardedHeaders: {trustedIPs: [127.0.0.1]}}}"


def open_(door: Door, backend: Echo, middleware: str, where: str) -> None:
    """Where no depth says which address counts, it is the peer's, as a trusted proxy tells it."""
    name = "hops" if where else "peers"  # counters outlive a configuration
    text = CONFIG.replace("MIDDLEWARE", middleware).replace("NAME", name) + ("" if where else TRUSTED)
    door.open(text, {"backend": backend}, "traefik.yaml")


ADDRESSES = st.integers(0, 15).flatmap(
    lambda near: st.sampled_from((0, 1 << 64, 1 << 120, 0x20010DB8 << 96)).map(
        lambda base: str(IPv6Address(base + (near << 61) + near))
    )
)
NETWORKS = st.tuples(ADDRESSES, st.sampled_from((0, 8, 32, 60, 63, 64, 65, 127, 128))).map(
    lambda made: str(IPv6Network(f"{made[0]}/{made[1]}", strict=False))
)


@given(address=ADDRESSES, networks=st.lists(NETWORKS, min_size=1, max_size=3), bits=st.integers(1, 128))
def test_whole_addresses_are_asked_what_their_subnets_would_be(
    address: str, networks: list[str], bits: int
) -> None:
    first = subnet_of(address, bits)
    wanted = any(in_network(first, network) for network in networks)
    if first != "::":  # the address of nobody
        assert any(in_network(address, each) for each in over_subnets(tuple(networks), bits)) == wanted


@pytest.mark.parametrize("where", ["depth: 1, ", ""])
def test_a_limit_counts_a_subnet_as_one_client(door: Door, backend: Echo, where: str) -> None:
    strategy = f"sourceCriterion: {{ipStrategy: {{{where}ipv6Subnet: 60}}}}"
    open_(door, backend, f"rateLimit: {{average: 1, period: 1h, burst: 2, {strategy}}}", where)
    ways = ("2001:db8:0:10::1", "2001:db8:0:1f:ff::2", "2001:db8:0:11::3", "2001:db8:0:20::1", "192.0.2.1")
    statuses = [door.ask("/", x_forwarded_for=way).status for way in ways]
    assert statuses == [200, 200, 429, 200, 200]
    counters = {}
    for way, status in zip(ways, statuses, strict=True):
        asked = make("GET", "/", (("X-Forwarded-For", way),), client="127.0.0.1")
        found = decide(door.gateway, asked, World(now=1.0), counters)
        counters = dict(found.counters)
        assert (found.reply.status if found.reply else 200) == status


@pytest.mark.parametrize("where", ["depth: 1, ", ""])
def test_a_list_asks_for_the_first_address_of_a_subnet(door: Door, backend: Echo, where: str) -> None:
    ranges = "sourceRange: ['2001:db8::/32', '2001:db9:0:10::/64', '2001:db9:0:31::/64', 10.0.0.0/8]"
    open_(door, backend, f"ipAllowList: {{{ranges}, ipStrategy: {{{where}ipv6Subnet: 60}}}}", where)
    for way, status in {
        "2001:db8:7::1": 200,
        "2001:db9:0:1f::1": 200,
        "2001:db9:0:31::1": 403,
        "2001:db9:0:20::1": 403,
        "10.1.1.1": 200,
        "192.0.2.1": 403,
    }.items():
        asked = make("GET", "/", (("X-Forwarded-For", way),), client="127.0.0.1")
        found = decide(door.gateway, asked).reply
        assert (found.status if found else 200) == status, way
        assert door.ask("/", x_forwarded_for=way).status == status, way


@pytest.mark.parametrize("where", ["depth: 1, ", ""])
def test_a_subnet_is_one_client_in_the_store_too(
    door: Door, backend: Echo, tmp_path: Path, where: str
) -> None:
    store = RedisServer(tmp_path)
    store.start()
    try:
        strategy = f"sourceCriterion: {{ipStrategy: {{{where}ipv6Subnet: 60}}}}"
        redis = f"redis: {{endpoints: ['127.0.0.1:{store.port}']}}"
        limit = f"rateLimit: {{average: 1, period: 1h, burst: 1, {strategy}, {redis}}}"
        open_(door, backend, limit, where)
        ways = ("2001:db8:0:10::1", "2001:db8:0:1f::2", "2001:db8:0:20::1", "192.0.2.1", "192.0.2.2")
        statuses = [door.ask("/", x_forwarded_for=way).status for way in ways]
        assert statuses == [200, 429, 200, 200, 200]
    finally:
        store.stop()
