"""Health checks: what passes, what does not, and that all must, in a row, in time."""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from skylift.agent import health
from skylift.agent.config import HealthCheck
from skylift.testkit.image import Behaviour

from .conftest import Depot, Device, MakeDevice

calls: list[float] = []


def says_yes() -> bool:
    return True


def says_no() -> bool:
    return False


def breaks() -> bool:
    raise RuntimeError("the sensor is away")


def every_second_time() -> bool:
    calls.append(time.monotonic())
    return len(calls) % 2 == 1


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def custom(name: str) -> HealthCheck:
    return HealthCheck("custom", call=f"{__name__}:{name}")


def test_a_command_passes_by_its_exit_code(device: Device) -> None:
    assert health.run(HealthCheck("command", command=("true",)), device.config, 0) == ""
    assert "exit 1" in health.run(HealthCheck("command", command=("false",)), device.config, 0)
    assert "FileNotFound" in health.run(HealthCheck("command", command=("/no/such",)), device.config, 0)


def test_a_command_that_hangs_is_stopped(device: Device) -> None:
    slow = HealthCheck("command", command=("sleep", "60"), timeout_seconds=0.2)
    began = time.monotonic()
    assert "Timeout" in health.run(slow, device.config, 0)
    assert time.monotonic() - began < 5


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


def test_the_broker_must_be_reachable(device: Device, listening: int) -> None:
    check = HealthCheck("mqtt")
    assert "no broker" in health.run(check, device.config, 0)
    assert health.run(check, replace(device.config, mqtt=f"mqtt://127.0.0.1:{listening}"), 0) == ""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert health.run(check, replace(device.config, mqtt=f"mqtt://127.0.0.1:{port}"), 0) != ""


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
    config = replace(device.config, health=(check,), health_passes=2, health_deadline_seconds=0.5)
    device.on()
    assert health.judge(config, device.port, device.boot.alive) != ""
    assert len(calls) > 3


def test_an_image_that_has_ended_is_judged_at_once(device: Device) -> None:
    began = time.monotonic()
    assert "ended" in health.judge(device.config, 1, lambda: False)
    assert time.monotonic() - began < 1


def test_a_broker_that_is_away_does_not_cost_a_confirmed_image(
    depot: Depot, make_device: MakeDevice, image: Callable[..., bytes]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        where = f"mqtt://127.0.0.1:{broker.getsockname()[1]}"
        checks = (HealthCheck("http", url="http://127.0.0.1:{port}/health"), HealthCheck("mqtt"))
        device = make_device(mqtt=where, health=checks, health_deadline_seconds=2.0)
        depot.offer(image("1.1.0", Behaviour.HEALTHY), "1.1.0")
        device.until(lambda: depot.states()[-1:] == ["complete"])
        device.until(device.settled)
    device.again()
    for _ in range(8):
        device.step()
    if device.agent is None:
        device.on()
    assert device.version == "1.1.0"
    assert depot.states()[-1] == "complete"
