"""`core.offer.decide` on paper: who is offered what, and who waits."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from skylift.core.bucket import SPAN, device_hash, place, upto
from skylift.core.ids import DeploymentId
from skylift.core.lifecycle import DeploymentStatus, UpdateState
from skylift.core.offer import (
    Again,
    Asking,
    Decision,
    Live,
    Nothing,
    Offer,
    OpenUpdate,
    Step,
    Wait,
    decide,
    precedence,
)
from skylift.core.window import Window
from skylift.core.world import PhaseState

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DEVICE = Asking(device_hash("greenhouse-7"), "sensor-v2", "1.0.0", None)
OPEN_ALL = (Step(0, SPAN - 1, PhaseState.OPEN),)
RUNNING = Live(
    id=DeploymentId("dep_1"),
    version="1.1.0",
    kind="image",
    status=DeploymentStatus.RUNNING,
    salt=7,
    device_types=frozenset({"sensor-v2"}),
    steps=OPEN_ALL,
)
NEWER = replace(RUNNING, id=DeploymentId("dep_2"), version="1.2.0")


def ask(
    *lives: Live,
    device: Asking = DEVICE,
    current: OpenUpdate | None = None,
    selected: bool = True,
    had: bool = False,
) -> Decision:
    return decide(device, precedence(lives), current, lambda live: selected, lambda live: had, NOW)


def holding(live: Live | None, state: str) -> OpenUpdate:
    return OpenUpdate(live, RUNNING.id, UpdateState(state))


def test_a_running_deployment_offers_to_whom_it_selects() -> None:
    assert ask(RUNNING) == Offer(RUNNING, 0)


def test_nothing_is_offered_to_the_wrong_type_the_same_version_or_the_unselected() -> None:
    assert ask(RUNNING, device=DEVICE._replace(device_type="camera")) == Nothing()
    assert ask(RUNNING, device=DEVICE._replace(current_version="1.1.0")) == Nothing()
    assert ask(RUNNING, selected=False) == Nothing()
    assert ask(RUNNING, had=True) == Nothing()
    assert ask() == Nothing()


def test_a_configuration_looks_at_the_configuration_the_device_has() -> None:
    config = replace(RUNNING, kind="config")
    assert ask(config, device=DEVICE._replace(current_version="1.1.0")) == Offer(config, 0)
    assert ask(config, device=DEVICE._replace(config_version="1.1.0")) == Nothing()


def test_a_closed_phase_a_pause_and_a_schedule_make_it_wait() -> None:
    closed = replace(RUNNING, steps=(Step(0, SPAN - 1, PhaseState.CLOSED),))
    for live in (
        closed,
        replace(RUNNING, status=DeploymentStatus.PAUSED),
        replace(RUNNING, status=DeploymentStatus.SCHEDULED),
        replace(RUNNING, window=Window.parse("window", {"start": "22:00", "end": "04:00"})),
    ):
        assert isinstance(ask(live), Wait)


def test_a_device_beyond_the_last_phase_is_not_part_of_it() -> None:
    assert ask(replace(RUNNING, steps=(Step(0, -1, PhaseState.OPEN),))) == Nothing()


def test_the_newer_goes_first_and_the_older_waits_its_turn() -> None:
    assert ask(RUNNING, NEWER) == Offer(NEWER, 0)
    assert ask(replace(RUNNING, priority=1), NEWER) == Offer(replace(RUNNING, priority=1), 0)


def test_a_waiting_newer_deployment_does_not_block_the_older() -> None:
    paused = replace(NEWER, status=DeploymentStatus.PAUSED)
    assert ask(RUNNING, paused) == Offer(RUNNING, 0)


def test_who_has_not_begun_is_taken_over_and_who_has_is_not() -> None:
    assert ask(RUNNING, NEWER, current=holding(RUNNING, "pending")) == Offer(NEWER, 0, instead_of=RUNNING.id)
    for state in ("downloading", "installing", "validating"):
        assert ask(RUNNING, NEWER, current=holding(RUNNING, state)) == Again()


def test_an_older_deployment_never_takes_over() -> None:
    older = replace(RUNNING, id=DeploymentId("dep_0"), version="0.9.0")
    assert ask(older, RUNNING, current=holding(RUNNING, "pending")) == Again()


def test_a_pause_holds_the_pending_and_lets_the_begun_go_on() -> None:
    paused = replace(RUNNING, status=DeploymentStatus.PAUSED)
    assert isinstance(ask(paused, current=holding(paused, "pending")), Wait)
    assert ask(paused, current=holding(paused, "downloading")) == Again()


def test_an_update_whose_deployment_ended_is_its_own_affair() -> None:
    assert ask(NEWER, current=holding(None, "pending")) == Again()


@given(st.integers(0, SPAN - 1), st.integers(0, SPAN - 1), st.lists(st.floats(0.1, 99.9), max_size=5))
def test_a_device_belongs_to_the_first_phase_whose_end_is_not_before_its_place(
    h: int, salt: int, percents: list[float]
) -> None:
    ends = [*sorted({upto(percent) for percent in percents}), SPAN - 1]
    steps = tuple(Step(number, end, PhaseState.OPEN) for number, end in enumerate(ends))
    decision = ask(replace(RUNNING, salt=salt, steps=steps), device=DEVICE._replace(h=h))
    assert isinstance(decision, Offer)
    at = place(h, salt)
    assert at <= ends[decision.phase]
    assert decision.phase == 0 or at > ends[decision.phase - 1]


@given(st.integers(0, 3))
def test_opening_a_later_phase_never_moves_a_device(opened: int) -> None:
    def steps(number: int) -> tuple[Step, ...]:
        ends = [upto(25.0 * (n + 1)) for n in range(4)]
        return tuple(
            Step(n, end, PhaseState.OPEN if n <= number else PhaseState.CLOSED) for n, end in enumerate(ends)
        )

    before = ask(replace(RUNNING, steps=steps(opened)))
    after = ask(replace(RUNNING, steps=steps(3)))
    if isinstance(before, Offer):
        assert isinstance(after, Offer)
        assert before.phase == after.phase
