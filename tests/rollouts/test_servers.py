"""Several servers on one database: one wins, the others look again."""

import threading
from collections.abc import Callable
from typing import Any

from skylift.core.errors import Rejected, Unavailable
from skylift.store.db import Database

ALL_AT_ONCE = {"all_at_once": True}


def another(yard: Any) -> Any:
    """A second server: its own connections, cache and loop on the same database."""
    made = type(yard)(Database(yard.database.url), yard.clock)
    made.runs, made.types, made.configs = yard.runs, yard.types, yard.configs
    return made


def at_the_same_time(*deeds: Callable[[], object]) -> None:
    """All at once, each in its thread; the first error is raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(len(deeds))

    def run(deed: Callable[[], object]) -> None:
        ready.wait()
        try:
            deed()
        except BaseException as e:  # noqa: BLE001 - raised again below, in the test's thread
            errors.append(e)

    threads = [threading.Thread(target=run, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_two_servers_never_offer_a_device_twice_nor_more_than_the_limit(yard: Any) -> None:
    fleet = yard.fleet(20)
    yard.release("1.1.0")
    deployment = yard.running(max_parallel=5, **ALL_AT_ONCE)
    other = another(yard)
    try:
        at_the_same_time(
            lambda: [yard.check(name) for name in fleet],
            lambda: [other.check(name) for name in reversed(fleet)],
            lambda: [yard.check(name) for name in fleet[10:] + fleet[:10]],
        )
    finally:
        other.database.close()
    assert len(yard.states(deployment)) == 5
    assert sum(phase.tally.waiting for phase in yard.world(deployment).phases) == 15
    yard.must_hold()


def test_nothing_is_offered_behind_a_pause_whatever_the_other_server_knows(yard: Any) -> None:
    fleet = yard.fleet(30)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    other = another(yard)
    offered_behind: list[str] = []

    def ask_all() -> None:
        for name in fleet:
            paused = yard.status(deployment) == "paused"
            got = other.check(name)["update_available"]
            if paused and got:
                offered_behind.append(name)

    try:
        other.lives.get()
        at_the_same_time(ask_all, lambda: yard.pause(deployment))
    finally:
        other.database.close()
    assert offered_behind == []
    yard.must_hold()


def test_of_many_reports_of_one_thing_one_is_recorded(yard: Any) -> None:
    fleet = yard.fleet(5)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    assert yard.offered(fleet[0]) == deployment
    other = another(yard)
    answers: list[bool] = []

    def say(server: Any) -> None:
        answers.append(server.report(fleet[0], deployment, "complete").recorded)

    try:
        at_the_same_time(*[lambda s=server: say(s) for server in (yard, other) * 3])
    finally:
        other.database.close()
    assert sorted(answers) == [False] * 5 + [True]
    assert yard.world(deployment).phases[0].tally.complete == 1
    yard.must_hold()


def test_two_loops_take_every_step_once(yard: Any) -> None:
    fleet = yard.fleet(10)
    yard.release("1.1.0")
    phases = [{"percent": 50, "min_minutes": 0}, {"percent": 100, "min_minutes": 0}]
    deployment = yard.create(phases=phases)
    other = another(yard)
    try:
        for _ in range(6):
            now = yard.clock()
            at_the_same_time(lambda now=now: yard.loop.tick(now), lambda now=now: other.loop.tick(now))
            for name in yard.checks(fleet, deployment):
                yard.finish(name, deployment)
    finally:
        other.database.close()
    assert yard.status(deployment) == "complete"
    for kind in ("phase_opened", "phase_through"):
        assert [event["phase"] for event in yard.events(deployment, kind)] == [0, 1]
    assert len(yard.outbox("doorbell")) == 2
    yard.must_hold()


def test_of_two_operators_at_once_both_get_an_answer_that_is_so(yard: Any) -> None:
    yard.fleet(4)
    yard.release("1.1.0")
    deployment = yard.running(**ALL_AT_ONCE)
    other = another(yard)
    refusals: list[str] = []

    def kindly(verb: Callable[[str], object]) -> None:
        try:
            verb(deployment)
        except (Rejected, Unavailable) as e:
            refusals.append(str(e))

    try:
        at_the_same_time(lambda: kindly(yard.abort), lambda: kindly(other.pause), lambda: kindly(yard.resume))
    finally:
        other.database.close()
    assert yard.status(deployment) == "aborted"
    assert all("aborted" in sentence or "running" in sentence for sentence in refusals)
