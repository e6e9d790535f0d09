"""The auditor sees what is wrong with a deployment's numbers: each wrong is made by hand, and found."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from skylift.engine import waiting
from skylift.store import outbox
from skylift.store.db import Connection
from skylift.store.tables import counters, devices, phases, updates


@pytest.fixture
def deployment(yard: Any) -> str:
    """Ten devices; in the first phase, of two, one has completed and one is at it."""
    fleet = yard.fleet(10)
    yard.release("1.1.0")
    made: str = yard.running(phases=[{"count": 2}, {"percent": 100}], max_parallel=1)
    yard.carry_recounts()
    yard.write(lambda conn: conn.execute(sa.delete(outbox.outbox)))  # the courier has carried them
    first = yard.checks(fleet, made)[0]
    yard.report(first, made, "complete")
    assert len(yard.checks(fleet, made)) == 1
    return made


def test_what_was_kept_right_is_equal_to_a_full_count(yard: Any, deployment: str) -> None:
    found = yard.audit(deployment)
    assert (found["equal"], found["findings"], found["updates"]) == (True, [], 2)
    first, rest = found["phases"]
    assert first["counters"] == first["full_count"] == {"complete": 1, "pending": 1}
    assert (rest["waiting"], rest["waiting_full_count"], rest["counters"]) == (8, 8, {})
    assert not found["waiting_is_counted_soon"]


def set_(table: Any, **values: Any) -> Callable[[Connection, str], Any]:
    def deed(conn: Connection, deployment: str) -> None:
        key = "id" if table.name == "deployments" else "deployment_id"
        first = sa.true() if table is devices or table is updates else _first(table)
        conn.execute(sa.update(table).where(table.c[key] == deployment, first).values(**values))

    return deed


def _first(table: Any) -> Any:
    return table.c.state == "complete" if table is counters else table.c.number == 0


def forget_who_is_at_it(conn: Connection, deployment: str) -> None:
    here = updates.c.deployment_id == deployment
    conn.execute(sa.delete(updates).where(here, updates.c.state == "pending"))


def begin_again(conn: Connection, deployment: str) -> None:
    conn.execute(sa.update(updates).where(updates.c.deployment_id == deployment).values(state="installing"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (set_(counters, n=7), "phase 1: complete is counted 7, there are 1"),
        (set_(counters, state="failed"), "phase 1: failed is counted 1, there are 0"),
        (set_(phases, waiting=5), "phase 1: waiting is counted 5, there are 0"),
        (set_(phases, state="closed"), "phase 1: it has not opened, and 2 devices were offered something"),
        (set_(phases, count=1), "phase 1: it is of 1 devices, and 2 were offered something"),
        (set_(devices, attempt=9), "are at it, and their slot says otherwise"),
        (set_(devices, deployment_id=None), "are at it, and their slot says otherwise"),
        (forget_who_is_at_it, "hold it in their slot, and are not at it"),
        (begin_again, "max_parallel is 1, and 2 devices are at it"),
    ],
)
def test_every_number_that_is_wrong_is_found(
    yard: Any, deployment: str, wrong: Callable[[Connection, str], None], says: str
) -> None:
    yard.write(lambda conn: wrong(conn, deployment))
    found = yard.audit(deployment)
    assert not found["equal"]
    assert any(says in finding for finding in found["findings"]), found["findings"]


def test_who_waits_is_no_finding_while_it_is_about_to_be_counted(yard: Any, deployment: str) -> None:
    def many_changed(conn: Connection) -> None:
        set_(phases, waiting=5)(conn, deployment)
        outbox.put(conn, "recount", {"deployment": deployment}, yard.clock())

    yard.write(many_changed)
    assert yard.audit(deployment)["waiting_is_counted_soon"]
    assert yard.audit(deployment)["equal"]
    yard.carry_recounts()
    yard.write(lambda conn: conn.execute(sa.delete(outbox.outbox)))
    assert yard.audit(deployment)["equal"]


def test_devices_that_move_while_they_are_counted_are_counted_again(yard: Any, deployment: str) -> None:
    """A count takes its time; what joins or leaves behind its back must not be lost for good."""

    def due() -> bool:
        wanted = {"deployment": deployment}
        return bool(yard.read(lambda conn: outbox.is_waiting(conn, "recount", wanted)))

    def count_while(happens: Callable[[], object]) -> None:
        counted = yard.read(lambda conn: waiting.count(conn, deployment))
        happens()
        yard.write(lambda conn: waiting.put(conn, deployment, counted, yard.clock()))

    count_while(lambda: None)
    assert not due()
    count_while(lambda: yard.report(yard_at_it(yard, deployment), deployment, "complete"))
    assert not due(), "who is offered something, or ends, is known by its row"
    count_while(lambda: yard.fleet(3, prefix="new"))
    assert due()
    assert yard.audit(deployment)["phases"][1]["waiting"] == 8, "the count was an old one"
    yard.carry_recounts()
    yard.write(lambda conn: conn.execute(sa.delete(outbox.outbox)))
    found = yard.audit(deployment)
    assert (found["equal"], sum(phase["waiting"] for phase in found["phases"])) == (True, 11)


def yard_at_it(yard: Any, deployment: str) -> str:
    return next(name for name, state in yard.states(deployment).items() if state == "pending")


def test_an_audit_changes_nothing(yard: Any, deployment: str) -> None:
    yard.write(lambda conn: set_(counters, n=7)(conn, deployment))
    before = yard.everything()
    yard.audit(deployment)
    assert yard.everything() == before
