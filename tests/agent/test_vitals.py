"""How a device says it is: measured, told with what ends an update and now and then, and never in the way."""

import time
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_until
from skylift.agent import vitals
from skylift.agent.config import HealthCheck, Metric
from skylift.core.health import MAX_METRICS, check_metrics

from .conftest import Depot, Device, MakeDevice


def test_what_the_system_knows_is_measured_and_what_it_does_not_is_left_out(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones, memory = tmp_path / "thermal", tmp_path / "meminfo"
    for name, text in (("a", "41500\n"), ("b", "63000\n"), ("c", "broken\n")):
        (zones / name).mkdir(parents=True)
        (zones / name / "temp").write_text(text)
    memory.write_text("MemTotal:  4096000 kB\nMemAvailable:  2048000 kB\n")
    monkeypatch.setattr(vitals, "ZONES", zones)
    monkeypatch.setattr(vitals, "MEMORY", memory)
    found = vitals.measure(device.config)
    assert found.keys() == {"disk_free_mb", "memory_free_mb", "load", "temperature"}
    assert (found["memory_free_mb"], found["temperature"]) == (2000, 63)
    assert found["disk_free_mb"] > 0
    monkeypatch.setattr(vitals, "ZONES", tmp_path / "none")
    monkeypatch.setattr(vitals, "MEMORY", tmp_path / "none")
    assert vitals.measure(device.config).keys() == {"disk_free_mb", "load"}


def test_what_the_configuration_names_is_measured_too(make_device: MakeDevice, tmp_path: Path) -> None:
    (tmp_path / "volts").write_text("VOLTS=-12500\n")
    named = (
        Metric("supply", file=str(tmp_path / "volts"), scale=0.001),
        Metric("queue", command=("sh", "-c", "echo 17 jobs")),
        Metric("gone", file=str(tmp_path / "no such file")),
        Metric("broken", command=("sh", "-c", "echo 5; exit 3")),
    )
    config = make_device(metrics=named).config
    found = vitals.measure(config)
    assert (found["supply"], found["queue"]) == (-12.5, 17)
    assert not found.keys() & {"gone", "broken"}
    assert len(named) + 4 == MAX_METRICS
    check_metrics(found)  # as the server will


def test_a_command_that_hangs_costs_its_number_and_is_stopped(
    make_device: MakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vitals, "COMMAND_S", 2.0)
    slow = Metric("slow", command=("sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; wait"))
    assert "slow" not in vitals.measure(make_device(metrics=(slow,)).config)
    child = int((tmp_path / "pid").read_text())
    wait_until(lambda: _has_ended(child), what="it is stopped, and all that it started")


def _has_ended(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    ("text", "number"),
    [("42", 42), ("temp: +41.5'C", 41.5), ("-3e2 W", -300), ("nan", None), ("", None), ("inf", None)],
)
def test_the_first_number_counts(text: str, number: float | None) -> None:
    assert vitals.first_number(text) == number


def test_a_number_that_no_server_would_take_is_left_out(make_device: MakeDevice, tmp_path: Path) -> None:
    (tmp_path / "huge").write_text("9" * 400)
    assert "huge" not in vitals.measure(
        make_device(metrics=(Metric("huge", file=str(tmp_path / "huge")),)).config
    )


def test_a_device_says_how_it_is_at_a_poll_and_not_at_every_one(device: Device, depot: Depot) -> None:
    device.until(lambda: len(depot.checks) >= 3)
    (said,) = depot.health
    assert said["healthy"] is True
    assert said["metrics"]["disk_free_mb"] > 0


def test_a_device_says_how_it_is_whenever_it_is_asked(device: Device, depot: Depot) -> None:
    device.until(lambda: len(depot.checks) >= 3)
    assert len(depot.health) == 1
    depot.idle = {"report_health": True}
    device.until(lambda: len(depot.health) >= 4)
    depot.idle = {}
    asked = len(depot.checks)
    device.until(lambda: len(depot.checks) >= asked + 2)  # one may have been answered before
    said = len(depot.health)
    device.until(lambda: len(depot.checks) >= asked + 5)
    assert len(depot.health) == said


def test_it_says_so_when_it_is_not_well(make_device: MakeDevice, depot: Depot, tmp_path: Path) -> None:
    """After the update was confirmed: the checks are looked at again, each time."""
    fine = tmp_path / "fine"
    fine.touch()
    check = HealthCheck("command", command=("test", "-e", str(fine)))
    device = make_device(health=(check,), report_health_seconds=0.001)
    device.until(lambda: depot.health)
    fine.unlink()
    device.until(lambda: depot.health[-1]["healthy"] is False)
    fine.touch()
    device.until(lambda: depot.health[-1]["healthy"] is True)
    assert device.boots == 1, "a word, and no fallback: the image was confirmed"


def test_what_completes_an_update_bears_health(device: Device, depot: Depot, image: Any) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: depot.reports and depot.last["state"] == "complete")
    assert depot.last["healthy"] is True
    assert depot.last["metrics"]["disk_free_mb"] > 0


def test_a_device_may_be_told_to_keep_it_to_itself(make_device: MakeDevice, depot: Depot, image: Any) -> None:
    device = make_device(report_health_seconds=0)
    depot.idle = {"report_health": True}
    device.until(lambda: len(depot.checks) >= 2)
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: depot.reports and depot.last["state"] == "complete")
    assert not depot.last.keys() & {"healthy", "metrics"}
    assert depot.health == []


@pytest.mark.parametrize("status", [404, 403, 422])
def test_a_server_that_will_not_hear_it_is_left_in_peace(
    make_device: MakeDevice, depot: Depot, image: Any, status: int
) -> None:
    """One from before, say: updates go on."""
    depot.health_status = status
    device = make_device(report_health_seconds=0.001)
    device.until(lambda: len(depot.checks) >= 3)
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: depot.reports and depot.last["state"] == "complete")
    before = time.monotonic()
    assert len(depot.health) <= 2, "once for each boot"
    assert before < device_due(device)


def device_due(device: Device) -> float:
    device.until(lambda: device.agent is not None)
    assert device.agent is not None
    due: float = device.agent._health_due
    return due
