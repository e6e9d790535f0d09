"""Processes on this machine: what CPU and memory they use, which core they have; nginx, to lay beside."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from skylift.testkit.ports import free_port
from skylift.testkit.server import wait

CPU_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ANSWER = b'{"update_available":false,"retry_after":300}'


def family(pid: int) -> Iterator[int]:
    """The process and all that it started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in _read(task / "children").split():
            yield from family(int(child))


def cpu_s(pids: list[int]) -> float:
    """Seconds of CPU that these processes and their children have used."""
    spent = 0.0
    for pid in {one for root in pids for one in family(root)}:
        if fields := _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split():
            spent += (int(fields[11]) + int(fields[12])) * CPU_TICK_S
    return spent


def _read(file: Path) -> str:
    """Empty where that process has ended since it was listed, as PostgreSQL's workers do."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def rss_mb(pid: int, without: str = "") -> int:
    """Resident memory, without what is mapped of this file: pages of the database which the operating system
    keeps for everybody, and takes back when it needs them."""
    total, counts = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first = line.partition(" ")[0]
        if not first.endswith(":"):  # a mapping's own line
            counts = not without or not line.endswith(without)
        elif first == "Rss:" and counts:
            total += int(line.split()[1])
    return total // 1024


def pin(pids: list[int], cores: set[int]) -> None:
    """These cores for the processes, where there are two."""
    if (os.cpu_count() or 1) > 1:
        for pid in {one for root in pids for one in family(root)}:
            for task in Path(f"/proc/{pid}/task").glob("*"):
                os.sched_setaffinity(int(task.name), cores)


def every_core() -> set[int]:
    return set(range(os.cpu_count() or 1))


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def nginx(home: Path) -> tuple[int, int] | None:
    """(pid, port) of an nginx that serves a file as long as the poll's answer; None where there is none."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return None
    home.mkdir()
    (home / "answer.json").write_bytes(ANSWER)
    port = free_port()
    temporary = " ".join(
        f"{name}_temp_path {home}/t;" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "conf").write_text(
        f"user root; worker_processes 1; daemon off; pid {home}/pid; error_log {home}/error;"
        "events { worker_connections 4096; } http { access_log off; keepalive_requests 100000000;"
        f"{temporary} default_type application/json; server {{ listen 127.0.0.1:{port} backlog=1024;"
        f" root {home}; location / {{ try_files /answer.json =404; }} }} }}"
    )
    process = subprocess.Popen([program, "-c", str(home / "conf")], stderr=subprocess.DEVNULL)
    wait(lambda: listens(port), "nginx listens")
    return process.pid, port
