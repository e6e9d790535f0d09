"""`skylift gateway run` as people run it: a process, files that change under it, signals, its admin view."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import wait_until
from gateway.backends import Echo, serving
from gateway.conftest import ask
from skylift.testkit.ports import free_port

FILE = """
_format_version: "3.0"
services:
  - name: things
    url: http://127.0.0.1:{port}
    routes: [{{name: things, paths: [{path}]}}]
"""


class Process:
    """A gateway of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.port, self.admin = free_port(), free_port()
        words = ["gateway", "run", str(file), "--listen", f"http=127.0.0.1:{self.port}"]
        words += ["--admin", f"127.0.0.1:{self.admin}", "--workers", "1"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "skylift", *words], stderr=subprocess.PIPE, text=True
        )
        wait_until(self.is_up, 60, "the gateway answers")

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        try:
            return ask(self.admin, "/healthz").status == 200
        except OSError:
            return False

    def status(self) -> dict[str, object]:
        return dict(json.loads(ask(self.admin, "/status").body))

    def write(self, text: str) -> None:
        """As an editor does it: a new file in the old one's place."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.file)


@pytest.fixture
def backend() -> Iterator[Echo]:
    with serving(Echo("things")) as echo:
        yield echo


@pytest.fixture
def running(envoy: Path, backend: Echo, tmp_path: Path) -> Iterator[Process]:
    file = tmp_path / "kong.yaml"
    file.write_text(FILE.format(port=backend.port, path="/first"))
    process = Process(file)
    yield process
    process.process.terminate()
    process.process.wait(60)


def test_a_file_that_changes_is_in_place_within_moments_and_a_bad_one_never(
    running: Process, backend: Echo
) -> None:
    assert ask(running.port, "/first").status == 200
    running.write("services: [")
    wait_until(lambda: running.status()["error"], 60, "the bad file is said")
    assert "kong.yaml" in str(running.status()["error"])
    assert ask(running.port, "/first").status == 200
    assert "not taken" in ask(running.admin, "/").body
    running.write(FILE.format(port=backend.port, path="/second"))
    wait_until(lambda: ask(running.port, "/second").status == 200, 60, "the good file is in place")
    assert ask(running.port, "/first").status == 404

    wait_until(lambda: running.status()["error"] == "", 60, "nothing is wrong any more")


def test_the_numbers_are_for_prometheus_and_a_hangup_swaps_envoy(running: Process) -> None:
    ask(running.port, "/first")
    numbers = ask(running.admin, "/metrics").body
    assert "skylift_gateway_up 1" in numbers
    assert "envoy_http_downstream_rq_xx" in numbers
    assert (
        'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="things"} 1' in numbers
    )
    assert ask(running.admin, "/elsewhere").status == 404
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: running.status()["swaps"] == 1, 60, "a fresh Envoy took over")
    assert ask(running.port, "/first").status == 200


def test_one_table_holds_on_paper_and_against_the_gateway_that_runs(running: Process, tmp_path: Path) -> None:
    table = tmp_path / "table.yml"
    table.write_text(
        "tests:\n"
        "  - {request: GET /first, expect: {status: 200, route: things, path: /}}\n"
        "  - {request: GET /elsewhere, expect: {status: 404, body: no Route matched}}\n"
    )
    words = [
        "gateway",
        "test",
        str(table),
        str(running.file),
        "--against",
        f"http://127.0.0.1:{running.port}",
    ]

    def tested() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "skylift", *words], capture_output=True, text=True, check=False
        )

    done = tested()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("(on paper)") == done.stdout.count("(http://") == 2
    table.write_text(table.read_text().replace("404", "403"))
    done = tested()
    assert done.returncode == 3
    assert done.stdout.count("status is 404") == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["missing.yaml"], "no such file"),
        (["{file}", "--listen", "web"], "NAME=ADDRESS:PORT"),
        (["{file}", "--listen", "nobody=127.0.0.1:1"], "listeners are http"),
        (["{file}", "--admin", "here"], "NAME=ADDRESS:PORT"),
    ],
)
def test_words_that_make_no_sense_end_it_with_one_line(
    envoy: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    file = tmp_path / "kong.yaml"
    file.write_text(FILE.format(port=1, path="/first"))
    given = [word.format(file=file) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "skylift", "gateway", "run", *given],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode not in (0, -15)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
