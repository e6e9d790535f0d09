"""Trust on a bench: an operator's desk, a server's trust and devices, without the network between them.

`Lab` does what people and the server do, through the same functions as they. `Line` is the way between the
server and one device, and the attacker's place: he may answer any file with bytes of his own, withhold it,
or replay what he has recorded. `forge_*` make what the server's online keys can sign, for an attacker who
holds them. Nothing here knows more than the product tells.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from skylift.core.errors import Rejected, Unavailable
from skylift.engine import director, gathering, publish, repos, signing, unblob
from skylift.engine.blobs import BlobStore
from skylift.engine.director import OrderTarget
from skylift.engine.online import OnlineKeys
from skylift.engine.publish import Arrival, NewRelease
from skylift.store import devices, releases, trustfiles
from skylift.store.db import Database
from skylift.trust import books, files, keys
from skylift.trust.ceremony import Desk, hold
from skylift.trust.files import Targets
from skylift.trust.keys import Signer
from skylift.trust.roles import DIRECTOR, IMAGE
from skylift.trust.verify import DeviceTrust, Verified

ACTOR = "tests"
PRODUCT, HARDWARE = "sensor", "sensor-v2"
Files = Mapping[tuple[str, str], bytes]  # (repo, file name) -> what is answered


@dataclass
class Lab:
    """One desk, one server, one clock."""

    directory: Path
    database: Database
    clock: Callable[[], datetime]
    passphrase: bytes | None = None

    def __post_init__(self) -> None:
        self.desk = Desk(self.directory / "desk", self.passphrase)
        self.online = OnlineKeys.open(self.directory / "server")
        self.blobs = BlobStore(self.directory / "blobs")

    # --- people ------------------------------------------------------------------------------------

    def ceremony(self, *products: str) -> dict[str, bytes]:
        """Hold it at the desk and hand the public files to the server."""
        image, director_key = self.online.image.public_key, self.online.director.public_key
        made = hold(self.desk, products or (PRODUCT,), image, director_key, self.clock())
        given = {"image_root": made.image_root, "director_root": made.director_root, "targets": made.targets}
        self.give(given)
        return given

    def give(self, given: Mapping[str, bytes]) -> None:
        """A ceremony's files, as they reach the server."""
        self.database.write(lambda conn: signing.take_ceremony(conn, self.online, given, ACTOR, self.clock()))

    def rotate_director(self) -> None:
        """The online key of the director is replaced: a new root, signed by the root holders."""
        fresh = keys.generate()
        self.online = OnlineKeys(self.online.image, fresh)
        holders = self.desk.signers("root", 3)
        named = {"root": [holder.public_key for holder in holders]}
        named |= {role: [fresh.public_key] for role in ("targets", "snapshot", "timestamp")}
        known = files.read("root", self.desk.public(f"{DIRECTOR}.root").read_bytes(), files.Root)
        made = files.root(known.signed.version + 1, named, DIRECTOR, self.clock())
        body = self.desk.keep(f"{DIRECTOR}.root", files.sign(made, holders[:2]))
        given = {
            "image_root": self.desk.public(f"{IMAGE}.root").read_bytes(),
            "director_root": body,
            "targets": self.desk.public(f"{IMAGE}.targets").read_bytes(),
        }
        self.give(given)

    def rotate_online(self) -> None:
        """Both online keys are replaced, as `skylift trust rotate online` does it."""
        fresh = OnlineKeys(keys.generate(), keys.generate())
        self.online = fresh
        self.database.write(lambda conn: fresh.claim(conn, replace=True))  # started with `new_keys`
        new = {IMAGE: fresh.image.public_key, DIRECTOR: fresh.director.public_key}
        own, now = books.Books.open(self.desk), self.clock()
        holders = self.desk.named("root", own.image_root.roles["root"].keyids)
        for role, body in books.with_online(own, new, now).items():
            for holder in holders[:2]:
                body = files.add_signature(role, body, holder)
            self.database.write(
                lambda conn, r=role, b=body: gathering.propose(conn, fresh, r, b, ACTOR, now)  # type: ignore[misc]
            )

    def releases(self) -> list[Any]:
        with self.database.read() as conn:
            return list(releases.page(conn, limit=100))

    def release_keys(self, product: str = PRODUCT) -> list[Signer]:
        return self.desk.signers(f"release-{product}", 3)

    def sealed(self, version: str, body: bytes = b"", *device_types: str, **more: Any) -> str:
        """A release with the same image for every device type, waiting for its signatures."""
        new = NewRelease(**{"product": PRODUCT, "version": version, **more})
        made = self.draft(new)
        for device_type in device_types or (HARDWARE,):
            self.upload(made, body or f"image {version}".encode() * 20, device_type)
        self.database.write(lambda conn: signing.seal(conn, made, ACTOR, self.clock()))
        return made

    def draft(self, new: NewRelease) -> str:
        return self.database.write(lambda conn: publish.create(conn, new, ACTOR, self.clock()))

    def upload(self, release_id: str, body: bytes, device_type: str = HARDWARE) -> str:
        """As the API does it: checked before, streamed, judged, kept, named."""
        arrival = Arrival(release_id, device_type)
        with self.database.read() as conn:
            kind = publish.check_expected(conn, arrival)
        intake = self.blobs.intake(1 << 30)
        try:
            intake.write(body)
            facts = publish.check_bytes(kind, intake, None, len(body))
            stored = unblob.keep(self.database, intake, self.clock())
        finally:
            intake.drop()
        made = self.database.write(
            lambda conn: publish.take_in(conn, arrival, stored, facts, ACTOR, self.clock())
        )
        return str(made.id)

    def sign(self, *numbers: int, product: str = PRODUCT) -> dict[str, Any]:
        """Sign what waits with these of the product's three keys; the last answer."""
        answer: dict[str, Any] = {}
        for number in numbers:
            answer = self.hand_in(self.release_keys(product)[number], product)
        return answer

    def hand_in(self, signer: Signer, product: str = PRODUCT) -> dict[str, Any]:
        """This key's signature of what waits."""
        waiting = self.pending(product)
        metadata = files.read_any(product, waiting.body)
        made = signer.sign(metadata.signed_bytes)
        return self.database.write(
            lambda conn: gathering.sign(
                conn, self.online, product, waiting.version, made, ACTOR, self.clock()
            )
        )

    def released(self, version: str, body: bytes = b"", *device_types: str, **more: Any) -> str:
        """Sealed, signed by two, published."""
        made = self.sealed(version, body, *device_types, **more)
        self.sign(0, 1, product=more.get("product", PRODUCT))
        return made

    def pending(self, product: str = PRODUCT) -> trustfiles.Pending:
        with self.database.read() as conn:
            found = trustfiles.pending(conn, product)
        if found is None:
            raise LookupError(f"nothing of {product} waits")
        return found

    # --- devices -----------------------------------------------------------------------------------

    def enroll(self, device_id: str = "dev-1", hardware: str = HARDWARE) -> "Line":
        """A device, with the factory's roots, and the line to it."""
        device = self.database.write(
            lambda conn: devices.insert(
                conn,
                device_id=device_id,
                device_type=hardware,
                token_hash=device_id,
                labels={},
                now=self.clock(),
            )
        )
        roots = [self.desk.public(f"{repo}.root").read_bytes() for repo in (IMAGE, DIRECTOR)]
        trust = DeviceTrust(self.directory / "devices" / device_id, roots[0], roots[1], device_id, hardware)
        return Line(self, device.pk, trust)

    def target(self, release_id: str, device_type: str = HARDWARE, attempt: int = 1) -> OrderTarget:
        with self.database.read() as conn:
            found = publish.offerable(conn, release_id, device_type)
        if found is None:
            raise LookupError(f"{release_id} offers nothing for {device_type}")
        return OrderTarget(**found.target, deployment="dep_1", attempt=attempt, mandatory=False)

    def published(self) -> dict[tuple[str, str], bytes]:
        """Every file the image repository has, and the director's roots."""
        found = {}
        with self.database.read() as conn:
            for repo in (IMAGE, DIRECTOR):
                for role, newest in trustfiles.versions(conn, repo).items():
                    for version in range(1, newest + 1):
                        file = trustfiles.get(conn, repo, role, version)
                        if file is not None:
                            found[repo, f"{version}.{role}.json"] = file.body
        return found

    def status_of(self, release_id: str) -> str:
        with self.database.read() as conn:
            found = releases.find(conn, release_id)
        if found is None:
            raise LookupError(release_id)
        return str(found.status)


@dataclass
class Line:
    """The way between the server and one device. `lies` come first, then the server's own files."""

    lab: Lab
    device_pk: int
    trust: DeviceTrust
    lies: dict[tuple[str, str], bytes] = field(default_factory=dict)
    cut: bool = False
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    recorded: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def order(self, release_id: str | None, device_type: str = HARDWARE, attempt: int = 1) -> None:
        """The server's order for this device; None withdraws it."""
        target = self.lab.target(release_id, device_type, attempt) if release_id else None
        self.lab.database.write(lambda conn: director.assign(conn, self.device_pk, target, self.lab.clock()))

    def verify(self, floor: int = 0, **more: Any) -> Verified | None:
        """The device's check, over this line."""
        at = {"now": self.lab.clock(), "build_time": datetime.fromisoformat("2026-01-01T00:00:00Z"), **more}
        return self.trust.verify(self.fetch, floor=floor, **at)

    def fetch(self, repo: str, filename: str, max_bytes: int) -> bytes:
        self.asked.append((repo, filename, max_bytes))
        if self.cut:
            raise Unavailable("the line is cut")
        body = self.lies.get((repo, filename))
        if body is None:
            body = self.honest(repo, filename)
            self.recorded[repo, filename] = body
        return body

    def honest(self, repo: str, filename: str, nonce: str | None = None) -> bytes:
        """What the server answers; to a check that sent this nonce."""
        lab = self.lab
        with lab.database.read() as conn:
            device = devices.by_pk(conn, self.device_pk)
        if device is None:
            raise LookupError(self.device_pk)
        try:
            if repo == IMAGE:
                return repos.image(lab.database, lab.online, filename, lab.clock())
            return repos.order(lab.database, lab.online, device, filename, lab.clock(), nonce)
        except Rejected as e:
            raise FileNotFoundError(filename) from e


# --- what a holder of the online keys can make -------------------------------------------------------


def forge_order(
    lab: Lab, whose: str, target: OrderTarget | None, version: int, now: datetime, **changes: Any
) -> dict[tuple[str, str], bytes]:
    """A director repository for one device, signed with the real online key. `changes` go into the image's
    description in the order."""
    ordered = {}
    if target is not None:
        said = {
            "image": target.custom,
            "device_id": whose,
            "deployment": target.deployment,
            "attempt": target.attempt,
            "mandatory": target.mandatory,
            **changes,
        }
        ordered[target.path] = files.target(target.path, target.length, target.sha256, said)
    return forge_director(lab, files.order(version, whose, ordered, now), whose, now)


def forge_director(lab: Lab, order: Targets, device_id: str, now: datetime) -> dict[tuple[str, str], bytes]:
    """The rest of a director repository around these targets."""
    signer, version = lab.online.director, order.version
    snapshot = files.sign(files.snapshot(DIRECTOR, version, {"targets": version}, now, device_id), [signer])
    stamp = files.timestamp(DIRECTOR, version, version, snapshot, now, device_id)
    return {
        (DIRECTOR, f"{version}.targets.json"): files.sign(order, [signer]),
        (DIRECTOR, f"{version}.snapshot.json"): snapshot,
        (DIRECTOR, "timestamp.json"): files.sign(stamp, [signer]),
    }


def forge_image_repo(
    lab: Lab, roles: Mapping[str, tuple[int, bytes]], version: int, now: datetime
) -> dict[tuple[str, str], bytes]:
    """An image repository that lists these roles (name -> version, bytes), signed with the real key."""
    signer = lab.online.image
    with lab.database.read() as conn:
        listed = trustfiles.versions(conn, IMAGE)
    listed = {role: v for role, v in listed.items() if role not in ("root", "snapshot", "timestamp")}
    listed |= {role: number for role, (number, _) in roles.items()}
    snapshot = files.sign(files.snapshot(IMAGE, version, listed, now), [signer])
    stamp = files.timestamp(IMAGE, version, version, snapshot, now)
    made = {(IMAGE, f"{number}.{role}.json"): body for role, (number, body) in roles.items()}
    made[IMAGE, f"{version}.snapshot.json"] = snapshot
    made[IMAGE, "timestamp.json"] = files.sign(stamp, [signer])
    return made


def stranger() -> Signer:
    """A key that nobody trusts."""
    return keys.generate()
