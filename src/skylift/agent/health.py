"""Health checks: does what was booted work? All of them, several times in a row, within a deadline."""

import importlib
import socket
import subprocess
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import urllib3

from skylift.agent.config import Config, HealthCheck


def judge(config: Config, port: int, alive: Callable[[], bool], *, local: bool = False) -> str:
    """ "" when every check passed `health_passes` times in a row, else what failed when the time was over.
    Without configured checks the image's own `/health` is asked. `local` leaves out what needs the network:
    an image that was confirmed does not become bad because a broker is away."""
    asked = config.health or (HealthCheck("http", url="http://127.0.0.1:{port}/health"),)
    checks = [check for check in asked if not (local and check.kind == "mqtt")]
    deadline = time.monotonic() + config.health_deadline_seconds
    passes, wrong = 0, ""
    while time.monotonic() < deadline:
        if not alive():
            return "the image's process has ended"
        wrong = next((said for check in checks if (said := run(check, config, port))), "")
        passes = 0 if wrong else passes + 1
        if passes >= config.health_passes:
            return ""
        time.sleep(config.health_interval_seconds)
    return wrong or "not healthy often enough before the deadline"


def run(check: HealthCheck, config: Config, port: int) -> str:
    """ "" when the check passes, else what is wrong. A check that breaks has not passed."""
    try:
        return _KINDS[check.kind](check, config, port)
    except Exception as e:  # noqa: BLE001 - a custom check may raise anything; none of it is a pass
        return f"{check.kind} check: {type(e).__name__}: {e}"


def _http(check: HealthCheck, config: Config, port: int) -> str:
    url = check.url.replace("{port}", str(port))
    answer = urllib3.request("GET", url, timeout=check.timeout_seconds, retries=False)
    return "" if answer.status == 200 else f"http check: {answer.status} from {url}"


def _command(check: HealthCheck, config: Config, port: int) -> str:
    done = subprocess.run(
        list(check.command), timeout=check.timeout_seconds, capture_output=True, check=False
    )
    return "" if done.returncode == 0 else f"command check: exit {done.returncode} from {check.command[0]}"


def _mqtt(check: HealthCheck, config: Config, port: int) -> str:
    """The broker accepts a connection; nothing is said to it."""
    if not config.mqtt:
        return "mqtt check: no broker is configured"
    where = urlsplit(config.mqtt)
    with socket.create_connection((where.hostname or "", where.port or 1883), check.timeout_seconds):
        return ""


def _custom(check: HealthCheck, config: Config, port: int) -> str:
    module, _, name = check.call.partition(":")
    function = getattr(importlib.import_module(module), name)
    return "" if function() else f"custom check: {check.call} says no"


_KINDS: dict[str, Callable[[HealthCheck, Config, int], str]] = {
    "http": _http,
    "command": _command,
    "mqtt": _mqtt,
    "custom": _custom,
}
