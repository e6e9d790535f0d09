"""Private keys never leave the desk: everything that the command line sends is recorded and searched."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from skylift.testkit.hostile import Proxy
from skylift.testkit.image import build
from skylift.testkit.stage import Stage

from .conftest import Cli


@pytest.fixture
def line(stage: Stage) -> Iterator[Proxy]:
    """A proxy that records everything."""
    made = Proxy(stage.facts["url"])
    yield made
    made.close()


def forms(path: Path, passphrase: bytes) -> Iterator[bytes]:
    """What of a private key must never be seen, in the forms in which it could be sent."""
    pem = path.read_bytes()
    yield b"".join(pem.splitlines()[1:-1])[:60]
    found = load_pem_private_key(pem, passphrase if b"ENCRYPTED" in pem else None)
    secret = found.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr] # P-256
    yield from (
        secret,
        secret.hex().encode(),
        base64.b64encode(secret),
        str(int.from_bytes(secret, "big")).encode(),
    )


def test_no_command_sends_anything_of_a_private_key(
    cli: Cli, stage: Stage, line: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SKYLIFT_SERVER", line.url)
    image = build(tmp_path / "s.pyz", "7.7.7")
    about = ("--product", "sensor", "--device-type", "sensor-v2", "--version", "7.7.7")
    folder = stage.home / "desk" / "keys"
    both = [word for n in (1, 2) for word in ("--key", folder / f"release-sensor-{n}.pem")]
    for words in (
        ("trust", "init", "--product", "sensor", "--product", "boiler", "--keys", "desk"),
        ("release", "create", image, *about),
        ("release", "sign", "sensor/7.7.7", "--keys", "desk", "--yes", *both),
        ("trust", "renew", "targets", "--keys", "desk"),
        ("trust", "sign", "image:targets", "--keys", "desk", "--yes", "--key", folder / "targets-1.pem"),
        ("trust", "sign", "image:targets", "--keys", "desk", "--yes", "--key", folder / "targets-2.pem"),
        ("trust", "export", "--esp-idf", tmp_path / "chip", "--keys", "desk"),
    ):
        said = cli(*words)
        assert said.code == 0, (words, said.err)
    sent = b"".join(asked.path.encode() + asked.body for asked in line.asked)
    assert b"/api/trust/pending/image:targets/signatures" in sent, "it was recorded at all"
    written = b"".join(path.read_bytes() for path in (tmp_path / "chip").iterdir())
    paths = sorted(folder.glob("*.pem"))
    assert len(paths) >= 9
    for path in paths:
        for form in forms(path, stage.environment["SKYLIFT_KEY_PASSPHRASE"].encode()):
            assert form not in sent, path.name
            assert form not in written, path.name
