"""One Envoy under care: updates are taken or taken back, deaths and swaps lose nobody."""

import os
import resource
import signal
import threading
from dataclasses import dataclass, field

import pytest

from conftest import wait_until
from gateway.conftest import Start, ask, one_listener, says
from skylift.core.errors import Rejected
from skylift.gateway.envoy import process
from skylift.gateway.envoy.snapshot import Json, Snapshot
from skylift.testkit.ports import free_port


@dataclass
class Source:
    """A source that says what it is told to."""

    port: int
    now: Snapshot = field(init=False)

    def __post_init__(self) -> None:
        self.say("first")

    def say(self, words: str) -> None:
        self.now = one_listener(self.port, [says(words)])

    def route(self, route: Json) -> None:
        self.now = one_listener(self.port, [route])

    def __call__(self) -> Snapshot:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source(free_port())


def test_an_update_is_in_place_when_the_look_returns(supervised: Start, source: Source) -> None:
    gateway = supervised(source)
    assert ask(source.port).body == "first"
    source.say("second")
    gateway.look()
    assert ask(source.port).body == "second"
    assert gateway.status.digest == source.now.digest
    published = gateway.status.published
    gateway.look()  # again: nothing changes
    assert gateway.status.published == published


def test_an_envoy_may_open_all_the_files_that_the_machine_lets_it(supervised: Start, source: Source) -> None:
    pid = supervised(source).envoy.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert soft == hard == min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], process.MOST_FILES)


@pytest.mark.parametrize(
    ("route", "names"),
    [
        ({"match": {"prefix": "/"}, "route": {"cluster": "nowhere"}}, "'nowhere'"),
        ({"match": {"prefix": "/"}, "direct_response": {"status": 200}, "nonsense": 1}, "nonsense"),
        ({"match": {"safe_regex": {"regex": "("}}, "direct_response": {"status": 200}}, "("),
    ],
    ids=["a cluster that is not there", "an unknown field", "a broken regex"],
)
def test_what_envoy_would_get_wrong_never_replaces_what_runs(
    supervised: Start, source: Source, route: Json, names: str
) -> None:
    gateway = supervised(source)
    source.route(route)
    gateway.look()
    assert names in gateway.status.error
    assert ask(source.port).body == "first"
    gateway.look()  # again: it is said once
    assert gateway.status.refused == 1
    source.say("better")
    gateway.look()
    assert gateway.status.error == ""
    assert ask(source.port).body == "better"


def test_an_envoy_that_is_killed_is_back_with_its_configuration(supervised: Start, source: Source) -> None:
    gateway = supervised(source)
    source.say("second")
    gateway.look()
    dead = gateway.envoy.pid
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: not gateway.envoy.running, what="Envoy is dead")
    gateway.look()
    assert gateway.envoy.pid != dead
    assert ask(source.port).body == "second"
    assert gateway.status.restarts == 1


def test_reloads_and_swaps_under_load_lose_nobody(supervised: Start, source: Source) -> None:
    gateway = supervised(source)
    stop, wrong, right = threading.Event(), [], [0]

    def knock() -> None:
        while not stop.is_set():
            try:
                assert ask(source.port).status == 200
                right[0] += 1
            except Exception as e:  # noqa: BLE001 - whatever goes wrong is what this test counts
                wrong.append(e)

    callers = [threading.Thread(target=knock) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        for turn in range(10):
            source.say(f"turn {turn}")
            gateway.look()
        gateway.swap()
        wait_until(lambda: right[0] > 300, 60, "enough requests went by")
        gateway.swap()
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert wrong == []
    assert ask(source.port).body == "turn 9"


def test_a_first_configuration_that_does_not_hold_is_refused_at_the_start(
    supervised: Start, source: Source
) -> None:
    source.route({"match": {"prefix": "/"}, "route": {"cluster": "nowhere"}})
    with pytest.raises(Rejected, match="nowhere"):
        supervised(source)
