"""The application as a server would run it, on both databases, behind its own door; driven by a client."""

import asyncio
import base64
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
import uvloop

from conftest import TestClock
from skylift.api.door import Hall
from skylift.settings import Settings
from skylift.store.connect import normal, writing_engine
from skylift.store.db import Database
from skylift.store.tables import metadata
from skylift.testkit.image import build as build_image
from skylift.trust import ceremony, keys
from skylift.trust.desk import Proposal
from skylift.wiring import SkyliftServer, build

IMAGE = "image-of-the-test"


@dataclass
class Api:
    """One server and an admin's hands."""

    server: SkyliftServer
    admin: str
    clock: TestClock
    desk: ceremony.Desk
    client: httpx2.Client
    ends: ExitStack

    @property
    def database(self) -> Database:
        return self.server.database

    def call(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx2.Response:
        """One request; as the admin unless a token is given ("" for none)."""
        held = self.admin if token is None else token
        headers = {"Authorization": f"Bearer {held}"} if held else {}
        headers |= options.pop("headers", {})

        self.client.cookies.clear()  # nobody is remembered from one call to the next
        return self.client.request(method, path, headers=headers, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        return self.call("POST", path, json={} if body is None else body, **options)

    # --- what a fleet needs ------------------------------------------------------------------------

    def hold_ceremony(self, *products: str) -> None:
        online = self.server_online()
        made = ceremony.hold(self.desk, products or ("sensor",), *online, self.clock())
        body = {
            name: base64.b64encode(getattr(made, name)).decode()
            for name in ("image_root", "director_root", "targets")
        }
        answer = self.post("/api/trust/ceremony", body)
        assert answer.status_code == 200, answer.text

    def server_online(self) -> tuple[Any, Any]:
        online = self.get("/api/trust/online-keys").json()
        return keys.from_public_dict("image", online["image"]), keys.from_public_dict(
            "director", online["director"]
        )

    def draft(self, version: str, kind: str = "image") -> str:
        answer = self.post("/api/releases", {"product": "sensor", "version": version, "kind": kind})
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["id"]
        return found

    def upload(self, release: str, body: bytes, device_type: str = "sensor-v2", **query: str) -> Any:
        params = {"release": release, "device_type": device_type, **query}
        return self.call("POST", "/api/artifacts", params=params, content=body)

    def publish(self, version: str, body: bytes, kind: str = "image", device_type: str = "sensor-v2") -> str:
        release = self.draft(version, kind)
        answer = self.upload(release, body, device_type)
        assert answer.status_code == 201, answer.text
        assert self.post(f"/api/releases/{release}:seal").status_code == 200
        for number in (1, 2):
            self.sign(number)
        return release

    def sign(self, number: int, role: str = "sensor") -> httpx2.Response:
        trust = self.get("/api/trust").json()
        known = [r["version"] for r in trust["roles"] if (r["repo"], r["role"]) == ("image", role)]
        published = self.get(f"/image/{known[0]}.{role}.json").content if known else None
        public = self.desk.path / "public"
        proposal = Proposal.read(
            role,
            self.get(f"/api/trust/pending/{role}").content,
            published,
            public / "image.root.json",
            public / "image.targets.json",
            self.clock(),
        )
        signer = keys.load(self.desk.path / "keys" / f"release-{role}-{number}.pem", None)
        return self.post(f"/api/trust/pending/{role}/signatures", proposal.sign(signer))

    def device(self, name: str, device_type: str = "sensor-v2") -> str:
        """An enrolled device; its token."""
        token = f"dev_{name}-0123456789abcdef"
        body = {"device_id": name, "device_type": device_type, "token": token}
        answer = self.post("/api/devices", body)
        assert answer.status_code == 201, answer.text
        return token

    def check(self, name: str, token: str, version: str = "1.0.0", **query: str) -> Any:
        asked = {"device_id": name, "current_version": version, "device_type": "sensor-v2", **query}
        return self.get("/api/updates/check", params=asked, token=token)

    def report(self, name: str, token: str, deployment: str, state: str, **more: Any) -> Any:
        body = {"device_id": name, "deployment": deployment, "state": state, **more}
        return self.post("/api/updates/status", body, token=token)

    def tick(self) -> datetime:
        """Let the loop look, now."""
        self.server.loop.tick(self.clock())
        self.server.loop.lives.invalidate()
        return self.clock()

    def deploy(self, version: str, **more: Any) -> str:
        body = {"firmware_version": version, "target_devices": "all", "all_at_once": True, **more}
        answer = self.post("/api/deployments", body)
        assert answer.status_code == 201, answer.text
        self.tick()
        found: str = answer.json()["id"]
        return found


def start(tmp_path: Path, database_url: str, clock: Callable[[], datetime], **settings: Any) -> SkyliftServer:
    given = Settings(data_dir=tmp_path / "data", database_url=database_url, mqtt_url="off", **settings)
    return build(given, clock)


@contextmanager
def listening(server: SkyliftServer) -> Iterator[str]:
    """Its door, open in a thread of its own; the URL."""
    bound = socket.create_server(("127.0.0.1", 0))
    loop = uvloop.new_event_loop()
    begun, over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        hall = Hall(server.app, server.front)
        await hall.open(bound)
        begun.set()
        await over.wait()
        await hall.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert begun.wait(60)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
        bound.close()


def opened(tmp_path: Path, database_url: str, clock: TestClock, **settings: Any) -> Api:
    server = start(tmp_path, database_url, clock, **settings)
    admin = (tmp_path / "data" / "admin.token").read_text().strip()
    ends = ExitStack()
    url = ends.enter_context(listening(server))
    client = ends.enter_context(httpx2.Client(base_url=url, timeout=60))
    return Api(server, admin, clock, ceremony.Desk(tmp_path / "desk", None), client, ends)


def closed(api: Api) -> None:
    api.ends.close()
    api.server.seen.flush()
    api.server.eyes.close()
    api.server.database.close()


@pytest.fixture
def api(tmp_path: Path, database_url: str, clock: TestClock) -> Iterator[Api]:
    """A server without its threads: the tests tick it."""
    made = opened(tmp_path, database_url, clock)
    yield made
    closed(made)


# --- servers that have something already ---------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """What a server left behind when it ended: its folders, and every row."""

    folders: Path
    rows: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def kept() -> dict[tuple[str, str], Kept]:
    """By name and database."""
    return {}


Furnished = Callable[[str, Callable[[Api], object]], Api]


@pytest.fixture
def furnished(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    database_url: str,
    clock: TestClock,
    kept: dict[tuple[str, str], Kept],
) -> Iterator[Furnished]:
    """A server that was furnished and restarted. Furnishing (a ceremony, signed releases, devices) takes more
    than most tests do: it is done once per database and name, and every other test begins with a copy."""
    running: list[Api] = []

    def make(name: str, furnish: Callable[[Api], object]) -> Api:
        known = (f"{furnish.__module__}/{name}", database_url.partition(":")[0])
        if known in kept:
            shutil.copytree(kept[known].folders, tmp_path, dirs_exist_ok=True)
            fill(database_url, kept[known].rows)
        else:
            first = opened(tmp_path, database_url, clock)
            furnish(first)
            closed(first)
            folders = tmp_path_factory.mktemp("kept")
            for folder in ("data", "desk"):
                shutil.copytree(tmp_path / folder, folders / folder)
            kept[known] = Kept(folders, rows_of(database_url))
        running.append(opened(tmp_path, database_url, clock))
        return running[-1]

    yield make
    for each in running:
        closed(each)


def rows_of(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    engine = writing_engine(normal(url))
    with engine.begin() as conn:
        found = {
            table.name: [dict(row._mapping) for row in conn.execute(sa.select(table))]
            for table in metadata.sorted_tables
        }
    engine.dispose()
    return found


def fill(url: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """These rows into an empty database; numbers go on behind them."""
    engine = writing_engine(normal(url))
    with engine.begin() as conn:
        for table in metadata.sorted_tables:
            if not rows[table.name]:
                continue
            conn.execute(sa.insert(table), rows[table.name])
            number = table.autoincrement_column
            if conn.dialect.name == "postgresql" and number is not None:
                last = max(row[number.name] for row in rows[table.name])
                counter = sa.func.pg_get_serial_sequence(table.name, number.name)
                conn.execute(sa.select(sa.func.setval(counter, last)))
    engine.dispose()


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small image that reads as what it is."""
    return build_image(tmp_path_factory.mktemp("image") / "1.1.0.pyz", "1.1.0", size=4096).read_bytes()
