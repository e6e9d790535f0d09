"""Bytes from outside, mutated: every parser that strangers can reach, fed from a seed that is told.

A `Target` has honest seeds and a way to feed bytes; it takes the errors that its parser promises, and returns
whether it accepted something that nobody honest made ("installed"). Anything else that is raised is a find.
"""

import json
import random
import re
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skylift.agent.config import Config, read
from skylift.agent.run import Agent
from skylift.agent.transport import Refused, Transport
from skylift.api.device import Enroll, Health, Status, _clean
from skylift.core.errors import Rejected, SkyliftError, TrustError, Unavailable
from skylift.core.health import check_metrics
from skylift.firmware import delta, hdiff, image, native, purepython
from skylift.testkit.image import build
from skylift.trust import bounds, compact, files, keys, plain
from skylift.trust.files import Root, Targets
from skylift.trust.roles import DIRECTOR, IMAGE, target_path
from skylift.trust.verify import DeviceTrust

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DEVICE, PRODUCT, HARDWARE = "dev-1", "sensor", "sensor-v2"
NAMES = ("_type", "device_id", "version", "keyid", "custom", "targets", "keys", "roles", "expires", "meta")
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, 0.5, 1e308, "", "a", "\u0430", "\ud800"),
    *([], {}, [[]], [{}], {"": None}, "x" * 5000, "../x", "a/b/c", "2026-01-01T00:00:00Z", "\n", "\0"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """`share`: of a thousand inputs. `text`: the seeds are JSON."""

    name: str
    share: int
    seeds: tuple[bytes, ...]
    feed: Callable[[bytes], bool]
    text: bool = False
    mend: Callable[[bytes], bytes] = field(default=lambda body: body)


@dataclass(slots=True)
class Findings:
    """What a run found. `uncaught`: target, input, what it raised."""

    inputs: int = 0
    installed: int = 0
    uncaught: list[tuple[str, bytes, str]] = field(default_factory=list)
    slowest_ms: dict[str, float] = field(default_factory=dict)


def run(targets: Mapping[str, Target], inputs: int, seed: int) -> Findings:
    """Feed so many inputs, shared out among the targets."""
    found = Findings()
    whole = sum(target.share for target in targets.values())
    for target in targets.values():
        chance = random.Random(f"{seed}/{target.name}")
        for _ in range(max(1, inputs * target.share // whole)):
            try_one(target, mutated(target, chance), found)
    return found


def try_one(target: Target, body: bytes, found: Findings) -> None:
    """One input; what comes of it is counted."""
    begun = time.perf_counter()
    try:
        found.installed += target.feed(body)
    except (Exception, RecursionError) as e:  # noqa: BLE001 - whatever a parser did not promise is a find
        found.uncaught.append((target.name, body, f"{type(e).__name__}: {e}"[:200]))
    took = 1000 * (time.perf_counter() - begun)
    found.slowest_ms[target.name] = max(found.slowest_ms.get(target.name, 0.0), took)
    found.inputs += 1


def stem(name: str) -> str:
    """How the files of a target's finds begin."""
    return re.sub(r"[^a-z]+", "-", name.lower())


# --- mutation --------------------------------------------------------------------------------------------


def mutated(target: Target, chance: random.Random) -> bytes:
    """A seed, changed in one to four places; JSON half of the time as JSON."""
    body = chance.choice(target.seeds)
    if target.text and chance.random() < 0.5:
        return _as_json(body, chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        body = chance.choice(_DEEDS)(body, chance)
    return target.mend(body) if chance.random() < 0.9 else body


def _as_json(body: bytes, chance: random.Random) -> bytes:
    tree = json.loads(body)
    for turn in range(chance.choice((1, 1, 2))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = chance.choice(places)
        odd = deepcopy(chance.choice(ODD))  # else the next mutant would begin with this one
        match chance.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(NAMES)] = odd
            case 2:
                for _ in range(chance.choice((3, 30, 400))):
                    odd = [odd] if chance.random() < 0.5 else {"a": odd}
                holder[key] = odd
            case 3 if isinstance(holder, list) and not turn:  # many of many would be gigabytes
                holder.extend([holder[key]] * chance.choice((1, 70, 600)))
            case _:
                holder[key] = odd
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=chance.random() < 0.7).encode(
        "utf-8", "surrogatepass"
    )


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                yield node, key
                waiting.append(node[key])


def _flip(body: bytes, chance: random.Random) -> bytes:
    if not body:
        return b"\0"
    at = chance.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << chance.randrange(8))]) + body[at + 1 :]


def _insert(body: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(body))
    return body[:at] + chance.randbytes(chance.choice((1, 2, 8))) + body[at:]


def _delete(body: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(body))
    return body[:at] + body[at + chance.choice((1, 2, 8, 64)) :]


def _cut(body: bytes, chance: random.Random) -> bytes:
    return body[: chance.randint(0, len(body))]


def _repeat(body: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(body))
    return body[:at] + body[at : at + 40] * chance.choice((2, 10, 100)) + body[at:]


def _number(body: bytes, chance: random.Random) -> bytes:
    size = chance.choice((1, 2, 4, 8))
    value = chance.choice((0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1), (1 << (8 * size - 1)) - 1))
    at = chance.randint(0, min(len(body), 128))
    return body[:at] + value.to_bytes(size, chance.choice(("little", "big"))) + body[at + size :]


_DEEDS = (_flip, _insert, _delete, _cut, _repeat, _number, _number)


# --- targets ---------------------------------------------------------------------------------------------


def targets(folder: Path) -> dict[str, Target]:
    """Every target, with seeds made in this folder."""
    made = [
        *_trust_targets(folder),
        *_delta_targets(folder),
        _image_target(folder),
        *_text_targets(folder),
    ]
    return {target.name: target for target in made}


def _trust_targets(folder: Path) -> list[Target]:
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

    named = tuple(f"{repo_} {name}\n".encode() + body for (repo_, name), body in repo.files.items())
    return [
        Target("compact", 3, tuple(repo.files.values()), small, text=True),
        Target("the form", 60, tuple(repo.files.values()), form, text=True),
        Target("metadata", 330, tuple(repo.files.values()), metadata, text=True),
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


def _delta_targets(folder: Path) -> list[Target]:
    chance = random.Random("deltas")
    old = chance.randbytes(300) + b"some code " * 60
    new = old[:200] + b"other" + old[200:700] + chance.randbytes(50)
    made = [hdiff.make(old, new)]
    if native.available():
        made += [native.make(old, new, profile).patch for profile in ("mcu-16k", "mcu-64k")]

    def header(body: bytes) -> bool:
        with suppress(delta.DeltaError):
            delta.read_header(body)
        return False

    def rebuilt(body: bytes) -> bool:
        pieces: list[bytes] = []
        try:
            delta.rebuild(old, body, pieces.append, 4096, 64 << 10)
        except delta.DeltaError:
            return False
        return b"".join(pieces) != new

    def in_python(body: bytes) -> bool:
        pieces: list[bytes] = []
        try:
            if purepython.read_header(body).target_size > 4096:
                return False  # `rebuild` refuses it by its header
            purepython.apply(old, body, pieces.append)
        except delta.DeltaError:
            return False
        return b"".join(pieces) != new

    own = tuple(made[1:2]) or tuple(made)
    return [
        Target("delta headers", 200, tuple(made), header, mend=_mended),
        Target("deltas, native", 60, tuple(made), rebuilt, mend=_mended),
        Target("deltas, in Python", 2, own, in_python, mend=_mended),
    ]


def _mended(body: bytes) -> bytes:
    """With a header checksum that is right, so that what stands behind it is reached."""
    at = purepython.HEADER.size
    if not body.startswith(purepython.MAGIC) or len(body) < at:
        return body
    return body[: at - 4] + struct.pack("<I", zlib.crc32(body[: at - 4])) + body[at:]


def _image_target(folder: Path) -> Target:
    zipped = build(folder / "seed.pyz", "1.0.0", size=300).read_bytes()
    elf = bytearray(b"\x7fELF\x02\x01" + bytes(58) + bytes(128))
    esp = struct.pack("<BBBBIB3sHB8sB", 0xE9, 1, 0, 0, 0x40000000, 0, b"\0" * 3, 5, 0, b"\0" * 8, 1)
    esp += struct.pack("<II", 0x3F400000, 40) + bytes(40) + bytes(64)
    squashfs = b"hsqs" + bytes(16) + struct.pack("<HHH", 4, 0, 0x400) + bytes(80)
    path = folder / "fuzzed"

    def feed(body: bytes) -> bool:
        path.write_bytes(body)
        with suppress(Rejected):
            image.inspect(path)
        return False

    return Target("images", 60, (zipped, bytes(elf), esp, squashfs, b"#!/bin/sh\n" + zipped), feed)


class _Answers(Transport):
    """A server whose answers are these bytes."""

    told = b""

    def _whole(self, *asked: Any, **more: Any) -> tuple[int, Mapping[str, str], bytes]:
        return 200, {}, self.told


def _text_targets(folder: Path) -> list[Target]:
    config = Config("http://127.0.0.1:1", DEVICE, HARDWARE, folder, folder)
    answers, agent = _Answers(config, "token"), Agent.__new__(Agent)
    agent._config = config

    def check(body: bytes) -> bool:
        answers.told = body
        try:
            rest = agent._rest(answers.check("1.0.0", "", ""))
        except (Unavailable, Refused):
            return False
        return not 0 < rest < 1e7

    toml = folder / "agent.toml"

    def settings(body: bytes) -> bool:
        toml.write_bytes(body)
        with suppress(Rejected):
            read(toml)
        return False

    def reports(body: bytes) -> bool:
        for kind in (Status, Health, Enroll):
            try:
                found = kind.model_validate(json.loads(body))
                if isinstance(found, Status):
                    check_metrics(found.metrics)
                    _clean(found.error_message or "").encode()
            except (SkyliftError, ValueError, RecursionError):  # pydantic's is a ValueError
                continue
        return False

    def documents(body: bytes) -> bool:
        with suppress(Rejected):
            image.check_config(body)
        return False

    answer = {
        "update_available": True, "retry_after": 5, "deployment": "dep_1", "attempt": 1,
        "url": "/api/blobs/x", "sha256": "ab" * 32, "size": 9, "trust": {"order": 1},
        "delta": {"url": "x", "size": 3},
    }  # fmt: skip
    report = {
        "device_id": DEVICE, "deployment": "dep_1", "state": "failed", "attempt": 1, "progress": 7,
        "reason": "timeout", "error_message": "x", "started_at": "2026-01-01T00:00:00Z",
        "metrics": {"a": 1.5},
    }  # fmt: skip
    written = (
        b'server = "http://a"\ndevice_id = "d"\ndevice_type = "t"\nstate_dir = "s"\nroots = "r"\n'
        b'build_time = 2026-01-01T00:00:00Z\nport = 8\n[[health]]\nkind = "http"\nurl = "http://x"\n'
    )
    as_json = (json.dumps(answer).encode(), b'{"update_available":false,"retry_after":300}')
    return [
        Target("check answers", 150, as_json, check, text=True),
        Target("agent.toml", 40, (written,), settings),
        Target("reports", 94, (json.dumps(report).encode(),), reports, text=True),
        Target("configurations", 60, (*as_json, written), documents),
    ]
