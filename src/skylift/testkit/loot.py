"""What an attacker stole: keys of a scene (`testkit.victims`), and whatever can be signed with them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from skylift.cli.client import Client
from skylift.testkit.hostile import Proxy
from skylift.testkit.image import build
from skylift.testkit.otherlog import OtherLog
from skylift.trust import files
from skylift.trust.files import Root, TargetFile, Targets
from skylift.trust.keys import Signer
from skylift.trust.log import file_entry, order_entry
from skylift.trust.roles import DIRECTOR, IMAGE, target_path

PRODUCT, HARDWARE = "sensor", "sensor-v2"
SIZE = 24 << 10  # of an image's payload
Files = dict[tuple[str, str], bytes]  # (repo, file name) -> bytes


class Scene(Protocol):
    """Where it was stolen."""

    home: Path
    client: Client

    def published(self) -> dict[str, int]:
        """Role -> version, of the image repository."""
        ...

    def file(self, name: str) -> bytes:
        """A file of the image repository."""
        ...


class Victim(Protocol):
    """Who shall be told something."""

    name: str
    proxy: Proxy
    deployments: list[str]


@dataclass
class Loot:
    """Stolen keys. Everything made here is signed with nothing else."""

    scene: Scene
    image: Signer
    director: Signer
    release: Sequence[Signer] = ()
    product: str = PRODUCT
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def evil(self, hardware: str = HARDWARE, product: str | None = None) -> tuple[TargetFile, bytes]:
        """An image nobody released, and its bytes."""
        product = product or self.product
        body = build(self.scene.home / "evil.pyz", "6.6.6", size=SIZE).read_bytes()
        custom = {"version": "6.6.6", "hardware": [hardware], "security_version": 9, "kind": "image"}
        path = target_path(product, "6.6.6", hardware)
        return files.target(path, len(body), hashlib.sha256(body).hexdigest(), custom), body

    def role(self, *more: TargetFile, signers: Sequence[Signer] | None = None) -> tuple[int, bytes]:
        """The product's next role: what is published, and these. (Version, bytes)."""
        known = self.scene.published()[self.product]
        published = files.read("role", self.scene.file(f"{known}.{self.product}.json"), Targets).signed
        images = {**published.targets, **{image.path: image for image in more}}
        made = files.product_role(known + 1, self.product, images, self.now())
        return known + 1, files.sign(made, self.release if signers is None else signers)

    def log(self, *more: bytes, without: int | None = None, first: int | None = None) -> OtherLog:
        """The server's log (its `first` entries; one of them replaced, `without`), and these entries."""
        page = self.scene.client.get("/api/log/entries", limit=1000)["items"]
        known = [str(one["entry"]).encode() for one in page][:first]
        if without is not None:
            known[without] = b'{"entry":"nothing"}'
        return OtherLog(self.director, [*known, *more], int(self.now().timestamp()))

    def logged(
        self, victim: Victim, image: TargetFile, *published: Files, signer: Signer | None = None
    ) -> None:
        """This device is shown a log that has this order and these files, for all to see: what it takes to
        order anything. `signer`: of its checkpoint, where the director's key is another by now."""
        said = [self.order_entry(victim, image)]
        for (repo, name), body in (pair for each in published for pair in each.items()):
            number, _, role = name.removesuffix(".json").partition(".")
            if number.isdecimal():
                said.append(file_entry(repo, role, int(number), len(body), hashlib.sha256(body).hexdigest()))
        replace(self, director=signer or self.director).log(*said).shown_by(victim.proxy)

    def order_entry(self, victim: Victim, image: TargetFile) -> bytes:
        """What the log must have of `order`."""
        where = (image.path, image.length, image.hashes["sha256"])
        return order_entry(victim.deployments[-1], *where, mandatory=False)

    def released(self, version: str, product: str | None = None) -> TargetFile:
        """An image that was released honestly, as the image repository describes it."""
        product = product or self.product
        known = self.scene.published()[product]
        targets = files.read("role", self.scene.file(f"{known}.{product}.json"), Targets).signed.targets
        return next(image for path, image in targets.items() if path.split("/")[1] == version)

    def order(
        self,
        victim: Victim,
        *images: TargetFile,
        version: int = 1000,
        signer: Signer | None = None,
        **more: Any,
    ) -> Files:
        """A director's repository for this device. `more` goes into the order's own words."""
        ordered = {}
        for image in images:
            told = {
                "image": image.unrecognized_fields["custom"],
                "device_id": victim.name,
                "deployment": victim.deployments[-1],
                "attempt": 1,
                "mandatory": False,  # as the honest server's: the same entry in the transparency log
                **more,
            }
            ordered[image.path] = files.target(image.path, image.length, image.hashes["sha256"], told)
        return self.directed(files.order(version, victim.name, ordered, self.now()), victim.name, signer)

    def directed(self, order: Targets, device_id: str, signer: Signer | None = None) -> Files:
        """The rest of a director's repository around these targets."""
        by, version = [signer or self.director], order.version
        now = self.now()
        snapshot = files.sign(files.snapshot(DIRECTOR, version, {"targets": version}, now, device_id), by)
        stamp = files.timestamp(DIRECTOR, version, version, snapshot, now, device_id)
        return {
            (DIRECTOR, f"{version}.targets.json"): files.sign(order, by),
            (DIRECTOR, f"{version}.snapshot.json"): snapshot,
            (DIRECTOR, "timestamp.json"): files.sign(stamp, by),
        }

    def repository(
        self,
        roles: Mapping[str, tuple[int, bytes]],
        version: int = 1000,
        signer: Signer | None = None,
        extra: Mapping[str, int] | None = None,
    ) -> Files:
        """An image repository that lists these roles beside the published ones."""
        by, now = [signer or self.image], self.now()
        offline = {
            role: number
            for role, number in self.scene.published().items()
            if role not in ("root", "snapshot", "timestamp")
        }
        listed = offline | {role: number for role, (number, _) in roles.items()} | dict(extra or {})
        snapshot = files.sign(files.snapshot(IMAGE, version, listed, now), by)
        stamp = files.timestamp(IMAGE, version, version, snapshot, now)
        made = {(IMAGE, f"{number}.{role}.json"): body for role, (number, body) in roles.items()}
        made[IMAGE, f"{version}.snapshot.json"] = snapshot
        made[IMAGE, "timestamp.json"] = files.sign(stamp, by)
        return made

    def root(self, repo: str, holders: Sequence[Signer], version: int = 2, **online: Signer) -> Files:
        """A next root that these of its three holders signed; `online` replaces keys by role."""
        body = (self.scene.home / "roots" / f"{repo}.root.json").read_bytes()
        known = files.read("root", body, Root).signed
        by_role = {
            role: [online[role].public_key] if role in online else [known.keys[k] for k in found.keyids]
            for role, found in known.roles.items()
        }
        made = files.root(version, by_role, repo, self.now())
        return {(repo, f"{version}.root.json"): files.sign(made, holders)}
