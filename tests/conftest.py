"""Databases for tests: SQLite files and a real PostgreSQL, a fresh one for every test.

PostgreSQL is started once per test process from /usr/lib/postgresql, never as root, in a directory of its
own, and each test's database is copied from a migrated template. Where it is not installed its tests are
skipped by name; with CI=true or SKYLIFT_NO_SKIP=1 that is a failure.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from skylift.store.db import Database, migrate

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@dataclass
class TestClock:
    """A clock that stands still until told."""

    __test__ = False
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


def missing(what: str) -> None:
    """Skips the test that needs `what`, or fails where skipping is not allowed."""
    if os.environ.get("CI") == "true" or os.environ.get("SKYLIFT_NO_SKIP") == "1":
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


def wait_until(condition: Callable[[], object], seconds: float = 10.0, what: str = "") -> None:
    """Waits for a condition; fails when it does not come in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"not within {seconds:g} s: {what or condition}")
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unprivileged() -> dict[str, object]:
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


# --- PostgreSQL --------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """A running PostgreSQL and its databases."""

    port: int
    binaries: Path
    home: Path
    server: "subprocess.Popen[bytes]"
    numbers: Iterator[int] = field(default_factory=count)

    def url(self, name: str) -> str:
        return f"postgresql://skylift@127.0.0.1:{self.port}/{name}"

    def fresh(self, template: str = "template0") -> str:
        """The name of a new database, a copy of `template`."""
        name = f"t{next(self.numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop(self, name: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def sql(self, statement: str) -> None:
        url = self.url("postgres").replace("postgresql", "postgresql+pg8000")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as conn:
            conn.exec_driver_sql(statement)

    def stop(self) -> None:
        self.server.terminate()  # smart would wait for clients
        try:
            self.server.wait(5)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def postgresql_binaries() -> Path | None:
    """The newest installed PostgreSQL's programs."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3].split(".")[0])
    )
    return found[-1].parent if found else None


def start_cluster(binaries: Path) -> Cluster:
    """Makes a cluster and starts it; nothing in it needs to survive a power cut."""
    as_user = unprivileged()
    home = Path(tempfile.mkdtemp(prefix="skylift-pg-"))
    if as_user:
        os.chown(home, int(str(as_user["user"])), int(str(as_user["group"])))
    data = home / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "skylift", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=home,
        **as_user,  # type: ignore[call-overload] # user, group and extra_groups, or nothing
    )
    port = free_port()
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(home),
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "shared_buffers": "32MB",
        "max_connections": "100",
        "autovacuum": "off",
    }
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    log = (home / "log").open("wb")
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", str(port), *settings],
        stdout=log,
        stderr=log,
        cwd=home,
        **as_user,  # type: ignore[call-overload] # as above
    )
    cluster = Cluster(port, binaries, home, server)
    wait_until(lambda: answers(cluster), 30, "PostgreSQL answers")
    return cluster


def answers(cluster: Cluster) -> bool:
    if cluster.server.poll() is not None:
        pytest.fail((cluster.home / "log").read_text())
    try:
        cluster.sql("SELECT 1")
    except sa.exc.DBAPIError:
        return False
    return True


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real PostgreSQL, started for this test process."""
    binaries = postgresql_binaries()
    if binaries is None:
        missing("PostgreSQL")
        return
    running = start_cluster(binaries)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def postgresql_template(cluster: Cluster) -> str:
    """The name of a migrated, empty database to copy."""
    name = cluster.fresh()
    migrate(cluster.url(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "skylift.db"
    migrate(f"sqlite:///{path}")
    return path


# --- what tests ask for ------------------------------------------------------------------------------

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, migrated database: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        path = tmp_path / "skylift.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    name = cluster.fresh(request.getfixturevalue("postgresql_template"))
    yield cluster.url(name)
    cluster.drop(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open, migrated, empty database, on SQLite and on PostgreSQL."""
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """The same on SQLite only, for tests that are about something else."""
    path = tmp_path / "skylift.db"
    shutil.copy(sqlite_template, path)
    opened = Database(f"sqlite:///{path}")
    yield opened
    opened.close()
