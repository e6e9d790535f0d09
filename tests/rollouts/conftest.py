"""The engine over a real database, without HTTP: a yard of devices, and a clock that is told the time."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from skylift.core.deadlines import Deadlines
from skylift.core.ids import mint
from skylift.core.lifecycle import OPEN, Reason, UpdateState
from skylift.core.world import World
from skylift.engine import (
    auditor,
    deployments,
    enroll,
    explain,
    leaving,
    reports,
    rollback,
    verbs,
    waiting,
)
from skylift.engine import groups as engine_groups
from skylift.engine.checkin import Ask, Checkin, LiveCache, Needs, order_again, recount
from skylift.engine.loop import Loop
from skylift.engine.pace import Pace
from skylift.engine.reports import Recorded, Report
from skylift.engine.retry import retry
from skylift.store import deployments as stored
from skylift.store import devices, groups, releases, tables, world
from skylift.store.db import Connection, Database

TYPE = "sensor-v2"
STAGES = ("downloading", "installing", "validating", "complete")


def digest(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


@dataclass
class Yard:
    """Devices that do what a test says, against the engine and a real database."""

    database: Database
    clock: Any
    runs: dict[str, str] = field(default_factory=dict)  # device -> the version it runs
    configs: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    serial: int = 0
    draw: Random = field(default_factory=lambda: Random(0))  # salts and ids: the same test, the same places

    def __post_init__(self) -> None:
        self.deadlines = Deadlines()
        self.open()

    def open(self) -> None:
        """Start the parts that live in memory; a restart is doing it again."""
        self.lives = LiveCache(self.database)
        self.checkin = Checkin(self.lives, self.deadlines, Pace(spread=0))  # answers that can be compared
        self.loop = Loop(self.database, self.clock, self.deadlines, self.lives)

    def restart(self) -> None:
        """The server dies and comes back: only the database is left."""
        url = self.database.url
        self.database.close()
        self.database = Database(url)
        self.open()

    def write(self, deed: Callable[[Connection], Any]) -> Any:
        try:
            return self.database.write(deed)
        finally:
            self.lives.invalidate()

    def read(self, question: Callable[[Connection], Any]) -> Any:
        with self.database.read() as conn:
            return question(conn)

    def wipe(self, seed: int = 0) -> None:
        """Forget everything: the next example begins in an empty yard, with randomness of its own."""
        self.draw.seed(seed)

        def empty(conn: Connection) -> None:
            for table in reversed(tables.metadata.sorted_tables):
                conn.execute(sa.delete(table))

        self.write(empty)
        self.runs.clear()
        self.configs.clear()
        self.types.clear()

    # --- what there is ------------------------------------------------------------------------------

    def release(
        self,
        version: str,
        *,
        product: str = "sensor",
        kind: str = "image",
        types: tuple[str, ...] = (TYPE,),
        status: str = "published",
    ) -> str:
        self.serial += 1
        release_id = mint("rel", self.clock(), self.serial.to_bytes(5, "big"))

        def make(conn: Connection) -> None:
            now = self.clock()
            releases.insert(
                conn, id=release_id, product=product, version=version, kind=kind, status=status,
                created_at=now, created_by="ada", published_at=now if status == "published" else None,
            )  # fmt: skip
            for number, device_type in enumerate(types):
                releases.insert_artifact(
                    conn, id=f"art_{self.serial}_{number}", release_id=release_id, device_type=device_type,
                    kind="full", sha256=digest(product, version, device_type), size=1000, created_at=now,
                )  # fmt: skip

        self.write(make)
        return release_id

    def enroll(
        self,
        name: str,
        version: str = "1.0.0",
        *,
        device_type: str = TYPE,
        labels: dict[str, str] | None = None,
    ) -> str:
        self.enroll_all({name: labels or {}}, version, device_type)
        return name

    def enroll_all(
        self, fleet: dict[str, dict[str, str]], version: str = "1.0.0", device_type: str = TYPE
    ) -> list[str]:
        """Devices and their labels, in one commit: what a test begins with is not what it is about."""

        def make(conn: Connection) -> None:
            for name, labels in fleet.items():
                made = devices.insert(
                    conn, device_id=name, device_type=device_type, token_hash=digest(name), labels=labels,
                    now=self.clock(),
                )  # fmt: skip
                devices.set_facts(conn, made.pk, version, None, None)
                waiting.moved(conn, frozenset(), waiting.of(conn, devices.by_pk(conn, made.pk)))

        self.write(make)
        self.runs |= dict.fromkeys(fleet, version)
        self.types |= dict.fromkeys(fleet, device_type)
        return list(fleet)

    def fleet(self, count: int, version: str = "1.0.0", prefix: str = "d") -> list[str]:
        return self.enroll_all({f"{prefix}{number:03}": {} for number in range(count)}, version)

    def group(self, name: str, *, query: str | None = None, members: tuple[str, ...] = ()) -> str:
        self.serial += 1
        group_id = mint("grp", self.clock(), self.serial.to_bytes(5, "big"))

        def make(conn: Connection) -> None:
            kind = "query" if query else "list"
            groups.insert(conn, groups.Group(group_id, name, kind, query, self.clock()))
            if members:
                groups.add(conn, group_id, [self.device(member).pk for member in members])

        self.write(make)
        return group_id

    def join(self, group: str, *names: str) -> None:
        self.write(
            lambda conn: engine_groups.change_members(conn, group, list(names), [], "ada", self.clock())
        )

    def label(self, name: str, **labels: str) -> None:
        self.write(lambda conn: enroll.set_labels(conn, name, labels, "ada", self.clock()))

    def carry_recounts(self) -> None:
        """What the courier does with `recount` rows."""
        for payload in self.outbox("recount"):
            waiting.recount(self.database, payload["deployment"], self.clock())
        self.lives.invalidate()

    def device(self, name: str) -> Any:
        return self.read(lambda conn: devices.find_device(conn, name))

    # --- what operators do --------------------------------------------------------------------------

    def create(self, version: str = "1.1.0", **body: Any) -> str:
        config = {"firmware_version": version, "target_devices": "all", **body}
        if "target_groups" in body:
            config.pop("target_devices")
        made: str = self.write(lambda conn: deployments.create(conn, config, "ada", self.clock()))
        return made

    def running(self, version: str = "1.1.0", **body: Any) -> str:
        """A deployment whose first phase is open."""
        made = self.create(version, **body)
        self.tick()
        return made

    def pause(self, deployment: str) -> None:
        self.write(lambda conn: verbs.pause(conn, deployment, "ada", self.clock()))

    def resume(
        self, deployment: str, threshold: float | None = None, *without: str, expect: float | None = None
    ) -> None:
        asked = {"threshold_percent": threshold, "expected_percent": expect}
        now = self.clock()
        if without:
            leaving.leave_out(self.database, deployment, without, now, self.deadlines, **asked)
        self.write(lambda conn: verbs.resume(conn, deployment, "ada", now, **asked))

    def promote(self, deployment: str) -> None:
        self.write(lambda conn: verbs.promote(conn, deployment, "ada", self.clock()))

    def abort(self, deployment: str) -> None:
        self.write(lambda conn: verbs.abort(conn, deployment, "ada", self.clock(), self.deadlines))

    def retry(self, deployment: str, *names: str) -> int:
        now = self.clock()

        def again(conn: Connection, pk: int, dep: str, attempt: int) -> None:
            order_again(conn, pk, dep, attempt, now)

        try:
            return retry(self.database, deployment, "ada", now, self.deadlines, again, names or None)
        finally:
            self.lives.invalidate()

    def roll_back(self, deployment: str, only: str | None = None) -> rollback.RolledBack:
        now = self.clock()
        try:
            return rollback.roll_back(self.database, deployment, "ada", now, self.deadlines, only)
        finally:
            self.lives.invalidate()

    def tick(self, **forward: float) -> None:
        """Time goes on, and the loop looks."""
        self.clock.forward(**forward)
        self.loop.tick(self.clock())

    def explain(self, deployment: str) -> dict[str, Any]:
        found: dict[str, Any] = self.read(lambda conn: explain.explain(conn, self.row(deployment)))
        return found

    def audit(self, deployment: str) -> dict[str, Any]:
        found: dict[str, Any] = self.read(lambda conn: auditor.audit(conn, self.row(deployment)))
        return found

    # --- what devices do ----------------------------------------------------------------------------

    def check(self, name: str) -> dict[str, Any]:
        ask = Ask(self.types[name], self.runs[name], self.configs.get(name))
        now = self.clock()
        outcome = self.read(lambda conn: self.checkin.look(conn, devices.find_device(conn, name), ask, now))
        if not isinstance(outcome, Needs):
            answer: dict[str, Any] = outcome.answer
            return answer
        written: dict[str, Any] = self.write(outcome.deed)
        return written

    def offered(self, name: str) -> str | None:
        """The deployment the device is offered at a check, or None."""
        deployment: str | None = self.check(name).get("deployment")
        return deployment

    def report(
        self,
        name: str,
        deployment: str,
        state: str,
        *,
        attempt: int | None = None,
        progress: int | None = None,
        reason: str | None = None,
        image: str | None = None,
        message: str = "",
    ) -> Recorded:
        why = Reason(reason) if reason else None
        said = Report(deployment, UpdateState(state), attempt, progress, why, message, image)
        now = self.clock()
        recorded: Recorded = self.write(
            lambda conn: reports.record(conn, devices.find_device(conn, name), said, now, self.deadlines)
        )
        if recorded.recorded and state == "complete":
            row = self.row(deployment)
            (self.configs if row.kind == "config" else self.runs)[name] = row.version
        return recorded

    def finish(self, name: str, deployment: str, end: str = "complete", reason: str | None = None) -> None:
        """Check, then every stage up to `end`."""
        assert self.offered(name) == deployment
        for state in STAGES[:3]:
            assert self.report(name, deployment, state).recorded
        assert self.report(name, deployment, end, reason=reason).recorded

    def end(self, name: str, deployment: str, end: str = "complete", reason: str | None = None) -> None:
        """Check, then the last word at once, as the smallest clients do: where a test is about what comes of
        many ends, and not about the way there."""
        assert self.offered(name) == deployment
        assert self.report(name, deployment, end, reason=reason).recorded

    def checks(self, names: list[str], deployment: str) -> list[str]:
        """Everybody asks; who was offered this deployment."""
        return [name for name in names if self.offered(name) == deployment]

    # --- what is so ---------------------------------------------------------------------------------

    def row(self, deployment: str) -> Any:
        return self.read(
            lambda conn: conn.execute(
                sa.select(tables.deployments).where(tables.deployments.c.id == deployment)
            ).one()
        )

    def status(self, deployment: str) -> str:
        found: str = self.row(deployment).status
        return found

    def world(self, deployment: str) -> World:
        found = self.read(lambda conn: world.load_world(conn, deployment))
        assert found is not None
        return found

    def states(self, deployment: str) -> dict[str, str]:
        """device -> state, of everybody who has a row."""
        updates, fleet = tables.updates, tables.devices
        question = (
            sa.select(fleet.c.device_id, updates.c.state)
            .join(fleet, fleet.c.pk == updates.c.device_pk)
            .where(updates.c.deployment_id == deployment)
        )
        return dict(self.read(lambda conn: [tuple(row) for row in conn.execute(question)]))

    def update(self, name: str, deployment: str) -> Any:
        device = self.device(name)
        question = sa.select(tables.updates).where(
            tables.updates.c.deployment_id == deployment, tables.updates.c.device_pk == device.pk
        )
        return self.read(lambda conn: conn.execute(question).one())

    def events(self, deployment: str, kind: str) -> list[dict[str, Any]]:
        question = (
            sa.select(tables.events.c.data)
            .where(tables.events.c.deployment_id == deployment, tables.events.c.kind == kind)
            .order_by(tables.events.c.pk)
        )
        found: list[dict[str, Any]] = self.read(lambda conn: [row.data for row in conn.execute(question)])
        return found

    def outbox(self, kind: str) -> list[dict[str, Any]]:
        question = sa.select(tables.outbox.c.payload).where(tables.outbox.c.kind == kind)
        found: list[dict[str, Any]] = self.read(lambda conn: [row.payload for row in conn.execute(question)])
        return found

    def everything(self, *, but: tuple[str, ...] = ()) -> dict[str, list[Any]]:
        """Every row of every table, to see that nothing changed."""

        def all_rows(conn: Connection) -> dict[str, list[Any]]:
            return {
                table.name: sorted(map(repr, conn.execute(sa.select(table))))
                for table in tables.metadata.sorted_tables
                if table.name not in but
            }

        found: dict[str, list[Any]] = self.read(all_rows)
        return found

    # --- what must always be so ---------------------------------------------------------------------

    def must_hold(self) -> None:
        """Counters equal a recount; one open update per device, in its slot; rows only in opened phases;
        who waits is counted right."""
        ids = sa.select(tables.deployments.c.id).where(tables.deployments.c.deleted_at.is_(None))
        for deployment in self.read(lambda conn: [row.id for row in conn.execute(ids)]):
            assert self.read(lambda conn, d=deployment: recount(conn, d)) == {}
            self._phases_hold(deployment)
            self._waiting_is_right(deployment)
        self._slots_hold()

    def _waiting_is_right(self, deployment: str) -> None:
        """What was added up change by change is what a full count says."""
        counted = self.read(lambda conn: waiting.count(conn, deployment))
        if counted is not None:
            phases = self.read(lambda conn: stored.phases_of(conn, deployment))
            assert {phase.number: phase.waiting for phase in phases} == counted.devices
            for phase in phases:
                most = phase._mapping["count"]
                assert most is None or counted.rows.get(phase.number, 0) <= most

    def _phases_hold(self, deployment: str) -> None:
        found = self.world(deployment)
        opened = {phase.number for phase in found.phases if phase.state != "closed"}
        question = sa.select(tables.updates.c.phase).where(tables.updates.c.deployment_id == deployment)
        assert {row.phase for row in self.read(lambda conn: conn.execute(question).all())} <= opened
        assert opened == set(range(len(opened))), "phases open in their order"
        ended = [p for p in found.phases[: max(0, len(opened) - 1)] if not (p.promoted or p.finished_at)]
        assert not ended, "a phase opened before the one before it was through or promoted"
        room = self.row(deployment).max_parallel
        if room is not None:
            assert self._first_attempts(deployment) <= room

    def _first_attempts(self, deployment: str) -> int:
        """Devices that are at it without an operator's retry."""
        columns = tables.updates.c
        question = sa.select(sa.func.count()).where(
            columns.deployment_id == deployment,
            columns.attempt == 1,
            columns.state.in_([state.value for state in OPEN]),
        )
        return int(self.read(lambda conn: conn.execute(question).scalar_one()))

    def _slots_hold(self) -> None:
        open_states = [state.value for state in OPEN]
        updates, fleet = tables.updates.c, tables.devices.c
        open_rows = sa.select(updates.device_pk, updates.deployment_id, updates.attempt).where(
            updates.state.in_(open_states)
        )
        slots = sa.select(fleet.pk, fleet.deployment_id, fleet.attempt).where(
            fleet.deployment_id.is_not(None)
        )
        rows = self.read(lambda conn: conn.execute(open_rows).all())
        held = self.read(lambda conn: conn.execute(slots).all())
        assert sorted(map(tuple, rows)) == sorted(map(tuple, held))


def seeded(made: Yard, monkeypatch: pytest.MonkeyPatch) -> Yard:
    monkeypatch.setattr(deployments, "randbits", lambda bits: made.draw.getrandbits(bits))
    monkeypatch.setattr(deployments, "token_bytes", lambda count: made.draw.randbytes(count))
    return made


@pytest.fixture
def yard(database: Database, clock: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """An empty yard, on SQLite and on PostgreSQL."""
    made = seeded(Yard(database, clock), monkeypatch)
    yield made
    made.database.close()


@pytest.fixture
def sqlite_yard(sqlite_database: Database, clock: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """The same on SQLite only, for tests that are not about SQL."""
    made = seeded(Yard(sqlite_database, clock), monkeypatch)
    yield made
    made.database.close()
