"""`skylift simulate`: a small fleet with every behaviour against a real server, whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Cluster
from simulate.test_page import must_be_a_page
from skylift.testkit.behaviours import DEFAULT
from skylift.testkit.stage import DEVICE_TYPE, Stage, wait

BEHAVIOURS = {
    "behaviours": [
        {"name": "well", "share": 50, "think_s": [20, 60]},
        {"name": "flaky", "share": 10, "loss_percent": 30, "think_s": [20, 60]},
        {"name": "slow", "share": 5, "think_s": [100, 200]},
        {"name": "twice", "share": 5, "repeats": 2},
        {"name": "late", "share": 5, "late": True},
        {"name": "clock", "share": 5, "clock_offset_s": -1e8},
        {"name": "falls back", "share": 5, "ends": {"rolled_back": 100}},
        {"name": "fails", "share": 5, "ends": {"failed": 50}},
        {"name": "silent", "share": 3, "ends": {"silent": 100}},
        {"name": "offline", "share": 4, "away_hours": 0.2, "online_hours": 0.1},
        {"name": "revision B", "share": 3, "labels": {"hw": "B"}, "ends": {"rolled_back": 60}},
    ]
}
FAST = ("--speed", "100", "--polls-per-second", "150", "--phases", "25,100", "--interval", "0.01",
        "--wait", "0.1", "--threshold", "60", "--download", "--image-kb", "20", "--json")  # fmt: skip


def simulate(tmp_path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "behaviours.json").write_text(json.dumps(BEHAVIOURS))
    # A variable of the shell must not lead into somebody's database.
    environment = {**os.environ, "SKYLIFT_DATABASE_URL": "sqlite:////nowhere/fleet.db", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "skylift", "simulate", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def told(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def must_be_clean(found: dict[str, Any]) -> None:
    judged = found["judgement"]
    assert (judged["reports_lost"], judged["devices_doubled"], judged["refused"]) == (0, 0, 0), judged
    assert found["clean"]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database(request: pytest.FixtureRequest) -> Any:
    if request.param == "sqlite":
        yield ()
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    name = cluster.fresh()
    yield ("--database", cluster.url(name))
    cluster.drop(name)


@pytest.mark.slow
def test_a_small_fleet_of_every_behaviour_is_judged_clean(tmp_path: Path, database: tuple[str, ...]) -> None:
    words = ("--devices", "150", "--minutes", "0.45", "--behaviours", "behaviours.json", *FAST, *database)
    done = simulate(tmp_path, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    found = told(done)
    must_be_clean(found)
    assert found["judgement"]["counters_equal"] is True
    assert (found["judgement"]["phases_wrong"], found["judgement"]["versions_wrong"]) == (0, 0)
    assert found["database"] == ("postgresql" if database else "sqlite")
    assert found["phases_opened"] >= 2
    assert found["totals"]["complete"] > 20
    assert found["totals"]["rolled_back"] > 0
    assert found["lost_on_purpose"] > 0
    assert found["reports_known_already"] > 0
    assert found["latency"].keys() == {"poll", "report", "download"}
    page = (tmp_path / "skylift-simulate.html").read_text()
    must_be_a_page(page)
    assert "divided by 100" in page
    assert "revision B" in page


@pytest.mark.slow
def test_ctrl_c_ends_early_with_a_judgement_of_what_was(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        running = subprocess.Popen(
            [sys.executable, "-m", "skylift", "simulate", "--devices", "100", "--minutes", "30",
             "--speed", "20", "--polls-per-second", "50", "--json"],
            cwd=tmp_path, stdout=out, stderr=err, start_new_session=True,
        )  # fmt: skip
    try:
        told_of = tmp_path / "err"
        wait(lambda: b"phases open" in told_of.read_bytes(), "the deployment runs")
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to everybody in the foreground
        assert running.wait(60) == 0, told_of.read_text()[-3000:]
    finally:
        if running.poll() is None:
            running.kill()
    found = json.loads((tmp_path / "out").read_text().splitlines()[-1])
    assert found["ended"] == "interrupted"
    must_be_clean(found)
    must_be_a_page((tmp_path / "skylift-simulate.html").read_text())


@pytest.mark.slow
def test_another_server_is_driven_through_its_api(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage")
    stage.home.mkdir()
    try:
        stage.serve("--mqtt", "off")
        token = stage.environment["SKYLIFT_TOKEN"]
        there = ("--server", stage.facts["url"], "--token", token, "--type", DEVICE_TYPE)
        asked = simulate(tmp_path, "--devices", "40", "--minutes", "0.1", *there, *FAST, "--report", "")
        assert asked.returncode == 0, asked.stderr[-3000:]
        found = told(asked)
        must_be_clean(found)
        assert found["checks_answered"] > 20
        assert (found["deployment"], "report" in found) == ("", False)
        assert len(stage.client.get("/api/devices", limit=500)["items"]) == 40
        refused = simulate(tmp_path, "--devices", "4", *there, "--release", "9.9.9", *FAST)
        assert refused.returncode == 1
        assert "9.9.9" in told(refused)["error"]
    finally:
        stage.close()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--phases", "ten"), "--phases is 'ten': percentages with commas"),
        (("--server", "http://127.0.0.1:9"), "--token is missing"),
        (("--release", "1.0.0"), "--release is '1.0.0': belongs to --server"),
        (("--server", "http://h", "--token", "t", "--database", "postgresql://h/x"), "--database is"),
        (("--behaviours", "behaviours.json"), "behaviours[0].share is 101: between 0 and 100"),
    ],
)
def test_what_contradicts_itself_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.delenv("SKYLIFT_TOKEN", raising=False)
    (tmp_path / "behaviours.json").write_text('[{"name": "well", "share": 101}]')
    done = subprocess.run(
        [sys.executable, "-m", "skylift", "simulate", *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_default_fleet_has_every_trouble() -> None:
    troubles = {
        name
        for behaviour in DEFAULT
        for name in ("loss_percent", "late", "clock_offset_s", "away_hours", "ends", "labels")
        if getattr(behaviour, name)
    }
    assert len(troubles) == 6
