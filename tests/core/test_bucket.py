"""Places: stable, evenly spread, independent between deployments; ids that sort by time."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.core.bucket import SPAN, arcs, device_hash, place, upto
from skylift.core.errors import Rejected
from skylift.core.ids import check_name, mint


def test_a_place_never_moves() -> None:
    assert device_hash("dev-1") == 127364889547394313
    assert place(device_hash("dev-1"), SPAN - 42) == 127364889547394271


@given(st.integers(0, SPAN - 1), st.integers(0, SPAN - 1))
def test_a_place_fits_the_span_and_two_devices_never_share_one(h: int, salt: int) -> None:
    assert 0 <= place(h, salt) < SPAN


def test_ten_percent_of_the_places_hold_ten_percent_of_the_fleet() -> None:
    hashes = [device_hash(f"device-{i}") for i in range(20_000)]
    for salt in (1, SPAN // 3, SPAN - 1):
        inside = sum(place(h, salt) <= upto(10) for h in hashes)
        assert 1_850 < inside < 2_150


def test_nobody_is_a_canary_more_often_than_others() -> None:
    draw = Random(1)
    salts = [draw.randrange(SPAN) for _ in range(2_000)]
    for device in range(50):
        h = device_hash(f"device-{device}")
        times = sum(place(h, salt) <= upto(10) for salt in salts)
        assert 140 < times < 260  # 200 on average; 4.5 standard deviations either way


@given(
    st.integers(-1, SPAN - 1),
    st.integers(-1, SPAN - 1),
    st.integers(0, SPAN - 1),
    st.lists(st.integers(0, SPAN - 1), max_size=20),
)
def test_arcs_hold_the_devices_of_a_range(low: int, high: int, salt: int, hashes: list[int]) -> None:
    edges = [(at - salt) % SPAN for at in (low, low + 1, high, high + 1)]
    for h in hashes + edges:
        inside = any(first <= h <= last for first, last in arcs(low, high, salt))
        assert inside == (low < place(h, salt) <= high)


def test_nobody_and_everybody() -> None:
    assert upto(0) == -1
    assert upto(100) == SPAN - 1


def test_ids_sort_by_birth() -> None:
    born = datetime(2026, 11, 23, tzinfo=UTC)
    ids = [mint("dep", born + timedelta(milliseconds=i), bytes([255 - i] * 5)) for i in range(5)]
    assert ids == sorted(ids)
    assert all(check_name("id", i) == i for i in ids)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "a" * 65, "é", "a#", "a+b", "a\n"])
def test_a_name_that_would_mean_something_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(Rejected):
        check_name("device_id", name)
