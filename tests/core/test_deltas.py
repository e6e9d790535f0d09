"""Which deltas are made first, and which are worth it."""

import pytest

from skylift.core.deltas import Pair, in_order, worth_it


def test_what_most_devices_run_comes_first_and_ways_forward_before_ways_back() -> None:
    cold, hot, back, lone = (
        Pair("1", "3", "board", back=False),
        Pair("2", "3", "board", back=False),
        Pair("2", "1", "board", back=True),
        Pair("2", "3", "other", back=False),
    )
    devices = {("board", "2"): 90, ("board", "1"): 10}
    assert in_order([lone, back, cold, hot], devices) == [hot, back, cold, lone]
    assert in_order([back, hot], {}) == [hot, back]
    assert in_order([cold, lone], {}) == [cold, lone], "what is equal keeps its order"


@pytest.mark.parametrize(("patch", "compressed", "worth"), [(69, 100, True), (70, 100, False), (0, 0, False)])
def test_at_the_limit_the_full_image_goes(patch: int, compressed: int, worth: bool) -> None:
    assert worth_it(patch, compressed) is worth
