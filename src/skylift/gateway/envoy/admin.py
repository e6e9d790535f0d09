"""Envoy's admin interface over its Unix socket: whoever may not open the file cannot stop the gateway."""

import http.client
import socket
from pathlib import Path

from skylift.core.errors import Unavailable

TIMEOUT_S = 5.0


class Admin:
    """What one Envoy says of itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, what: str) -> str:
        """The text at `what`. Raises Unavailable when nobody answers or the answer is not 200."""
        return self._ask("GET", what)

    def post(self, what: str) -> str:
        return self._ask("POST", what)

    def ready(self) -> bool:
        try:
            return self.get("/ready").strip() == "LIVE"
        except Unavailable:
            return False

    def stats(self, pattern: str) -> dict[str, str]:
        """Name -> value, of the numbers and texts whose names match the regular expression."""
        lines = self.get(f"/stats?filter={pattern}&usedonly=false").splitlines()
        return {name: value.strip('" ') for name, _, value in (line.partition(": ") for line in lines)}

    def _ask(self, method: str, what: str) -> str:
        line = _UnixConnection(self.path)
        try:
            line.request(method, what)
            answer = line.getresponse()
            body = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as e:
            raise Unavailable(f"Envoy's admin interface does not answer: {e}", 1.0) from e
        finally:
            line.close()
        if answer.status != http.client.OK:
            raise Unavailable(f"Envoy's admin interface answers {answer.status} to {what}: {body[:200]}", 1.0)
        return body


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("envoy", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))
