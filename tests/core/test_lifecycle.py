"""The two tables: what they allow, and what a late, repeated or impossible report comes to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.core.lifecycle import (
    DEPLOYMENT_MOVES,
    ENDED,
    FINAL,
    OPEN,
    UPDATE_MOVES,
    DeploymentStatus,
    Mover,
    Reason,
    UpdateState,
    Verdict,
    judge,
)

S = UpdateState
states = st.sampled_from(UpdateState)


def test_the_states_on_the_wire_are_the_ones_promised() -> None:
    assert [state.value for state in (*OPEN, S.COMPLETE, S.FAILED, S.ROLLED_BACK)] == [
        "pending",
        "downloading",
        "installing",
        "validating",
        "complete",
        "failed",
        "rolled_back",
    ]
    assert len(Reason) == 14


@given(states, states)
def test_a_repeated_report_changes_nothing_twice(current: UpdateState, asked: UpdateState) -> None:
    if judge(current, asked) is Verdict.MOVE:
        assert judge(asked, asked) in (Verdict.REFRESH, Verdict.REPEAT)


@given(st.lists(st.sampled_from([*OPEN[1:], S.COMPLETE, S.FAILED, S.ROLLED_BACK]), max_size=30))
def test_an_update_moves_at_most_six_times_whatever_a_device_says(reports: list[UpdateState]) -> None:
    state, moves = S.PENDING, 0
    for asked in reports:
        if judge(state, asked) is Verdict.MOVE:
            state, moves = asked, moves + 1
    assert moves <= 5  # downloading, installing, validating, complete, rolled_back


@given(st.lists(st.sampled_from([*OPEN[1:], S.COMPLETE, S.FAILED, S.ROLLED_BACK]), max_size=20), st.data())
def test_a_late_or_repeated_report_changes_nothing_twice(
    reports: list[UpdateState], data: st.DataObject
) -> None:
    """Whatever a device has said, in whatever order the network says it once more."""
    state = S.PENDING
    for number, asked in enumerate(reports):
        if judge(state, asked) is Verdict.MOVE:
            state = asked
        for again in data.draw(st.lists(st.sampled_from(reports[: number + 1]), max_size=4)):
            assert judge(state, again) is not Verdict.MOVE


@pytest.mark.parametrize("final", FINAL)
@pytest.mark.parametrize("asked", [*OPEN[1:], S.COMPLETE, S.FAILED, S.ROLLED_BACK])
def test_no_report_moves_a_final_update_but_the_withdrawal(final: UpdateState, asked: UpdateState) -> None:
    withdrawn = (final, asked) == (S.COMPLETE, S.ROLLED_BACK)
    assert judge(final, asked) is (Verdict.MOVE if withdrawn else Verdict.REPEAT)


def test_a_device_can_not_report_what_only_the_server_says() -> None:
    for asked in (S.PENDING, S.SKIPPED, S.CANCELED):
        assert judge(S.DOWNLOADING, asked) is Verdict.REFUSED


def test_an_overtaken_report_is_no_error() -> None:
    assert judge(S.VALIDATING, S.DOWNLOADING) is Verdict.REPEAT


def test_silence_is_the_servers_to_judge_and_retry_too() -> None:
    for state in OPEN:
        assert judge(state, S.FAILED, Mover.SERVER) is Verdict.MOVE
    assert judge(S.FAILED, S.PENDING, Mover.SERVER) is Verdict.MOVE
    assert judge(S.COMPLETE, S.PENDING, Mover.SERVER) is Verdict.REFUSED


def test_every_open_state_can_end_and_no_final_state_opens_but_by_retry() -> None:
    for state in OPEN:
        assert (state, S.COMPLETE) in UPDATE_MOVES
    reopened = {(a, b) for a, b in UPDATE_MOVES if a in FINAL and b in OPEN}
    assert reopened == {(S.FAILED, S.PENDING), (S.ROLLED_BACK, S.PENDING)}


def test_an_ended_deployment_stays_ended_but_for_retry() -> None:
    leaving = {(a, b) for a, b in DEPLOYMENT_MOVES if a in ENDED}
    assert leaving == {(DeploymentStatus.COMPLETE, DeploymentStatus.RUNNING)}
