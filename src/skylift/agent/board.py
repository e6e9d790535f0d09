"""The board: boot, run the agent, halt, boot again. Killing it at any moment is a power cut, and starting it
again is power coming back.
"""

import fcntl
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skylift.agent.boot.file import KINDS, FileBoot
from skylift.agent.config import Config, roots
from skylift.agent.disk import Disk
from skylift.agent.doorbell import Doorbell
from skylift.agent.identity import Identity
from skylift.agent.run import Agent, Outcome
from skylift.agent.transport import Transport, own_token
from skylift.core.errors import Unavailable, invalid

CALM_S = 120.0  # who lived that long did not crash at its start
LONGEST_PAUSE_S = 60.0  # between two boots of an image that keeps crashing
PORTS = range(10_000, 20_000)  # below those from which systems take a connection's own
_TRIES = 1_000


def prepare(config: Config, disk: Disk) -> tuple[FileBoot, Transport]:
    """The device's folders, first image and token. `Rejected` when its roots or its image are missing."""
    roots(config)
    for name in ("shared", "trust"):
        (config.state_dir / name).mkdir(parents=True, exist_ok=True)
    boot = FileBoot(disk, config.state_dir / "slots", config.boot_attempts)
    (config.state_dir / "slots").mkdir(exist_ok=True)
    if config.factory_image:
        boot.provision(Path(config.factory_image), config.factory_version or "0")
    return boot, Transport(config, own_token(disk, config), Identity(disk, config))


@contextmanager
def alone(config: Config) -> Iterator[None]:
    """Hold the state directory: a second agent on it would tear the journal. `Rejected` where one runs."""
    config.state_dir.mkdir(parents=True, exist_ok=True)
    with (config.state_dir / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise invalid("state_dir", str(config.state_dir), "is in use: another agent runs on it") from e
        yield


class Pauses:
    """How long to wait before a boot: not at all, unless what was confirmed keeps ending at its start. Boots
    wear out flash and batteries. A trial is never kept waiting."""

    def __init__(self) -> None:
        self._crashes = 0

    def after(self, lived_s: float, trial: bool) -> float:
        """Seconds, after a life of so many; `trial`: one is armed, or was just judged."""
        self._crashes = 0 if trial or lived_s >= CALM_S else self._crashes + 1
        if self._crashes < 2:
            return 0.0
        longest = min(2.0 ** (self._crashes - 1), LONGEST_PAUSE_S)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311 - a fleet that crashes need not crash in step


def main(config: Config, log: Callable[[str], None]) -> int:
    """Run the device until it is stopped; the exit code."""
    with alone(config):
        return _live(config, log)


def _live(config: Config, log: Callable[[str], None]) -> int:
    disk = Disk()
    boot, transport = prepare(config, disk)
    stop = threading.Event()
    current: list[Agent] = []

    def leave(*_: object) -> None:
        stop.set()
        for agent in current:
            agent.stopping = True
            agent.wake.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    bell = Doorbell(config, transport.token, lambda: _ring(current)) if config.mqtt else None
    pauses = Pauses()
    try:
        while not stop.is_set():
            begun = time.monotonic()
            port = config.port or _free_port()
            boot.boot(port)
            version, config_version, _ = boot.versions()
            log(f"booted: image {version}, configuration {config_version or 'none'}, port {port}")
            disk.replace(config.state_dir / "shared" / "port", str(port).encode())
            agent = Agent(config, disk, boot, transport, port, log)
            current[:] = [agent]
            agent.stopping = stop.is_set()  # told while it was made
            try:
                outcome = agent.run()
            finally:
                boot.halt()
            if outcome is Outcome.STOP:
                break
            trial = any(boot.facts(kind).trial_tag or boot.facts(kind).fallen_tag for kind in KINDS)
            if pause := pauses.after(time.monotonic() - begun, trial):
                log(f"it keeps ending: the next boot in {pause:.0f} s")
                stop.wait(pause)
    finally:
        if bell is not None:
            bell.close()
    return 0


def _ring(current: list[Agent]) -> None:
    for agent in current:
        agent.wake.set()


def _free_port() -> int:
    """For the image to listen on, some moments later: none that a connection might be given until then, which
    would end a trial that is well."""
    for port in random.sample(PORTS, _TRIES):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Unavailable(f"{_TRIES} ports between {PORTS[0]} and {PORTS[-1]} are all taken")
