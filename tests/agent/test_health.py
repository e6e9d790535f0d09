"""Health checks: what passes, what does not, and that all must, in a row, in time."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import wait_until
from skylift.agent import health
from skylift.agent.config import HealthCheck
from skylift.engine.broker import EmbeddedBroker
from skylift.testkit.image import Behaviour

from .conftest import Depot, Device, MakeDevice

calls: list[int] = []


def says_yes() -> bool:
    return True


def says_no() -> bool:
    return False


def breaks() -> bool:
    raise RuntimeError("the sensor is away")


def every_second_time() -> bool:
    calls.append(1)
    return len(calls) % 2 == 1


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """Lets in whoever says the right token."""
    made = EmbeddedBroker(lambda device_id, token: token == "right", "127.0.0.1", 0)
    made.start()
    yield made
    made.stop()


def custom(name: str) -> HealthCheck:
    return HealthCheck("custom", call=f"{__name__}:{name}")


def test_a_command_passes_by_its_exit_code(device: Device) -> None:
    assert health.run(HealthCheck("command", command=("true",)), device.config, 0) == ""
    assert "exit 1" in health.run(HealthCheck("command", command=("false",)), device.config, 0)
    assert "FileNotFound" in health.run(HealthCheck("command", command=("/no/such",)), device.config, 0)


def test_a_command_that_hangs_is_stopped(device: Device) -> None:
    slow = HealthCheck("command", command=("sleep", "60"), timeout_seconds=0.2)
    began = time.monotonic()
    assert "no end within 0.2 s" in health.run(slow, device.config, 0)
    assert time.monotonic() - began < 50


def test_a_custom_check_passes_by_what_it_returns(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "product_checks", sys.modules[__name__])
    for name, said in (
        ("says_yes", ""),
        ("says_no", "says no"),
        ("breaks", "sensor is away"),
        ("none", "Attribute"),
    ):
        found = health.run(HealthCheck("custom", call=f"product_checks:{name}"), device.config, 0)
        assert (found == "") if said == "" else (said in found)


def test_the_broker_must_let_the_device_in(device: Device, broker: EmbeddedBroker) -> None:
    check = HealthCheck("mqtt", timeout_seconds=60.0)
    assert "no broker" in health.run(check, device.config, 0)
    config = replace(device.config, mqtt=broker.url)
    token = config.state_dir / "shared" / "token"
    token.write_text("right")
    assert health.run(check, config, 0) == ""
    token.write_text("wrong")
    assert "mqtt check: " in health.run(check, config, 0)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, and says nothing
        quiet = replace(config, mqtt=f"mqtt://127.0.0.1:{mute.getsockname()[1]}")
        said = health.run(HealthCheck("mqtt", timeout_seconds=0.5), quiet, 0)
    assert "no answer within 0.5 s" in said
    assert "mqtt check: " in health.run(check, quiet, 0), "now nobody listens"


def test_what_a_command_started_is_stopped_with_it(device: Device, tmp_path: Path) -> None:
    script = f"(sleep 60 & echo $! > {tmp_path}/pid; wait)"
    slow = HealthCheck("command", command=("sh", "-c", script), timeout_seconds=0.5)
    assert "no end within" in health.run(slow, device.config, 0)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not _command(pid), what="it is gone")


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_custom_check_that_hangs_has_not_passed(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "product_checks", sys.modules[__name__])
    check = HealthCheck("custom", call="product_checks:hangs", timeout_seconds=0.2)
    assert "no answer within 0.2 s" in health.run(check, device.config, 0)


def hangs() -> bool:
    threading.Event().wait(30)
    return True


def test_http_must_answer_200(device: Device) -> None:
    device.on()
    config = replace(device.config, health=(HealthCheck("http", url="http://127.0.0.1:{port}/health"),))
    assert health.judge(config, device.port, device.boot.alive) == ""
    assert health.judge(replace(config, health_deadline_seconds=0.1), 9, device.boot.alive) != ""


def test_all_checks_must_pass(device: Device) -> None:
    device.on()
    good, bad = HealthCheck("command", command=("true",)), HealthCheck("command", command=("false",))
    config = replace(device.config, health=(good, bad, good), health_deadline_seconds=0.2)
    assert "false" in health.judge(config, device.port, device.boot.alive)


def test_passes_count_only_in_a_row(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "product_checks", sys.modules[__name__])
    calls.clear()
    check = HealthCheck("custom", call="product_checks:every_second_time")
    config = replace(device.config, health=(check,), health_passes=2)
    assert "has ended" in health.judge(config, 0, lambda: len(calls) < 8)
    assert len(calls) == 8


def test_a_device_that_slept_through_its_deadline_is_judged_by_a_check_and_not_by_the_clock(
    device: Device,
) -> None:
    asleep = replace(device.config, health_passes=1, health_deadline_seconds=1e-9)
    assert health.judge(replace(asleep, health=(custom("says_yes"),)), 0, lambda: True) == ""
    assert "says no" in health.judge(replace(asleep, health=(custom("says_no"),)), 0, lambda: True)
    twice = replace(asleep, health=(custom("says_yes"),), health_passes=2)
    assert "not healthy often enough" in health.judge(twice, 0, lambda: True)


def test_an_image_that_has_ended_is_judged_at_once(device: Device) -> None:
    patient = replace(device.config, health_deadline_seconds=600)
    began = time.monotonic()
    assert "ended" in health.judge(patient, 1, lambda: False)
    assert time.monotonic() - began < 300


def test_a_broker_that_is_away_does_not_cost_a_confirmed_image(
    depot: Depot, make_device: MakeDevice, image: Callable[..., bytes]
) -> None:
    broker = EmbeddedBroker(lambda device_id, token: True, "127.0.0.1", 0)
    broker.start()
    try:
        where = broker.url
        checks = (HealthCheck("http", url="http://127.0.0.1:{port}/health"), HealthCheck("mqtt"))
        device = make_device(mqtt=where, health=checks)
        depot.offer(image("1.1.0", Behaviour.HEALTHY), "1.1.0")
        device.until(lambda: depot.states()[-1:] == ["complete"])
        device.until(device.settled)
    finally:
        broker.stop()
    device.again()
    for _ in range(8):
        device.step()
    if device.agent is None:
        device.on()
    assert device.version == "1.1.0"
    assert depot.states()[-1] == "complete"
