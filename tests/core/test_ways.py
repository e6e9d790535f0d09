"""How an update's bytes travel: properties over any files, devices and chains, then the stories."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.core.deltas import Cached, is_wanted, kept, wanted_again
from skylift.core.ways import (
    MOST_HOPS,
    Cost,
    Decision,
    Image,
    Means,
    Passed,
    Piece,
    Way,
    by_delta,
    chain,
    decide,
    packed,
    whole,
)

NAMES = "abcdef"
TARGET = Image("f", 1_000_000)
MEMORY = st.sampled_from([0, 1 << 14, 1 << 20, 1 << 24, 1 << 30])
CODECS = st.sets(st.sampled_from(["xz", "zstd"])).map(frozenset)
MEANS = st.one_of(st.just(Means()), st.builds(Means, MEMORY, CODECS))


def delta(base: str, target: str, size: int, memory: int = 1 << 14, target_size: int = 1_000_000) -> Piece:
    return Piece("delta", f"{base}{target}{size}", size, target, target_size, base, memory)


def image(codec: str, size: int, memory: int = 1 << 20) -> Piece:
    return Piece(codec, f"{codec}{size}", size, TARGET.sha256, TARGET.size, memory=memory)


PACKED = st.builds(image, st.sampled_from(["xz", "zstd"]), st.integers(1, 950_000), MEMORY)
DELTAS = st.builds(delta, st.sampled_from(NAMES[:-1]), st.just("f"), st.integers(1, 900_000), MEMORY)
EDGES = st.builds(
    delta,
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    st.integers(1, 900_000),
    MEMORY,
    st.integers(1, 10**7),
).filter(lambda piece: piece.base_sha256 != piece.target_sha256)
PIECES = st.lists(PACKED | DELTAS, max_size=6)
OTHERS = st.lists(EDGES, max_size=12)
BASES = st.none() | st.sampled_from([*NAMES[:-1], "unknown"])


def fulls(pieces: list[Piece]) -> list[Cost]:
    return [whole(TARGET.size), *(packed(piece) for piece in pieces if not piece.base_sha256)]


@given(pieces=PIECES, others=OTHERS, base=BASES, means=MEANS, ratio=st.floats(0.05, 1))
def test_nothing_that_is_sent_is_larger_than_the_full_image_that_the_device_can_take(
    pieces: list[Piece], others: list[Piece], base: str | None, means: Means, ratio: float
) -> None:
    made = decide(TARGET, pieces, base, means, ratio, others)
    able = [
        cost
        for cost in fulls(pieces)
        if cost.way is Way.FULL
        or (
            means.codecs is not None
            and cost.pieces[0].kind in means.codecs
            and cost.memory <= (means.memory or 0)
        )
    ]
    assert made.full.bytes == min(cost.bytes for cost in able)
    assert made.cost.bytes <= made.full.bytes
    if made.cost.way in (Way.DELTA, Way.CHAIN):
        assert made.cost.bytes < ratio * min(cost.bytes for cost in fulls(pieces)), "max_ratio holds"


@given(pieces=PIECES, others=OTHERS, base=BASES, means=MEANS)
def test_no_way_asks_for_more_than_the_device_told(
    pieces: list[Piece], others: list[Piece], base: str | None, means: Means
) -> None:
    made = decide(TARGET, pieces, base, means, others=others)
    for cost in (made.cost, made.full):
        if means.memory is not None:
            assert cost.memory <= means.memory
        if cost.way is Way.PACKED:
            assert means.codecs is not None
            assert cost.pieces[0].kind in means.codecs
    if means.memory is None:
        assert made.cost.way in (Way.FULL, Way.DELTA), "what every client understands"


@given(pieces=PIECES, others=OTHERS, base=BASES, means=MEANS)
def test_a_decision_leads_from_the_base_to_the_image_and_says_why_not_otherwise(
    pieces: list[Piece], others: list[Piece], base: str | None, means: Means
) -> None:
    made = decide(TARGET, pieces, base, means, others=others)
    hops = made.cost.pieces
    if made.cost.way in (Way.DELTA, Way.CHAIN):
        assert hops[0].base_sha256 == base
        assert hops[-1].target_sha256 == TARGET.sha256
        for one, following in pairwise(hops):
            assert one.target_sha256 == following.base_sha256
        assert len(hops) == 1 if made.cost.way is Way.DELTA else 2 <= len(hops) <= MOST_HOPS
    else:
        assert Way.DELTA in made.passed, "why there is no delta is always said"
    assert made.cost.way not in made.passed
    assert str(made.cost.bytes) in made.words


@given(pieces=PIECES, others=OTHERS, base=BASES, means=MEANS, order=st.randoms(use_true_random=False))
def test_the_order_in_which_files_are_found_decides_nothing(
    pieces: list[Piece], others: list[Piece], base: str | None, means: Means, order: object
) -> None:
    def shuffled(found: list[Piece]) -> list[Piece]:
        order.shuffle(copy := list(found))  # type: ignore[attr-defined] # a Random
        return copy

    def told(made: Decision) -> tuple[object, ...]:
        return made.cost.way, made.cost.bytes, made.cost.worth, made.full.bytes

    one, two = (decide(TARGET, shuffled(pieces), base, means, others=shuffled(others)) for _ in range(2))
    assert told(one) == told(two)


@given(edges=OTHERS, base=st.sampled_from(NAMES[:-1]))
def test_no_chain_that_anybody_can_name_is_cheaper(edges: list[Piece], base: str) -> None:
    found = chain(base, "f", edges)
    worths = []
    for first in (edge for edge in edges if edge.base_sha256 == base and edge.target_sha256 != "f"):
        for second in (edge for edge in edges if edge.base_sha256 == first.target_sha256):
            if second.target_sha256 == "f":
                worths.append(by_delta(first, second).worth)
            else:
                worths += [
                    by_delta(first, second, third).worth
                    for third in edges
                    if third.base_sha256 == second.target_sha256 and third.target_sha256 == "f"
                ]
    assert (found.worth if found else None) == pytest.approx(min(worths, default=None))


ABLE = Means(1 << 26, frozenset({"xz", "zstd"}))
FULL = [image("xz", 400_000), image("zstd", 450_000)]


@pytest.mark.parametrize(
    ("pieces", "base", "means", "way", "passed"),
    [
        (FULL, "a", ABLE, Way.PACKED, Passed.NOT_MADE),
        (FULL, None, ABLE, Way.PACKED, Passed.UNKNOWN_BASE),
        ([*FULL, delta("a", "f", 279_999)], "a", ABLE, Way.DELTA, None),
        ([*FULL, delta("a", "f", 280_000)], "a", ABLE, Way.PACKED, Passed.NOT_SMALLER),
        ([*FULL, delta("a", "f", 9, 1 << 27)], "a", ABLE, Way.PACKED, Passed.MEMORY),
        ([*FULL, delta("a", "f", 9)], "a", Means(), Way.DELTA, None),
        (FULL, "a", Means(), Way.FULL, Passed.NOT_MADE),
        (FULL, "a", Means(1 << 10, frozenset({"xz"})), Way.FULL, Passed.NOT_MADE),
        (FULL, "a", Means(1 << 26, frozenset()), Way.FULL, Passed.NOT_MADE),
    ],
)
def test_each_row_of_the_table(
    pieces: list[Piece], base: str | None, means: Means, way: Way, passed: Passed | None
) -> None:
    made = decide(TARGET, pieces, base, means)
    assert (made.cost.way, made.passed.get(Way.DELTA)) == (way, passed)


def test_the_smallest_full_image_is_taken_and_zstd_where_xz_is_not_there() -> None:
    assert decide(TARGET, FULL, None, ABLE).full.bytes == 400_000
    assert decide(TARGET, FULL, None, Means(1 << 26, frozenset({"zstd"}))).full.bytes == 450_000


def test_a_chain_is_taken_where_there_is_no_delta_and_says_what_it_costs() -> None:
    hops = [delta("a", "b", 1000, target_size=2_000_000), delta("b", "f", 2000)]
    made = decide(TARGET, FULL, "a", ABLE, others=hops)
    assert made.cost.way is Way.CHAIN
    assert made.cost.bytes == 3000
    assert made.cost.flash == 3_003_000, "what is between is written too, and the deltas"
    assert made.cost.scratch == 2_003_000
    assert made.words.startswith("chain of 2: 3000 bytes, 0.75 % of the compressed full image")
    better = decide(TARGET, [*FULL, delta("a", "f", 2900)], "a", ABLE, others=hops)
    assert better.cost.way is Way.DELTA, "a few bytes less are not worth another image"


def test_what_would_keep_a_device_at_work_for_too_long_is_not_sent() -> None:
    target = Image("f", 4 << 30)
    slow = Piece("delta", "x", 200 << 20, "f", target.size, "a", 1 << 24)
    made = decide(target, [Piece("xz", "y", 1 << 30, "f", target.size, memory=1 << 20), slow], "a", ABLE)
    assert made.passed[Way.DELTA] is Passed.TIME


# --- what is made, and what stays --------------------------------------------------------------------------

FILES = st.lists(
    st.builds(
        Cached,
        st.text("abc", min_size=1, max_size=3),
        st.integers(0, 100),
        st.integers(0, 5),
        st.floats(0, 9),
    ),
    unique_by=lambda file: file.key,
    max_size=12,
)


@given(files=FILES, budget=st.integers(0, 400))
def test_the_budget_is_never_exceeded_and_the_hottest_stays(files: list[Cached], budget: int) -> None:
    stays = kept(files, budget)
    sizes = {file.key: file.size for file in files}
    assert sum(sizes[key] for key in stays) <= budget
    for file in files:
        if file.key not in stays:
            hotter = sum(sizes[one.key] for one in files if one.key in stays and one.devices >= file.devices)
            assert hotter + file.size > budget, "nothing colder pushed it out"
    assert kept(reversed(files), budget) == stays


@given(gone=FILES, budget=st.integers(0, 400), more=st.integers(1, 9))
def test_what_was_evicted_is_made_again_when_it_is_hot_and_stays_then(
    gone: list[Cached], budget: int, more: int
) -> None:
    there = [Cached(f"there-{n}", 30, 3, float(n)) for n in range(3)]
    there = [file for file in there if file.key in kept(there, budget)]
    again = wanted_again(gone, there, budget)
    assert set(again) <= kept([*gone, *there], budget)
    hot = Cached("hot", min(budget, 20), 100, 0.0)
    assert wanted_again([*gone, hot], there, budget)[0] == "hot"
    back = [file for file in gone if file.key in again]
    assert wanted_again([], [*there, *back], budget) == []


@pytest.mark.parametrize(
    ("devices", "recent", "chained", "wanted"),
    [
        (0, True, True, True),
        (0, False, False, False),
        (9, False, True, False),
        (9, False, False, True),
        (10, False, True, True),
    ],
)
def test_a_delta_is_wanted(devices: int, recent: bool, chained: bool, wanted: bool) -> None:
    assert is_wanted(devices, recent=recent, chained=chained) is wanted
