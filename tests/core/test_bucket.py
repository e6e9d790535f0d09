"""Places: stable, evenly spread, independent between deployments; ids that sort by time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.core.bucket import SPAN, device_hash, place, upto
from skylift.core.errors import Rejected
from skylift.core.ids import check_name, mint


def test_a_place_never_moves() -> None:
    assert device_hash("dev-1") == 127364889547394313
    assert place(device_hash("dev-1"), 42) == 2648975274751932526


@given(st.integers(0, SPAN - 1), st.integers(0, SPAN - 1))
def test_a_place_fits_the_span_and_two_devices_never_share_one(h: int, salt: int) -> None:
    assert 0 <= place(h, salt) < SPAN


def test_ten_percent_of_the_places_hold_ten_percent_of_the_fleet() -> None:
    hashes = [device_hash(f"device-{i}") for i in range(20_000)]
    for salt in (1, 2, 3):
        inside = sum(place(h, salt) <= upto(10) for h in hashes)
        assert 1_850 < inside < 2_150
    canaries = [{h for h in hashes if place(h, salt) <= upto(10)} for salt in (1, 2)]
    assert len(canaries[0] & canaries[1]) < 300  # about 200 by chance: not always the same canaries


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
