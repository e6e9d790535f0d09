"""What an agent does when it cannot go on: waits that grow, updates given up, nothing worn out."""

import subprocess
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from skylift.agent.board import LONGEST_PAUSE_S, Pauses, alone
from skylift.agent.run import AWAY_S, MOST_ERRORS, Outcome, longer
from skylift.core.errors import Rejected, Unavailable

from .conftest import Depot, Device, MakeDevice

Make = Callable[..., bytes]


# --- between boots --------------------------------------------------------------------------------------


def test_what_keeps_ending_at_its_start_is_booted_less_and_less_often() -> None:
    pauses = Pauses()
    waits = [pauses.after(1.0, trial=False) for _ in range(12)]
    assert waits[0] == 0.0, "once may happen"
    for number, wait in enumerate(waits[1:], 1):
        assert 0.75 * min(2.0**number, LONGEST_PAUSE_S) <= wait <= LONGEST_PAUSE_S
    assert pauses.after(600.0, trial=False) == 0.0
    assert pauses.after(1.0, trial=False) == 0.0, "it begins anew"


def test_a_trial_is_never_kept_waiting() -> None:
    pauses = Pauses()
    for _ in range(9):
        pauses.after(1.0, trial=False)
    assert pauses.after(1.0, trial=True) == 0.0


def test_a_stop_ends_the_pause_at_once(device: Device) -> None:
    """A real board whose factory image ends at once: it pauses, and SIGTERM does not wait for it."""
    toml = device.home / "agent.toml"
    device.factory.write_bytes(_zip("raise SystemExit(3)"))
    toml.write_text(
        f'server = "{device.depot.url}"\ndevice_id = "dev-2"\ndevice_type = "board"\nstate_dir = "other"\n'
        f'roots = "{device.roots}"\nfactory_image = "{device.factory}"\nfactory_version = "1.0.0"\n'
    )
    log = device.home / "log"
    with log.open("wb") as file:
        board = subprocess.Popen(
            [sys.executable, "-m", "skylift.agent", "--config", str(toml)], stderr=file, stdout=file
        )
    try:
        _come(lambda: log.read_text().count("it keeps ending") >= 3)
        board.terminate()
        assert board.wait(60) == 0
    finally:
        board.kill()


def _zip(program: str) -> bytes:
    import io
    import zipfile

    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("__main__.py", program)
    return body.getvalue()


def _come(condition: Callable[[], object], seconds: float = 180.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


def test_a_second_agent_on_the_same_state_is_turned_away(device: Device) -> None:
    with (
        alone(device.config),
        pytest.raises(Rejected, match="is in use: another agent runs on it"),
        alone(device.config),
    ):
        pass
    with alone(device.config):
        pass  # free again


# --- while the server is away ---------------------------------------------------------------------------


def test_waits_grow_to_a_bound_and_are_never_shorter_than_asked_for() -> None:
    for times in range(40):
        assert AWAY_S[0] <= longer(AWAY_S, times) <= AWAY_S[1] * 1.25
    assert longer(AWAY_S, 12) >= AWAY_S[1]
    assert longer(AWAY_S, 0, 900.0) >= 900.0
    assert len({longer(AWAY_S, 3) for _ in range(20)}) > 1, "not all at the same moment"


def test_a_server_may_name_a_date(device: Device, depot: Depot) -> None:
    depot.check_status, depot.retry_after = 503, formatdate(time.time() + 100, usegmt=True)
    with pytest.raises(Unavailable) as caught:
        device.transport.check("1.0.0", "", "")
    assert 90 <= caught.value.retry_after <= 101
    depot.retry_after = "Thu, 32 Nov 2026 99:00:00"
    with pytest.raises(Unavailable) as caught:
        device.transport.check("1.0.0", "", "")
    assert caught.value.retry_after == 30.0


def rests(device: Device, monkeypatch: pytest.MonkeyPatch, lives: int) -> list[float]:
    """What the agent rests between its steps, without resting."""
    found: list[float] = []
    if device.agent is None:
        device.on()
    agent = device.agent
    assert agent is not None

    def sleep(seconds: float) -> bool:
        found.append(seconds)
        agent.stopping = len(found) >= lives
        return True

    monkeypatch.setattr(agent, "_sleep", sleep)
    agent.run()
    return found


def test_a_server_that_stays_away_is_asked_less_and_less_often(
    device: Device, depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot.check_status = 503
    found = rests(device, monkeypatch, 12)
    assert found[-1] >= AWAY_S[1] > 2 * found[0]
    depot.check_status = 200
    assert device.agent is not None
    device.agent.stopping = False
    assert rests(device, monkeypatch, 1)[0] < 5


# --- what nobody expected -------------------------------------------------------------------------------


def test_an_error_that_stays_ends_the_update_and_not_the_agent(
    device: Device, depot: Depot, image: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: device.journal.order is not None)

    def breaks(*_: Any) -> None:
        raise ZeroDivisionError("of all things")

    assert device.agent is not None
    monkeypatch.setattr(device.agent._fetcher, "fill", breaks)
    rests(device, monkeypatch, MOST_ERRORS + 2)
    assert (depot.last["state"], depot.last["reason"]) == ("failed", "install_error")
    assert depot.last["error_message"] == "ZeroDivisionError: of all things"
    device.until(device.settled)


def test_an_error_that_stays_makes_a_trial_a_bad_one(
    device: Device, depot: Depot, image: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot.offer(image("1.1.0"), "1.1.0")
    device.until(lambda: device.boot.facts("image").trial_tag and device.agent is None)
    device.on()
    assert device.agent is not None

    def breaks() -> None:
        raise OSError("no such sensor")

    monkeypatch.setattr(device.boot, "confirm", lambda kind: breaks())
    monkeypatch.setattr(device.agent, "_sleep", lambda seconds: True)
    assert device.agent.run() is Outcome.REBOOT
    monkeypatch.undo()
    device.off()
    device.until(lambda: depot.states()[-1:] == ["rolled_back"])
    assert (depot.last["reason"], device.version) == ("health_check_failed", "1.0.0")
    assert "no such sensor" in depot.last["error_message"]


# --- what was confirmed, and turns out to be bad -----------------------------------------------------------


def crash(device: Device, times: int) -> None:
    """The image ends at its start, so many boots in a row."""
    for _ in range(times):
        device.again()
        device.on()
        assert device.boot._process is not None
        device.boot._process.kill()
        device.boot._process.wait()
        assert device.step() is None


def test_a_confirmed_configuration_that_crashes_gives_way_to_the_former(
    depot: Depot, make_device: MakeDevice, image: Make
) -> None:
    device = make_device()
    for number, (body, version, kind) in enumerate(
        ((b'{"a": 1}', "c1", "config"), (image("1.1.0"), "1.1.0", "image"), (b'{"a": 2}', "c2", "config"))
    ):
        depot.offer(body, version, kind=kind, deployment=f"dep_{number}")
        device.until(lambda n=number: depot.states(f"dep_{n}")[-1:] == ["complete"])
        device.until(device.settled)
    assert device.boot.versions()[:2] == ("1.1.0", "c2")
    crash(device, device.config.boot_attempts)
    device.until(lambda: depot.states("dep_2")[-1:] == ["rolled_back"])
    assert (depot.last["reason"], device.boot.versions()[:2]) == ("boot_failed", ("1.1.0", "c1"))
    crash(device, device.config.boot_attempts)  # that was not it: now the image, which was confirmed before
    device.until(lambda: depot.states("dep_1")[-1:] == ["rolled_back"])
    assert device.boot.versions()[:2] == ("1.0.0", "c1")
    crash(device, device.config.boot_attempts)
    device.on()
    assert device.boot.versions()[:2] == ("1.0.0", "c1"), "nothing is left to give way"


def test_a_first_configuration_that_crashes_gives_way_to_none(depot: Depot, make_device: MakeDevice) -> None:
    device = make_device()
    depot.offer(b'{"a": 1}', "c1", kind="config")
    device.until(lambda: depot.states()[-1:] == ["complete"])
    device.until(device.settled)
    crash(device, device.config.boot_attempts)
    device.until(lambda: depot.states()[-1:] == ["rolled_back"])
    assert device.boot.versions()[:2] == ("1.0.0", "")


def test_the_state_of_a_board_from_before_is_read(tmp_path: Path, device: Device) -> None:
    """Records without the later fields: an update of the agent finds them."""
    kinds, failed = device.boot._load()
    names = ("confirmed", "previous", "trial", "tries", "slots")
    told = {kind: {name: getattr(state, name) for name in names} for kind, state in kinds.items()}
    body = {"kinds": told, "failed_boots": failed}
    device.disk.replace_json(device.config.state_dir / "slots" / "boot.json", body)
    device.again()
    device.on()
    assert device.version == "1.0.0"
