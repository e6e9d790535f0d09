"""Questions over the fleet, in SQL: they mean what the same question means for one device in Python."""

from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skylift.core.bucket import SPAN, place
from skylift.core.query import And, Compare, Facts, Not, Or, Query, matches, parse
from skylift.store import devices, groups, members
from skylift.store.db import Database
from skylift.store.members import OUTSIDE, Scope, Want

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TYPES = ("sensor-v2", "gate_v1", "Sensor-v2")
VERSIONS = (None, "1.0", "1.9", "1.10.0", "1.10.0-rc1", "2.0", "v3", "")
LABELS = (None, "eu", "EU", "us-1", "50%", "a_b", "a*b", "[x]", "Ada Lovelace", "\\", "é")
FLEET = 300


@pytest.fixture
def fleet(database: Database) -> Iterator[Database]:
    """Devices of every sort, some decommissioned."""
    draw = Random(5)

    def fill(conn: Any) -> None:
        for number in range(FLEET):
            labels = {"region": draw.choice(LABELS), "x.y-z": draw.choice(LABELS)}
            kept = {name: value for name, value in labels.items() if value is not None}
            made = devices.insert(
                conn, device_id=f"d-{number}", device_type=draw.choice(TYPES), token_hash=str(number),
                labels=kept, now=NOW,
            )  # fmt: skip
            devices.set_facts(conn, made.pk, draw.choice(VERSIONS), draw.choice(VERSIONS), None)
            if number % 17 == 0:
                devices.decommission(conn, made.pk)

    database.write(fill)
    return database


def known(conn: Any) -> list[devices.Device]:
    return devices.page(conn, limit=FLEET * 2, status=devices.ACTIVE)


def facts(device: devices.Device) -> Facts:
    return Facts(
        device.device_id, device.device_type, device.current_version, device.config_version, device.labels
    )


texts = st.sampled_from(
    [v for v in (*TYPES, *VERSIONS, *LABELS) if v]
    + ["d-1*", "*-2?", "?", "*", "[ds]*", "1.1*", "%", "_", "d-99"]
)
fields = st.sampled_from(
    [
        "device_id",
        "device_type",
        "current_version",
        "config_version",
        "label.region",
        "label.x.y-z",
        "label.no",
    ]
)
comparisons = st.one_of(
    st.builds(
        lambda f, o, v: Compare(f, o, (v,)),
        fields,
        st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~"]),
        texts,
    ),
    st.builds(lambda f, v: Compare(f, "in", tuple(v)), fields, st.lists(texts, min_size=1, max_size=4)),
)
queries = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda parts: And(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda parts: Or(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=queries)
def test_a_query_selects_the_same_devices_in_sql_and_in_python(fleet: Database, query: Query) -> None:
    with fleet.read() as conn:
        expected = {d.device_id for d in known(conn) if matches(query, facts(d))}
        scope = Scope(queries=(query,))
        found = devices.page(conn, limit=FLEET * 2, within=members.inside(conn, scope))
        assert {d.device_id for d in found} == expected
        assert members.count(conn, scope) == len(expected)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    salt=st.integers(0, SPAN - 1),
    ends=st.lists(st.integers(-1, SPAN - 1), min_size=1, max_size=5).map(sorted),
    want=st.builds(
        Want, st.sampled_from(["image", "config"]), st.sampled_from([v for v in VERSIONS if v]),
        st.frozensets(st.sampled_from(TYPES), min_size=1),
    ),
    query=st.none() | queries,
)  # fmt: skip
def test_phases_are_counted_listed_and_cut_like_one_device_at_a_time(
    fleet: Database, salt: int, ends: list[int], want: Want, query: Query | None
) -> None:
    scope = Scope(everyone=True) if query is None else Scope(queries=(query,))
    with fleet.read() as conn:
        inside = [d for d in known(conn) if query is None or matches(query, facts(d))]
        wanting = [d for d in inside if _wants(want, d)]
        expected = dict.fromkeys(range(len(ends)), 0)
        for device in wanting:
            at = place(device.h, salt)
            number = next((n for n, end in enumerate(ends) if at <= end), OUTSIDE)
            expected[number] = expected.get(number, 0) + 1
        assert members.by_phase(conn, scope, want, salt, ends) == (expected, len(inside) - len(wanting))
        assert list(members.places(conn, scope, want, salt)) == sorted(place(d.h, salt) for d in wanting)
        for low, high in zip([-1, *ends], ends, strict=False):
            listed = sorted(members.ids_between(conn, scope, want, salt, [(low, high)]))
            assert listed == sorted(d.device_id for d in wanting if low < place(d.h, salt) <= high)


def _wants(want: Want, device: devices.Device) -> bool:
    have = device.config_version if want.kind == "config" else device.current_version
    return device.device_type in want.types and have != want.version


def test_lists_queries_and_names_add_up(fleet: Database) -> None:
    def join(conn: Any) -> None:
        groups.insert(conn, groups.Group("grp_1", "lab", "list", None, NOW))
        groups.add(conn, "grp_1", [devices.find_device(conn, name).pk for name in ("d-1", "d-2", "d-3")])

    fleet.write(join)
    with fleet.read() as conn:
        pk = devices.find_device(conn, "d-5").pk  # type: ignore[union-attr]
        gone = devices.find_device(conn, "d-17").pk  # type: ignore[union-attr]
        query = parse("device_id in (d-3, d-4)")
        scope = Scope(listed=(pk, gone), lists=("grp_1", "grp_unknown"), queries=(query,))
        found = devices.page(conn, limit=10, within=members.inside(conn, scope))
    assert [d.device_id for d in found] == ["d-1", "d-2", "d-3", "d-4", "d-5"]
    with fleet.read() as conn:
        assert members.count(conn, Scope()) == 0, "nobody named is nobody, not everybody"


def test_a_list_of_many_names_is_no_longer_statement(fleet: Database) -> None:
    with fleet.read() as conn:
        pks = tuple(d.pk for d in known(conn))
        assert members.count(conn, Scope(listed=pks + tuple(range(10_000, 110_000)))) == len(pks)
        many = Compare("device_id", "in", tuple(f"d-{n}" for n in range(2_000)))
        assert members.count(conn, Scope(queries=(many,))) == len(pks)
