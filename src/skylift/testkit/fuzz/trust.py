"""What a device reads of its server's metadata, and a signer of what waits for a signature."""

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skylift.core.errors import Rejected, TrustError, Unavailable
from skylift.testkit.fuzz.mutate import Target
from skylift.trust import bounds, compact, files, keys, plain
from skylift.trust.desk import Proposal
from skylift.trust.files import Root, Targets
from skylift.trust.roles import DIRECTOR, IMAGE, target_path
from skylift.trust.verify import DeviceTrust

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DEVICE, PRODUCT, HARDWARE = "dev-1", "sensor", "sensor-v2"


def targets(folder: Path) -> list[Target]:
    repo = Repository(folder / "trust")
    honest = {files.Metadata.from_bytes(body).signed_bytes for body in repo.files.values()}
    judges = {"root": repo.image_root, "timestamp": repo.director_root}

    def metadata(body: bytes) -> bool:
        try:
            bounds.check("fuzz", body)
        except TrustError:
            return False
        try:
            offered: files.Metadata[Any]
            if b'"_type":"targets"' in body:
                offered = files.read("fuzz", body, Targets)
            else:
                offered = files.read("fuzz", body, Root)
        except Rejected:
            return False
        root = files.read("root", judges["root"], Root).signed
        passes = any(files.verifies(root, role, offered) for role in ("root", "targets"))
        return passes and offered.signed_bytes not in honest  # spaces around what was signed change nothing

    def whole(body: bytes) -> bool:
        name, _, rest = body.partition(b"\n")
        lie = {tuple(name.decode("latin-1").split(" ", 1)): rest}
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            try:
                found = repo.device(Path(scratch)).verify(repo.fetch(lie), NOW, 0, NOW)
            except (TrustError, Unavailable):
                return False
        return found is not None and found.sha256 != repo.digest

    own = compact.Device(DEVICE, HARDWARE, PRODUCT, repo.image_root, repo.director_root)
    own.take_delegations(repo.files[IMAGE, "1.targets.json"], None)
    order, role = repo.files[DIRECTOR, "1.targets.json"], repo.files[IMAGE, f"1.{PRODUCT}.json"]

    def small(body: bytes) -> bool:
        """On a microcontroller: as its order, as its role, as its next root, as new delegations."""
        taken = False
        deeds: tuple[Callable[[], Any], ...] = (
            lambda: own.decide(body, role, None, int(NOW.timestamp())),
            lambda: own.decide(order, body, None, int(NOW.timestamp())),
            lambda: own.take_root(IMAGE, body),
            lambda: own.take_delegations(body, None),
        )
        for deed in deeds:
            with suppress(compact.Refused):
                found = deed()
                taken |= found is not None and found.sha256 != repo.digest
        return taken

    def form(body: bytes) -> bool:
        """What its reader takes is written in the one form, so that any other reader reads the same."""
        try:
            found, end = plain.value(body, 0, 0)
        except compact.Refused:
            return False
        return json.dumps(found, sort_keys=True, separators=(",", ":")).encode() != body[:end]

    public = folder / "public"
    public.mkdir()
    (public / "image.root.json").write_bytes(repo.image_root)
    (public / "image.targets.json").write_bytes(repo.files[IMAGE, "1.targets.json"])
    published = repo.files[IMAGE, f"1.{PRODUCT}.json"]

    def proposal(body: bytes) -> bool:
        """At a desk: what is shown before anybody signs is what would be signed."""
        places = public / "image.root.json", public / "image.targets.json"
        try:
            found = Proposal.read(PRODUCT, body, published, *places, NOW)
        except (TrustError, Rejected):
            return False
        told = "\n".join(found.lines())
        return not all(path in told and image.hashes["sha256"] in told for path, image in found.added.items())

    named = tuple(f"{repo_} {name}\n".encode() + body for (repo_, name), body in repo.files.items())
    return [
        Target("compact", 3, tuple(repo.files.values()), small, text=True),
        Target("the form", 60, tuple(repo.files.values()), form, text=True),
        Target("metadata", 330, tuple(repo.files.values()), metadata, text=True),
        Target("proposals to sign", 10, (repo.proposal,), proposal, text=True),
        Target("orders", 4, named, whole, mend=lambda body: body if b"\n" in body else named[0]),
    ]


class Repository:
    """Both repositories in memory, for one device that is ordered to install one image."""

    digest = "ab" * 32

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        holders, online = [keys.generate() for _ in range(3)], keys.generate()
        public = [holder.public_key for holder in holders]
        online_roles = {"snapshot": [online.public_key], "timestamp": [online.public_key]}
        roots = {
            repo: files.root(
                1,
                {"root": public, "targets": public if repo == IMAGE else [online.public_key], **online_roles},
                repo,
                NOW,
            )
            for repo in (IMAGE, DIRECTOR)
        }
        self.image_root = files.sign(roots[IMAGE], holders[:2])
        self.director_root = files.sign(roots[DIRECTOR], holders[:2])
        custom = {"version": "1.1.0", "hardware": [HARDWARE], "security_version": 0, "kind": "image"}
        path = target_path(PRODUCT, "1.1.0", HARDWARE)
        role = files.product_role(1, PRODUCT, {path: files.target(path, 9, self.digest, custom)}, NOW)
        said = {"image": custom, "device_id": DEVICE, "deployment": "dep_1", "attempt": 1, "mandatory": False}
        order = files.order(1, DEVICE, {path: files.target(path, 9, self.digest, said)}, NOW)
        listed = {"targets": 1, PRODUCT: 1}
        snapshots = {
            IMAGE: files.sign(files.snapshot(IMAGE, 1, listed, NOW), [online]),
            DIRECTOR: files.sign(files.snapshot(DIRECTOR, 1, {"targets": 1}, NOW, DEVICE), [online]),
        }
        next_path = target_path(PRODUCT, "1.2.0", HARDWARE)
        coming = {
            **role.targets,
            next_path: files.target(next_path, 9, "cd" * 32, {**custom, "version": "1.2.0"}),
        }
        self.proposal = files.sign(files.product_role(2, PRODUCT, coming, NOW), [])
        self.files = {
            (IMAGE, "1.targets.json"): files.sign(files.delegations(1, {PRODUCT: public}, NOW), holders[:2]),
            (IMAGE, f"1.{PRODUCT}.json"): files.sign(role, holders[:2]),
            (DIRECTOR, "1.targets.json"): files.sign(order, [online]),
            (IMAGE, "2.root.json"): self.image_root,
        }
        for repo, whose in ((IMAGE, None), (DIRECTOR, DEVICE)):
            self.files[repo, "1.snapshot.json"] = snapshots[repo]
            stamp = files.timestamp(repo, 1, 1, snapshots[repo], NOW, whose)
            self.files[repo, "timestamp.json"] = files.sign(stamp, [online])

    def device(self, cache: Path) -> DeviceTrust:
        return DeviceTrust(cache, self.image_root, self.director_root, DEVICE, HARDWARE)

    def fetch(self, lies: Mapping[Any, bytes]) -> Callable[[str, str, int], bytes]:
        def get(repo: str, name: str, at_most: int) -> bytes:
            known = None if name == "2.root.json" else self.files.get((repo, name))
            body = lies.get((repo, name), known)
            if body is None:
                raise FileNotFoundError(name)
            return body[: at_most + 1]

        return get
