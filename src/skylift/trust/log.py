"""The transparency log: what is written into it, its signed checkpoints, and what a device makes of both.

Everything that is published, and everything that is ordered, is an entry before any device sees it; every
device holds the log to what it said before. A server that showed one device something that it hides from
others would have to keep two logs, and each device would hold it to its own: the first word between two of
them (devices report their checkpoint) shows it.

An entry is one line of JSON, ASCII, keys sorted. A checkpoint is size, root and time, signed by the
director's online key: the pinned director root names it, and it is replaced like any online key. Its text
begins with words that no TUF file begins with, so that a signature for one is none for the other.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from securesystemslib.signer import Key, Signature
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError

from skylift.core import merkle
from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.trust.files import valid_signature
from skylift.trust.keys import Signer
from skylift.trust.roles import IMAGE
from skylift.trust.verify import Verified

MOST_STEPS = 63  # of any proof: a tree of 2**62 leaves
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)

# --- entries ----------------------------------------------------------------------------------------


def file_entry(repo: str, role: str, version: int, length: int, sha256: str) -> bytes:
    """A metadata file was published."""
    return _line({"entry": "file", "repo": repo, "role": role, "version": version, "length": length,
                  "sha256": sha256})  # fmt: skip


def order_entry(deployment: str, path: str, length: int, sha256: str, mandatory: bool) -> bytes:
    """An image was ordered, by this deployment: the same entry for every device that gets the order."""
    return _line({"entry": "order", "deployment": deployment, "path": path, "length": length,
                  "sha256": sha256, "mandatory": mandatory})  # fmt: skip


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode("ascii")


# --- checkpoints ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log as it was: how many entries, the root over them (hex), when (seconds of the epoch)."""

    size: int
    root: str
    at: int

    @property
    def text(self) -> bytes:
        """What is signed."""
        return f"skylift log v1\n{self.size}\n{self.root}\n{self.at}\n".encode("ascii")


def sign(checkpoint: Checkpoint, signer: Signer) -> dict[str, Any]:
    """The checkpoint as it is served."""
    made = signer.sign(checkpoint.text)
    shown = {"size": checkpoint.size, "root": checkpoint.root, "at": checkpoint.at}
    return {**shown, "keyid": made.keyid, "sig": made.signature}


def verified(answer: Any, keys: Iterable[Key]) -> Checkpoint:
    """The checkpoint in this answer, signed by one of these keys. Raises `TrustError`."""
    try:
        found = Checkpoint(_whole(answer["size"]), _digest(answer["root"]).hex(), _whole(answer["at"]))
        signature = Signature(str(answer["keyid"]), str(answer["sig"])[:1024])
    except (TypeError, KeyError, ValueError) as e:
        raise _no(f"the checkpoint is none: {e}") from e
    if not any(key.keyid == signature.keyid and valid_signature(key, signature, found.text) for key in keys):
        raise _no("the checkpoint is not signed by the director's online key")
    return found


def log_keys(root: bytes) -> list[Key]:
    """The keys that sign checkpoints: those of a director root's timestamps."""
    try:
        signed = Metadata[Root].from_bytes(root).signed
        return [signed.keys[keyid] for keyid in signed.roles["timestamp"].keyids]
    except (RepositoryError, DeserializationError, KeyError, AttributeError) as e:
        raise _no(f"the director's root is unusable: {e}") from e


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= merkle.LARGEST:
        raise ValueError(f"{str(value)[:20]!r} is no size")
    return value


def _digest(value: Any) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError("a digest is 64 hexadecimal digits")
    return bytes.fromhex(value)


def _steps(value: Any) -> list[bytes]:
    if not isinstance(value, list) or len(value) > MOST_STEPS:
        raise ValueError("a proof is a list of at most 63 digests")
    return [_digest(step) for step in value]


# --- a device's view --------------------------------------------------------------------------------

Ask = Callable[[str], Any]  # a path with its query -> JSON; FileNotFoundError where the server has none


@dataclass(frozen=True, slots=True)
class Pin:
    """The newest checkpoint that somebody has verified: size and root."""

    size: int
    root: str

    @classmethod
    def read(cls, path: Path) -> "Pin | None":
        """None where there is no file, or none that can be read."""
        try:
            body = json.loads(path.read_bytes())
            return cls(_whole(body["size"]), _digest(body["root"]).hex())
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def shown(self) -> dict[str, Any]:
        return {"size": self.size, "root": self.root}


def follow(pin: Pin | None, ask: Ask, keys: Sequence[Key]) -> Checkpoint:
    """The log's newest checkpoint, which must extend the pin. Raises `TrustError` for a log that forks or
    shrinks, FileNotFoundError where the server has no log, `Unavailable`."""
    since = pin.size if pin else 0
    answer = ask(f"/api/log/checkpoint?{urlencode({'since': since})}")
    found = verified(answer, keys)
    if pin is None:
        return found
    if found.size < pin.size:
        raise TrustError(
            Reason.METADATA_ROLLBACK, f"the log shrank: {found.size} entries, {pin.size} were seen before"
        )
    try:
        proof = _steps(answer.get("consistency"))
    except ValueError as e:
        raise _no(f"no proof that the log goes on: {e}") from e
    before, after = bytes.fromhex(pin.root), bytes.fromhex(found.root)
    if not merkle.extends(pin.size, before, found.size, after, proof):
        raise _no(f"the log forks: its {found.size} entries do not begin with the {pin.size} seen before")
    return found


def demand(entries: Iterable[bytes], checkpoint: Checkpoint, ask: Ask) -> None:
    """Each of these is in the log. Raises `TrustError` for one that is not."""
    for entry in entries:
        leaf = merkle.leaf_hash(entry)
        try:
            answer = ask(f"/api/log/proof?{urlencode({'leaf': leaf.hex(), 'size': checkpoint.size})}")
            index, proof = _whole(answer["index"]), _steps(answer["proof"])
        except FileNotFoundError as e:
            raise _no(f"not in the log: {entry.decode()}") from e
        except (TypeError, KeyError, ValueError) as e:
            raise _no(f"no proof that the log has it: {e}") from e
        if not merkle.includes(leaf, index, checkpoint.size, proof, bytes.fromhex(checkpoint.root)):
            raise _no(f"not in the log: {entry.decode()}")


@dataclass(frozen=True, slots=True)
class DeviceLog:
    """A device's pinned checkpoint, in `log.json` of its trust folder; `factory` is one that the factory put
    beside the roots. Before the first pin a server without a log is taken as it is, unless `required`; once
    there was one, nothing is installed without it."""

    directory: Path
    factory: Path
    required: bool = False

    @property
    def pin(self) -> Pin | None:
        """The newer of the two."""
        pins = (Pin.read(self.directory / "log.json"), Pin.read(self.factory))
        return max((pin for pin in pins if pin), key=lambda pin: pin.size, default=None)

    def check(self, entries: Iterable[bytes], ask: Ask, director_root: bytes) -> None:
        """Demand these entries of the log, and pin it as it is now. Raises `TrustError` and `Unavailable`."""
        pin = self.pin
        try:
            found = follow(pin, ask, log_keys(director_root))
        except FileNotFoundError as e:
            if pin is None and not self.required:
                return
            raise Unavailable("the server does not show its log; nothing is installed without it", 60) from e
        demand(entries, found, ask)
        body = json.dumps({"size": found.size, "root": found.root}).encode()
        temporary = self.directory / "log.json.new"
        with temporary.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.directory / "log.json")


def entries_of(directory: Path, found: Verified, roots: Mapping[str, bytes]) -> list[bytes]:
    """What the log must have before this device installs what it has verified: the order, the role that
    vouches for the image, and every root that is newer than the factory's (`roots`, by repository)."""
    product = found.path.partition("/")[0]
    needed = [order_entry(found.deployment, found.path, found.length, found.sha256, found.mandatory)]
    needed.append(_entry_of(IMAGE, product, (directory / IMAGE / f"{quote(product, '')}.json").read_bytes()))
    for repo, factory in roots.items():
        newest = (directory / repo / "root.json").read_bytes()
        if newest != factory:
            needed.append(_entry_of(repo, "root", newest))
    return needed


def _entry_of(repo: str, role: str, body: bytes) -> bytes:
    """Of a file that this device has verified."""
    version = json.loads(body)["signed"]["version"]
    return file_entry(repo, role, version, len(body), sha256(body).hexdigest())


# --- an auditor's -----------------------------------------------------------------------------------


def audit(entries: Iterable[bytes], checkpoint: Checkpoint, pin: Pin | None) -> int:
    """Read a whole log; how many entries it has. Raises `TrustError` where it is not what the checkpoint
    says, or does not begin with the pin's."""
    nodes: dict[tuple[int, int], bytes] = {}

    def get(level: int, number: int) -> bytes:
        return nodes[level, number]

    size = 0
    for entry in entries:
        for level, number, made in merkle.appended(size, merkle.leaf_hash(entry), get):
            nodes[level, number] = made
        size += 1
    if size != checkpoint.size or merkle.root(size, get).hex() != checkpoint.root:
        raise _no(f"the {size} entries are not what the checkpoint signs")
    if pin is not None and (pin.size > size or merkle.root(pin.size, get).hex() != pin.root):
        raise _no(f"the log forks: it does not begin with the {pin.size} entries seen before")
    return size


def _no(sentence: str) -> TrustError:
    return TrustError(Reason.SIGNATURE_INVALID, sentence)
