"""What `fleet` measures: a server over so many devices, on either database."""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import sqlalchemy as sa

from skylift.store.connect import normal
from skylift.store.db import Database, migrate
from skylift.testkit.behaviours import Behaviour
from skylift.testkit.identity import Identity
from skylift.testkit.image import build
from skylift.testkit.postgresql import DURABLE, Cluster
from skylift.testkit.seed import seed
from skylift.testkit.server import wait
from skylift.testkit.stage import DEVICE_TYPE, Stage

INTERVAL_S = 300  # between a device's polls


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


@dataclass
class Bench:
    """A server over a fleet."""

    stage: Stage
    database: Database
    identity: Identity
    base: list[int]  # pids of the database's own processes

    @property
    def pid(self) -> int:
        process = self.stage.server.process
        assert process is not None
        return process.pid

    @property
    def port(self) -> int:
        return int(self.stage.facts["url"].rpartition(":")[2])

    def poll(self, draw: Random, close: bool, number: int) -> bytes:
        """Some device's poll."""
        n = draw.randrange(self.identity.count)
        query = f"device_id={self.identity.name(n)}&current_version=1.0.0&device_type={DEVICE_TYPE}"
        end = "Connection: close" if close else "Accept: */*"
        return (
            f"GET /api/updates/check?{query} HTTP/1.1\r\nHost: skylift\r\n"
            f"Authorization: Bearer {self.identity.token(n)}\r\n{end}\r\n\r\n"
        ).encode()


def staged(stack: ExitStack, kind: str, count: int) -> Bench:
    """A server over so many devices, until the stack is closed."""
    stage = Stage(Path(tempfile.mkdtemp(prefix="skylift-fleet-")))
    stack.callback(stage.close)
    base: list[int] = []
    url = f"sqlite:///{stage.home / 'fleet.db'}"
    if kind == "postgresql":
        cluster = Cluster.make(**DURABLE)
        stack.callback(cluster.stop)
        url = cluster.url(cluster.fresh())
        base = [cluster.server.pid] if cluster.server else []
    migrate(url)
    database = Database(url)
    stack.callback(database.close)
    identity = fleet(count)
    begun = time.perf_counter()
    fill(database, identity, _bar(kind, count))
    settle(database)
    say(f"\n{kind}: {count} devices in {time.perf_counter() - begun:.0f} s")
    stage.settings |= {"SKYLIFT_DATABASE_URL": url, "SKYLIFT_CHECK_INTERVAL_S": str(INTERVAL_S)}
    stage.serve("--mqtt", "off")
    stage.ceremony()
    stage.release(build(stage.home / "1.1.0.pyz", "1.1.0"), "1.1.0")
    return Bench(stage, database, identity, base)


def fleet(count: int) -> Identity:
    """Well-behaved devices on two boards."""
    kinds = (Behaviour("a", 50.0, labels={"board": "a"}), Behaviour("b", 50.0, labels={"board": "b"}))
    return Identity(1, count, kinds)


def fill(database: Database, identity: Identity, moved: Callable[[int], None] = lambda done: None) -> None:
    """The whole fleet, running 1.0.0."""
    seed(database, identity, device_type=DEVICE_TYPE, version="1.0.0", now=datetime.now(UTC), moved=moved)


def settle(database: Database) -> None:
    """What a database does behind so many rows, before anybody is measured: a running server has it done."""
    if database.dialect == "postgresql":
        with sa.create_engine(normal(database.url), isolation_level="AUTOCOMMIT").connect() as conn:
            conn.exec_driver_sql("VACUUM ANALYZE")
            conn.exec_driver_sql("CHECKPOINT")


def _bar(kind: str, count: int) -> Callable[[int], None]:
    def shown(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{kind}: {done * 100 // count:3} % of {count} devices", end="", file=sys.stderr)

    return shown


def opened(stage: Stage) -> str:
    """A deployment to every device at once, when its phase has opened."""
    body = {"firmware_version": "1.1.0", "target_devices": "all", "all_at_once": True}
    running: str = stage.client.post("/api/deployments", body)["id"]
    wait(lambda: stage.deployment(running)["phases"][0]["state"] == "open", "its phase opens")
    return running
