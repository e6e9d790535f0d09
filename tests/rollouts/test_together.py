"""Reports taken down together leave the same rows as one by one."""

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from skylift.core.errors import Rejected
from skylift.core.lifecycle import Reason, UpdateState
from skylift.engine.proofs import Said
from skylift.engine.reports import Report
from skylift.engine.together import Reports
from skylift.store import tables
from skylift.store.db import Connection
from skylift.store.deployments import live_ids

from .conftest import digest

BEGIN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STATES = ("downloading", "installing", "validating", "complete", "complete", "failed", "rolled_back")


def fleet_at_work(yard: Any, seed: int) -> list[str]:
    yard.wipe(seed)
    yard.clock.now = BEGIN
    yard.open()  # the same ids again: nothing of the life before may be remembered
    yard.release("1.0.0")
    yard.release("1.1.0")
    names: list[str] = yard.fleet(12)
    made = yard.running(all_at_once=True, failure_threshold_percent=100)
    for name in names[:-1]:
        assert yard.offered(name) == made
    return names


def some_reports(yard: Any, names: list[str], draw: Random) -> list[Said]:
    """From this fleet: the next stage mostly, and all that devices and networks get wrong."""
    (deployment,) = yard.read(live_ids)
    said = []
    for _ in range(draw.randint(2, 14)):
        name = draw.choice(names)
        device = yard.device(name)
        report = Report(
            deployment=deployment if draw.random() < 0.95 else "dep_unknown",
            state=UpdateState(draw.choice(STATES)),
            attempt=draw.choice([None, 1, 1, 1, 2]),
            progress=draw.choice([None, 5, 100]),
            reason=draw.choice([None, None, Reason.BOOT_FAILED]),
            message=draw.choice(["", "word"]),
            image_sha256=draw.choice([None, None, digest("sensor", "1.1.0", "sensor-v2"), "0" * 64]),
            security_floor=draw.choice([None, None, 0, 1, 2]),
        )
        token = device.token_hash if draw.random() < 0.95 else "f" * 64
        said.append(Said(device.device_id, token, report, yard.clock()))
    return said


def told(answers: list[Any]) -> list[Any]:
    """Without the numbers that the database gave."""
    return [(a.code, str(a)) if isinstance(a, Rejected) else a._replace(device_pk=0) for a in answers]


def picture(yard: Any) -> dict[str, Any]:
    """All that reports leave behind, without what numbers the database gave it. Events in any order."""
    d, u = tables.devices.c, tables.updates.c
    e, c, p, f = tables.events.c, tables.counters.c, tables.phases.c, tables.floors.c
    per_update = [u.phase, u.state, u.attempt, u.reason, u.message, u.progress, u.offered_at, u.started_at]
    per_update += [u.completed_at, u.updated_at, u.deadline_at]
    questions = {
        "updates": sa.select(d.device_id, *per_update).join(tables.devices, d.pk == u.device_pk),
        "devices": sa.select(d.device_id, d.current_version, d.config_version, d.image_sha256, d.attempt),
        "events": sa.select(d.device_id, e.at, e.kind, e.data).join(tables.devices, d.pk == e.device_pk),
        "counters": sa.select(c.phase, c.state, c.n).where(c.n != 0),
        "floors": sa.select(d.device_id, f.floor).join(tables.devices, d.pk == f.device_pk),
        "phases": sa.select(p.number, p.state, p.waiting),
    }
    return {
        name: yard.read(lambda conn, q=question: sorted(map(repr, conn.execute(q))))
        for name, question in questions.items()
    }


@pytest.mark.parametrize("seed", range(4))
def test_together_leaves_the_rows_of_one_by_one(yard: Any, seed: int) -> None:
    outcomes = []
    for together in (False, True):
        names = fleet_at_work(yard, seed)
        draw = Random(seed)
        many = Reports(yard.deadlines)
        answers: list[Any] = []
        for _ in range(8):
            said = some_reports(yard, names, draw)
            for batch in [said] if together else [[one] for one in said]:
                answers += told(yard.write(partial(many, said=batch)))
            yard.must_hold()
        outcomes.append((answers, picture(yard)))
    (alone, alone_left), (at_once, at_once_left) = outcomes
    assert at_once == alone
    assert at_once_left == alone_left


def test_strangers_cost_one_look_and_their_neighbours_nothing(yard: Any) -> None:
    names = fleet_at_work(yard, 1)
    (deployment,) = yard.read(live_ids)
    device, other = yard.device(names[0]), yard.device(names[1])
    report = Report(deployment, UpdateState.COMPLETE)
    strangers = [Said(f"nobody-{n}", digest("token", str(n)), report, yard.clock()) for n in range(40)]
    borrowed = Said(device.device_id, other.token_hash, report, yard.clock())  # somebody's, not its own
    many, asked = Reports(yard.deadlines), Counter[str]()

    def deed(conn: Connection, said: list[Said]) -> list[Any]:
        def count(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
            asked[statement.split()[0]] += 1

        sa.event.listen(conn, "before_cursor_execute", count)
        try:
            return many(conn, said)
        finally:
            sa.event.remove(conn, "before_cursor_execute", count)

    answers = yard.write(partial(deed, said=[*strangers, borrowed]))
    assert {answer.code for answer in answers} == {"unknown_token"}
    assert asked == {"SELECT": 1}
    own = Said(device.device_id, device.token_hash, report, yard.clock())
    *refused, recorded = yard.write(partial(deed, said=[*strangers, borrowed, own]))
    assert {answer.code for answer in refused} == {"unknown_token"}
    assert (recorded.recorded, recorded.state, recorded.moved) == (True, UpdateState.COMPLETE, True)
    assert recorded.device_pk == device.pk
    yard.must_hold()
