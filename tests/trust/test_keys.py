"""Key files and signatures."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from skylift.core.errors import Rejected
from skylift.trust import keys
from skylift.trust.files import valid_signature
from skylift.trust.keys import Signature


def test_the_same_bytes_get_the_same_signature(tmp_path: Path) -> None:
    made = keys.generate()
    keys.save(made, tmp_path / "k.pem", None)
    again = keys.load(tmp_path / "k.pem", None)
    assert again.public_key == made.public_key
    assert again.sign(b"bytes") == made.sign(b"bytes")
    assert made.sign(b"bytes") != made.sign(b"other bytes")


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    keys.save(keys.generate(), tmp_path / "k.pem", None)
    before = (tmp_path / "k.pem").read_bytes()
    with pytest.raises(Rejected, match="never overwritten"):
        keys.save(keys.generate(), tmp_path / "k.pem", None)
    assert (tmp_path / "k.pem").read_bytes() == before


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "k.pem").write_bytes(body)
    with pytest.raises(Rejected, match=r"k\.pem"):
        keys.load(tmp_path / "k.pem", None)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read"):
        keys.load(tmp_path / "nowhere.pem", None)


@pytest.mark.parametrize(
    "foreign", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())]
)
def test_a_key_of_another_kind_is_refused(tmp_path: Path, foreign: ed25519.Ed25519PrivateKey) -> None:
    pem = foreign.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "k.pem").write_bytes(pem)
    with pytest.raises(Rejected, match="nistp256"):
        keys.load(tmp_path / "k.pem", None)


@pytest.mark.parametrize("sig", ["", "zz", "30", "00" * 71, "ff" * 500])
def test_what_is_no_signature_does_not_verify(sig: str) -> None:
    made = keys.generate()
    assert not valid_signature(made.public_key, Signature(made.public_key.keyid, sig), b"bytes")
    assert valid_signature(made.public_key, made.sign(b"bytes"), b"bytes")
    assert not valid_signature(keys.generate().public_key, made.sign(b"bytes"), b"bytes")


def test_a_power_cut_while_a_key_is_written_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose first start was cut short makes its key at the second; never half of one."""

    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    path = tmp_path / "online.pem"
    for call in ("open", "fsync", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, cut)
            with pytest.raises(PowerCut):
                keys.load_or_make(path)
        assert not path.exists()
    made = keys.load_or_make(path)
    assert keys.load_or_make(path).public_key == made.public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_system_without_links_keeps_keys_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    made = keys.load_or_make(tmp_path / "k.pem")
    assert keys.load(tmp_path / "k.pem", None).public_key == made.public_key
    with pytest.raises(OSError, match="not permitted"):
        keys.save(keys.generate(), tmp_path / "k.pem", None)
    assert keys.load(tmp_path / "k.pem", None).public_key == made.public_key
