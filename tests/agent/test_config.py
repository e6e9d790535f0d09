"""`agent.toml`: what is wrong is said with the field's name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skylift.agent.config import parse, read
from skylift.core.errors import Rejected

GOOD: dict[str, Any] = {
    "server": "https://updates.example",
    "device_id": "dev-1",
    "device_type": "sensor-v2",
    "state_dir": "state",
    "roots": "roots",
}


def refused(base: Path, **more: Any) -> str | None:
    with pytest.raises(Rejected) as found:
        parse(GOOD | more, base)
    return found.value.field


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = parse(GOOD, tmp_path)
    assert (config.state_dir, config.roots) == (tmp_path / "state", tmp_path / "roots")


@pytest.mark.parametrize("field", GOOD)
def test_what_is_needed_is_asked_for_by_name(field: str, tmp_path: Path) -> None:
    assert refused(tmp_path, **{field: ""}) == field
    assert refused(tmp_path, **{field: 3}) == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("server", "ftp://updates.example"),
        ("device_id", "../etc"),
        ("device_type", "a b"),
        ("poll_seconds", "soon"),
        ("poll_seconds", -1),
        ("boot_attempts", True),
        ("claim", 7),
        ("build_time", "yesterday"),
        ("factory_version", "1 0"),
        ("colour", "red"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: object, tmp_path: Path) -> None:
    assert refused(tmp_path, **{field: value}) == field


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"kind": "smell"}, "health[0].kind"),
        ({"kind": "http"}, "health[0].url"),
        ({"kind": "custom", "call": "a:b", "url": "x"}, "health[0].url"),
        ({"kind": "command", "command": "true"}, "health[0].command"),
        ("http", "health[0].kind"),
    ],
)
def test_a_wrong_health_check_is_refused_by_its_place(item: object, field: str, tmp_path: Path) -> None:
    assert refused(tmp_path, health=[item]) == field


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ("load", "metrics"),
        ([{"name": f"m{n}", "file": "/x"} for n in range(5)], "metrics"),
        ([{"file": "/x"}], "metrics[0].name"),
        ([{"name": "a b", "file": "/x"}], "metrics[0].name"),
        ([{"name": "a"}], "metrics[0]"),
        ([{"name": "a", "file": "/x", "command": ["x"]}], "metrics[0]"),
        ([{"name": "a", "file": 7}], "metrics[0].file"),
        ([{"name": "a", "command": "uptime"}], "metrics[0].command"),
        ([{"name": "a", "file": "/x", "scale": "big"}], "metrics[0].scale"),
        ([{"name": "a", "file": "/x", "scale": float("nan")}], "metrics[0].scale"),
        ([{"name": "a", "file": "/x", "unit": "mV"}], "metrics[0].unit"),
        ([{"name": "a", "file": "/x"}, {"name": "a", "file": "/y"}], "metrics[1].name"),
    ],
)
def test_a_wrong_metric_is_refused_by_its_place(items: object, field: str, tmp_path: Path) -> None:
    assert refused(tmp_path, metrics=items) == field


def test_metrics_are_read_with_their_scale(tmp_path: Path) -> None:
    given = [{"name": "supply", "file": "/sys/volts", "scale": 0.001}, {"name": "q", "command": ["qlen"]}]
    supply, queue = parse(GOOD | {"metrics": given}, tmp_path).metrics
    assert (supply.file, supply.scale) == ("/sys/volts", 0.001)
    assert (queue.command, queue.scale) == (("qlen",), 1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("boot_attempts", 0),
        ("port", 70_000),
        ("poll_seconds", float("nan")),
        ("mqtt", "nonsense"),
        ("health", 5),
        ("health", [{"kind": "mqtt", "timeout_seconds": "long"}]),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(field: str, value: object, tmp_path: Path) -> None:
    assert (refused(tmp_path, **{field: value}) or "").startswith(field)


def test_a_file_that_is_not_toml_or_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_bytes(b"\xff = [")
    for name in ("agent.toml", "missing.toml"):
        with pytest.raises(Rejected, match="TOML" if name == "agent.toml" else "cannot be read"):
            read(tmp_path / name)


def test_the_light_way_in_ends_with_2_for_a_bad_configuration_and_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('server = "https://updates.example"\n')
    done = subprocess.run(
        [sys.executable, "-m", "skylift.agent", "--config", tmp_path / "agent.toml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "device_id" in done.stderr) == (2, True)


def test_what_most_polls_do_not_need_is_not_loaded() -> None:
    look = "import sys, skylift.agent.board; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {
        "tuf",
        "securesystemslib",
        "cryptography",
        "paho",
        "typer",
        "rich",
        "fastapi",
        "sqlalchemy",
        "pydantic",
    }
    assert heavy.isdisjoint(loaded)


def test_a_product_is_a_name(tmp_path: Path) -> None:
    assert parse(GOOD | {"product": "sensor"}, tmp_path).product == "sensor"
    assert refused(tmp_path, product="no such/name") == "product"
