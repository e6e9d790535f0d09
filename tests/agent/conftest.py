"""A device on a desk: the real agent, boot loader and images as processes, against a server that misbehaves.

`Depot` is a small HTTP server whose faults are chosen by the test; the agent reaches it over a real socket.
Signed metadata has its own tests: here `Device.verify` answers for it with what the depot ordered.
"""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from skylift.agent.board import prepare
from skylift.agent.boot.file import FileBoot
from skylift.agent.config import Config
from skylift.agent.disk import Disk
from skylift.agent.journal import Journal, JournalFile
from skylift.agent.run import Agent
from skylift.agent.transport import Transport
from skylift.core.errors import TrustError, Unavailable
from skylift.testkit.image import Behaviour, build
from skylift.testkit.ports import free_port
from skylift.trust.verify import Verified

SIZE = 100 << 10  # of the payload: several chunks, and quick
STARTS_S = 10.0  # what an image may take to listen; measured: 0.1 s, and seconds beside a busy suite


@dataclass
class Fault:
    """What the depot does wrong with a download."""

    close_after: int | None = None  # bytes of body per connection
    flip: bool = False
    endless: bool = False
    ignore_range: bool = False
    short: int = 0  # bytes that are missing at the end, with a Content-Length that says so
    status: int = 0
    hold: bool = False  # half of it, then silence


@dataclass
class Depot:
    """The server's side, as a device sees it."""

    url: str = ""
    order: Verified | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    idle: dict[str, Any] = field(default_factory=dict)  # what more is said where there is nothing
    blobs: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)
    report_status: dict[str, int] = field(default_factory=dict)  # state -> HTTP status
    held: dict[str, str] = field(default_factory=dict)  # deployment -> the state the server answers
    health: list[dict[str, Any]] = field(default_factory=list)
    health_status: int = 200
    checks: list[dict[str, list[str]]] = field(default_factory=list)
    check_status: int = 200
    check_body: bytes | None = None
    retry_after: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # path, Range, Authorization
    sent: int = 0
    wait: threading.Event = field(default_factory=threading.Event)

    def offer(
        self,
        body: bytes,
        version: str,
        *,
        kind: str = "image",
        deployment: str = "dep_1",
        attempt: int = 1,
        delta: tuple[bytes, bytes] | None = None,
        security_version: int = 0,
        length: int | None = None,
    ) -> str:
        """Order this image (and offer a delta: base image, patch); the blob's path."""
        sha256 = self.put(body)
        self.order = Verified(
            path="p/v/t",
            length=len(body) if length is None else length,
            sha256=sha256,
            version=version,
            security_version=security_version,
            kind=kind,
            deployment=deployment,
            attempt=attempt,
            mandatory=False,
        )
        self.answer = {
            "update_available": True,
            "version": version,
            "url": f"/api/blobs/{sha256}",
            "sha256": sha256,
            "size": len(body),
            "mandatory": False,
            "kind": kind,
            "deployment": deployment,
            "attempt": attempt,
            "retry_after": 1,
        }
        if delta:
            base, patch = delta
            self.answer["delta"] = {
                "url": f"/api/blobs/{self.put(patch)}",
                "sha256": hashlib.sha256(patch).hexdigest(),
                "size": len(patch),
                "base_sha256": hashlib.sha256(base).hexdigest(),
            }
        return f"/api/blobs/{sha256}"

    def put(self, body: bytes) -> str:
        sha256 = hashlib.sha256(body).hexdigest()
        self.blobs[f"/api/blobs/{sha256}"] = body
        return sha256

    def states(self, deployment: str = "dep_1") -> list[str]:
        """What was reported, each once in a row."""
        said = [report["state"] for report in self.reports if report["deployment"] == deployment]
        return [state for at, state in enumerate(said) if at == 0 or said[at - 1] != state]

    @property
    def last(self) -> dict[str, Any]:
        return self.reports[-1]


def handler(depot: Depot) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def _json(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if depot.retry_after:
                self.send_header("Retry-After", depot.retry_after)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/enroll":
                return self._json(201, b"{}")
            if self.path.endswith("/certificate"):
                return self._json(404, b"{}")
            if self.path == "/api/devices/dev-1/health":
                depot.health.append(body)
                return self._json(depot.health_status, b'{"retry_after": 300}')
            status = depot.report_status.get(body["state"], 200)
            depot.reports.append(body)
            if status == 200 and body["state"] in ("complete", "failed", "rolled_back"):
                depot.answer = {}
            state = depot.held.get(body["deployment"], body["state"])
            return self._json(status, json.dumps({"recorded": True, "state": state}).encode())

        def do_GET(self) -> None:
            where = urlsplit(self.path)
            if where.path == "/api/updates/check":
                depot.checks.append(parse_qs(where.query))
                found = depot.answer or {"update_available": False, "retry_after": 1, **depot.idle}
                return self._json(depot.check_status, depot.check_body or json.dumps(found).encode())
            asked = self.headers.get("Range", "")
            depot.asked.append((where.path, asked, self.headers.get("Authorization", "")))
            if where.path not in depot.blobs:
                return self._json(404, b"{}")
            return self._blob(where.path, asked)

        def _blob(self, path: str, asked: str) -> None:
            body, fault = depot.blobs[path], depot.faults.get(path, Fault())
            if fault.status:
                self._json(fault.status, b"{}")
                return
            if fault.flip:
                body = body[:500] + bytes([body[500] ^ 1]) + body[501:]
            start = 0 if fault.ignore_range or not asked else int(asked[6:].partition("-")[0])
            self.send_response(206 if asked and not fault.ignore_range else 200)
            self.send_header("ETag", f'"{path[-64:]}"')
            if fault.endless:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(body) - start - fault.short))
            self.end_headers()
            self._stream(body[start : len(body) - fault.short], fault)
            return

        def _stream(self, body: bytes, fault: Fault) -> None:
            self.close_connection = True
            at_most = len(body) if fault.close_after is None else fault.close_after
            for at in range(0, min(len(body), at_most), 8192):
                piece = body[at : min(at + 8192, at_most)]
                self.wfile.write(piece)
                depot.sent += len(piece)
                if fault.hold and at > len(body) // 2:
                    depot.wait.wait(30)
                    return
            try:
                while fault.endless:
                    self.wfile.write(bytes(8192))
                    depot.sent += 8192
            except OSError:
                return

    return Handler


@pytest.fixture
def depot() -> Iterator[Depot]:
    made = Depot()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.wait.set()
    server.shutdown()
    server.server_close()


class Device:
    """One device with its power switch. `step` does one step of the agent, `until` as many as it takes."""

    def __init__(self, home: Path, depot: Depot, disk: Disk | None = None, **more: Any) -> None:
        self.home = home
        self.depot = depot
        self.roots = home / "roots"
        self.roots.mkdir(parents=True, exist_ok=True)
        for name in ("image.root.json", "director.root.json"):
            (self.roots / name).write_text("{}")
        self.factory = home / "factory.pyz"
        if not self.factory.exists():
            build(self.factory, "1.0.0", size=SIZE)
        given: dict[str, Any] = {
            "server": depot.url,
            "device_id": "dev-1",
            "device_type": "board",
            "state_dir": home / "state",
            "roots": self.roots,
            "factory_image": str(self.factory),
            "factory_version": "1.0.0",
            "health_passes": 1,
            "health_interval_seconds": 0.02,
            "health_deadline_seconds": 60.0,  # a busy machine is no bad image
            "poll_seconds": 0.05,
        }
        self.config = Config(**(given | more))
        self.disk = disk or Disk()
        self.boot, self.transport = prepare(self.config, self.disk)
        self.file = JournalFile(self.disk, self.config.state_dir / "journal.json")
        self.log: list[str] = []
        self.boots = 0
        self.agent: Agent | None = None
        self.refusal: TrustError | None = None

    def verify(self, transport: Transport, floor: int) -> Verified | None:
        if self.refusal:
            raise self.refusal
        return self.depot.order

    def on(self) -> None:
        """Boot what the boot loader chooses."""
        self.port = free_port()
        self.boots += 1
        self.boot.boot(self.port)
        self._starts()
        self.agent = Agent(
            self.config, self.disk, self.boot, self.transport, self.port, self.log.append, self.verify
        )

    def _starts(self) -> None:
        """Until the image listens or has ended. How long a busy machine takes to start it is no part of a
        trial; one that never listens is judged without it."""
        until = time.monotonic() + STARTS_S
        while self.boot.alive() and time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)

    def off(self) -> None:
        self.boot.halt()
        self.agent = None

    def again(self) -> None:
        """The power fails, and comes back: nothing but the disk is left."""
        self.off()
        self.boot = FileBoot(self.disk, self.config.state_dir / "slots", self.config.boot_attempts)

    def step(self) -> float | None:
        if self.agent is None:
            self.on()
        assert self.agent is not None
        try:
            rest = self.agent.step()
        except Unavailable as e:
            self.log.append(f"waiting: {e}")
            return e.retry_after
        if rest is None:
            self.off()
        return rest

    def until(self, condition: Callable[[], object], seconds: float = 180.0, steps: int = 200) -> None:
        """Steps until the condition holds; fails with the log when it does not come."""
        deadline = time.monotonic() + seconds
        for _ in range(steps):
            if condition():
                return
            if time.monotonic() > deadline:
                break
            self.step()
        pytest.fail(f"it did not come; the log: {self.log[-12:]}")

    def settled(self) -> bool:
        """Whether nothing is in hand, nothing is left to say, and something runs."""
        journal = self.journal
        return journal.order is None and not journal.reports and self.boot.alive()

    @property
    def journal(self) -> Journal:
        return self.file.load()

    @property
    def version(self) -> str:
        return self.boot.versions()[0]

    def slot(self, name: str, kind: str = "image") -> Path:
        return self.boot.path(kind, name)


MakeDevice = Callable[..., Device]


@pytest.fixture
def make_device(tmp_path: Path, depot: Depot) -> Iterator[MakeDevice]:
    made: list[Device] = []

    def make(**more: Any) -> Device:
        made.append(Device(tmp_path / "device", depot, **more))
        return made[-1]

    yield make
    for device in made:
        device.off()


@pytest.fixture
def device(make_device: MakeDevice) -> Device:
    return make_device()


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., bytes]:
    """The bytes of an image of this version."""

    def make(version: str, behaviour: Behaviour = Behaviour.HEALTHY, size: int = SIZE) -> bytes:
        return build(tmp_path / "built", version, behaviour, size).read_bytes()

    return make


def moved(order: Verified, **more: Any) -> Verified:
    return replace(order, **more)
