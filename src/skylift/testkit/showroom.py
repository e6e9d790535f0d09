"""A server to look at: a real `skylift serve`, an operator's hands over HTTP, simulated devices in a thread.

For the dashboard's tests, its bench and the pictures in the README. The ceremony and the signatures are the
real ones, made here without a process each.
"""

import asyncio
import base64
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from skylift.testkit.behaviours import Behaviour
from skylift.testkit.fleet import Fleet, Pace
from skylift.testkit.identity import Identity
from skylift.testkit.server import Failed, Server, wait
from skylift.trust import ceremony, keys
from skylift.trust.desk import Proposal

PRODUCT, DEVICE_TYPE = "sensor", "sensor-v2"
PASSWORD = "correct horse battery"  # noqa: S105 - of people who exist for a test
PASSWORDS = {"ada": "admin", "olga": "operator", "vera": "viewer"}
SETTINGS = {  # devices are always about to ask
    "SKYLIFT_CHECK_INTERVAL_S": "2",
    "SKYLIFT_CHECK_INTERVAL_WAITING_S": "1",
    "SKYLIFT_CHECK_INTERVAL_BUSY_S": "1",
}


@dataclass
class Showroom:
    """The folder, the server in it, and who works there."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.server = Server(self.home / "data", SETTINGS | self.settings, ("--mqtt", "off"))
        self.desk = ceremony.Desk(self.home / "desk", None)

    def open(self) -> None:
        self.server.start()
        self.admin_token = (self.home / "data" / "admin.token").read_text().strip()
        self.http = httpx2.Client(
            base_url=self.server.url, headers={"Authorization": f"Bearer {self.admin_token}"}, timeout=60
        )

    def close(self) -> None:
        self.http.close()
        self.server.stop()

    @property
    def url(self) -> str:
        return self.server.url

    # --- the operator ------------------------------------------------------------------------------

    def call(self, method: str, path: str, **options: Any) -> Any:
        """One request as the admin; `Failed` where it is refused."""
        answer = self.http.request(method, path, **options)
        if answer.status_code >= 400:
            raise Failed(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None

    def post(self, path: str, body: Any = None, **params: str) -> Any:
        return self.call("POST", path, json={} if body is None else body, params=params)

    def people(self) -> None:
        """An admin, an operator, a viewer; one password, nobody's."""
        for name, role in PASSWORDS.items():
            self.post("/api/users", {"name": name, "role": role, "password": PASSWORD})

    def ceremony(self, *products: str) -> None:
        told = self.call("GET", "/api/trust/online-keys")
        online = [keys.from_public_dict(name, told[name]) for name in ("image", "director")]
        made = ceremony.hold(self.desk, products or (PRODUCT,), online[0], online[1], datetime.now(UTC))
        names = ("image_root", "director_root", "targets")
        body = {name: base64.b64encode(getattr(made, name)).decode() for name in names}
        self.post("/api/trust/ceremony", body)

    def draft(self, version: str, image: bytes, *, notes: str = "", product: str = PRODUCT) -> str:
        """A sealed release: it waits for its signatures."""
        made: str = self.post("/api/releases", {"product": product, "version": version, "notes": notes})["id"]
        query = {"release": made, "device_type": DEVICE_TYPE}
        self.call("POST", "/api/artifacts", params=query, content=image)
        self.post(f"/api/releases/{made}:seal")
        return made

    def sign(self, number: int, product: str = PRODUCT) -> None:
        """One of the three release keys signs what waits."""
        trust = self.call("GET", "/api/trust")
        known = [r["version"] for r in trust["roles"] if (r["repo"], r["role"]) == ("image", product)]
        published = self.http.get(f"/image/{known[0]}.{product}.json").content if known else None
        public = self.desk.path / "public"
        proposal = Proposal.read(
            product,
            self.http.get(f"/api/trust/pending/{product}").content,
            published,
            public / "image.root.json",
            public / "image.targets.json",
            datetime.now(UTC),
        )
        signer = keys.load(self.desk.path / "keys" / f"release-{product}-{number}.pem", None)
        self.post(f"/api/trust/pending/{product}/signatures", proposal.sign(signer))

    def publish(self, version: str, image: bytes, **more: str) -> str:
        made = self.draft(version, image, **more)
        for number in (1, 2):
            self.sign(number)
        return made

    def deploy(self, version: str, **more: Any) -> str:
        phases = [{"percent": end, "min_minutes": 0, "wait_minutes": 60} for end in (10, 40, 100)]
        body = {"firmware_version": version, "target_devices": "all", "phases": phases, **more}
        found: str = self.post("/api/deployments", body)["id"]
        return found

    def deployment(self, deployment: str) -> dict[str, Any]:
        self.server.check()
        found: dict[str, Any] = self.call("GET", f"/api/deployments/{deployment}")
        return found

    def ended(self, deployment: str, seconds: float = 60.0) -> dict[str, Any]:
        """The deployment, once it neither is scheduled nor runs."""

        def look() -> dict[str, Any] | None:
            found = self.deployment(deployment)
            return None if found["status"] in ("scheduled", "running") else found

        found: dict[str, Any] = wait(look, f"{deployment} ends or stops itself", seconds)
        return found

    # --- the devices -------------------------------------------------------------------------------

    @contextmanager
    def devices(
        self,
        count: int,
        behaviours: Sequence[Behaviour] = (Behaviour(think_s=(0.05, 0.3)),),
        *,
        version: str = "1.0.0",
        prefix: str = "sim",
        seed: int = 1,
    ) -> Iterator[Fleet]:
        """So many simulated devices, enrolled and at work, for as long as the block lasts."""
        claim = self.post("/api/claims", {"device_type": DEVICE_TYPE, "uses": count})["claim"]
        identity = Identity(seed, count, tuple(behaviours), prefix)
        fleets: list[Fleet] = []
        ready, broken = threading.Event(), []

        async def live() -> None:
            fleet = Fleet(
                self.url,
                identity,
                pace=Pace(again_s=0.2, longest_check=1.5),
                version=version,
                device_type=DEVICE_TYPE,
                connections=16,
            )
            fleets.append(fleet)
            await fleet.enroll(claim)
            ready.set()
            await fleet.run()

        def run() -> None:
            try:
                asyncio.run(live())
            except Exception as e:  # noqa: BLE001 - handed to whoever waits
                broken.append(e)
                ready.set()

        thread = threading.Thread(target=run, name="showroom-devices", daemon=True)
        thread.start()
        if not ready.wait(60) or broken:
            raise Failed(f"the devices did not enroll: {broken}")
        try:
            yield fleets[0]
        finally:
            fleets[0].stop()
            thread.join(30)
