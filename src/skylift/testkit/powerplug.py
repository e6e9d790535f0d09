"""A power plug for the agent: cuts the power at any of its disk operations, and forgets what was not synced.

`PluggedDisk` counts operations. At the chosen one it does nothing of it, half of it, or all of it; then, if
asked, puts every file back to what a disk without its cache would hold (only synced contents, only synced
directory entries), and kills its own process with SIGKILL. `Bench` is a device on a desk: the real agent, the
real boot control, a server in memory; `live` runs it boot by boot until it has nothing more to do.
"""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from skylift.agent.boot.file import Bricked, FileBoot, digest
from skylift.agent.config import Config, HealthCheck
from skylift.agent.disk import Disk, read_json, write_all
from skylift.agent.run import Agent
from skylift.agent.transport import Transport
from skylift.core.errors import Unavailable
from skylift.trust.verify import Verified

CHUNK = 16 << 10
MOST_BOOTS, MOST_STEPS = 12, 60
GIVES = (20 << 20) + (64 << 10)  # bytes: layers are followed in it, what is between two stands in a file
MODES = ("before", "during", "after")


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the power fails: at operation `at` (from 1), in which part of it, and whether caches are lost."""

    at: int
    mode: str
    lose: bool


class PluggedDisk(Disk):
    """A disk whose power may be cut. Without a `cut` it only counts."""

    def __init__(self, root: Path, cut: Cut | None = None) -> None:
        self.operations = 0
        self.writes: set[int] = set()  # those that put bytes into a file: only they have a middle
        self._cut = cut
        self._root = root
        # What survives: names that point to contents, as of the last sync of each.
        self._numbers = count()
        self._source = root  # of the rename that is under way
        self._names: dict[Path, int] = {}
        self._durable_names: dict[Path, int] = {}
        self._durable: dict[int, bytes] = {}
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            node = self._node(path)
            self._durable_names[path] = node
            self._durable[node] = path.read_bytes()

    def _node(self, path: Path) -> int:
        if path not in self._names:
            self._names[path] = next(self._numbers)
        return self._names[path]

    def _do(self, operation: str, path: Path, act: Callable[[], Any], data: bytes = b"") -> Any:
        self.operations += 1
        if data:
            self.writes.add(self.operations)
        if self._cut is None or self.operations != self._cut.at:
            done = act()
            self._follow(operation, path)
            return done
        if self._cut.mode == "after":
            act()
            self._follow(operation, path)
        elif self._cut.mode == "during" and data:
            handle = os.open(path, os.O_WRONLY | os.O_APPEND)
            write_all(handle, data[: len(data) // 2])
            os.close(handle)
        if self._cut.lose:
            self._forget()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable: the power is off")

    def rename(self, source: Path, target: Path) -> None:
        self._source = source
        super().rename(source, target)

    def _follow(self, operation: str, path: Path) -> None:
        """What the operation made durable, or named."""
        if operation in ("create", "resume"):
            self._durable.setdefault(self._node(path), b"")
        elif operation == "sync":
            self._durable[self._node(path)] = path.read_bytes()
        elif operation == "unlink":
            self._names.pop(path, None)
        elif operation == "rename":
            self._names[path] = self._names.pop(self._source)
        elif operation == "sync_directory":
            here = {name: node for name, node in self._names.items() if name.parent == path}
            kept = {name: node for name, node in self._durable_names.items() if name.parent != path}
            self._durable_names = {**kept, **here}

    def _forget(self) -> None:
        """The cache is gone: every file is what was synced of it, under the names that were synced."""
        for path in [p for p in self._root.rglob("*") if p.is_file()]:
            if path not in self._durable_names:
                path.unlink()
        for path, node in self._durable_names.items():
            path.write_bytes(self._durable.get(node, b""))


@dataclass(frozen=True, slots=True)
class Update:
    """What the server in memory orders. `hops`: deltas that lead to it, each with the digest of what it
    starts from; `packed`: the image by xz. `healthy` is what it will turn out to be on trial; what
    `wears_out` is healthy then, and at no boot after its confirmation."""

    name: str
    kind: str
    version: str
    body: bytes
    hops: tuple[tuple[str, bytes], ...] = ()
    packed: bytes = b""
    healthy: bool = True
    wears_out: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


class MemoryServer(Transport):
    """The server's side, as far as a device sees it; it remembers every report."""

    def __init__(self, config: Config, update: Update | None, attempt: int) -> None:
        super().__init__(config, "dev_token-of-the-bench")
        self.update = update
        self.attempt = attempt
        self.states: list[str] = []
        self.ways: list[str] = []  # by which images were put into a slot
        self.asked = 0
        self._files: dict[str, bytes] = {}
        if update is not None:  # a device goes on where it was, without asking again
            for body in (update.packed, *(patch for _, patch in update.hops)):
                self._file(body)

    @property
    def final(self) -> str:
        """The update's last word, as the lifecycle counts it."""
        finals = [state for state in self.states if state in ("complete", "failed", "rolled_back")]
        return finals[-1] if finals else ""

    def check(self, version: str, config_version: str, sha256: str) -> dict[str, Any]:
        self.asked += 1
        if self.update is None or self.final:
            return {"update_available": False, "retry_after": 1}
        answer: dict[str, Any] = {
            "update_available": True,
            "retry_after": 1,
            "deployment": "dep_bench",
            "attempt": self.attempt,
            "sha256": self.update.sha256,
            "url": "image",
        }
        hops = [{**self._file(patch), "base_sha256": base} for base, patch in self.update.hops]
        if len(hops) == 1:
            answer["delta"] = hops[0]
        elif hops:
            answer["chain"] = hops
        if self.update.packed:
            answer["packed"] = {"codec": "xz", **self._file(self.update.packed)}
        return answer

    def _file(self, body: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(body).hexdigest()
        self._files[digest] = body
        return {"url": digest, "sha256": digest, "size": len(body)}

    def report(self, report: dict[str, Any]) -> dict[str, Any]:
        # An order that an earlier life left behind ends first; it is not the one this bench is about.
        if report["attempt"] == self.attempt:
            self.states.append(report["state"])
            self.ways += [str(report["way"])] if "way" in report else []
        return {"recorded": True, "state": report["state"]}

    def health(self, healthy: bool, metrics: Mapping[str, float]) -> None:
        pass

    def download(self, url: str, sha256: str, offset: int, length: int) -> Iterator[bytes]:
        if self.update is None:
            raise Unavailable("nothing to download")
        body = self.update.body if url == "image" else self._files[url]
        for at in range(offset, length, CHUNK):
            yield body[at : min(at + CHUNK, length)]

    def verified(self, transport: Transport, floor: int) -> Verified | None:
        if self.update is None:
            return None
        return Verified(
            path="bench",
            length=len(self.update.body),
            sha256=self.update.sha256,
            version=self.update.version,
            security_version=0,
            kind=self.update.kind,
            deployment="dep_bench",
            attempt=self.attempt,
            mandatory=False,
        )


class WatchedBoot(FileBoot):
    """The real boot control; instead of starting a process it looks at what would be started."""

    def __init__(
        self, disk: Disk, directory: Path, attempts: int, known: dict[str, bool], worn: frozenset[str]
    ) -> None:
        super().__init__(disk, directory, attempts)
        self._known = known
        self._worn = worn
        self.unverified = 0
        self.healthy_now = False
        self.will_fail = False  # at its next boot
        self.ran: list[str] = []
        self.config = ""

    def _execute(self, port: int, kinds: dict[str, Any]) -> None:
        self.healthy_now, self.will_fail, self.config = True, False, ""
        for kind in ("image", "config"):
            slot, on_trial = self._booted[kind]
            if not slot:
                if kind == "image":
                    raise Bricked("no image was ever installed")
                continue
            found = digest(self.path(kind, slot))
            if found not in self._known:
                self.unverified += 1
            wears_out = found in self._worn
            self.healthy_now &= self._known.get(found, False) and (on_trial or not wears_out)
            self.will_fail |= wears_out
            if kind == "image":
                self.ran.append(found)
            else:
                self.config = found

    def alive(self) -> bool:
        return True


_BOARD: list[WatchedBoot] = []


def healthy() -> bool:
    """The bench's custom health check."""
    return _BOARD[-1].healthy_now


@dataclass
class Outcome:
    """What became of the device: the update's last word, the images that ran, the last configuration."""

    final: str
    ran: list[str]
    config: str
    unverified: int
    bricked: bool = False
    operations: int = 0
    reports: list[str] = field(default_factory=list)
    ways: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """One device's folder and everything it may ever run: digest -> healthy; which of it wears out."""

    home: Path
    factory: Path
    known: dict[str, bool]
    worn: frozenset[str] = frozenset()

    def config(self) -> Config:
        return Config(
            server="http://127.0.0.1:1",
            device_id="bench",
            device_type="bench",
            state_dir=self.home,
            roots=self.home,
            health=(HealthCheck("custom", call="skylift.testkit.powerplug:healthy"),),
            health_passes=1,
            health_deadline_seconds=0.02,
            health_interval_seconds=0.0,
            boot_attempts=2,
            delta_memory_bytes=GIVES,
        )

    def live(self, disk: PluggedDisk, update: Update | None, attempt: int = 1) -> Outcome:
        """Boot by boot until the update has ended (or there is none)."""
        config = self.config()
        for name in ("shared", "trust", "slots"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        boot = WatchedBoot(disk, self.home / "slots", config.boot_attempts, self.known, self.worn)
        _BOARD[:] = [boot]
        if not (self.home / "slots" / "boot.json").exists() and update is None:
            boot.provision(self.factory, "factory")  # once, at the factory: never to paper over a loss
        server = MemoryServer(config, update, attempt)
        bricked = False
        try:
            self._boots(config, disk, boot, server)
        except Bricked:
            bricked = True
        return Outcome(
            server.final,
            boot.ran,
            boot.config,
            boot.unverified,
            bricked,
            disk.operations,
            server.states,
            server.ways,
        )

    def _boots(self, config: Config, disk: Disk, boot: WatchedBoot, server: MemoryServer) -> None:
        for _ in range(MOST_BOOTS):
            boot.boot(0)
            agent = Agent(config, disk, boot, server, 0, lambda said: None, server.verified)
            for _ in range(MOST_STEPS):
                asked, told = server.asked, len(server.states)
                if agent.step() is None:
                    break
                if server.asked > asked and len(server.states) == told and not self._at_work():
                    # It has asked, and there is nothing to do or to say. What wears out is booted again.
                    if not boot.will_fail:
                        return
                    break
            boot.halt()

    def _at_work(self) -> bool:
        """Whether an order is in hand."""
        return (read_json(self.home / "journal.json") or {}).get("order") is not None
