"""A running server whose database is gone, slow, full or locked: told as 503, and over by itself."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from conftest import missing, wait_until
from skylift.testkit.postgresql import Cluster
from skylift.testkit.server import Failed, Server
from skylift.testkit.stage import DEVICE_TYPE

pytestmark = pytest.mark.slow
NAMES = count()


class Api:
    """A server, and an admin and a device who ask it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        token = (server.data / "admin.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        self.admin = httpx2.Client(base_url=server.url, headers=headers, timeout=60)
        self.token = "dev_" + "x" * 40
        self.name = self.enroll(self.token)

    def enroll(self, token: str) -> str:
        name = f"dev-{next(NAMES)}"
        body = {"device_id": name, "device_type": DEVICE_TYPE, "token": token}
        answer = self.admin.post("/api/devices", json=body)
        assert answer.status_code == 201, answer.text
        return name

    def enrolling(self) -> httpx2.Response:
        """A device's own first word, under a claim that nobody gave out: looked up in the writer."""
        name = f"dev-{next(NAMES)}"
        body = {"claim": "clm_x", "device_id": name, "device_type": DEVICE_TYPE, "token": "dev_" + "y" * 40}
        return httpx2.post(f"{self.server.url}/api/enroll", json=body, timeout=60)

    def write(self) -> httpx2.Response:
        """A change that only a database can take."""
        return self.admin.post("/api/groups", json={"name": f"group-{next(NAMES)}", "devices": []})

    def read(self) -> httpx2.Response:
        return self.admin.get("/api/groups")

    def check(self) -> httpx2.Response:
        asked = {"device_id": self.name, "device_type": DEVICE_TYPE, "current_version": "1.0.0"}
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx2.get(f"{self.server.url}/api/updates/check", params=asked, headers=headers, timeout=60)

    def names(self) -> set[str]:
        return {
            group["name"] for group in self.admin.get("/api/groups", params={"limit": 500}).json()["items"]
        }


def start(tmp_path: Path, **settings: str) -> Server:
    server = Server(tmp_path / "data", settings, ("--mqtt", "off"))
    server.start()
    return server


def told(answer: httpx2.Response) -> None:
    """An outage, in a form that a client can act on."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["status"]) == ("unavailable", 503)
    assert body["detail"]
    assert int(answer.headers["retry-after"]) > 0


def assert_no_tracebacks(server: Server) -> None:
    """An outage is no bug of ours: it is a line in the log."""
    _, found, rest = server.log.read_text(errors="replace").partition("Traceback")
    assert not found, rest[-3000:]


# --- SQLite ---------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Api]:
    server = start(tmp_path)
    yield Api(server)
    server.kill()


def test_a_full_disk_is_told_and_forgotten_when_there_is_room(sqlite: Api) -> None:
    """No file of the server's may grow: what a full disk is, without one."""
    assert sqlite.write().status_code == 201
    assert sqlite.check().status_code == 200
    before = sqlite.names()
    process = sqlite.server.process
    assert process is not None
    kept = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    log = sqlite.server.data / "skylift.db-wal"
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, kept[1]))
    for _ in range(5):
        told(sqlite.write())
    assert sqlite.names() == before  # reading goes on, and nothing half done is seen
    assert sqlite.check().status_code == 200  # nothing new to write down of this device
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, kept)
    wait_until(lambda: sqlite.write().status_code == 201, what="it writes again")
    assert sqlite.names() > before
    assert sqlite.server.process is process
    assert process.poll() is None


def test_a_locked_database_is_told_and_waited_for(sqlite: Api) -> None:
    """Somebody at sqlite3 holds the write lock, first for a moment, then for too long."""
    person = sqlite3.connect(sqlite.server.data / "skylift.db", isolation_level=None, check_same_thread=False)
    person.execute("BEGIN IMMEDIATE")
    threading.Timer(2.0, lambda: person.execute("ROLLBACK")).start()
    assert sqlite.write().status_code == 201  # it waited
    person.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(sqlite.write) for _ in range(3)]
        assert sqlite.read().status_code == 200
        assert sqlite.check().status_code in (200, 503)  # the first check writes the version down
        for answer in answers:
            told(answer.result())
    person.execute("ROLLBACK")
    wait_until(lambda: sqlite.write().status_code == 201, what="it writes again")
    person.close()
    assert_no_tracebacks(sqlite.server)


def test_a_read_only_database_is_one_line_at_the_start(tmp_path: Path) -> None:
    server = start(tmp_path)
    server.stop()
    files = list(server.data.glob("skylift.db*"))
    for path in files:
        path.chmod(0o444)
    server.data.chmod(0o555)
    # A root that may write everywhere would not notice.
    caps = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    plain = [] if os.geteuid() else caps
    words = [sys.executable, "-m", "skylift", "serve", "--data", str(server.data), "--port", "0"]
    try:
        done = subprocess.run([*plain, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    finally:
        server.data.chmod(0o755)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("skylift: ")


# --- a disk with moods --------------------------------------------------------------------------------

MOODS = Path(__file__).with_name("disk.c")


class Disk:
    """Between a server's SQLite and the kernel: how the disk is at the moment, without root."""

    def __init__(self, home: Path) -> None:
        self._file, library = home / "mood", home / "disk.so"
        words = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", str(MOODS), "-o", str(library), "-ldl"]
        subprocess.run(words, check=True)
        self.is_("")
        self.settings = {
            "LD_PRELOAD": str(library),
            "MOOD_FILE": str(self._file),
            "MOOD_FOLDER": str(home / "data"),
        }

    def is_(self, mood: str) -> None:
        """Said whole or not at all: a server reads it at any moment."""
        new = self._file.with_suffix(".new")
        new.write_text(mood)
        new.rename(self._file)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    if not shutil.which("gcc"):
        missing("gcc")
    return Disk(tmp_path)


@pytest.fixture
def moody(disk: Disk, tmp_path: Path) -> Iterator[Api]:
    server = start(tmp_path, **disk.settings)
    yield Api(server)
    disk.is_("")
    server.kill()


@pytest.mark.parametrize("mood", ["readonly", "full", "gone"])
def test_whatever_happens_to_the_disk_of_a_running_server_is_told_and_waited_for(
    moody: Api, disk: Disk, mood: str
) -> None:
    """It turns read-only, as a file system does after an error; it is full; it is gone."""
    assert moody.write().status_code == 201
    assert moody.check().status_code == 200
    before = moody.names()
    disk.is_(mood)
    for _ in range(3):
        told(moody.write())
        told(moody.enrolling())
    if mood != "gone":
        assert moody.names() == before, "reading goes on, and nothing half done is seen"
        assert moody.check().status_code == 200, "who needs nothing written is served"
    assert moody.admin.get("/healthz").status_code == 200
    disk.is_("")
    wait_until(lambda: moody.write().status_code == 201, what="it writes again")
    wait_until(lambda: moody.check().status_code == 200, what="it answers devices again")
    assert before < moody.names()
    assert_no_tracebacks(moody.server)
    assert moody.server.process is not None
    assert moody.server.process.poll() is None


def test_a_disk_that_stalls_holds_up_who_writes_and_nobody_else(moody: Api, disk: Disk) -> None:
    assert moody.check().status_code == 200
    disk.is_("stalled")
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(moody.write) for _ in range(4)]
        assert moody.read().status_code == 200
        assert moody.check().status_code == 200
        assert not any(answer.done() for answer in answers)
        disk.is_("")
        assert [answer.result().status_code for answer in answers] == [201] * 4
    assert_no_tracebacks(moody.server)


# --- PostgreSQL -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(cluster: Cluster) -> Iterator[Cluster]:
    """A PostgreSQL of these tests' own, that they may stop."""
    made = Cluster.make()
    yield made
    made.stop()


@pytest.fixture
def postgresql(own: Cluster, tmp_path: Path) -> Iterator[Api]:
    server = start(tmp_path, SKYLIFT_DATABASE_URL=own.url(own.fresh()))
    yield Api(server)
    server.kill()


@pytest.mark.postgresql
def test_a_database_that_is_gone_for_a_while_is_told_and_waited_for(postgresql: Api, own: Cluster) -> None:
    assert postgresql.write().status_code == 201
    before = postgresql.names()
    own.crash()
    try:
        outage(postgresql)
    finally:
        own.start()
    wait_until(lambda: postgresql.admin.get("/readyz").status_code == 200, what="it is ready again")
    asks = (postgresql.write, postgresql.read, postgresql.check)
    assert [ask().status_code for ask in asks] == [201, 200, 200]
    assert postgresql.names() > before
    assert_no_tracebacks(postgresql.server)


def outage(postgresql: Api) -> None:
    """Five seconds of it."""
    until = time.monotonic() + 5
    asks: tuple[Callable[[], httpx2.Response], ...] = (postgresql.write, postgresql.read, postgresql.check)
    while time.monotonic() < until:
        for ask in asks:
            told(ask())  # before the client gives up
    assert postgresql.admin.get("/healthz").status_code == 200
    told(postgresql.admin.get("/readyz"))


@pytest.mark.postgresql
def test_a_database_that_only_reads_is_told_and_waited_for(postgresql: Api, own: Cluster) -> None:
    """What is left of one that another has taken over from: it answers, and takes nothing."""
    assert postgresql.write().status_code == 201
    assert postgresql.check().status_code == 200
    before = postgresql.names()
    read_only(own, "on")
    try:
        for _ in range(3):
            told(postgresql.write())
        assert postgresql.names() == before  # reading goes on
        assert postgresql.check().status_code == 200
    finally:
        read_only(own, "off")
    wait_until(lambda: postgresql.write().status_code == 201, what="it writes again")
    assert_no_tracebacks(postgresql.server)


def read_only(own: Cluster, switch: str) -> None:
    own.sql(f"ALTER SYSTEM SET default_transaction_read_only = {switch}")
    own.sql("SELECT pg_reload_conf()")
    shown = "SHOW default_transaction_read_only"
    wait_until(lambda: own.sql(shown).strip() == switch, what=f"read-only is {switch}")


@pytest.mark.postgresql
def test_an_empty_database_that_only_reads_is_one_line_at_the_start(own: Cluster, tmp_path: Path) -> None:
    """An empty one: there is nothing to serve yet."""
    url = own.url(own.fresh())
    own.sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    server = Server(tmp_path / "data", {"SKYLIFT_DATABASE_URL": url}, ("--mqtt", "off"))
    with pytest.raises(Failed, match="exit code 1"):
        server.start()
    said = server.log.read_text().strip().splitlines()
    assert len(said) == 1, said
    assert said[0].startswith("skylift: database_url is ")
    assert "read-only" in said[0]


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON groups EXECUTE FUNCTION full_disk()
"""


@pytest.mark.postgresql
def test_a_full_database_is_told_and_forgotten_when_there_is_room(postgresql: Api, own: Cluster) -> None:
    """PostgreSQL's own words for it, by a trigger: what a full disk is, without one."""
    database = postgresql.server.settings["SKYLIFT_DATABASE_URL"].rpartition("/")[2]
    assert postgresql.write().status_code == 201
    before = postgresql.names()
    own.sql(FULL, database)
    for _ in range(3):
        told(postgresql.write())
    assert postgresql.names() == before
    assert postgresql.check().status_code == 200  # who needs no new room is served
    own.sql("DROP TRIGGER full_disk ON groups", database)
    wait_until(lambda: postgresql.write().status_code == 201, what="it writes again")
    assert_no_tracebacks(postgresql.server)


LOCKED = "FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'devices'::regclass"
HELD, FREED = f"SELECT count(*) {LOCKED}", f"SELECT pg_terminate_backend(pid) {LOCKED}"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.mark.postgresql
def test_a_slow_database_is_waited_for(postgresql: Api, own: Cluster) -> None:
    """Somebody at psql locks the devices for a while: requests take as long, and are answered."""
    database = postgresql.server.settings["SKYLIFT_DATABASE_URL"].rpartition("/")[2]
    statement = "BEGIN; LOCK TABLE devices IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(120)"
    with ThreadPoolExecutor(8) as pool:
        person = pool.submit(own.sql, statement, database)
        wait_until(lambda: own.sql(HELD, database) != "0", what="the devices are locked")
        answers = [pool.submit(postgresql.check) for _ in range(4)]
        wait_until(lambda: own.sql(WAITING, database) != "0", what="a request waits for them")
        assert postgresql.read().status_code == 200  # who does not need the devices is not held up
        assert not any(answer.done() for answer in answers)
        own.sql(FREED, database)
        assert [answer.result().status_code for answer in answers] == [200] * 4
        with pytest.raises(RuntimeError, match="terminat"):
            person.result()


@pytest.mark.postgresql
def test_a_database_that_is_not_there_at_the_start_is_one_line(own: Cluster, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", {"SKYLIFT_DATABASE_URL": own.url("nobodys")}, ("--mqtt", "off"))
    with pytest.raises(Failed, match="exit code 1"):
        server.start()
    said = server.log.read_text().strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("skylift: database_url is ")
