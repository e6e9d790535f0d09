"""The demo ends with 0 only if all of it came out as told; that it does come out is CI's last step."""

import importlib.util
import io
import json
from copy import deepcopy
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from skylift.testkit import demo
from skylift.testkit.stage import Failed, Stage

PROOF = Path(__file__).resolve().parents[2] / ".ci" / "proves_the_demo.py"


def line(version: str, status: str, complete: int, rolled_back: int, untouched: int) -> dict[str, Any]:
    stopped = status == "paused"
    return {
        "version": version,
        "status": status,
        "paused_by": "failure_threshold" if stopped else None,
        "status_reason": "phase 1: 2 of 2 decided devices rolled back" if stopped else "",
        "complete": complete,
        "rolled_back": rolled_back,
        "failed": 0,
        "untouched": untouched,
    }


TOLD: dict[str, Any] = {
    "devices": 24,
    "bricked": 0,
    "deployments": [
        line("1.1.0", "complete", 24, 0, 0),
        line("1.2.0", "paused", 0, 2, 22),
        line("1.0.0", "complete", 24, 0, 0),
    ],
    "bytes_sent": 24_192,
    "bytes_full": 4_942_896,
    "chips": {"devices": 4, "power_cuts": 5, "worst_wear": 9},
    "seconds": 55.0,
}


@pytest.fixture(scope="module")
def proof() -> ModuleType:
    spec = importlib.util.spec_from_file_location("proves_the_demo", PROOF)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_demo_as_promised_is_believed(proof: ModuleType) -> None:
    assert list(proof.findings(TOLD)) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("devices",), 23),
        (("bricked",), 1),
        (("seconds",), 90.0),
        (("bytes_sent",), 4_942_896),
        (("bytes_sent",), 0),
        (("chips", "devices"), 0),
        (("deployments", 0, "status"), "paused"),
        (("deployments", 0, "complete"), 23),
        (("deployments", 0, "failed"), 1),
        (("deployments", 1, "status"), "complete"),
        (("deployments", 1, "paused_by"), "operator"),
        (("deployments", 1, "status_reason"), ""),
        (("deployments", 1, "complete"), 1),
        (("deployments", 1, "untouched"), 21),
        (("deployments", 1, "surprise"), 1),
        (("deployments", 2, "rolled_back"), 1),
        (("deployments", 2, "version"), "1.0.1"),
        (("surprise",), 1),
    ],
)
def test_a_demo_that_differs_is_not_believed(
    proof: ModuleType, where: tuple[str | int, ...], value: object
) -> None:
    told = deepcopy(TOLD)
    at: Any = told
    for step in where[:-1]:
        at = at[step]
    at[where[-1]] = value
    assert list(proof.findings(told))


def test_a_demo_that_cannot_go_on_says_why_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(stage: Stage) -> None:
        raise Failed("the server ended with exit code 1")

    monkeypatch.setattr(Stage, "serve", broken)
    shown = io.StringIO()
    assert demo.run(4, keep=False, as_json=True, console=Console(file=shown)) == 1
    assert json.loads(capsys.readouterr().out) == {"error": "the server ended with exit code 1"}
    assert "the demo failed: the server ended with exit code 1" in shown.getvalue()


@pytest.mark.parametrize(
    "found",
    [
        {"status": "running"},
        {"complete": 1},
        {"paused_by": "operator"},
        {"rolled_back": 0},
        {"rolled_back": 3},
    ],
)
def test_a_bad_release_that_does_not_stop_itself_at_its_canaries_fails_the_demo(
    found: dict[str, Any],
) -> None:
    told = {"status": "paused", "complete": 0, "paused_by": "failure_threshold", "rolled_back": 2, **found}
    deployment = {
        **{name: told[name] for name in ("status", "paused_by")},
        "version": "1.2.0",
        "status_reason": "a sentence",
        "totals": {"complete": told["complete"], "rolled_back": told["rolled_back"]},
        "phases": [{"size": 2}],
    }
    stage: Any = SimpleNamespace(deployment=lambda asked: deployment)
    with pytest.raises(Failed, match=r"1\.2\.0 should"):
        demo._expect(stage, "dep_x", "paused", complete=0)
