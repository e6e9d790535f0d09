"""What a device hears beside metadata: answers to its checks, the log, its certificate; and its settings."""

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from skylift.agent.config import Config, read
from skylift.agent.disk import Disk
from skylift.agent.identity import Identity
from skylift.agent.run import Agent
from skylift.agent.transport import Refused, Transport
from skylift.core.errors import Rejected, TrustError, Unavailable
from skylift.firmware import image
from skylift.testkit.fuzz.mutate import Target
from skylift.testkit.fuzz.trust import DEVICE, HARDWARE, NOW
from skylift.testkit.otherlog import OtherLog
from skylift.trust import identity, keys, log
from skylift.trust.authority import Authorities


class _Answers(Transport):
    """A server whose answers are these bytes."""

    told = b""

    def _whole(self, *asked: Any, **more: Any) -> tuple[int, Mapping[str, str], bytes]:
        return 200, {}, self.told


def targets(folder: Path) -> list[Target]:
    return [*_text_targets(folder), *_log_targets(), *_certificate_targets(folder)]


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

    def documents(body: bytes) -> bool:
        with suppress(Rejected):
            image.check_config(body)
        return False

    answer = {
        "update_available": True, "retry_after": 5, "deployment": "dep_1", "attempt": 1,
        "url": "/api/blobs/x", "sha256": "ab" * 32, "size": 9, "trust": {"order": 1},
        "delta": {"url": "x", "size": 3},
    }  # fmt: skip
    written = (
        b'server = "http://a"\ndevice_id = "d"\ndevice_type = "t"\nstate_dir = "s"\nroots = "r"\n'
        b'build_time = 2026-01-01T00:00:00Z\nport = 8\n[[health]]\nkind = "http"\nurl = "http://x"\n'
    )
    as_json = (json.dumps(answer).encode(), b'{"update_available":false,"retry_after":300}')
    return [
        Target("check answers", 150, as_json, check, text=True),
        Target("agent.toml", 40, (written,), settings),
        Target("configurations", 60, (*as_json, written), documents),
    ]


def _log_targets() -> list[Target]:
    """The log's two answers. It had five entries when the device looked last, and has nine now."""
    signer, stranger = keys.generate(), keys.generate()
    own = OtherLog(signer, [b"entry %d" % number for number in range(9)], 7)
    before = OtherLog(signer, [b"entry %d" % number for number in range(5)], 7)
    pin, now = log.Pin(5, before.root), log.Checkpoint(9, own.root, 7)
    forked = OtherLog(signer, [b"another %d" % number for number in range(9)], 7)
    strange = OtherLog(stranger, [b"entry %d" % number for number in range(9)], 7)
    leaf = log.merkle.leaf_hash(b"entry 3").hex()

    def checkpoint(body: bytes) -> bool:
        try:
            found = log.follow(pin, lambda path: _asked(body), [signer.public_key])
        except TrustError:
            return False
        return (found.size, found.root) not in ((9, own.root), (5, before.root))

    def proof(body: bytes) -> bool:
        """That an entry is there which is not. What is there has its honest proof among the seeds."""
        with suppress(TrustError):
            log.demand([b"entry 3"], now, lambda path: _asked(body))
        try:
            log.demand([b"entry 9"], now, lambda path: _asked(body))
        except TrustError:
            return False
        return True

    shown = [own.checkpoint(5), before.checkpoint(5), forked.checkpoint(5), strange.checkpoint(5)]
    proofs = [own.proof(leaf), forked.proof(log.merkle.leaf_hash(b"another 3").hex())]
    return [
        Target("log checkpoints", 25, _written(shown), checkpoint, text=True),
        Target("log proofs", 35, _written(proofs), proof, text=True),
    ]


def _asked(body: bytes) -> Any:
    """As the agent's transport hands on what is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _written(answers: list[Any]) -> tuple[bytes, ...]:
    return tuple(json.dumps(answer).encode() for answer in answers)


def _certificate_targets(folder: Path) -> list[Target]:
    home = folder / "certified"
    (home / "shared").mkdir(parents=True)
    config = Config("http://127.0.0.1:1", DEVICE, HARDWARE, home, folder, own_key=True)
    device = Identity(Disk(), config)
    device.request()
    private = (home / "shared" / "device.pem").read_bytes()
    authorities = Authorities.open(folder / "authority", "a passphrase", NOW)
    issued = [
        authorities.issue(DEVICE, identity.public_of(private), NOW),
        authorities.issue("dev-2", identity.public_of(private), NOW),
        authorities.issue(DEVICE, identity.public_of(identity.new_key()), NOW),
    ]
    ders = tuple(_der(made.pem) for made in issued)

    def certificate(body: bytes) -> bool:
        """For this key and this device; whether a good authority signed it is asked in TLS."""
        taken = identity.certifies(_pem(body), private, DEVICE)
        return taken and private not in (home / "shared" / "device.pem").read_bytes()

    def answer(body: bytes) -> bool:
        found = _asked(body)
        if isinstance(found, dict):
            device.take(found)
        return identity.public_of(private) != identity.public_of(
            (home / "shared" / "device.pem").read_bytes()
        )

    dates = {"issued_at": NOW.isoformat(), "expires_at": NOW.replace(year=2027).isoformat()}
    told = _written([{"certificate": made.pem, **dates} for made in issued])
    return [
        Target("certificates", 20, ders, certificate),
        Target("certificates' answers", 3, told, answer, text=True),
    ]


def _der(pem: str) -> bytes:
    return base64.b64decode("".join(pem.strip().splitlines()[1:-1]))


def _pem(der: bytes) -> str:
    told = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{told}-----END CERTIFICATE-----\n"
