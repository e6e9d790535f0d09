"""Traffic on a real Envoy: how many at a time, a breaker that opens, whose address counts."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from conftest import wait_until
from gateway.backends import Echo, serving
from gateway.conftest import Answer
from gateway.door import Door
from skylift.gateway.envoy import compiler
from skylift.gateway.match import decide
from skylift.gateway.request import make
from skylift.testkit.ports import free_port


@pytest.fixture
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


TRAEFIK = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: s, middlewares: [m]}}
  services: {s: {loadBalancer: {servers: [{url: 'http://@backend'}]}}}
  middlewares: {m: {%s}}
"""


def open_(door: Door, backend: Echo, middleware: str) -> None:
    door.open(TRAEFIK % middleware, {"backend": backend}, "traefik.yaml")


# --- in flight ------------------------------------------------------------------------------------------


def under_way(
    door: Door, backend: Echo, count: int, **headers: str
) -> tuple[list[threading.Thread], list[Answer]]:
    """So many requests that stay at the backend."""
    before, answers = len(backend.asked), list[Answer]()
    callers = [
        threading.Thread(target=lambda: answers.append(door.ask("/", **headers))) for _ in range(count)
    ]
    for caller in callers:
        caller.start()
    wait_until(lambda: len(backend.asked) == before + count, 20, "they are at the backend")
    return callers, answers


def test_no_more_than_so_many_are_under_way_at_a_time(door: Door, backend: Echo) -> None:
    source = "sourceCriterion: {requestHeaderName: X-Who}"
    open_(door, backend, f"inFlightReq: {{amount: 3, {source}}}")
    backend.gate.clear()
    callers, answers = under_way(door, backend, 3, x_who="one")
    refused = [door.ask("/", x_who="one") for _ in range(3)]
    assert [answer.status for answer in refused] == [429] * 3
    assert refused[0].body == "max connections reached: 3"
    others, _ = under_way(door, backend, 1, x_who="two")
    backend.gate.set()
    for caller in (*callers, *others):
        caller.join()
    assert [answer.status for answer in answers] == [200] * 3
    wait_until(lambda: door.ask("/", x_who="one").status == 200, 20, "there is room again")


def test_who_gives_up_leaves_his_place(door: Door, backend: Echo) -> None:
    open_(door, backend, "inFlightReq: {amount: 1}")
    backend.gate.clear()
    gone = http.client.HTTPConnection("127.0.0.1", door.port)
    gone.request("GET", "/")
    wait_until(lambda: backend.asked, 20, "it is at the backend")
    assert door.ask("/").status == 429
    gone.close()
    backend.gate.set()
    wait_until(lambda: door.ask("/").status == 200, 20, "the place is free")


# --- who is slow ----------------------------------------------------------------------------------------


def test_who_does_not_finish_his_headers_is_told_so_and_a_slow_backend_is_waited_for(
    door: Door, backend: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "HEADERS_S", 1)
    open_(door, backend, "compress: {}")
    backend.gate.clear()
    (caller,), answers = under_way(door, backend, 1)
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 408 ")
    backend.gate.set()  # who came first has waited for longer by now
    caller.join()
    assert [answer.status for answer in answers] == [200]
    assert len(backend.asked) == 1


# --- breakers -------------------------------------------------------------------------------------------

QUICK = "checkPeriod: 1ms, fallbackDuration: 1h"


def break_(door: Door, until: int = 503, most: int = 50) -> int:
    """Asks until it is refused by the breaker; how many it took."""
    for count in range(most):
        answer = door.ask("/")
        if answer.status == until and "Service Unavailable" in answer.body:
            return count
    pytest.fail(f"still closed after {most}")


def test_a_breaker_opens_by_the_ratio_of_failed_answers_and_asks_nobody(door: Door, backend: Echo) -> None:
    open_(
        door, backend, f"circuitBreaker: {{expression: 'ResponseCodeRatio(500, 600, 0, 600) > 0.5', {QUICK}}}"
    )
    for _ in range(4):
        assert door.ask("/").status == 200
    backend.status = 500
    break_(door)
    asked = len(backend.asked)
    assert [door.ask("/").status for _ in range(5)] == [503] * 5
    assert len(backend.asked) == asked
    assert asked > 4 * 2  # more failed than did not


def test_a_breaker_opens_when_all_that_is_joined_holds(door: Door, backend: Echo) -> None:
    half, some = "ResponseCodeRatio(500, 600, 0, 600) > 0.5", "ResponseCodeRatio(501, 502, 0, 600) > 0.2"
    never = "NetworkErrorRatio() > 0.9 && ResponseCodeRatio(200, 300, 0, 600) > 0.9"
    open_(door, backend, f"circuitBreaker: {{expression: '{never} || {half} && {some}', {QUICK}}}")
    backend.status = 500
    assert [door.ask("/").status for _ in range(20)] == [500] * 20
    backend.status = 501
    assert break_(door) >= 4  # of the twenty and them more than a fifth


def test_a_breaker_opens_when_the_network_fails(door: Door, backend: Echo) -> None:
    breaker = f"circuitBreaker: {{expression: 'NetworkErrorRatio() > 0.3', {QUICK}, responseCode: 503}}"
    door.open((TRAEFIK % breaker).replace("@backend", f"127.0.0.1:{free_port()}"), {}, "traefik.yaml")
    break_(door)


def test_a_breaker_opens_when_answers_are_late(door: Door, backend: Echo) -> None:
    open_(door, backend, f"circuitBreaker: {{expression: 'LatencyAtQuantileMS(50.0) > 0.1', {QUICK}}}")
    break_(door)


def test_a_breaker_that_was_open_lets_traffic_back_bit_by_bit(door: Door, backend: Echo) -> None:
    quick = "checkPeriod: 1ms, fallbackDuration: 2s, recoveryDuration: 500ms"
    open_(
        door, backend, f"circuitBreaker: {{expression: 'ResponseCodeRatio(500, 600, 0, 600) > 0.6', {quick}}}"
    )
    backend.status = 500
    break_(door)
    backend.status = 200
    wait_until(lambda: door.ask("/").status == 200, 20, "it tries again")
    wait_until(lambda: {door.ask("/").status for _ in range(10)} == {200}, 20, "it is closed")


# --- whose address --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("10.0.0.1, 203.0.113.9", 200),
        ("10.0.0.1,203.0.113.9", 200),
        ("203.0.113.9, 10.0.0.1", 403),
        ("2001:db8::1, 203.0.113.9", 200),
        ("203.0.113.9", 403),
        ("", 403),
        ("10.0.0.x, 203.0.113.9", 403),
    ],
)
def test_an_address_list_looks_at_the_hop_it_is_told_to(
    door: Door, backend: Echo, forwarded: str, status: int
) -> None:
    networks = "sourceRange: [10.0.0.0/8, '2001:db8::/33']"
    open_(door, backend, f"ipAllowList: {{{networks}, ipStrategy: {{depth: 2}}}}")
    headers = {"x_forwarded_for": forwarded} if forwarded else {}
    assert door.ask("/", **headers).status == status


def test_an_address_list_passes_over_the_proxies_it_knows(door: Door, backend: Echo) -> None:
    strategy = "ipStrategy: {excludedIPs: [192.0.2.0/24, 198.51.100.7]}"
    open_(door, backend, f"ipAllowList: {{sourceRange: [10.0.0.0/8], {strategy}}}")
    assert door.ask("/", x_forwarded_for="10.0.0.1, 192.0.2.9, 198.51.100.7").status == 200
    assert door.ask("/", x_forwarded_for="10.0.0.1, 203.0.113.1, 198.51.100.7").status == 403
    assert door.ask("/", x_forwarded_for="192.0.2.9").status == 403


def test_a_limit_counts_by_the_hop_it_is_told_to(door: Door, backend: Echo) -> None:
    source = "sourceCriterion: {ipStrategy: {depth: 1}}"
    open_(door, backend, f"rateLimit: {{average: 1, period: 1h, burst: 2, {source}}}")
    statuses = [
        door.ask("/", x_forwarded_for=f"9.9.9.9, {who}").status for who in ("10.0.0.1", "10.0.0.2") * 2
    ]
    assert statuses == [200] * 4
    assert door.ask("/", x_forwarded_for="8.8.8.8, 10.0.0.1").status == 429
    assert door.ask("/", x_forwarded_for="10.0.0.1, 10.0.0.3").status == 200


def test_a_limit_passes_over_the_proxies_it_knows(door: Door, backend: Echo) -> None:
    source = "sourceCriterion: {ipStrategy: {excludedIPs: [10.0.0.0/8]}}"
    open_(door, backend, f"rateLimit: {{average: 1, period: 1h, burst: 2, {source}}}")
    ways = ("192.0.2.1", "192.0.2.1, 10.1.1.1", "9.9.9.9, 192.0.2.1, 10.0.0.7")
    assert [door.ask("/", x_forwarded_for=way, x_sl_hop=way).status for way in ways] == [200, 200, 429]
    assert door.ask("/", x_forwarded_for="192.0.2.1, 192.0.2.2, 10.1.1.1").status == 200
    assert "x-sl-hop" not in backend.asked[-1]["headers"]


QUEUE = """
gateway: 1
services: {s: {targets: ['@backend']}}
routes:
  - name: r
    path: /
    to: s
    policies: [{limit: {algorithm: leaky bucket, count: 4, per: 1s, queue: 3, by: everybody}}]
"""


def test_a_leaky_bucket_of_a_file_queues_so_many_and_refuses_who_comes_behind(
    door: Door, backend: Echo
) -> None:
    door.open(QUEUE, {"backend": backend})
    answers: list[Answer] = []
    callers = [threading.Thread(target=lambda: answers.append(door.ask("/"))) for _ in range(12)]
    began = time.monotonic()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    passed = [answer for answer in answers if answer.status == 200]
    assert len(passed) >= 4
    assert time.monotonic() - began >= (len(passed) - 1) * 0.25 - 0.01  # evenly: nobody leaves early
    assert {answer.status for answer in answers} == {200, 429}


# --- WebSockets ----------------------------------------------------------------------------------------


def echoes_back(listening: socket.socket) -> None:
    """A backend that changes to another protocol and then says back what it hears."""
    line, _ = listening.accept()
    head = b""
    while b"\r\n\r\n" not in head:
        head += line.recv(4096)
    assert b"upgrade: websocket" in head.lower()
    line.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
    while heard := line.recv(4096):
        line.sendall(heard.upper())
    line.close()


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: %b\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_a_websocket_goes_through_both_ways(door: Door) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=echoes_back, args=(listening,), daemon=True).start()
        port = listening.getsockname()[1]
        text = TRAEFIK % "addPrefix: {prefix: /in}"
        door.open(text.replace("@backend", f"127.0.0.1:{port}"), name="traefik.yaml")
        with socket.create_connection(("127.0.0.1", door.port), 20) as line:
            line.sendall(UPGRADE % b"websocket")
            assert line.recv(4096).startswith(b"HTTP/1.1 101")
            for words in (b"one", b"and two"):
                line.sendall(words)
                assert line.recv(4096) == words.upper()


@pytest.mark.parametrize(
    ("middleware", "protocol"),
    [("addPrefix: {prefix: /in}", b"h2c"), ("buffering: {maxRequestBodyBytes: 9}", b"websocket")],
)
def test_another_protocol_or_a_bounded_body_changes_to_nothing(
    door: Door, backend: Echo, middleware: str, protocol: bytes
) -> None:
    open_(door, backend, middleware)
    with socket.create_connection(("127.0.0.1", door.port), 20) as line:
        line.sendall(UPGRADE % protocol)
        assert line.recv(4096).startswith((b"HTTP/1.1 403", b"HTTP/1.1 200"))
    assert not [seen for seen in backend.asked if "upgrade" in seen["headers"]]


# --- what a proxy in front says -------------------------------------------------------------------------

SAID = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
    "X-Forwarded-Port": "443",
}


@pytest.mark.parametrize(
    "trusted", ["127.0.0.0/8", "127.0.0.1, 127.0.0.1/32, 127.0.0.2/8", "0.0.0.0/0, '::/0'", "10.0.0.0/8", ""]
)
@pytest.mark.parametrize("said", [SAID, {"X-Forwarded-Proto": "https"}, {}], ids=["all", "proto", "nothing"])
def test_what_stood_before_is_believed_from_trusted_networks_alone(
    door: Door, backend: Echo, trusted: str, said: dict[str, str]
) -> None:
    door.open(
        f"""
        gateway: 1
        trusted_proxies: [{trusted}]
        services: {{s: {{targets: ['@backend']}}}}
        routes: [{{name: r, path: /, to: s}}]
        """,
        {"backend": backend},
    )
    headers = {name.lower().replace("-", "_"): value for name, value in said.items()}
    assert door.ask("/", **headers, host="gateway.test").status == 200
    heard = {name.lower(): value for name, value in backend.asked[-1]["headers"].items()}
    asked = make(url="http://gateway.test/", headers=tuple(said.items()), client="127.0.0.1", port=door.port)
    sent = decide(door.gateway, asked).sent
    assert sent is not None
    must = {name.lower(): value for name, value in sent.headers if name.startswith("X-Forwarded-")}
    # Of a peer on this machine Envoy tells the machine's own address.
    hops = [heard.pop("x-forwarded-for").split(","), must.pop("x-forwarded-for").split(", ")]
    assert hops[0][:-1] == hops[1][:-1]
    assert {name: heard.get(name) for name in must} == must
