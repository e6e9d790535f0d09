"""One running Envoy: started, watched, drained, stopped. Its configuration comes from files (`publish`)."""

import json
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skylift.core.errors import Rejected, Unavailable
from skylift.gateway.envoy import binary
from skylift.gateway.envoy.admin import Admin

START_S = 20.0  # 0.2 s on an idle machine; a cold page cache and two busy cores take their time
VALIDATE_S = 60.0
LOOK_S = 0.02
MOST_FILES = 1 << 20
# How large an expression's program may be: Envoy stops at 100, less than a list of names needs. RE2 takes
# linear time however large it is, and the reader has bounded the text (`text.MAX_REGEX`).
RUNTIME = {"layers": [{"name": "gateway", "static_layer": {"re2.max_program_size.error_level": 20_000}}]}


@dataclass(frozen=True, slots=True)
class Options:
    """How an Envoy is run. `concurrency`: worker threads. `max_connections`: of all clients together, fewer
    where the machine lets a process open too few files (`clients`).
    `drain_s`: how long a replaced Envoy goes on serving the connections it has."""

    concurrency: int = 2
    max_connections: int = 20_000
    log_level: str = "warning"
    drain_s: int = 30


class Envoy:
    """A process and its admin socket. `xds` is the directory that `publish.Files` writes.

    `parent`: the one whose place this one takes. It hands over its listening sockets themselves, so that
    nobody who has just knocked is lost (two sockets on one port lose those in the queue of the one that
    closes), drains for `drain_s` and ends a little later."""

    def __init__(self, xds: Path, options: Options, log: Path, parent: "Envoy | None" = None) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="skylift-envoy-")  # short: a socket's path is
        self._root = Path(self._place.name)
        self.admin = Admin(self._root / "admin.sock")
        bootstrap = self._root / "bootstrap.json"
        self._base: str | None = parent.base if parent else None
        self._epoch: int = parent._epoch + 1 if parent else 0
        files = _files()
        bootstrap.write_text(json.dumps(_bootstrap(self.admin.path, xds, options, files)))
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [*_command(options), *self._generation(), "-c", str(bootstrap)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's to handle
        )
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (files, files))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, seconds: float = START_S) -> None:
        """Until it takes requests. Raises Unavailable when it ended or did not come."""
        until = time.monotonic() + seconds
        while not self.admin.ready():
            if not self.running:
                raise Unavailable(f"Envoy ended with exit code {self._process.returncode}", 1.0)
            if time.monotonic() > until:
                raise Unavailable(f"Envoy is not ready after {seconds:.0f} s", 1.0)
            time.sleep(LOOK_S)

    @property
    def base(self) -> str:
        """What this Envoy and those that follow it meet by; known once it is ready."""
        if self._base is None:
            self._base = self._base_file.read_text().strip()
        return self._base

    @property
    def _base_file(self) -> Path:
        return self._root / "base-id"

    def _generation(self) -> list[str]:
        if self._base is None:
            return ["--use-dynamic-base-id", "--base-id-path", str(self._base_file)]
        return ["--base-id", self._base, "--restart-epoch", str(self._epoch)]

    def stop(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()
        self._place.cleanup()


def validate(static: dict[str, Any]) -> None:
    """Envoy's own word on a static configuration. Raises Rejected with what it says."""
    with tempfile.TemporaryDirectory(prefix="skylift-envoy-") as place:
        path = Path(place) / "all.json"
        path.write_text(json.dumps({"static_resources": static, "layered_runtime": RUNTIME}))
        command = [str(binary.envoy()), "--mode", "validate", "-l", "error", "-c", str(path)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=_environment(), timeout=VALIDATE_S, check=False
            )
        except subprocess.TimeoutExpired as e:
            raise Rejected("envoy_refuses", f"Envoy did not validate within {VALIDATE_S:.0f} s") from e
    if done.returncode:
        raise Rejected("envoy_refuses", f"Envoy refuses the configuration: {_reason(done.stderr)}")


def _reason(output: str) -> str:
    """What it says, without the log's time and the file's name; of a broken rule the rule alone."""
    _, _, said = output.partition("error initializing configuration")
    _, _, rule = said.rpartition("Proto constraint validation failed")
    words = rule or re.sub(r"^ '[^']*': ", "", said) or output or "it does not say why"
    return " ".join(words.split())[:500]


def _command(options: Options) -> list[str]:
    return [
        *(str(binary.envoy()), "--concurrency", str(options.concurrency), "-l", options.log_level),
        *("--drain-time-s", str(options.drain_s), "--parent-shutdown-time-s", str(options.drain_s + 2)),
    ]


def _environment() -> dict[str, str]:
    module = binary.module()
    where = {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(module.parent)} if module else {}
    return {**os.environ, **where}


def _files() -> int:
    """How many files an Envoy may open: all that this machine lets a process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if most == resource.RLIM_INFINITY else min(most, MOST_FILES)


def clients(wanted: int, files: int) -> int:
    """How many connections clients may have. A request holds two files, its client's and its backend's, and
    an Envoy that has none left for a backend ends at once: a tenth stays for all that is no connection."""
    return min(wanted, files * 9 // 20)


def _bootstrap(admin: Path, xds: Path, options: Options, files: int) -> dict[str, Any]:
    return {
        "node": {"id": "skylift", "cluster": "skylift"},
        "layered_runtime": RUNTIME,
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {
            "cds_config": watched(xds / "cds", "cds"),
            "lds_config": watched(xds / "lds", "lds"),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors."
                        "downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": clients(options.max_connections, files),
                    },
                }
            ]
        },
    }


def watched(directory: Path, name: str) -> dict[str, Any]:
    """A file that Envoy reads again when another is moved over it. Each kind has a directory of its own, or
    one move would have it read all of them."""
    return {
        "path_config_source": {
            "path": str(directory / f"{name}.json"),
            "watched_directory": {"path": str(directory)},
        },
        "resource_api_version": "V3",
    }
