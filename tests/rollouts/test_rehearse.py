"""Rehearsals over a real database: what is learned from planted histories, and what is said without one."""

import hashlib
from datetime import timedelta
from typing import Any

import pytest

from rollouts.conftest import TYPE, Yard
from skylift.core.errors import Rejected
from skylift.core.ways import Means
from skylift.engine.pace import Pace
from skylift.engine.rehearse import rehearsed
from skylift.store import devices, pieces, releases

PACE = Pace(idle_s=300, waiting_s=60, busy_s=30)


def ask(yard: Yard, *, defects: tuple[float, ...] = (), seed: int = 1, **body: Any) -> dict[str, Any]:
    config = {"firmware_version": "1.2.0", "target_devices": "all", **body}
    found: dict[str, Any] = yard.read(
        lambda conn: rehearsed(conn, config, PACE, yard.clock(), defects=defects, seed=seed)
    )
    return found


def heard(yard: Yard, names: list[str], seconds: float) -> None:
    """Everybody was heard, up to so long ago."""
    contacts = {
        yard.device(name).pk: yard.clock() - timedelta(seconds=seconds * (n + 0.5) / len(names))
        for n, name in enumerate(names)
    }
    yard.write(lambda conn: devices.touch(conn, contacts))


def lived(yard: Yard, names: list[str], *, minutes: float, failing: int = 0, version: str = "1.1.0") -> None:
    """A deployment of the past in which every device took that long, and some failed."""
    yard.release(version)
    deployment = yard.create(version, all_at_once=True, failure_threshold_percent=100)
    yard.tick()
    offered = [name for name in names if yard.offered(name) == deployment]
    yard.clock.forward(minutes=minutes)
    for number, name in enumerate(offered):
        yard.report(name, deployment, "installing")
        yard.report(name, deployment, "failed" if number < failing else "complete")
    yard.tick(minutes=1)


def test_without_a_past_it_says_so_and_which_defaults_it_uses(yard: Yard) -> None:
    yard.fleet(20)
    yard.release("1.2.0")
    before = yard.everything()
    found = ask(yard)
    assert yard.everything() == before, "a rehearsal writes nothing"
    assert found["devices"] == 20
    assert found["based_on"]["contacts"] == found["based_on"]["updates"] == 0
    said = " ".join(found["assumes"])
    assert "no device was heard" in said
    assert "no update of this product has ended yet" in said
    assert [trip["defect_percent"] for trip in found["gate"]] == [1, 5, 20]


def test_it_learns_how_long_updates_took(yard: Yard) -> None:
    names = yard.fleet(20)
    lived(yard, names, minutes=40)
    heard(yard, names, 300)
    yard.release("1.2.0")
    found = ask(yard, all_at_once=True)
    assert found["based_on"]["updates"] == 20
    assert len(found["based_on"]["deployments"]) == 1
    assert 40 * 60 <= found["duration_s"]["p50"] <= 40 * 60 + 301
    assert not any("no update" in sentence for sentence in found["assumes"])


def test_it_learns_how_many_fail_and_is_not_misled_by_one_bad_release(yard: Yard) -> None:
    names = yard.fleet(20)
    lived(yard, names, minutes=1, failing=2)
    lived(yard, names, minutes=1, failing=20, version="1.1.1")
    lived(yard, names, minutes=1, failing=2, version="1.1.2")
    yard.release("1.2.0")
    assert ask(yard)["based_on"]["failure_rate_percent"] == 10.0


def test_it_learns_how_often_devices_ask(yard: Yard) -> None:
    names = yard.fleet(40)
    yard.release("1.2.0")
    heard(yard, names, 60)
    often = ask(yard, all_at_once=True)["duration_s"]["p50"]
    yard.clock.forward(hours=12)
    seldom = ask(yard, all_at_once=True)["duration_s"]["p50"]
    assert often < 12 * 60
    assert seldom > 11 * 3600, "who was not heard for half a day is not expected in a minute"


def test_devices_not_heard_for_a_month_are_not_expected(yard: Yard) -> None:
    names = yard.fleet(20)
    yard.release("1.2.0")
    heard(yard, names[:10], 60)
    yard.clock.forward(days=40)
    heard(yard, names[10:], 60)
    found = ask(yard)
    assert found["based_on"]["not_expected_back_percent"] == 50.0
    assert any("were not heard for 30 days" in sentence for sentence in found["assumes"])


def test_bytes_are_counted_by_what_devices_run(yard: Yard) -> None:
    names = yard.fleet(5)
    base = hashlib.sha256(b"1.0.0").hexdigest()
    release = yard.release("1.2.0")

    def runs(conn: Any) -> None:
        for name in names[:3]:
            devices.set_facts(conn, devices.find_device(conn, name).pk, "1.0.0", None, base)  # type: ignore[union-attr]
        releases.insert_artifact(
            conn, id="art_delta", release_id=release, device_type=TYPE, kind="delta", base_sha256=base,
            base_version="1.0.0", sha256="d" * 64, size=100, created_at=yard.clock(),
        )  # fmt: skip

    yard.write(runs)
    everybody = ask(yard)["bytes"]
    assert (everybody["total"], everybody["full"]) == (3 * 100 + 2 * 1000, 5 * 1000)
    assert [(row["devices"], row["by"]) for row in everybody["from"]] == [(3, "delta"), (2, "full")]
    two = ask(yard, target_devices=[names[0], names[4]])["bytes"]
    assert (two["total"], two["full"]) == (100 + 1000, 2000)


def test_bytes_are_those_of_the_way_each_device_would_get_it(yard: Yard) -> None:
    """Packed for who takes it, by a chain for who starts from far back; the image as it is for who says
    nothing."""
    names = yard.fleet(6)
    first, middle, release = (yard.release(version) for version in ("1.0.0", "1.1.0", "1.2.0"))

    def runs(conn: Any) -> None:
        fulls = {
            each: next(row.sha256 for row in releases.artifacts_of(conn, each) if row.kind == "full")
            for each in (first, middle, release)
        }
        old = fulls[first]
        made = [
            (release, "xz", "", 400),
            (middle, "delta", old, 30),
            (release, "delta", fulls[middle], 50),
        ]
        for number, (of, kind, base, size) in enumerate(made):
            releases.insert_artifact(
                conn, id=f"art_{number}", release_id=of, device_type=TYPE, kind=kind, base_sha256=base,
                base_version="", sha256=f"{number}" * 64, size=size, created_at=yard.clock(),
                facts={"memory": 1000},
            )  # fmt: skip
        for name in names[:5]:
            pk = devices.find_device(conn, name).pk  # type: ignore[union-attr]
            devices.set_facts(conn, pk, "1.0.0", None, old if name in names[:2] else None)
            codecs = {"xz"} if name in names[:4] else set()
            pieces.note_means(conn, pk, Means(1 << 26, frozenset(codecs)))

    yard.write(runs)
    said = ask(yard)["bytes"]
    assert [(row["devices"], row["by"], row["bytes_each"]) for row in said["from"]] == [
        (2, "chain", 80),
        (2, "full", 1000),
        (2, "packed", 400),
    ]
    assert said["total"] == 2 * 80 + 2 * 400 + 2 * 1000
    assert said["full"] == 4 * 400 + 2 * 1000


def test_the_peak_is_the_polls_of_whom_it_waits_for_and_the_reports_of_whom_is_at_it(yard: Yard) -> None:
    names = yard.fleet(60)
    yard.release("1.2.0")
    heard(yard, names, 60)
    half = ask(yard, target_devices=names[:30], all_at_once=True)["requests_per_s"]
    assert half["at_rest"] == 60 / 300
    assert half["polls"] == pytest.approx(30 / 300 + 30 / 60), "who is waited for asks each minute"
    assert half["reports"] > 0
    assert half["peak"] == pytest.approx(half["polls"] + half["reports"], abs=0.11)
    whole = ask(yard, all_at_once=True)["requests_per_s"]
    assert (whole["at_rest"], whole["polls"]) == (60 / 300, 60 / 60)
    assert whole["reports"] > half["reports"]
    phased = ask(yard, phases=[{"percent": 10, "min_minutes": 60}, {"percent": 100}])["requests_per_s"]
    assert phased["reports"] < whole["reports"], "phases spread them"


def test_a_bad_release_is_stopped_where_the_plan_stops_it(yard: Yard) -> None:
    yard.fleet(100)
    yard.release("1.2.0")
    phases = [{"percent": 10}, {"percent": 100}]
    found = ask(yard, defects=(100.0,), phases=phases)
    (trip,) = found["gate"]
    assert trip["stops_percent"] == 100
    assert trip["phase"] == "phase 1"
    assert trip["hurt"]["p90"] <= 10
    (free,) = ask(yard, defects=(100.0,), phases=phases, failure_threshold_percent=100)["gate"]
    assert free["stops_percent"] == 0
    assert free["hurt"]["p50"] == 100


def test_the_same_seed_gives_the_same_answer(yard: Yard) -> None:
    yard.fleet(30)
    yard.release("1.2.0")
    assert ask(yard, seed=4) == ask(yard, seed=4)
    assert ask(yard, seed=4) != ask(yard, seed=5)


def test_an_empty_fleet_and_a_deployment_on_nobody_are_refused_as_creating_would(yard: Yard) -> None:
    yard.release("1.2.0")
    with pytest.raises(Rejected) as empty:
        ask(yard)
    assert empty.value.code == "no_devices"
    yard.fleet(3, "1.2.0")
    with pytest.raises(Rejected) as rehearsal:
        ask(yard)
    with pytest.raises(Rejected) as creating:
        yard.create("1.2.0")
    assert str(rehearsal.value) == str(creating.value)


@pytest.mark.parametrize("percent", [0.0, -1.0, 101.0, float("nan")])
def test_a_defect_is_a_percentage(yard: Yard, percent: float) -> None:
    yard.fleet(3)
    yard.release("1.2.0")
    with pytest.raises(Rejected) as refused:
        ask(yard, defects=(percent,))
    assert refused.value.field == "defect"
