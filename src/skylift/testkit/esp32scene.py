"""One update as files, for the ESP32 client's proofs: two images, both roots, the signed order, and the
answers that a server would give, in a folder that the C++ harnesses of `clients/esp32/tests` read. Every
file is made by the code that makes the server's; only its keys are known to everybody (`forge`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from skylift.firmware import delta
from skylift.testkit import esp32, forge
from skylift.trust import files
from skylift.trust.files import TargetFile
from skylift.trust.log import order_entry
from skylift.trust.roles import DIRECTOR, IMAGE

NONCE = "5c" * 16  # what the harness's chance gives
OLD, NEW = "1.0.0", "1.1.0"
PINNED = 3  # entries of the log that "pinned.root" is over: no whole tree


@dataclass(frozen=True)
class Scene:
    """What is ordered. `files`: path on the server -> bytes. `others`, by name: what the log answers once the
    roots have been replaced, and to a device that was made when it had `PINNED` entries; an order of a server
    without a log."""

    old: bytes
    new: bytes
    files: Mapping[str, bytes]
    check: dict[str, Any]
    by_delta: dict[str, Any]
    others: Mapping[str, bytes]

    def write(self, folder: Path) -> Path:
        """The folder for `powercut` and its like."""
        folder.mkdir(parents=True, exist_ok=True)
        names = {path: path.strip("/").replace("/", "!") for path in self.files}
        for path, name in names.items():
            (folder / name).write_bytes(self.files[path])
        (folder / "list").write_text("".join(f"{path} {name}\n" for path, name in names.items()))
        (folder / "old.bin").write_bytes(self.old)
        (folder / "new.bin").write_bytes(self.new)
        (folder / "image.root").write_bytes(forge.root("image"))
        (folder / "director.root").write_bytes(forge.root("director"))
        (folder / "check.json").write_text(json.dumps(self.check))
        (folder / "check-delta.json").write_text(json.dumps(self.by_delta))
        for name, body in self.others.items():
            (folder / name).write_bytes(body)
        now = int(forge.NOW.timestamp()) + 60
        about = (forge.DEVICE, forge.HARDWARE, forge.PRODUCT, OLD, NEW, now)
        (folder / "words").write_text(" ".join(map(str, about)) + "\n")
        return folder


def target(image: bytes, version: str, **changed: Any) -> TargetFile:
    """The image as its release keys describe it."""
    custom = {
        "version": version,
        "hardware": [forge.HARDWARE],
        "security_version": 0,
        "kind": "image",
        **changed,
    }
    path = f"{forge.PRODUCT}/{version}/{forge.HARDWARE}"
    return files.target(path, len(image), sha256(image).hexdigest(), custom)


def offer(version: str, url: str, sha256: str, size: int) -> dict[str, Any]:
    """The answer to a check that has this image for the device."""
    return {
        "update_available": True,
        "version": version,
        "url": url,
        "sha256": sha256,
        "size": size,
        "mandatory": False,
        "kind": "image",
        "deployment": "dep_1",
        "attempt": 1,
        "retry_after": 5,
        "trust": {
            "order": 1,
            "role": 2,
            "root_version": 1,
            "director_root_version": 1,
            "delegation_version": 1,
        },
    }


def scene(size: int = 48 << 10, security_version: int = 1) -> Scene:
    """An update of an image of about this size, whole and by delta."""
    old, new = esp32.image(OLD, size=size), esp32.image(NEW, size=size)
    patch = delta.make(old, new, "mcu-16k")
    wanted = target(new, NEW, security_version=security_version)
    whole = f"/api/blobs/{sha256(new).hexdigest()}"
    short = f"/api/blobs/{sha256(patch).hexdigest()}"
    role = forge.role(images=(target(old, OLD), wanted))
    roots = [
        forge.published(repo, "root", n, forge.root(repo, n)) for n in (1, 2) for repo in (IMAGE, DIRECTOR)
    ]
    sold = forge.published(IMAGE, forge.PRODUCT, 2, role)
    ordered = order_entry("dep_1", wanted.path, len(new), sha256(new).hexdigest(), False)
    log = forge.Log((*roots, sold, ordered))
    first, second = ([ordered, sold, *pair] for pair in (roots[:2], roots[2:]))
    served = {
        "/image/1.targets.json": forge.delegations(),
        "/image/2.root.json": forge.root(IMAGE, 2),
        f"/director/{forge.DEVICE}/2.root.json": forge.root(DIRECTOR, 2),
        f"/image/2.{forge.PRODUCT}.json": role,
        f"/director/{forge.DEVICE}/order.json": forge.order(1, forge.ordered(wanted), nonce=NONCE, log=log),
        "/api/log/compact": forge.plain_json(log.proofs(first)),
        whole: new,
        short: patch,
    }
    others = {
        "proofs-rotated.json": forge.plain_json(log.proofs(second)),
        "proofs-since.json": forge.plain_json(log.proofs(first, PINNED)),
        "order-unlogged.json": forge.order(1, forge.ordered(wanted), nonce=NONCE),
        "pinned.root": bytes.fromhex(log.root(PINNED)),
    }
    check = offer(NEW, whole, sha256(new).hexdigest(), len(new))
    offered = {
        "url": short,
        "sha256": sha256(patch).hexdigest(),
        "size": len(patch),
        "base_sha256": sha256(old).hexdigest(),
        "memory": delta.read_header(patch).memory,
    }
    return Scene(old, new, served, check, check | {"delta": offered}, others)
