"""Live groups: what the query language selects, and how it refuses."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.core.errors import Rejected
from skylift.core.query import Facts, matches, parse, version_key

DEVICE = Facts("greenhouse-07", "sensor-v2", "1.10.0", None, {"region": "eu", "owner": "Ada Lovelace"})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("device_type = sensor-v2", True),
        ("device_type != sensor-v2", False),
        ("current_version > 1.9", True),
        ("current_version < 1.10.0-rc1", False),
        ("current_version >= 1.10.0 and current_version <= 1.10.0", True),
        ("label.region in (us, eu)", True),
        ('label.owner = "Ada Lovelace"', True),
        ("device_id ~ greenhouse-*", True),
        ("not device_id ~ greenhouse-*", False),
        ("label.region = us or label.region = eu and device_type = other", False),
        ("(label.region = us or label.region = eu) and device_type = sensor-v2", True),
        ("label.unknown = x", False),
        ("label.unknown != x", True),
        ("config_version < 9", False),
        ("not label.unknown = x", True),
    ],
)
def test_a_query_selects_what_it_says(query: str, expected: bool) -> None:
    assert matches(parse(query), DEVICE) is expected


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("", "expected one of device_id"),
        ("colour = red", "expected one of device_id"),
        ("device_id =", "expected a value, found the end"),
        ("device_id = a b", "expected 'and', 'or' or the end, found 'b'"),
        ("(device_id = a", "expected ')'"),
        ("device_id in ()", "expected a value"),
        ("device_id = 'a'", "cannot read"),
        ("not " * 40 + "device_id = a", "levels"),
        (" or ".join(["device_id = a"] * 65), "at most 64 comparisons"),
        ("device_id = " + "a" * 3000, "at most 2000 characters"),
    ],
)
def test_a_bad_query_says_where_and_what_was_expected(query: str, what: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse(query)
    assert what in str(caught.value)


@given(st.text(max_size=60) | st.text(alphabet='device_id =~()<>not andor"label.x', max_size=60))
def test_no_text_at_all_crashes_the_parser(text: str) -> None:
    with suppress(Rejected):  # anything else it raises fails the test
        matches(parse(text), DEVICE)


def test_versions_sort_as_people_mean_them() -> None:
    versions = ["1.0.0-rc1", "1.0.0-rc2", "1.0.0", "1.0.1", "1.9", "1.10", "2"]
    assert sorted(set(versions), key=version_key) == versions
