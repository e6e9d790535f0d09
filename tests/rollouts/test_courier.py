"""The courier over a real database: lanes do not wait for each other; nothing that goes wrong ends one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from skylift.core.errors import Unavailable
from skylift.engine.outbox import Courier
from skylift.store import outbox
from skylift.store.db import Database
from skylift.testkit.server import wait

Handlers = dict[str, Callable[[dict[str, Any]], None]]


def now() -> datetime:
    return datetime.now(UTC)


def put(database: Database, kind: str, number: int) -> None:
    database.write(lambda conn: outbox.put(conn, kind, {"number": number}, now()))


def left(database: Database) -> int:
    with database.read() as conn:
        return outbox.depth(conn)


@contextmanager
def carrying(database: Database, handlers: Handlers) -> Iterator[Courier]:
    courier = Courier(database, handlers, now)
    courier.start()
    try:
        yield courier
    finally:
        courier.stop()


def test_a_slow_effect_holds_up_none_of_another_lane(database: Database) -> None:
    begun, may_end, carried = threading.Event(), threading.Event(), []

    def slow(payload: dict[str, Any]) -> None:
        begun.set()
        may_end.wait()

    with carrying(database, {"deltas": slow, "doorbell": carried.append}) as courier:
        try:
            put(database, "deltas", 1)
            courier.poke()
            wait(begun.is_set, "the slow one begins")
            put(database, "doorbell", 2)
            courier.poke()
            wait(lambda: left(database) == 1, "the quick one is done beside it")
            assert carried == [{"number": 2}]
        finally:
            may_end.set()
        wait(lambda: left(database) == 0, "and the slow one in the end")
    assert carried == [{"number": 2}]


def test_what_nobody_pokes_for_is_found_all_the_same(database: Database) -> None:
    carried: list[dict[str, Any]] = []
    with carrying(database, {"doorbell": carried.append}):
        for number in (1, 2):
            put(database, "doorbell", number)
            wait(lambda number=number: len(carried) == number, "another server's effect")  # type: ignore[misc]


def test_many_that_are_due_are_all_carried_for_one_poke(database: Database) -> None:
    carried: list[int] = []
    for number in range(20):
        put(database, "doorbell", number)
    with carrying(database, {"doorbell": lambda payload: carried.append(payload["number"])}):
        wait(lambda: left(database) == 0, "all are done")
    assert carried == list(range(20))


def test_what_goes_wrong_ends_neither_lane_nor_lookout(database: Database, monkeypatch: Any) -> None:
    carried: list[dict[str, Any]] = []
    look, looks = outbox.due, []

    def at_first_not(*asked: Any) -> list[bool]:
        looks.append(1)
        if len(looks) == 1:
            raise Unavailable("the database is gone for a moment")
        if len(looks) == 2:
            raise ValueError("a mistake of ours")
        return look(*asked)

    monkeypatch.setattr(outbox, "due", at_first_not)
    with carrying(database, {"doorbell": carried.append}) as courier:
        put(database, "doorbell", 1)
        courier.poke()
        wait(lambda: carried, "it looks again")
    assert len(looks) > 2
