"""Databases for tests: SQLite files and a real PostgreSQL, a fresh one for every test.

PostgreSQL is started once per test process (`skylift.testkit.postgresql`). A test's database is a copy of a
migrated template, or one that another test has given back, emptied: making and dropping one costs more than
most tests do in it. Where PostgreSQL is not installed its tests are skipped by name; with CI=true or
SKYLIFT_NO_SKIP=1 that is a failure.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import settings

from skylift.store import tables
from skylift.store.connect import normal, writing_engine
from skylift.store.db import Database, migrate
from skylift.testkit.postgresql import Cluster, binaries
from skylift.testkit.server import PATIENCE_S

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

# Two busy cores make any example slow now and then: time is measured by benches, never asserted in tests.
settings.register_profile("skylift", deadline=None)
settings.load_profile("skylift")


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


# A worker that begins one of these at the end is waited for by all others.
LONGEST = (
    *(
        "e2e/test_replicas",
        "rollouts/test_matching",
        "e2e/test_outages",
        "rollouts/test_fleet",
        "api/test_gate",
    ),
    *(
        "e2e/",
        "docs/test_quickstart",
        "rollouts/test_properties",
        "rollouts/test_cohorts",
        "api/test_bad_input",
    ),
    *("dashboard/", "simulate/", "docs/", "rollouts/", "api/"),
)


# Real servers, real processes, thousands of lives: `dev.py test` runs them, `dev.py check` does not.
SLOW = (
    *(
        "api/",
        "attacks/test_attacks",
        "attacks/test_line",
        "attacks/test_log",
        "attacks/test_matrix",
        "attacks/test_metadata",
        "cli/",
        "dashboard/",
        "docs/",
        "e2e/",
        "publish/",
        "simulate/test_simulate",
        "firmware/test_image",
        "gateway/test_against_envoy",
        "gateway/test_limits_filter",
        "gateway/test_pages",
        "gateway/test_rows_on_envoy",
        "gateway/test_running",
        "gateway/test_seed_on_envoy",
        "gateway/test_supervisor",
    ),
    *("agent/test_faults", "agent/test_memory", "agent/test_process", "agent/test_update", "agent/test_ways"),
    *("core/test_gate", "core/test_rehearsal", "rollouts/test_cohorts", "rollouts/test_matching"),
    *("rollouts/test_properties", "rollouts/test_rehearse", "rollouts/test_together"),
)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, within a file the order it was written in; slow files are marked as such."""

    def rank(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((n for n, part in enumerate(LONGEST) if f"/tests/{part}" in path), len(LONGEST))

    items.sort(key=rank)
    for item in items:
        if any(f"/tests/{part}" in item.path.as_posix() for part in SLOW):
            item.add_marker(pytest.mark.slow)


def missing(what: str) -> None:
    """Skips the test that needs `what`, or fails where skipping is not allowed."""
    if os.environ.get("CI") == "true" or os.environ.get("SKYLIFT_NO_SKIP") == "1":
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_S, what: str = "") -> None:
    """Waits for a condition; fails when it does not come in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"not within {seconds:g} s: {what or condition}")
        time.sleep(0.01)


def leaning(offenders: list[str], reason: str) -> str:
    """What to say when something leans over a wall: why it stands, then each of them on a line."""
    return f"\n{reason}\n  " + "\n  ".join(offenders)


# --- TLS ---------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of its own authority for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, SHA256())
    )
    written = folder / f"{name}.pem", folder / f"{name}.key"
    written[0].write_bytes(made.public_bytes(Encoding.PEM))
    written[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return written


# --- PostgreSQL --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real PostgreSQL, started for this test process."""
    if binaries() is None:
        missing("PostgreSQL")
        return
    running = Cluster.make()
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
def given_back() -> list[str]:
    """The names of databases that tests are done with: migrated, and empty again."""
    return []


def empty(url: str) -> bool:
    """Delete every row and begin every number at 1 again: what is left is as good as new. False where
    somebody is still in it."""
    names = sorted(tables.metadata.tables)
    ask = "SELECT '{0}' WHERE EXISTS (SELECT FROM {0})"
    full = " UNION ALL ".join(ask.format(name) for name in names)
    engine = writing_engine(normal(url))
    try:
        with engine.begin() as conn:
            conn.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
            if found := [row[0] for row in conn.exec_driver_sql(full)]:
                conn.exec_driver_sql(f"TRUNCATE {', '.join(found)} CASCADE")
            conn.exec_driver_sql(
                "SELECT setval(format('%I', sequencename)::regclass, 1, false) FROM pg_sequences"
                " WHERE schemaname = 'public' AND last_value IS NOT NULL"
            )
    except sa.exc.DBAPIError:
        return False
    finally:
        engine.dispose()
    return True


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
    rested: list[str] = request.getfixturevalue("given_back")
    name = rested.pop() if rested else cluster.fresh(request.getfixturevalue("postgresql_template"))
    yield cluster.url(name)
    if empty(cluster.url(name)):
        rested.append(name)
    else:
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
