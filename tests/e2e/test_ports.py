"""Ports that are named before anybody listens on them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skylift.agent import board
from skylift.testkit.ports import free_port

ASKS = "from skylift.testkit.ports import free_port; print(*(free_port() for _ in range(50)))"


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A counter that nobody else moves, among numbers that others come to last."""
    (tmp_path / f"skylift-ports-{os.getuid()}").write_text(f"{11_500:020}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_processes_that_ask_at_once_get_a_port_each(counted: Path) -> None:
    asking = [
        subprocess.Popen([sys.executable, "-c", ASKS], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    got = [int(port) for each in asking for port in each.communicate()[0].split()]
    assert len(set(got)) == len(got) == 200


def test_a_port_is_none_that_a_connection_may_be_given(counted: Path) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 1024 < free_port() < lowest
    assert max(board.PORTS) < lowest


def test_a_port_on_which_somebody_listens_is_passed_over(counted: Path) -> None:
    first = free_port()
    with socket.create_server(("127.0.0.1", first - 1)):
        assert free_port() == first - 2
