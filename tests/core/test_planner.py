"""The planner's promises as properties over generated worlds; the few stories worth telling are in
test_planner_stories."""

from dataclasses import replace
from datetime import UTC, timedelta
from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skylift.core.audit import audit
from skylift.core.bucket import SPAN, device_hash, place, upto
from skylift.core.failure import breach
from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import DeploymentStatus
from skylift.core.offer import Asking, Live, Offer, Step, decide
from skylift.core.planner import plan
from skylift.core.world import FailureAction, FailureRule, Gate, Pause, Phase, PhaseState, Stop, Tally, World

from .conftest import NOW, carry_out

counts = st.integers(0, 40)
tallies = st.builds(
    Tally,
    waiting=counts,
    pending=st.integers(0, 3),
    downloading=st.integers(0, 3),
    installing=st.integers(0, 3),
    validating=st.integers(0, 3),
    complete=counts,
    failed=st.integers(0, 8),
    rolled_back=st.integers(0, 8),
    skipped=st.integers(0, 3),
    canceled=st.integers(0, 3),
)
minutes = st.integers(0, 120).map(lambda m: timedelta(minutes=m))
rules = st.builds(
    FailureRule,
    threshold_percent=st.sampled_from([0.0, 5.0, 10.0, 33.3, 50.0, 100.0]),
    min_devices=st.none() | st.integers(1, 30),
    action=st.sampled_from(FailureAction),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    opened = draw(st.integers(0, 4))
    phases = []
    for number in range(draw(st.integers(max(1, opened), 5))):
        state = PhaseState.CLOSED
        if number < opened:
            last = number == opened - 1
            state = (
                draw(st.sampled_from([PhaseState.OPEN, PhaseState.THROUGH])) if last else PhaseState.THROUGH
            )
        tally = draw(tallies) if number < opened else Tally(waiting=draw(counts))
        opened_at = NOW - timedelta(minutes=draw(st.integers(0, 300))) if number < opened else None
        phases.append(
            Phase(
                number=number,
                name=f"phase {number + 1}",
                tally=tally,
                state=state,
                soak=draw(minutes),
                wait=draw(minutes),
                gate=draw(st.sampled_from(Gate)),
                promoted=draw(st.booleans()) and number < opened,
                opened_at=opened_at,
                finished_at=draw(
                    st.datetimes(NOW.replace(tzinfo=None) - timedelta(hours=5), NOW.replace(tzinfo=None))
                ).replace(tzinfo=UTC)
                if state is PhaseState.THROUGH
                else None,
            )
        )
    return World(
        deployment="dep_x",
        version="1.1.0",
        generation=draw(st.integers(1, 9)),
        status=draw(st.sampled_from(DeploymentStatus)),
        phases=tuple(phases),
        failure_rule=draw(rules),
        starts_at=draw(st.none() | st.just(NOW + timedelta(hours=1)) | st.just(NOW - timedelta(hours=1))),
        ends_at=NOW + draw(st.sampled_from([timedelta(days=7), timedelta(0), timedelta(days=-1)])),
        approval_above=draw(st.none() | st.none() | counts),
    )


@settings(max_examples=250)
@given(worlds())
def test_the_auditor_finds_nothing_wrong_with_any_plan(world: World) -> None:
    assert audit(world, plan(world, NOW), NOW) == []


@settings(max_examples=200)
@given(worlds())
def test_a_breach_always_pauses_or_stops(world: World) -> None:
    world = replace(world, status=DeploymentStatus.RUNNING)
    breached = [p for p in world.phases if p.state is not PhaseState.CLOSED and breach(p, world.failure_rule)]
    assume(breached)
    actions = plan(world, NOW).actions
    assert len(actions) == 1
    assert isinstance(actions[0], Pause | Stop)


@settings(max_examples=200)
@given(worlds())
def test_a_plan_that_does_nothing_says_what_it_waits_for_and_until_when(world: World) -> None:
    decided = plan(world, NOW)
    assert decided.notes
    assert all(decided.notes)
    if not decided.actions and world.status is DeploymentStatus.RUNNING:
        in_flight = sum(phase.tally.in_flight for phase in world.phases)
        assert decided.wake_at is not None or in_flight  # devices in flight end by their own deadlines


@given(worlds(), st.integers(1, 5))
def test_a_plan_from_a_stale_generation_never_applies(world: World, changes: int) -> None:
    """The auditor refuses it; that the store does is shown in rollouts/test_verbs."""
    since = replace(world, generation=world.generation + changes)
    assert "generation" in " ".join(audit(since, plan(world, NOW), NOW))


@settings(max_examples=150)
@given(worlds(), st.sampled_from(DeploymentStatus))
def test_only_a_scheduled_or_running_deployment_is_ever_acted_on(
    world: World, status: DeploymentStatus
) -> None:
    assume(status not in (DeploymentStatus.RUNNING, DeploymentStatus.SCHEDULED))
    assert plan(replace(world, status=status), NOW).actions == ()


@st.composite
def fleets(draw: st.DrawFn) -> tuple[World, list[int], list[int]]:
    """A fresh deployment, how many devices of each phase ever ask, and how many of those fail."""
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=5))
    asking = [draw(st.integers(0, size)) for size in sizes]
    failing = [draw(st.integers(0, n)) for n in asking]
    phases = tuple(
        Phase(i, f"phase {i + 1}", Tally(waiting=size), soak=draw(minutes), wait=draw(minutes))
        for i, size in enumerate(sizes)
    )
    world = World(
        "dep_x",
        "1.1.0",
        1,
        DeploymentStatus.SCHEDULED,
        phases,
        draw(rules),
        starts_at=NOW + timedelta(minutes=draw(st.integers(0, 100))),
        ends_at=NOW + timedelta(days=7),
    )
    return world, asking, failing


@settings(max_examples=250)
@given(fleets())
def test_every_deployment_ends(fleet: tuple[World, list[int], list[int]]) -> None:
    world, asking, failing = fleet
    now = NOW
    for _ in range(200):
        decided = plan(world, now)
        assert audit(world, decided, now) == []
        world = carry_out(world, decided, now)
        if world.status not in (DeploymentStatus.SCHEDULED, DeploymentStatus.RUNNING):
            break
        if decided.actions:
            continue
        moved = False
        for phase in world.phases:
            come = min(asking[phase.number], phase.tally.waiting)
            if phase.state is PhaseState.CLOSED or not come:
                continue
            bad = failing[phase.number]
            tally = replace(phase.tally, waiting=phase.tally.waiting - come, complete=come - bad, failed=bad)
            phases = list(world.phases)
            phases[phase.number] = replace(phase, tally=tally)
            world = replace(world, phases=tuple(phases))
            asking[phase.number] = 0
            moved = True
        if not moved:
            assert decided.wake_at is not None, decided.notes
            now = decided.wake_at
    assert world.status in (
        DeploymentStatus.PAUSED,
        DeploymentStatus.FAILED,
        DeploymentStatus.COMPLETE,
    )


@settings(max_examples=250)
@given(fleets())
def test_a_later_phase_never_opens_while_an_earlier_one_has_proved_nothing(
    fleet: tuple[World, list[int], list[int]],
) -> None:
    world, _, _ = fleet
    now = NOW + timedelta(minutes=100)
    for _ in range(50):  # nobody ever asks
        decided = plan(world, now)
        world = carry_out(world, decided, now)
        now = decided.wake_at or now
    open_with_devices = [p for p in world.phases if p.tally.size and p.state is not PhaseState.CLOSED]
    assert len(open_with_devices) <= 1


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[World, Live, list[int]]:
    """A fresh deployment in up to five phases, as the planner sees it and as offers do, and its devices."""
    ends = sorted(draw(st.sets(st.integers(1, 99), max_size=4)) | {100})
    salt = draw(st.integers(0, SPAN - 1))
    devices = [device_hash(f"d{n}") for n in range(draw(st.integers(1, 60)))]
    steps = tuple(Step(n, upto(end), PhaseState.CLOSED) for n, end in enumerate(ends))
    live = Live(
        DeploymentId("dep_x"),
        "1.1.0",
        "image",
        DeploymentStatus.SCHEDULED,
        salt,
        frozenset({"sensor"}),
        steps,
    )
    phases = tuple(
        Phase(n, f"phase {n + 1}", Tally(waiting=len(held(devices, live, n))), soak=draw(minutes))
        for n in range(len(ends))
    )
    status, rule = DeploymentStatus.SCHEDULED, draw(rules)
    world = World("dep_x", "1.1.0", 1, status, phases, rule, starts_at=NOW, ends_at=NOW + timedelta(days=7))
    return world, live, devices


def held(devices: list[int], live: Live, phase: int) -> list[int]:
    """The devices whose places are this phase's."""
    low = live.steps[phase - 1].upto if phase else -1
    return [h for h in devices if low < place(h, live.salt) <= live.steps[phase].upto]


@settings(max_examples=60)
@given(rollouts(), st.randoms(use_true_random=False))
def test_never_more_devices_are_offered_than_the_phases_allow(
    rollout: tuple[World, Live, list[int]], draw: Random
) -> None:
    """Whoever asks, how often and in which order; whatever becomes of it."""
    world, live, devices = rollout
    now, offered = NOW, dict[int, int]()
    for _ in range(40):
        decided = plan(world, now)
        world = carry_out(world, decided, now)
        steps = tuple(replace(s, state=world.phases[s.number].state) for s in live.steps)
        live = replace(live, status=world.status, steps=steps)
        for h in draw.choices(devices, k=20):
            asking = Asking(h, "sensor", "1.0.0", None)
            answer = decide(asking, [live], None, lambda _: True, lambda _, h=h: h in offered, now)
            if isinstance(answer, Offer):
                assert h not in offered, "offered twice"
                offered[h] = answer.phase
        for phase in world.phases:
            mine = [h for h, number in offered.items() if number == phase.number]
            allowed = [] if phase.state is PhaseState.CLOSED else held(devices, live, phase.number)
            assert set(mine) <= set(allowed)
        world = replace(world, phases=tuple(counted(p, offered, draw) for p in world.phases))
        now = decided.wake_at or now + timedelta(minutes=30)
    if world.status is DeploymentStatus.COMPLETE:
        assert offered


def counted(phase: Phase, offered: dict[int, int], draw: Random) -> Phase:
    """The phase with every offer in its tally, decided one way or another."""
    tally = phase.tally
    new = sum(number == phase.number for number in offered.values()) - tally.complete - tally.failed
    bad = sum(draw.random() < 0.1 for _ in range(new))
    return replace(
        phase,
        tally=replace(
            tally, waiting=tally.waiting - new, complete=tally.complete + new - bad, failed=tally.failed + bad
        ),
    )
