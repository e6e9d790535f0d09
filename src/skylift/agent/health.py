"""Health checks: does what was booted work? All of them, several times in a row, within a deadline."""

import importlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import urllib3

from skylift.agent.config import Config, HealthCheck
from skylift.agent.doorbell import answers
from skylift.agent.transport import token_of

LONGEST_BODY = 64 << 10


def judge(config: Config, port: int, alive: Callable[[], bool], *, local: bool = False) -> str:
    """ "" when every check passed `health_passes` times in a row, else what failed when the time was over.
    Without configured checks the image's own `/health` is asked. `local` leaves out what needs the network:
    an image that was confirmed does not become bad because a broker is away."""
    deadline = time.monotonic() + config.health_deadline_seconds
    passes = 0
    while True:  # a device that slept through its deadline is judged by a check, not by the clock
        if not alive():
            return "the image's process has ended"
        wrong = look(config, port, local=local)
        passes = 0 if wrong else passes + 1
        if passes >= config.health_passes:
            return ""
        if time.monotonic() >= deadline:
            return wrong or "not healthy often enough before the deadline"
        time.sleep(config.health_interval_seconds)


def look(config: Config, port: int, *, local: bool = False) -> str:
    """ "" when every check passes at this moment, else what the first that does not pass says."""
    asked = config.health or (HealthCheck("http", url="http://127.0.0.1:{port}/health"),)
    checks = (check for check in asked if not (local and check.kind == "mqtt"))
    return next((said for check in checks if (said := run(check, config, port))), "")


def run(check: HealthCheck, config: Config, port: int) -> str:
    """ "" when the check passes, else what is wrong. A check that breaks has not passed."""
    try:
        return _KINDS[check.kind](check, config, port)
    except Exception as e:  # noqa: BLE001 - a custom check may raise anything; none of it is a pass
        return f"{check.kind} check: {type(e).__name__}: {e}"


def _http(check: HealthCheck, config: Config, port: int) -> str:
    url = check.url.replace("{port}", str(port))
    answer = urllib3.request(
        "GET", url, timeout=check.timeout_seconds, retries=False, redirect=False, preload_content=False
    )
    try:
        answer.read(LONGEST_BODY)
        return "" if answer.status == 200 else f"http check: {answer.status} from {url}"
    finally:
        answer.close()


def _command(check: HealthCheck, config: Config, port: int) -> str:
    """In a process group of its own: when its time is over, what it started goes with it."""
    quiet = subprocess.DEVNULL
    started = subprocess.Popen(
        list(check.command), stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        code = started.wait(check.timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        return f"command check: no end within {check.timeout_seconds:g} s: {check.command[0]}"
    return "" if code == 0 else f"command check: exit {code} from {check.command[0]}"


def _mqtt(check: HealthCheck, config: Config, port: int) -> str:
    """The broker lets this device in; nothing is said to it."""
    if not config.mqtt:
        return "mqtt check: no broker is configured"
    said = answers(config, token_of(config), check.timeout_seconds)
    return f"mqtt check: {said}" if said else ""


def _custom(check: HealthCheck, config: Config, port: int) -> str:
    """In a thread that is left behind when its time is over: what hangs here must not hang the trial."""
    module, _, name = check.call.partition(":")
    said: list[str] = []

    def ask() -> None:
        try:
            function = getattr(importlib.import_module(module), name)
            said.append("" if function() else f"custom check: {check.call} says no")
        except Exception as e:  # noqa: BLE001 - the device's own code may raise anything; none of it is a pass
            said.append(f"custom check: {type(e).__name__}: {e}")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(check.timeout_seconds)
    return said[0] if said else f"custom check: no answer within {check.timeout_seconds:g} s: {check.call}"


_KINDS: dict[str, Callable[[HealthCheck, Config, int], str]] = {
    "http": _http,
    "command": _command,
    "mqtt": _mqtt,
    "custom": _custom,
}
