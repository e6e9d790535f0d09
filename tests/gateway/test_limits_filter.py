"""Exact limits in a real Envoy: what clients are told, who waits, who is refused, what survives a reload."""

import http.client
import threading
import time
from pathlib import Path

import pytest

from gateway.conftest import Answer, Start, ask, clear_of_the_minutes_edge, one_listener, says
from skylift.gateway.envoy.snapshot import TYPE, Json, Snapshot
from skylift.testkit.ports import free_port

MODULE = {"name": "skylift_limits", "do_not_close": True}
FILTER = TYPE + "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"


def words(value: str) -> Json:
    return {"@type": TYPE + "google.protobuf.StringValue", "value": value}


def limits(config: str, kind: str = "PerRoute") -> Json:
    return {
        "@type": FILTER + kind,
        "dynamic_module_config": MODULE,
        "filter_name": "limits",
        "filter_config": words(config),
    }


def limited(port: int, config: str, answer: str = "let in") -> Snapshot:
    """Everything under one limit. It is part of the table, so that a reload makes it anew."""
    route = says(answer, typed_per_filter_config={"limits": limits(config)})
    return one_listener(port, [route], ({"name": "limits", "typed_config": limits("", "")},))


@pytest.fixture
def port(limits_filter: Path) -> int:
    return free_port()


def several(port: int, count: int) -> list[tuple[float, Answer]]:
    """So many requests at once: (seconds since before the first was asked, answer) of each."""
    done: list[tuple[float, Answer]] = []
    began = time.monotonic()

    def knock() -> None:
        answer = ask(port, x_client="one")
        done.append((time.monotonic() - began, answer))

    callers = [threading.Thread(target=knock) for _ in range(count)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return done


def test_a_sliding_window_lets_exactly_its_number_in_on_all_workers_together(
    supervised: Start, port: int
) -> None:
    supervised(lambda: limited(port, "limit a\nhow sliding\nperiod 60000 20\nkey x-client\n"))
    answers = [answer for _, answer in several(port, 50)]
    assert sum(answer.status == 200 for answer in answers) == 20
    assert sum(answer.status == 429 for answer in answers) == 30
    assert ask(port, x_client="another").status == 200


def test_a_refusal_explains_itself(supervised: Start, port: int) -> None:
    body = '{"message":"API rate limit exceeded","request_id":"@ID@"}'
    supervised(
        lambda: limited(
            port,
            f"limit a\nhow calendar\nperiod 60000 1 minute\nperiod 3600000 9 hour\ntells kong\nbody {body}\n",
        )
    )
    clear_of_the_minutes_edge()
    first, second = ask(port), ask(port)
    assert first.headers["x-ratelimit-limit-minute"] == "1"
    assert first.headers["x-ratelimit-remaining-minute"] == "0"
    assert first.headers["x-ratelimit-remaining-hour"] == "8"
    assert second.status == 429
    assert second.headers["retry-after"] == second.headers["ratelimit-reset"]
    assert 1 <= int(second.headers["retry-after"]) <= 60
    assert '"message":"API rate limit exceeded"' in second.body
    assert "@ID@" not in second.body
    assert second.headers["x-ratelimit-remaining-hour"] == "7"  # who is refused counts too, as in Kong


def test_a_leaky_bucket_holds_what_comes_too_early_and_lets_it_out_evenly(
    supervised: Start, port: int
) -> None:
    supervised(lambda: limited(port, "limit a\nhow gcra\nperiod 1000 2\nmax_delay_ms 1550\nkey x-client\n"))
    done = several(port, 8)
    waits = sorted(seconds for seconds, answer in done if answer.status == 200)
    assert len(waits) == 4  # one at once, three in the queue of 1,550 ms
    for turn, waited in enumerate(waits):
        assert waited >= turn * 0.5 - 0.005
    assert sum(answer.status == 429 for _, answer in done) == 4


def test_a_client_that_leaves_the_queue_leaves_nothing_behind(supervised: Start, port: int) -> None:
    gateway = supervised(lambda: limited(port, "limit a\nhow gcra\nperiod 1000 1\nmax_delay_ms 5000\n"))
    assert ask(port).status == 200
    for _ in range(3):
        gone = http.client.HTTPConnection("127.0.0.1", port)
        gone.request("GET", "/")
        gone.close()
    assert ask(port).status == 200  # it stands behind those who left: their turns were taken
    assert gateway.envoy.running


def test_a_token_bucket_lets_its_burst_in_at_once(supervised: Start, port: int) -> None:
    supervised(lambda: limited(port, "limit a\nhow gcra\nperiod 60000 6\nburst 3\nkey x-client\n"))
    answers = [ask(port, x_client="one") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers[:3]] == ["2", "1", "0"]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 10


def test_a_reload_forgets_no_count(supervised: Start, port: int) -> None:
    config = "limit a\nhow sliding\nperiod 60000 2\n"
    turn = ["first"]
    gateway = supervised(lambda: limited(port, config, turn[0]))
    assert ask(port).status == 200
    turn[0] = "second"
    gateway.look()
    assert ask(port).body == "second"
    assert ask(port).status == 429


@pytest.mark.parametrize(
    "config",
    [
        "limit a\nhow never\nperiod 1000 1",
        "limit a\nhow gcra\nperiod 0 1",
        "limit a\nhow gcra",
        "how gcra",
        "limit a\nx",
    ],
    ids=["unknown algorithm", "no time", "no period", "no limit", "no value"],
)
def test_a_limit_that_makes_no_sense_is_refused_by_envoy(supervised: Start, port: int, config: str) -> None:
    now = [limited(port, "limit a\nhow gcra\nperiod 1000 5")]
    gateway = supervised(lambda: now[0])
    now[0] = limited(port, config)
    gateway.look()
    assert gateway.status.error
    assert ask(port).status == 200


def test_clients_are_told_apart_by_address_whatever_port_they_come_from(supervised: Start, port: int) -> None:
    supervised(lambda: limited(port, "limit a\nhow sliding\nperiod 60000 2\nkey @client\n"))

    def from_address(address: str) -> int:
        line = http.client.HTTPConnection("127.0.0.1", port, source_address=(address, 0))
        line.request("GET", "/")
        return line.getresponse().status

    assert [from_address("127.0.0.1") for _ in range(3)] == [200, 200, 429]
    assert [from_address("127.0.0.9") for _ in range(3)] == [200, 200, 429]
