"""Blame finds planted cohorts, and blames nobody where nothing separates the failed."""

import math
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.core.blame import CHANCE, Findings, Share, Suspect, blame, lifts, tail

Counts = dict[tuple[str, str], Share]
VALUES = {"hw": ("rev-a", "rev-b", "rev-c"), "region": ("eu", "us", "asia", "sa"), "base": ("1.0", "1.1")}


def fleet(
    draw: Random, size: int, rate: float, planted: dict[tuple[str, str], float]
) -> tuple[Counts, Share]:
    """Devices with three attributes; who is of a planted cohort fails at its rate."""
    total: dict[tuple[str, str], int] = {}
    failed: dict[tuple[str, str], int] = {}
    bad = 0
    for _ in range(size):
        of = [(name, draw.choice(values)) for name, values in VALUES.items()]
        fails = draw.random() < max([rate, *(planted.get(cohort, 0.0) for cohort in of)])
        bad += fails
        for cohort in of:
            total[cohort] = total.get(cohort, 0) + 1
            failed[cohort] = failed.get(cohort, 0) + fails
    return {cohort: Share(failed[cohort], n) for cohort, n in total.items()}, Share(bad, size)


@pytest.mark.parametrize("cohort", [("hw", "rev-b"), ("region", "asia"), ("base", "1.1")])
@pytest.mark.parametrize(("size", "rate"), [(60, 0.9), (200, 0.3), (2000, 0.06)])
def test_a_planted_cohort_is_found_with_its_lift_and_sample(
    cohort: tuple[str, str], size: int, rate: float
) -> None:
    counts, whole = fleet(Random(f"{cohort}{size}"), size, 0.01, {cohort: rate})
    first = blame(counts, whole).suspects[0]
    assert (first.attribute, first.value) == cohort
    assert first.inside == counts[cohort]
    assert first.inside.failed + first.outside.failed == whole.failed
    assert 1 < first.lift_at_least < first.lift
    assert first.chance <= CHANCE


def test_nothing_is_blamed_by_luck_more_often_than_stated() -> None:
    draw = Random("null")
    blamed = sum(
        bool(blame(*fleet(draw, 150, draw.choice([0.02, 0.1, 0.5]), {})).suspects) for _ in range(600)
    )
    assert blamed <= 600 * CHANCE + 3 * math.sqrt(600 * CHANCE)


def test_where_nothing_separates_them_it_says_so() -> None:
    found = blame(*fleet(Random(3), 400, 0.2, {}))
    assert found.suspects == ()
    assert "nothing separates the" in found.sentence
    assert "9 cohorts" in found.sentence


def test_two_causes_are_both_named_the_stronger_first() -> None:
    planted = {("hw", "rev-b"): 0.6, ("region", "sa"): 0.4}
    suspects = blame(*fleet(Random(5), 800, 0.01, planted)).suspects
    assert [(one.attribute, one.value) for one in suspects[:2]] == [("hw", "rev-b"), ("region", "sa")]


def test_the_sentence_has_the_numbers() -> None:
    counts = {("label.hw", "rev-b"): Share(19, 40), ("label.hw", "rev-a"): Share(1, 160)}
    assert blame(counts, Share(20, 200)).sentence == (
        "label.hw rev-b: 19 of 40 failed (47.5 %), of the others 1 of 160 (0.6 %): lift 76.0, at least 12.1; "
        "by chance at most 3e-14, all 2 cohorts considered"
    )


@pytest.mark.parametrize(
    ("counts", "whole"),
    [
        ({}, Share(0, 0)),
        ({("hw", "a"): Share(0, 5)}, Share(0, 9)),
        ({("hw", "a"): Share(9, 9)}, Share(9, 9)),  # everybody has it
        ({("hw", "a"): Share(2, 2), ("hw", "b"): Share(0, 500)}, Share(2, 502)),  # two devices are no pattern
        ({("hw", "a"): Share(50, 50), ("hw", "b"): Share(50, 50)}, Share(100, 100)),  # everything failed
    ],
)
def test_no_cohort_is_blamed_for_nothing(counts: Counts, whole: Share) -> None:
    assert blame(counts, whole).suspects == ()


def test_the_tail_is_fishers() -> None:
    """By counting every way in which the failures can fall."""
    for total, inside, failed, seen in [(9, 4, 4, 3), (10, 5, 3, 2), (8, 3, 5, 0), (7, 7, 2, 2)]:
        ways = list(combinations(range(total), failed))
        extreme = sum(sum(device < inside for device in way) >= seen for way in ways)
        assert tail(Share(seen, inside), Share(failed, total)) == pytest.approx(extreme / len(ways))


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_lifts_are_finite_and_the_bound_is_below(n: int, m: int, data: st.DataObject) -> None:
    inside, outside = Share(data.draw(st.integers(1, n)), n), Share(data.draw(st.integers(0, m)), m)
    lift, at_least = lifts(inside, outside, 10)
    assert 0 <= at_least <= lift < math.inf


def test_a_million_devices_are_counted_in_a_moment() -> None:
    counts = {("label.hw", f"rev-{n}"): Share(1000 + 200 * n, 100_000) for n in range(10)}
    found = blame(counts, Share(19_000, 1_000_000))
    assert isinstance(found, Findings)
    assert isinstance(found.suspects[0], Suspect)
    assert found.suspects[0].value == "rev-9"
