"""Signed files as anybody who holds the right keys can make them, honest and odd: for vectors and attacks.

The keys are made from their names, so the same files come out every time, and everybody knows them.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from skylift.core import merkle
from skylift.trust import files
from skylift.trust.files import TargetFile
from skylift.trust.keys import KeySigner, derive
from skylift.trust.log import file_entry
from skylift.trust.roles import IMAGE

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DEVICE, PRODUCT, HARDWARE, NONCE = "dev-1", "sensor", "sensor-v2", "00112233445566778899aabbccddeeff"
DIGEST, LENGTH = sha256(b"the image").hexdigest(), 9


def key(name: str) -> KeySigner:
    """A private key that everybody knows: for vectors only."""
    return derive(name.encode())


ROOTS, TARGETS = [key(f"root {n}") for n in "123"], [key(f"targets {n}") for n in "123"]
RELEASE, OTHERS = [key(f"release {n}") for n in "123"], [key(f"camera {n}") for n in "123"]
IMAGE_ONLINE, DIRECTOR_ONLINE, STRANGER = key("online image"), key("online director"), key("stranger")
FRESH = [key(f"fresh {n}") for n in "1234"]


# --- files -------------------------------------------------------------------------------------------


def root(
    repo: str,
    version: int = 1,
    signers: Sequence[KeySigner] = ROOTS[:2],
    now: datetime = NOW,
    **changed: Sequence[KeySigner],
) -> bytes:
    """A root; `changed` replaces who holds a role."""
    online = IMAGE_ONLINE if repo == IMAGE else DIRECTOR_ONLINE
    held: dict[str, Sequence[KeySigner]] = {
        "root": ROOTS,
        "targets": TARGETS if repo == IMAGE else [online],
        "snapshot": [online],
        "timestamp": [online],
        **changed,
    }
    named = {role: [each.public_key for each in holders] for role, holders in held.items()}
    return files.sign(files.root(version, named, repo, now), signers)


def delegations(
    version: int = 1,
    signers: Sequence[KeySigner] = TARGETS[:2],
    now: datetime = NOW,
    release: Sequence[KeySigner] = RELEASE,
    product: str = PRODUCT,
) -> bytes:
    held = {product: release, "camera": OTHERS}
    named = {role: [each.public_key for each in holders] for role, holders in held.items()}
    return files.sign(files.delegations(version, named, now), signers)


def image(version: str = "1.1.0", product: str = PRODUCT, **changed: Any) -> TargetFile:
    custom = {"version": version, "hardware": [HARDWARE], "security_version": 2, "kind": "image", **changed}
    return files.target(f"{product}/{version}/{HARDWARE}", LENGTH, DIGEST, custom)


def role(
    version: int = 2,
    signers: Sequence[KeySigner] = RELEASE[:2],
    now: datetime = NOW,
    images: Sequence[TargetFile] = (image("1.0.0", security_version=1), image()),
) -> bytes:
    return files.sign(files.product_role(version, PRODUCT, {i.path: i for i in images}, now), signers)


def ordered(found: TargetFile, **changed: Any) -> TargetFile:
    """This image as an order names it."""
    said = {
        "image": found.unrecognized_fields["custom"],
        "device_id": DEVICE,
        "deployment": "dep_1",
        "attempt": 1,
        "mandatory": False,
        **changed,
    }
    return files.target(found.path, found.length, found.hashes["sha256"], said)


def order(
    version: int = 3,
    *images: TargetFile,
    nonce: str | None = NONCE,
    device: str = DEVICE,
    signers: Sequence[KeySigner] = (DIRECTOR_ONLINE,),
    now: datetime = NOW,
    log: "Log | None" = None,
) -> bytes:
    named = {found.path: found for found in images}
    shown = None if log is None else {"size": len(log.entries), "root": log.root()}
    return files.sign(files.order(version, device, named, now, nonce, shown), signers)


@dataclass(frozen=True)
class Log:
    """A transparency log with these entries, whoever's."""

    entries: tuple[bytes, ...]

    def root(self, size: int | None = None) -> str:
        return merkle.root(len(self.entries) if size is None else size, self._get).hex()

    def proofs(self, wanted: Sequence[bytes], since: int = 0) -> dict[str, Any]:
        """What `/api/log/compact` answers about these entries; of one that is not there the first one's."""
        size = len(self.entries)
        places = [self.entries.index(entry) if entry in self.entries else 0 for entry in wanted]
        return {
            "consistency": [step.hex() for step in merkle.consistency(since, size, self._get)],
            "inclusions": [
                {"index": at, "proof": [step.hex() for step in merkle.inclusion(at, size, self._get)]}
                for at in places
            ],
        }

    def _get(self, level: int, number: int) -> bytes:
        if level == 0:
            return merkle.leaf_hash(self.entries[number])
        return merkle.node_hash(self._get(level - 1, 2 * number), self._get(level - 1, 2 * number + 1))


def published(repo: str, name: str, version: int, body: bytes) -> bytes:
    """A file's entry in a log."""
    return file_entry(repo, name, version, len(body), sha256(body).hexdigest())


def plain_json(found: Any) -> bytes:
    """As signed files and answers for small devices are written."""
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def edited(body: bytes, edit: Callable[[dict[str, Any]], None], *signers: KeySigner) -> bytes:
    """The file with other contents, signed again: a holder of the keys can, the library will not."""
    tree = json.loads(body)
    edit(tree["signed"])
    signed = json.dumps(tree["signed"], sort_keys=True, separators=(",", ":")).encode()
    payload = signed.replace(b"\\n", b"\n")
    made = [{"keyid": each.public_key.keyid, "sig": each.sign(payload).signature} for each in signers]
    head = json.dumps(made, sort_keys=True, separators=(",", ":")).encode()
    return b'{"signatures":' + head + b',"signed":' + signed + b"}"


def resigned(body: bytes, change: Callable[[str], str], number: int = 0) -> bytes:
    """The file with another text in place of one of its signatures."""
    tree = json.loads(body)
    tree["signatures"][number]["sig"] = change(tree["signatures"][number]["sig"])
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def der(r: int, s: int) -> str:
    parts = [
        b"\x02" + bytes([len(b)]) + b for b in (n.to_bytes(n.bit_length() // 8 + 1, "big") for n in (r, s))
    ]
    body = b"".join(parts)
    return (b"\x30" + bytes([len(body)]) + body).hex()


def numbers(sig: str) -> tuple[int, int]:
    raw = bytes.fromhex(sig)
    size = raw[3]
    return int.from_bytes(raw[4 : 4 + size], "big"), int.from_bytes(raw[6 + size :], "big")


# --- odd ones ---------------------------------------------------------------------------------------


def padded(body: bytes, size: int, *signers: KeySigner) -> bytes:
    """The file, made exactly so large by a field that nobody reads. (Signatures differ in length: it takes a
    few trials.)"""
    for many in range(size - len(body) - 30, size - len(body)):
        for letter in "abcdefgh":
            words = [letter * 4000] * (many // 4003) + [letter * (many % 4003)]

            def grow(signed: dict[str, Any], words: list[str] = words) -> None:
                signed["padding"] = words

            if len(made := edited(body, grow, *signers)) == size:
                return made
    raise AssertionError(f"no padding makes {size}")


def elsewhere(signed: dict[str, Any]) -> None:
    for each in signed["delegations"]["roles"]:
        each["paths"] = ["camera/*/*"]


def twice(body: bytes, *signers: KeySigner) -> bytes:
    """With one key under a second name, so that it could count twice."""

    def edit(signed: dict[str, Any]) -> None:
        holders = signed["roles"]["targets"]["keyids"]
        signed["keys"]["ab" * 32] = signed["keys"][holders[0]]
        holders[1] = "ab" * 32

    return edited(body, edit, *signers)


def spoiled(signed: dict[str, Any]) -> None:
    keyid = signed["roles"]["targets"]["keyids"][2]
    signed["keys"][keyid]["keyval"]["public"] = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


def off_the_curve(signed: dict[str, Any]) -> None:
    keyid = signed["roles"]["targets"]["keyids"][2]
    text = signed["keys"][keyid]["keyval"]["public"].split("\n")
    der_ = bytearray(base64.b64decode("".join(text[1:-2])))
    der_[-1] ^= 1
    packed_ = base64.b64encode(bytes(der_)).decode()
    lines = [text[0], packed_[:64], packed_[64:], *text[-2:]]
    signed["keys"][keyid]["keyval"]["public"] = "\n".join(lines)


def longer(sig: str) -> str:
    """With one more zero byte before r."""
    raw = bytes.fromhex(sig)
    return (raw[:1] + bytes([raw[1] + 1]) + raw[2:3] + bytes([raw[3] + 1]) + b"\0" + raw[4:]).hex()


def aliased(body: bytes) -> bytes:
    """The one signature once more, under a name that nobody has."""
    tree = json.loads(body)
    tree["signatures"].append({**tree["signatures"][0], "keyid": "ab" * 32})
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()
