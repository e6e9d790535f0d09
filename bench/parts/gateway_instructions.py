"""Of bench gateway: how many instructions outside the kernel a request costs an Envoy, by callgrind.

All that are measured are listeners of one Envoy, asked in turn, the counters zeroed before each: starting one
under callgrind takes a minute. Its own numbers are flushed rarely, or they would be counted too.
"""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from parts.box import listens
from parts.gateway_proxies import BODY, Setup
from skylift.gateway.envoy import binary
from skylift.gateway.envoy.snapshot import Json, static_resources
from skylift.testkit.server import wait

WARM, ASKED, LINES = 120, 240, 8  # requests, and how many connections they come on
ROUNDS = 5  # the least counts: what Envoy does by the clock, and not for a request, only adds
START_S = 1800.0  # a minute of CPU, with two tables of 2,000 routes, on a machine that does other things


def instructions(setups: Mapping[str, Setup], token: str, place: Path) -> dict[str, float]:
    """Instructions for a request of each, by their names."""
    home = place / "callgrind"
    home.mkdir()
    with _counted(list(setups.values()), home) as pid:
        for setup in setups.values():
            wait(lambda setup=setup: _ask(setup, token, WARM), f"{setup.name} answers", START_S)
        rounds = [
            {name: _asked(setup, token, pid, home) / ASKED for name, setup in setups.items()}
            for _ in range(ROUNDS)
        ]
        return {name: min(found[name] for found in rounds) for name in setups}


def _asked(setup: Setup, token: str, pid: int, home: Path) -> int:
    before = set(home.glob("out.*"))

    def all_answered() -> bool:
        _control(pid, "--zero")
        return _ask(setup, token, ASKED)

    wait(all_answered, f"{setup.name} answers", START_S)
    _control(pid, "--dump")
    wait(lambda: any(_total(file) for file in set(home.glob("out.*")) - before), "callgrind has written")
    (fresh,) = set(home.glob("out.*")) - before
    return _total(fresh)


def _total(file: Path) -> int:
    """0 while it is being written."""
    found = re.search(r"^(?:summary|totals): (\d+)$", file.read_text(errors="replace"), re.M)
    return int(found[1]) if found else 0


def _control(pid: int, word: str) -> None:
    subprocess.run(["callgrind_control", word, str(pid)], check=True, capture_output=True)


@contextmanager
def _counted(setups: list[Setup], home: Path) -> Iterator[int]:
    """An Envoy of all their listeners, under callgrind; its pid, once it listens."""
    bootstrap = home / "bootstrap.json"
    bootstrap.write_text(json.dumps({"static_resources": _together(setups), "stats_flush_interval": "299s"}))
    module = binary.module()
    where = {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(module.parent)} if module else {}
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={home}/out", str(binary.envoy())]
    command += ["--concurrency", "1", "-l", "error", "--use-dynamic-base-id", "-c", str(bootstrap)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **where})
    try:
        for setup in setups:
            wait(lambda setup=setup: listens(setup.port), f"{setup.name} listens", START_S)
        yield process.pid
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(home)


def _together(setups: list[Setup]) -> Json:
    listeners, clusters = [], {}
    for number, setup in enumerate(setups):
        static = static_resources(setup.snapshot)
        listeners += [{**listener, "name": f"listener {number}"} for listener in static["listeners"]]
        clusters |= {cluster["name"]: cluster for cluster in static["clusters"]}
    return {"listeners": listeners, "clusters": list(clusters.values())}


def _ask(setup: Setup, token: str, count: int) -> bool:
    """So many requests, one after the other on each of some lines that stay open. False where one was not
    answered well: under callgrind, on a busy machine, a backend can seem to be gone."""
    request = f"GET {setup.path} HTTP/1.1\r\nHost: 127.0.0.1:{setup.port}\r\n"
    request += f"Authorization: Bearer {token}\r\n\r\n"
    with ExitStack() as stack:
        lines = [
            stack.enter_context(socket.create_connection(("127.0.0.1", setup.port))) for _ in range(LINES)
        ]
        for _ in range(count // LINES):
            for line in lines:
                line.sendall(request.encode())
            if not all(_answered(line) for line in lines):
                return False
    return True


def _answered(line: socket.socket) -> bool:
    answer = b""
    while not answer.endswith(BODY.encode()):
        more = line.recv(65536)
        answer += more
        if not more or not answer.startswith(b"HTTP/1.1 200"):
            return False
    return True
