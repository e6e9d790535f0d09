"""The helper's process: started when a configuration needs it, watched like Envoy itself."""

import socket
import subprocess
import sys
import time
from pathlib import Path

from skylift.core.errors import Unavailable
from skylift.gateway.helper.asked import SOCKET

START_S = 60.0  # Python and its imports, on a machine that does other things
LOOK_S = 0.02


class Beside:
    """One helper, in the directory that holds its rules and its sockets."""

    def __init__(self, place: Path, log: Path) -> None:
        self._socket = place / SOCKET
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "skylift.gateway.helper", str(place)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's to handle
            )
        self._wait_ready()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def _wait_ready(self) -> None:
        """Raises Unavailable when it ended or did not come."""
        until = time.monotonic() + START_S
        while not self._listens():
            if not self.running:
                raise Unavailable(f"the helper ended with exit code {self._process.returncode}", 1.0)
            if time.monotonic() > until:
                self.stop()
                raise Unavailable(f"the helper is not ready after {START_S:.0f} s", 1.0)
            time.sleep(LOOK_S)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as line:
            try:
                line.connect(str(self._socket))
            except OSError:
                return False
        return True

    def stop(self) -> None:
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
