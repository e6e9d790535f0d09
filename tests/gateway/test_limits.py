"""The reference of every rate limit: exact, by properties."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.gateway.limits import Rules, State, take, take_all, window_start
from skylift.gateway.policies import Algorithm, Limit

NOON = 1_795_867_200.0  # 2026-11-28 12:00:00 UTC

steps = st.lists(st.integers(0, 4000), min_size=1, max_size=40)  # milliseconds between requests
counts = st.integers(1, 7)


def passed_at(algorithm: Algorithm, limit: Limit, gaps: list[int]) -> list[float]:
    """When requests with these gaps pass."""
    now, state, found = NOON, None, []
    for gap in gaps:
        now += gap / 1000
        verdict, state = take(algorithm, limit, state, now)
        if verdict.passed:
            found.append(now)
    return found


@given(steps, counts)
def test_a_sliding_window_never_lets_more_than_its_count_pass_in_any_stretch(
    gaps: list[int], count: int
) -> None:
    times = passed_at(Algorithm.SLIDING_WINDOW, Limit(count, 5), gaps)
    assert all(sum(end - 5 < at <= end for at in times) <= count for end in times)


@given(steps, counts)
def test_a_sliding_window_refuses_nothing_that_would_have_fitted(gaps: list[int], count: int) -> None:
    limit, now, state = Limit(count, 5), NOON, None
    times: list[float] = []
    for gap in gaps:
        now += gap / 1000
        verdict, state = take(Algorithm.SLIDING_WINDOW, limit, state, now)
        assert verdict.passed == (sum(at > now - 5 for at in times) < count)
        if verdict.passed:
            times.append(now)


@given(steps, counts, st.integers(1, 9))
def test_a_token_bucket_lets_at_most_its_size_and_its_refill_pass(
    gaps: list[int], count: int, burst: int
) -> None:
    times = passed_at(Algorithm.TOKEN_BUCKET, Limit(count, 5, burst), gaps)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - start) * count / 5 + 1e-6


@given(steps, counts, st.integers(1, 9))
def test_a_leaky_bucket_as_a_meter_is_the_token_bucket_seen_from_the_other_side(
    gaps: list[int], count: int, burst: int
) -> None:
    limit = Limit(count, 8, burst)  # eighths of a second: exact in binary, no rounding at the edges
    gaps = [gap // 125 * 125 for gap in gaps]
    if count in (1, 2, 4):
        assert passed_at(Algorithm.LEAKY_BUCKET, limit, gaps) == passed_at(
            Algorithm.TOKEN_BUCKET, limit, gaps
        )


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.integers(1, 8), st.integers(1, 6))
def test_a_queue_lets_out_one_after_the_other_and_refuses_who_would_wait_too_long(
    gaps: list[int], count: int, queue: int
) -> None:
    limit, state, now, leaves = Limit(count, 8), None, NOON, []
    step = 8 / count
    for gap in gaps:
        now += gap
        verdict, state = take(Algorithm.LEAKY_BUCKET, limit, state, now, Rules(max_delay=queue * step))
        if verdict.passed:
            leaves.append(now + verdict.delay)
            assert verdict.delay <= queue * step + 1e-6
        else:
            again, _ = take(
                Algorithm.LEAKY_BUCKET, limit, state, now + verdict.retry_after, Rules(max_delay=queue * step)
            )
            assert again.passed
    assert all(later - earlier >= step - 1e-6 for earlier, later in pairwise(leaves))


@pytest.mark.parametrize("algorithm", Algorithm)
@given(gaps=steps, count=counts)
def test_who_waits_as_long_as_told_passes_and_no_sooner(
    algorithm: Algorithm, gaps: list[int], count: int
) -> None:
    limit, now, state = Limit(count, 60), NOON, None
    for gap in gaps:
        now += gap / 1000
        before = state
        verdict, state = take(algorithm, limit, state, now)
        if not verdict.passed:
            later, _ = take(algorithm, limit, before, now + verdict.retry_after + 1e-3)
            sooner, _ = take(algorithm, limit, before, now + max(0, verdict.retry_after - 1.1))
            assert later.passed
            assert not sooner.passed or verdict.retry_after <= 1.1


def test_a_fixed_window_begins_anew_at_the_full_minute_and_counts_what_it_refused() -> None:
    limit, state = Limit(2, 60, name="Minute"), None
    told = []
    for at in (58.0, 58.5, 59.0, 60.0):
        verdict, state = take(Algorithm.FIXED_WINDOW, limit, state, NOON + at, Rules(counts_refused=True))
        told.append((verdict.passed, verdict.remaining, verdict.reset))
    assert told == [(True, 1, 2.0), (True, 0, 1.5), (False, 0, 1.0), (True, 1, 60.0)]


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [(60, NOON + 0), (3600, NOON), (86400, NOON - 12 * 3600), (30 * 86400, NOON - 12 * 3600 - 27 * 86400)],
)
def test_windows_are_the_calendars(seconds: int, starts: float) -> None:
    assert window_start(seconds, NOON + 59) == starts


def test_refused_by_one_limit_takes_nothing_from_the_others() -> None:
    limits = (Limit(1, 60, name="Minute"), Limit(10, 3600, name="Hour"))
    states: tuple[State | None, ...] = (None, None)
    outcome, states = take_all(Algorithm.SLIDING_WINDOW, limits, states, NOON)
    assert outcome.passed
    for _ in range(5):
        outcome, states = take_all(Algorithm.SLIDING_WINDOW, limits, states, NOON + 1)
    assert not outcome.passed
    assert outcome.tightest.limit.name == "Minute"
    assert outcome.retry_after == 59
    assert states[1] is not None
    assert len(states[1].times) == 1
