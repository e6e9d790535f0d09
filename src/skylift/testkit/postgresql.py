"""A real PostgreSQL for tests and benches: a cluster of its own, started from /usr/lib/postgresql.

Never as root, in a temporary directory, on a free port. Nothing in it needs to survive a power cut, so it
does not sync; what it acknowledged survives a `crash` of its own.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from skylift.testkit.ports import free_port

START_S = 30.0
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "autovacuum": "off",
}


def binaries() -> Path | None:
    """The newest installed PostgreSQL's programs; None where it is not installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3].split(".")[0])
    )
    return found[-1].parent if found else None


def unprivileged() -> dict[str, Any]:
    """What makes `subprocess` run as somebody else where we are root; nothing where we are not."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            who = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    raise LookupError("neither postgres nor nobody is a user of this machine")


DURABLE = {  # as an operator runs it: what it acknowledges is on the disk
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "autovacuum": "on",
    "max_wal_size": "2GB",
}


@dataclass
class Cluster:
    """A running PostgreSQL and its databases. `options` go beside, and over, `OPTIONS`."""

    port: int
    programs: Path
    home: Path
    server: "subprocess.Popen[bytes] | None" = None
    numbers: Iterator[int] = field(default_factory=count)
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, **options: str) -> "Cluster":
        """A new cluster, started. `LookupError` where PostgreSQL is not installed."""
        programs = binaries()
        if programs is None:
            raise LookupError("PostgreSQL is not installed")
        as_user = unprivileged()
        home = Path(tempfile.mkdtemp(prefix="skylift-pg-"))
        if as_user:
            os.chown(home, as_user["user"], as_user["group"])
        init = ["-D", str(home / "data"), "-U", "skylift", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([programs / "initdb", *init], check=True, capture_output=True, cwd=home, **as_user)
        made = cls(free_port(), programs, home, options=options)
        made.start()
        return made

    def start(self) -> None:
        """Start it and wait until it answers; again after `crash` or `restart`: with everything in it."""
        until = time.monotonic() + START_S
        while not self.answers():
            if time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.log[-2000:]}")
            # It ends at once while children of the one before it still hold its memory.
            if self.server is None or self.server.poll() is not None:
                self.server = self._run()
            time.sleep(0.02)

    def _run(self) -> "subprocess.Popen[bytes]":
        settings = [
            part for name, value in (OPTIONS | self.options).items() for part in ("-c", f"{name}={value}")
        ]
        where = ["-D", str(self.home / "data"), "-p", str(self.port), "-k", str(self.home)]
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                [self.programs / "postgres", *where, *settings],
                stdout=log,
                stderr=log,
                cwd=self.home,
                **unprivileged(),
            )

    @property
    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def answers(self) -> bool:
        return self._psql("postgres", "SELECT 1").returncode == 0

    def url(self, name: str) -> str:
        return f"postgresql://skylift@127.0.0.1:{self.port}/{name}"

    def fresh(self, template: str = "template0") -> str:
        """The name of a new database, a copy of `template`."""
        name = f"t{next(self.numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop(self, name: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql prints for it."""
        done = self._psql(database, statement)
        if done.returncode:
            raise RuntimeError(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    def _psql(self, database: str, statement: str) -> "subprocess.CompletedProcess[str]":
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "skylift", "-d", database]
        return subprocess.run(
            [self.programs / "psql", *where, "-X", "-A", "-t", "-q", "-c", statement],
            capture_output=True,
            text=True,
            check=False,
        )

    def crash(self) -> None:
        """kill -9; `start` brings it back. What it has not synced is still in the machine's memory."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            self.server = None

    def restart(self) -> None:
        """As an operator would: every connection is cut, what was committed stays."""
        self._end(signal.SIGINT)
        self.start()

    def stop(self) -> None:
        """End it and remove it."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.home, ignore_errors=True)

    def _end(self, number: int) -> None:
        if self.server is None:
            return
        self.server.send_signal(number)
        try:
            self.server.wait(10)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
        self.server = None
