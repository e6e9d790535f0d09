"""The agent as a process of its own: killed, stopped, left without a server."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skylift.testkit.image import Behaviour, build

from .conftest import Depot, Device, Fault

Make = Callable[..., bytes]
MANY = 3 << 20  # more than what is made durable at once

_LIFE = """
import sys
from pathlib import Path
from skylift.agent import board
from skylift.agent.run import Agent
from skylift.agent.config import read
from skylift.trust.verify import Verified
length, sha256 = int(sys.argv[2]), sys.argv[3]
order = Verified("p/v/t", length, sha256, "1.1.0", 0, "image", "dep_1", 1, False)
Agent._vouched = lambda self, transport, floor: order
sys.exit(board.main(read(Path(sys.argv[1])), lambda said: print(said, flush=True)))
"""


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _come(condition: Callable[[], object], seconds: float = 180.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come in time"
        time.sleep(0.02)


def _noted(journal: Path) -> int:
    """Bytes that the journal says are durable."""
    return int(json.loads(journal.read_bytes())["offset"]) if journal.exists() else 0


def test_a_kill_in_the_middle_of_a_download_costs_no_second_download_and_leaves_no_orphan(
    device: Device, depot: Depot, image: Make, tmp_path: Path
) -> None:
    new = image("1.1.0", size=MANY)
    path = depot.offer(new, "1.1.0")
    depot.faults[path] = Fault(hold=True)
    config = tmp_path / "agent.toml"
    config.write_text(
        f'server = "{depot.url}"\ndevice_id = "dev-1"\ndevice_type = "board"\nstate_dir = "state"\n'
        f'roots = "{device.roots}"\nfactory_image = "{device.factory}"\nfactory_version = "1.0.0"\n'
        "poll_seconds = 0.05\nhealth_interval_seconds = 0.02\n"
    )
    journal = tmp_path / "state" / "journal.json"
    command = [sys.executable, "-c", _LIFE, str(config), str(len(new)), hashlib.sha256(new).hexdigest()]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _come(lambda: _noted(journal) >= 1 << 20)
        running = _children(first.pid)
        assert len(running) == 1, "the image runs"
        first.send_signal(signal.SIGKILL)
        first.wait()
        _come(lambda: _gone(running[0]))
    finally:
        first.kill()
        first.wait()
    noted = _noted(journal)
    depot.faults.clear()
    depot.wait.set()
    before = len(depot.asked)
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _come(lambda: depot.states()[-1:] == ["complete"])
        resumed = [asked for where, asked, _ in depot.asked[before:] if where == path]
        assert resumed == [f"bytes={noted}-"]
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0
    finally:
        second.kill()
        second.wait()


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the light way in, for a device whose factory image behaves like this."""
    started: list[subprocess.Popen[bytes]] = []

    def make(behaviour: Behaviour, more: str = "") -> subprocess.Popen[bytes]:
        (tmp_path / "roots").mkdir()
        for name in ("image.root.json", "director.root.json"):
            (tmp_path / "roots" / name).write_text("{}")
        build(tmp_path / "factory.pyz", "1.0.0", behaviour, 1000)
        (tmp_path / "agent.toml").write_text(
            'server = "http://127.0.0.1:9"\ndevice_id = "dev-1"\ndevice_type = "board"\nstate_dir = "state"\n'
            f'roots = "roots"\nfactory_image = "factory.pyz"\nfactory_version = "1.0.0"\n{more}'
        )
        command = [sys.executable, "-m", "skylift.agent", "--config", str(tmp_path / "agent.toml")]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE))
        return started[-1]

    yield make
    for process in started:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def said(process: subprocess.Popen[bytes], words: bytes) -> None:
    """Waits until the agent's log says so."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"it ended without saying {words!r}")


def test_without_a_server_the_image_runs_all_the_same(start: Start) -> None:
    agent = start(Behaviour.HEALTHY)
    said(agent, b"waiting")
    assert len(_children(agent.pid)) == 1


def test_a_device_that_is_not_enrolled_yet_boots_without_the_network(start: Start) -> None:
    agent = start(Behaviour.HEALTHY, 'claim = "clm_x"\n')
    said(agent, b"not enrolled yet")
    assert len(_children(agent.pid)) == 1


def test_the_agent_stops_when_told_even_while_it_judges_health(start: Start) -> None:
    agent = start(Behaviour.HANGS, "health_deadline_seconds = 600\n")
    said(agent, b"booted")
    agent.terminate()
    assert agent.wait(60) == 0
