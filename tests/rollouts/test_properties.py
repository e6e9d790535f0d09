"""The engine's promises over random lives of a yard: checks, reports, replays, silence, operators, newcomers.

After every step: counters equal a recount, one open update per device, rows only in opened phases, phases in
their order and no more at work than `max_parallel`. What a device repeats or says too late changes nothing.
At the end of every life, when devices do their work and time goes on, every deployment has ended.

Lives are dense on purpose: the steps are weighted so that updates run, meet, fail and are retried (uniformly
drawn rules made five updates in twenty lives). Hypothesis chooses seed and length.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skylift.core.errors import Rejected
from skylift.core.failure import breach
from skylift.core.gate import stops
from skylift.core.lifecycle import OPEN, UpdateState, Verdict, judge
from skylift.engine import cohorts, groups, retention, waiting
from skylift.store import counters

BEGIN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
VERSIONS = ("1.1.0", "1.2.0")
REPORTED = ("downloading", "installing", "validating", "complete", "failed", "rolled_back")
AFTER = {"pending": "downloading", "downloading": "installing", "installing": "validating"}
PHASES = (
    [{"percent": 100}],
    [{"percent": 30, "min_minutes": 5}, {"percent": 100}],
    [{"percent": 10, "min_minutes": 0}, {"percent": 50, "min_minutes": 0}, {"percent": 100}],
    [{"count": 2, "min_minutes": 0}, {"percent": 100, "gate": "manual"}],
    [{"count": 1}, {"count": 3}],
)
COHORTS = ("label.ring=canary", "device_id in (d004, d005)", "group=pair", "current_version=1.2.0")
LEFT_OUT = ("events",)  # a late report leaves an event behind, and nothing else


class Life:
    """One life, from its seed: the same seed, the same life."""

    def __init__(self, yard: Any, seed: int) -> None:
        self.yard, self.draw = yard, Random(seed)
        self.deployments: list[str] = []
        self.meetings = 0  # of deployments on one device that was free to take either
        yard.wipe(seed)
        yard.clock.now = BEGIN
        for version in ("1.0.0", *VERSIONS):
            yard.release(version)
        self.fleet = yard.fleet(8)
        yard.group("canaries", query='label.ring = canary or device_id ~ "d00[0-3]"')
        yard.group("pair", members=("d006", "d007"))
        self.create()
        self.tick()

    def live(self, steps: int) -> None:
        deeds, weights = zip(*DEEDS, strict=True)
        for _ in range(steps):
            deed = self.draw.choices(deeds, weights)[0]
            print(deed)  # shown with the first failure
            getattr(self, deed)()
            self.yard.must_hold()

    def _any(self) -> str:
        return self.draw.choice(self.deployments[-3:])

    # --- operators ----------------------------------------------------------------------------------

    def create(self) -> None:
        if len(self.deployments) >= 6:
            return
        self.yard.clock.forward(seconds=1)
        draw = self.draw
        config: dict[str, Any] = {
            "phases": draw.choice(PHASES),
            "failure_threshold_percent": draw.choice([0, 2.4, 10, 33.3, 50, 100, 100]),
            "failure_action": draw.choice(["pause", "pause", "pause", "abort", "rollback"]),
            "priority": draw.choice([0, 0, 1]),
            "lifetime_minutes": draw.choice([90, 600]),
        }
        if draw.random() < 0.3:
            config["max_parallel"] = draw.randint(1, 3)
        if draw.random() < 0.5:
            config["failure_min_devices"] = draw.randint(1, 4)
        if draw.random() < 0.4:
            rates = {"false_alarm_rate": draw.choice([0.001, 0.05]), "expected_failure_percent": 20}
            config |= {"gate": "statistical", **rates}
        if draw.random() < 0.4:
            config["target_groups"] = draw.choice([["canaries"], ["pair"], ["canaries", "pair"]])
        elif draw.random() < 0.2:
            config["target_devices"] = draw.sample(self.fleet, draw.randint(1, 6))
        with suppress(Rejected):  # nobody left to update
            self.deployments.append(self.yard.create(draw.choice(VERSIONS), **config))

    def meet(self) -> None:
        """Two more for everybody, one after the other, and some devices that are free to choose."""
        if len(self.deployments) >= 5:
            return
        for version in self.draw.sample(VERSIONS, 2):
            self.yard.clock.forward(seconds=1)
            priority = self.draw.choice([0, 0, 1])
            with suppress(Rejected):
                made = self.yard.create(
                    version, all_at_once=True, failure_threshold_percent=100, priority=priority
                )
                self.deployments.append(made)
        self.tick(0)
        for name in self.draw.sample(self.fleet, 4):
            self.check(name)

    def operate(self) -> None:
        verb = self.draw.choice(["pause", "resume", "resume", "promote", "retry", "retry", "abort"])
        with suppress(Rejected):
            getattr(self.yard, verb)(self._any())

    def raise_threshold(self) -> None:
        with suppress(Rejected):
            self.yard.resume(self._any(), 100.0)

    def go_on_without(self) -> None:
        """A cohort is left out: from this moment on it is offered nothing and counts in nothing."""
        deployment, cohort = self._any(), self.draw.choice(COHORTS)
        with suppress(Rejected):
            self.yard.pause(deployment)
        with suppress(Rejected):
            self.yard.resume(deployment, 100.0, cohort, expect=50.0)

    def roll_a_cohort_back(self) -> None:
        self.yard.clock.forward(seconds=1)
        self._remember(self.yard.roll_back(self._any(), self.draw.choice(COHORTS)))

    def roll_back(self) -> None:
        self.yard.clock.forward(seconds=1)
        self._remember(self.yard.roll_back(self._any()))

    def forget(self) -> None:
        """An operator deletes it, or its time is over: refused while anything needs it."""
        deployment = self.draw.choice(self.deployments)
        if len(self.deployments) < 2:
            return
        with suppress(Rejected):
            self.yard.write(lambda conn: retention.delete(conn, deployment, "ada", self.yard.clock()))
            self.deployments.remove(deployment)
        if self.draw.random() < 0.5:  # its rows go later, in their own time
            for payload in self.yard.outbox("purge"):
                retention.Purge(self.yard.database)(payload)

    def _remember(self, done: Any) -> None:
        self.deployments += [made for made in done.deployments if made not in self.deployments]

    # --- the fleet ----------------------------------------------------------------------------------

    def enroll(self) -> None:
        if len(self.fleet) < 14:
            labels = {"ring": "canary"} if self.draw.random() < 0.5 else {}
            self.fleet.append(self.yard.enroll(f"n{len(self.fleet):02}", labels=labels))

    def move_between_groups(self) -> None:
        self.yard.label(self.draw.choice(self.fleet), ring=self.draw.choice(["canary", "late"]))

    def change_the_list(self) -> None:
        """Of the group by list; its devices are counted again soon."""
        name, clock = [self.draw.choice(self.fleet)], self.yard.clock
        add, remove = self.draw.choice([(name, []), ([], name)])
        self.yard.write(lambda conn: groups.change_members(conn, "pair", add, remove, "ada", clock()))
        self.yard.carry_recounts()

    def flash_by_hand(self) -> None:
        self.yard.runs[self.draw.choice(self.fleet)] = self.draw.choice(["1.0.0", *VERSIONS])

    def check(self, name: str = "") -> None:
        name = name or self.draw.choice(self.fleet)
        rows = {dep: len(self.yard.states(dep)) for dep in self.deployments}
        busy, wanted = self.yard.device(name).deployment_id, self._wanted(name)
        answer = self.yard.check(name)
        for dep, before in rows.items():
            grown = len(self.yard.states(dep)) - before
            assert grown in (0, 1)
            if grown:
                assert answer["deployment"] == dep
                assert self.yard.status(dep) == "running", "only a running deployment offers"
                assert not self._left_out(name, dep), "who was left out is offered nothing"
                assert dep in wanted, "who left the group, or never was in it, is offered nothing"
                before_it = [one for one in wanted[: wanted.index(dep)] if not self._bounded(one)]
                assert busy or not before_it, "the first in precedence"
        # Where the first has no room a device waits for it, and no other is given it meanwhile.
        first_has_room = bool(wanted) and not self._bounded(wanted[0])
        assert busy or not first_has_room or answer["update_available"], "who is wanted is not turned away"
        self.meetings += not busy and len(wanted) > 1 and first_has_room
        if answer["update_available"]:
            assert self.yard.check(name) == answer, "the same question has the same answer"

    def _wanted(self, name: str) -> list[str]:
        """The running deployments that wait for this device in a phase that is open, in their precedence:
        priority, then the newer one. Looked up the other way round, in the numbers of who waits."""
        device = replace(
            self.yard.device(name),
            current_version=self.yard.runs[name],
            config_version=self.yard.configs.get(name),
        )
        found = []
        for dep, number in self.yard.read(lambda conn: waiting.of(conn, device)):
            seen = self.yard.world(dep)
            if seen.status == "running" and seen.phases[number].state != "closed":
                found.append((self.yard.row(dep).priority, dep))  # ids sort by birth
        return [dep for _, dep in sorted(found, reverse=True)]

    def _bounded(self, deployment: str) -> bool:
        """Whether it may turn away whom it wants: no room at the moment, or enough of them."""
        counts = any("count" in phase for phase in self.yard.row(deployment).config.get("phases", ()))
        return counts or self.yard.row(deployment).max_parallel is not None

    def _left_out(self, name: str, deployment: str) -> bool:
        device, selector = self.yard.device(name), self.yard.row(deployment).selector
        outside: bool = self.yard.read(lambda conn: cohorts.is_left_out(conn, selector, device))
        return outside

    def check_behind_a_stale_cache(self) -> None:
        """Another server paused or aborted it a moment ago; this one has not heard yet."""
        deployment = self._any()
        self.yard.lives.get()
        fresh, self.yard.lives.invalidate = self.yard.lives.invalidate, lambda: None
        try:
            with suppress(Rejected):
                getattr(self.yard, self.draw.choice(["pause", "pause", "abort"]))(deployment)
            if self.yard.status(deployment) == "running":
                return
            before = set(self.yard.states(deployment))
            self.yard.check(self.draw.choice(self.fleet))
            assert set(self.yard.states(deployment)) == before, "nothing is offered behind a pause"
        finally:
            self.yard.lives.invalidate = fresh
            fresh()

    def go_on(self) -> None:
        """Somebody who is at it takes the next stage, and sometimes fails."""
        deployment = self._any()
        states = {n: s for n, s in self.yard.states(deployment).items() if s in AFTER or s == "validating"}
        if not states:
            self.check()
            return
        name = self.draw.choice(sorted(states))
        end = self.draw.choice(["complete", "complete", "failed", "rolled_back"])
        self._report(name, deployment, AFTER.get(states[name], end), False)

    def say_anything(self) -> None:
        """Anything, from anybody who was ever offered something, of any attempt: the table decides."""
        deployment = self._any()
        has = sorted(self.yard.states(deployment))
        if has:
            old = self.draw.random() < 0.3
            self._report(self.draw.choice(has), deployment, self.draw.choice(REPORTED), old)

    def _report(self, name: str, deployment: str, state: str, old: bool) -> None:
        update = self.yard.update(name, deployment)
        attempt = update.attempt - 1 if old and update.attempt > 1 else update.attempt
        verdict = judge(UpdateState(update.state), UpdateState(state))
        before = self.yard.everything(but=LEFT_OUT)
        try:
            answer = self.yard.report(name, deployment, state, attempt=attempt, progress=50)
        except Rejected:
            assert verdict is Verdict.REFUSED
            assert self.yard.everything(but=LEFT_OUT) == before
            return
        if attempt < update.attempt or verdict is Verdict.REPEAT:
            assert not answer.recorded
            assert self.yard.everything(but=LEFT_OUT) == before, "a late report changes nothing"
        else:
            assert answer.recorded
            self._said_again(name, deployment, state, attempt)

    def _said_again(self, name: str, deployment: str, state: str, attempt: int) -> None:
        """The network repeats it at once."""
        before = self.yard.everything(but=LEFT_OUT)
        self.yard.report(name, deployment, state, attempt=attempt, progress=50)
        assert self.yard.everything(but=LEFT_OUT) == before, "a repeated report changes nothing"

    # --- time ---------------------------------------------------------------------------------------

    def tick(self, minutes: int | None = None) -> None:
        self.yard.tick(minutes=self.draw.choice([0, 0, 1, 6, 31, 61]) if minutes is None else minutes)
        self._carry()
        for deployment in self.deployments:
            assert self.yard.audit(deployment)["findings"] == [], "the auditor finds nothing"
            found = self.yard.world(deployment)
            if found.status == "running":
                opened = [phase for phase in found.phases if phase.state != "closed"]
                assert not any(breach(p, found.failure_rule) for p in opened), "a breach always stops"
                assert stops(found) is None, "so does the statistical gate"

    def _carry(self) -> None:
        """The courier's part."""
        self.yard.carry_recounts()
        for payload in self.yard.outbox("rollback"):
            self.yard.clock.forward(seconds=1)
            self._remember(self.yard.roll_back(payload["deployment"]))
        self.yard.loop.tick(self.yard.clock())

    def restart(self) -> None:
        self.yard.open()

    def end(self) -> None:
        """Liveness: devices do their work, operators let things run, time goes on, and everything ends."""
        for _ in range(40):
            self.tick(31)
            for deployment in self.deployments:
                if self.yard.status(deployment) == "paused":
                    self._let_run(deployment)
            for name in self.fleet:
                self._work(name)
            if all(self._over(deployment) for deployment in self.deployments):
                break
        self.yard.must_hold()
        left = [dep for dep in self.deployments if not self._over(dep)]
        assert not left, [(self.yard.row(dep).status, self.yard.row(dep).notes) for dep in left]

    def _let_run(self, deployment: str) -> None:
        with suppress(Rejected):
            self.yard.resume(deployment, 100.0, expect=50.0)
        if self.yard.status(deployment) == "paused":  # too much of it failed: nobody would go on
            self.yard.abort(deployment)

    def _over(self, deployment: str) -> bool:
        at_it = set(self.yard.states(deployment).values()) & {state.value for state in OPEN}
        return not at_it and self.yard.status(deployment) in ("complete", "aborted", "failed")

    def _work(self, name: str) -> None:
        deployment = self.yard.offered(name)
        if deployment is not None:
            for state in REPORTED[:4]:
                with suppress(Rejected):
                    self.yard.report(name, deployment, state)


DEEDS = (
    ("go_on", 30),
    ("check", 20),
    ("say_anything", 10),
    ("tick", 10),
    ("operate", 6),
    ("check_behind_a_stale_cache", 4),
    ("create", 4),
    ("raise_threshold", 3),
    ("enroll", 2),
    ("move_between_groups", 2),
    ("flash_by_hand", 2),
    ("meet", 2),
    ("change_the_list", 2),
    ("forget", 1),
    ("roll_back", 1),
    ("roll_a_cohort_back", 1),
    ("go_on_without", 1),
    ("restart", 1),
)
# A database behind every step is slow, and one yard serves all examples: it is wiped before each. Nothing is
# shrunk: a life is its seed, and the deeds are printed.
PROFILE = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
}


def lived(yard: Any, seed: int, steps: int) -> Life:
    life = Life(yard, seed)
    life.live(steps)
    life.end()
    return life


@settings(max_examples=8, **PROFILE)
@given(seed=st.integers(0, 2**32), steps=st.integers(40, 100))
def test_every_promise_holds_through_random_lives(sqlite_yard: Any, seed: int, steps: int) -> None:
    lived(sqlite_yard, seed, steps)


@pytest.mark.slow
@settings(max_examples=3, **PROFILE)
@given(seed=st.integers(0, 2**32), steps=st.integers(30, 60))
def test_every_promise_holds_on_both_databases(yard: Any, seed: int, steps: int) -> None:
    lived(yard, seed, steps)


def test_random_lives_are_worth_living(sqlite_yard: Any) -> None:
    """They reach every state there is: otherwise the properties above would hold of nothing."""
    seen: set[str] = set()
    meetings = 0
    for seed in range(4):
        life = Life(sqlite_yard, seed)
        for _ in range(10):
            life.live(10)
            for deployment in life.deployments:
                seen |= {sqlite_yard.status(deployment), *sqlite_yard.states(deployment).values()}
        meetings += life.meetings
    assert meetings > 3
    assert {
        "running",
        "paused",
        "aborted",
        "canceled",
        "complete",
        "failed",
        "rolled_back",
        "pending",
    } <= seen


def exact(yard: Any, seed: int) -> None:
    """Phases of numbers of devices; the fleet asks in any order, and others join, leave and come back."""
    draw = Random(seed)
    yard.wipe(seed)
    yard.clock.now = BEGIN
    yard.release("1.1.0")
    fleet = yard.fleet(10)
    counts = [draw.randint(1, 4) for _ in range(draw.randint(1, 3))]
    while sum(counts) > len(fleet):
        counts.pop()
    gate = draw.choice(["auto", "manual"])
    phases = [{"count": count, "min_minutes": 0, "gate": gate} for count in counts]
    deployment = yard.running("1.1.0", phases=phases, failure_threshold_percent=100)
    for number in range(40):
        for name in draw.sample(fleet, len(fleet)):
            if yard.offered(name) == deployment:
                yard.report(name, deployment, draw.choice(["complete", "complete", "failed"]))
        if number % 2 == 0 and len(fleet) < 15:
            fleet.append(yard.enroll(f"late{number}"))
        with suppress(Rejected):
            yard.promote(deployment)
        yard.tick(minutes=1)
        yard.must_hold()
        if yard.status(deployment) == "complete":
            break
    assert yard.status(deployment) == "complete"
    rows = yard.read(lambda conn: counters.rows(conn, deployment))
    assert [rows[number] for number in range(len(counts))] == counts
    for name in fleet:
        yard.check(name)
    assert len(yard.states(deployment)) == sum(counts)


@settings(max_examples=3, **PROFILE)
@given(seed=st.integers(0, 2**32))
def test_as_many_devices_as_the_operator_asked_for_and_not_one_more(yard: Any, seed: int) -> None:
    exact(yard, seed)
