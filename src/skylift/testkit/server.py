"""One `skylift serve` process, in its own data folder: killed and started again, it is the same server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skylift.cli.client import Client
from skylift.cli.exits import Leave
from skylift.testkit.ports import free_port

PATIENCE_S = 180.0  # for any one thing: beside a busy suite a server has taken more than a minute to start
# A test does not wait five minutes for a poll that the doorbell missed.
PACE = {
    "SKYLIFT_CHECK_INTERVAL_S": "10",
    "SKYLIFT_CHECK_INTERVAL_WAITING_S": "5",
    "SKYLIFT_CHECK_INTERVAL_BUSY_S": "5",
}


class Failed(Exception):
    """Something did not come out as told."""


def wait(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Until the condition holds; its value."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return found


def abort(client: Client, deployment: str) -> None:
    """Whatever is live of it ends; what ends of itself between look and word has ended."""

    def is_live() -> bool:
        return client.get(f"/api/deployments/{deployment}")["status"] in ("scheduled", "running", "paused")

    if is_live():
        try:
            client.post(f"/api/deployments/{deployment}:abort")
        except Leave:
            if is_live():
                raise


@dataclass
class Server:
    """A server's folder, its settings by name, and the process while it runs."""

    data: Path
    settings: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)  # url, pid, mqtt: as it announced them
    detached: bool = False  # does not hear the Ctrl-C that its terminal's foreground gets
    process: "subprocess.Popen[bytes] | None" = None
    _ports: tuple[int, int] = field(init=False, default_factory=lambda: (free_port(), free_port()))

    @property
    def log(self) -> Path:
        return self.data.with_name(f"{self.data.name}.log")

    @property
    def url(self) -> str:
        return str(self.facts["url"])

    def start(self) -> None:
        """Start it and wait until it listens; after the first time at the address it had."""
        self.launch()
        self.listening()

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        self._announced.unlink(missing_ok=True)
        port, mqtt = self._ports
        arguments = ["--data", str(self.data), "--port", str(port), "--mqtt-port", str(mqtt), *self.words]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "skylift", "serve", *arguments],
                env={**os.environ, **PACE, **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=self.detached,
            )

    def listening(self) -> None:
        """Wait until it says where it listens; `Failed` when it ends instead."""
        wait(lambda: self._announced.exists() or self.check(), "the server listens")
        self.facts = json.loads(self._announced.read_text())

    @property
    def _announced(self) -> Path:
        return self.data / "server.json"

    def check(self) -> bool:
        """False while it runs; raises `Failed` when it has ended."""
        if self.process is not None and self.process.poll() is not None:
            raise Failed(f"the server ended with exit code {self.process.returncode}")
        return False

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """As an operator would."""
        if self.process is not None:
            end(self.process)
            self.process = None


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL where that is not heard."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
