"""Victims and their attackers: a real server, a signing desk, real agents behind a hostile proxy.

A `Scene` is one server with its ceremony held and its releases signed; it is shared by many attacks. A
`Victim` is one enrolled device: the real agent, real slots, images as processes, over real HTTP, and its own
proxy. The agent is stepped, not left to run, so that a test waits for what happens and for nothing else.
What an attacker stole is `testkit.loot`.

Every attack is judged by `Victim.resists`: nothing was armed or booted, and the slot that runs is, byte for
byte, what it was. `Tally` counts; SKYLIFT_ATTACKS names a file to which the count is added.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from skylift.agent.board import prepare
from skylift.agent.boot.file import FileBoot
from skylift.agent.config import Config
from skylift.agent.disk import Disk
from skylift.agent.journal import Journal, JournalFile
from skylift.agent.run import Agent
from skylift.cli.client import Client
from skylift.core.errors import Unavailable
from skylift.testkit.hostile import Answer, Proxy, withheld
from skylift.testkit.image import build
from skylift.testkit.loot import HARDWARE, PRODUCT, SIZE, Loot
from skylift.testkit.ports import free_port
from skylift.testkit.publishing import publish
from skylift.testkit.server import Failed, Server, abort, wait
from skylift.trust import files, keys
from skylift.trust.ceremony import Desk, export_linux, hold, product_keys
from skylift.trust.files import Targets
from skylift.trust.keys import Signer
from skylift.trust.roles import DIRECTOR, IMAGE

OTHER_PRODUCT, OTHER_HARDWARE = "camera", "camera-v1"
TALLY = "SKYLIFT_ATTACKS"


@dataclass
class Tally:
    """Attacks that were tried, and those that got something installed."""

    tried: int = 0
    installed: int = 0

    def write(self) -> None:
        """One line to the file that the environment names."""
        if path := os.environ.get(TALLY):
            with Path(path).open("a") as file:
                file.write(json.dumps({"tried": self.tried, "installed": self.installed}) + "\n")


class Scene:
    """One server, one desk, these releases:

    | release | for | security_version |
    |---|---|---|
    | sensor 1.0.0 (the factory's), 1.1.0 | sensor-v2 | 1 |
    | sensor 0.9.0 | sensor-v2 | 0 |
    | camera 5.0.0 | camera-v1 | 1 |
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tally = Tally()
        self.server = Server(home / "data")
        self.server.start()
        self.client = Client(self.server.url, (home / "data" / "admin.token").read_text().strip())
        self.desk = Desk(home / "desk", None)
        self._ceremony()
        export_linux(self.desk, home / "roots")
        self.images: dict[str, Path] = {}
        self.releases: dict[str, str] = {}
        for product, hardware, version, security in (
            (PRODUCT, HARDWARE, "0.9.0", 0),
            (PRODUCT, HARDWARE, "1.0.0", 1),
            (PRODUCT, HARDWARE, "1.1.0", 1),
            (OTHER_PRODUCT, OTHER_HARDWARE, "5.0.0", 1),
        ):
            self._release(product, hardware, version, security)
        self._numbers = count(1)
        self._live: list[str] = []

    def _ceremony(self) -> None:
        online = self.client.get("/api/trust/online-keys")
        image, director = (keys.from_public_dict(name, online[name]) for name in (IMAGE, DIRECTOR))
        made = hold(self.desk, (PRODUCT, OTHER_PRODUCT), image, director, datetime.now(UTC))
        names = ("image_root", "director_root", "targets")
        self.client.post(
            "/api/trust/ceremony", {name: base64.b64encode(getattr(made, name)).decode() for name in names}
        )

    def _release(self, product: str, hardware: str, version: str, security: int) -> None:
        image = self.images[version] = build(self.home / f"{version}.pyz", version, size=SIZE)
        self.releases[version] = publish(
            self.client, self.desk, image, product, version, hardware, security_version=security
        )

    def victim(self, hardware: str = HARDWARE, factory: str = "1.0.0", **settings: Any) -> "Victim":
        """A device on its factory image, known to the server, with a proxy of its own."""
        name = f"dev-{next(self._numbers)}"
        made = Victim(self, name, hardware, factory, settings)
        about = {"device_id": name, "device_type": hardware, "token": made.transport.token}
        self.client.post("/api/devices", about)
        return made

    def order(self, victim: "Victim", version: str = "1.1.0") -> str:
        """Deploy this release to this device, and to nobody else; what was deployed to it before ends."""
        for deployment in victim.deployments:
            abort(self.client, deployment)
        body = {"release": self.releases[version], "target_devices": [victim.name]}
        made: str = self.client.post("/api/deployments", body)["id"]
        victim.deployments.append(made)
        wait(lambda: self.client.get(f"/api/deployments/{made}")["phases"][0]["opened_at"], f"{made} opens")
        return made

    def update_of(self, victim: "Victim") -> dict[str, Any]:
        """What the server knows of the device's run through its newest deployment."""
        found = self.client.get(f"/api/deployments/{victim.deployments[-1]}/devices")["items"]
        update: dict[str, Any] = found[0]
        return update

    def loot(self, *release: int, product: str = PRODUCT) -> "Loot":
        """All online keys, and these (0, 1, 2) of a product's release keys."""
        folder = self.home / "data" / "keys"
        online = [keys.load(folder / f"online-{repo}.pem", None) for repo in (IMAGE, DIRECTOR)]
        holders = self.desk.signers(f"release-{product}", 3)
        return Loot(self, online[0], online[1], [holders[number] for number in release], product)

    def rotated(self, product: str = PRODUCT) -> tuple[list[Signer], tuple[int, bytes]]:
        """The holders of the targets keys replace all three release keys: the new ones, and the delegations
        (version, bytes). The server does not publish them: its other tests live with the old keys."""
        fresh: list[Signer] = [keys.generate() for _ in range(3)]
        known = files.read("targets", self.file(f"{self.published()['targets']}.targets.json"), Targets)
        holders = product_keys(known.signed) | {product: [key.public_key for key in fresh]}
        made = files.delegations(known.signed.version + 1, holders, datetime.now(UTC))
        return fresh, (made.version, files.sign(made, self.desk.signers("targets", 3)[:2]))

    def published(self) -> dict[str, int]:
        """Role -> version, of the image repository."""
        status = self.client.get("/api/trust")
        return {role["role"]: role["version"] for role in status["roles"] if role["repo"] == IMAGE}

    def file(self, name: str) -> bytes:
        """A file of the image repository."""
        return self.client.raw(f"/image/{name}")

    def close(self) -> None:
        self.tally.write()
        self.server.stop()


class Victim:
    """One device with its power switch, stepped by hand."""

    def __init__(
        self, scene: Scene, name: str, hardware: str, factory: str, settings: Mapping[str, Any]
    ) -> None:
        self.scene = scene
        self.name = name
        self.proxy = Proxy(scene.server.url)
        self.deployments: list[str] = []
        self.log: list[str] = []
        self.off_by = timedelta(0)  # the device's clock
        home = scene.home / name
        given: dict[str, Any] = {
            "server": self.proxy.url,
            "device_id": name,
            "device_type": hardware,
            "state_dir": home,
            "roots": scene.home / "roots",
            "factory_image": str(scene.images[factory]),
            "factory_version": factory,
            "health_passes": 1,
            "health_interval_seconds": 0.02,
            "health_deadline_seconds": 60.0,  # a busy machine is no bad image
            "poll_seconds": 0.05,
            "build_time": datetime(2026, 1, 1, tzinfo=UTC),
        }
        self.config = Config(**{**given, **settings})
        self._disk = Disk()
        self.boot, self.transport = prepare(self.config, self._disk)
        self.file = JournalFile(self._disk, home / "journal.json")
        self._agent: Agent | None = None
        self.before = self.state()

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.off_by

    def step(self) -> float | None:
        """One step of the agent; a boot first where none runs."""
        if self._agent is None:
            port = free_port()
            self.boot.boot(port)
            self._agent = Agent(
                self.config, self._disk, self.boot, self.transport, port, self.log.append, clock=self.clock
            )
        try:
            rest = self._agent.step()
        except Unavailable as e:
            self.log.append(f"waiting: {e}")
            return e.retry_after
        if rest is None:
            self.off()
        return rest

    def off(self) -> None:
        self.boot.halt()
        self._agent = None

    def close(self) -> None:
        self.off()
        self.proxy.close()

    def again(self) -> None:
        """The power fails, and comes back."""
        self.off()
        self.boot = FileBoot(self._disk, self.config.state_dir / "slots", self.config.boot_attempts)

    def forget(self) -> None:
        """The order in hand is given up; what trust has seen stays."""
        self.again()
        (self.config.state_dir / "journal.json").unlink(missing_ok=True)

    def until(self, condition: Callable[[], object], what: str, seconds: float = 300) -> None:
        """Steps until the condition holds; `Failed` with the log when it does not come."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Failed(f"{what} did not come; the log: {self.log[-12:]}")
            self.step()

    # --- what is looked at -------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        return self.file.load()

    @property
    def version(self) -> str:
        """The version of the image that is confirmed."""
        slots = self.boot._load()[0]["image"]
        return slots.slot(slots.confirmed).version

    def state(self) -> tuple[Any, ...]:
        """What must not change under attack: what is confirmed or tried, the bytes that run, the floor."""
        kinds = self.boot._load()[0]
        running = self.boot.path("image", kinds["image"].confirmed)
        floor = self.config.state_dir / "floor.json"
        return (
            *((kind, state.confirmed, state.trial) for kind, state in kinds.items()),
            hashlib.sha256(running.read_bytes()).hexdigest(),
            floor.read_bytes() if floor.exists() else b"",
        )

    @property
    def said(self) -> list[dict[str, Any]]:
        """Reports that the server took."""
        return [report for status, report in self.proxy.reports if status == 200]

    @property
    def last(self) -> dict[str, Any]:
        return self.said[-1] if self.said else {}

    @property
    def waits(self) -> bool:
        """Whether the last word of its log is that it waits for a better line."""
        return bool(self.log) and self.log[-1].startswith("waiting:")

    # --- the story of an attack --------------------------------------------------------------------

    @contextmanager
    def resists(self) -> Iterator[None]:
        """What happens inside is one attack: nothing of the device may have changed after it."""
        before = self.state()
        self.scene.tally.tried += 1
        try:
            yield
        finally:
            touched = self.state() != before or bool(self.boot.facts("image").trial_tag)
            self.scene.tally.installed += touched
        assert not touched, f"it was let in: {self.state()}, the log: {self.log[-8:]}"

    def refuses(self, *reasons: str) -> str:
        """An attack on an order that waits: the device reports it as failed, for one of these reasons; the
        sentence it reported."""
        already = len(self.said)
        with self.resists():
            self.until(lambda: any(r["state"] == "failed" for r in self.said[already:]), "the refusal")
        assert self.last["reason"] in reasons, self.last
        known = self.scene.update_of(self)
        assert (known["state"], known["reason"]) == ("failed", self.last["reason"]), known
        return str(self.last["error_message"])

    def holds_out(self, steps: int = 6) -> None:
        """An attack that can only withhold: in so many steps in which it is lied to, the device says nothing
        of a bad image."""
        already = len(self.said)
        with self.resists():
            for _ in range(steps):
                lies = self.proxy.lied
                self.until(lambda told=lies: self.proxy.lied > told, "another lie")  # type: ignore[misc] # a lambda's default has no type
        assert not any(r["state"] == "failed" for r in self.said[already:]), self.last

    def recovers(self, version: str = "1.1.0", order: bool = True) -> None:
        """The attacker is gone: the honest update arrives."""
        self.proxy.honest()
        if order:
            self.scene.order(self, version)
        self.until(lambda: self.version == version and self.settled(), f"the honest update to {version}")
        slots = self.boot._load()[0]["image"]
        assert (
            self.boot.path("image", slots.confirmed).read_bytes() == self.scene.images[version].read_bytes()
        )
        assert self.last["state"] == "complete", self.last

    def looked(self) -> dict[str, Answer]:
        """What passes when this device looks, and is kept from installing anything."""
        self.proxy.lie("^/api/blobs/", withheld(503))
        already = len(self.log)
        self.until(lambda: self.waits and len(self.log) > already, "the look")
        seen = dict(self.proxy.recorded)
        self.proxy.honest()
        return seen

    def reads_its_order(self) -> None:
        """Polls until it has, once: what was deployed a moment ago may not be offered yet."""
        already, signed = len(self.proxy.asked), f"/director/{self.name}/timestamp.json"
        self.until(
            lambda: any(asked.where == signed for asked in self.proxy.asked[already:]), "it reads its order"
        )

    def settled(self) -> bool:
        journal = self.journal
        return journal.order is None and not journal.reports
