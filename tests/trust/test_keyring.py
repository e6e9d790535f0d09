"""Keys that are elsewhere: in a PKCS#11 token (SoftHSM), in a key service (AWS KMS, moto's server)."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import boto3
import httpx2
import pkcs11
import pytest
from pkcs11.util.ec import encode_named_curve_parameters

from conftest import missing
from skylift.core.errors import Rejected
from skylift.testkit.ports import free_port
from skylift.testkit.s3 import CREDENTIALS
from skylift.testkit.server import end, wait
from skylift.testkit.trustlab import PRODUCT, Lab
from skylift.trust import files, keyring, keys
from skylift.trust.ceremony import Desk, hold

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
PIN, LABEL = "1234", "skylift"
NOW = datetime.fromisoformat("2026-11-28T12:00:00Z")


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pkcs11.Token]:
    """A token with three P-256 keys that were made in it (1, 2, 3) and cannot be read out."""
    module = next((path for path in MODULES if Path(path).exists()), None)
    if module is None:
        missing("softhsm2")
        return
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        patch.setenv("PYKCS11LIB", module)
        patch.setenv(keyring.PIN_ENV, PIN)
        init = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", PIN]
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
        found = pkcs11.lib(module).get_token(token_label=LABEL)
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        with found.open(user_pin=PIN, rw=True) as session:
            for number in (1, 2, 3):
                made = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
                made.generate_keypair(store=True, id=bytes([number]), label=f"key {number}")
        yield found


# The service signs a digest as AWS does; moto by itself hashes it once more, whatever MessageType says.
SERVICE = """
import sys
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
import moto.kms.utils
from moto.server import main
def sign(self, message, algorithm):
    return self.private_key.sign(message, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
moto.kms.utils.ECDSAPrivateKey.sign = sign
main(sys.argv[1:])
"""


@pytest.fixture(scope="session")
def kms() -> Iterator[str]:
    """A key service with one P-256 key: its id."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    words = [sys.executable, "-c", SERVICE, "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    service = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        wait(lambda: _answers(url), "the key service answers")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": "eu-central-1"}.items():
                patch.setenv(name, value)
            patch.setenv("AWS_ENDPOINT_URL", url)
            made = boto3.client("kms").create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")
            yield str(made["KeyMetadata"]["KeyId"])
    finally:
        end(service)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5.0).status_code < 500
    except httpx2.HTTPError:
        return False


def test_a_token_signs_what_devices_verify_and_its_keys_never_leave(
    token: pkcs11.Token, lab: Lab, tmp_path: Path
) -> None:
    """A ceremony whose release keys are in a token: a release by two of them, installed by a device."""
    desk = Desk(tmp_path / "desk", None)
    for number in (1, 2, 3):
        path = desk.path / "keys" / f"release-{PRODUCT}-{number}.json"
        keyring.adopt(f"hsm:{number}?label={LABEL}", None, path)
    held = [keyring.load(path, None) for path in sorted((desk.path / "keys").glob("*.json"))]
    online = lab.online.image.public_key, lab.online.director.public_key
    made = hold(desk, [PRODUCT], *online, lab.clock())
    delegated = files.read("targets", made.targets, files.Targets).signed.delegations
    assert delegated is not None
    assert set(delegated.keys) == {signer.public_key.keyid for signer in held}
    with token.open(user_pin=PIN) as session:
        for private in session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}):
            assert private[pkcs11.Attribute.EXTRACTABLE] is False
            with pytest.raises(pkcs11.exceptions.PKCS11Error):
                assert private[pkcs11.Attribute.VALUE] is None
    role = files.product_role(1, PRODUCT, {}, NOW)
    signed = files.read(PRODUCT, files.sign(role, held[:2]), files.Targets)
    assert files.verifies(files.read("targets", made.targets, files.Targets).signed, PRODUCT, signed)
    kept = b"".join(path.read_bytes() for path in desk.path.rglob("release-*"))
    assert b"PRIVATE" not in kept


def test_a_token_that_is_not_there_is_one_sentence(
    token: pkcs11.Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k.json"
    keyring.adopt(f"hsm:1?label={LABEL}", None, path)
    monkeypatch.setenv(keyring.PIN_ENV, "wrong")
    with pytest.raises(Rejected, match=r"k\.json.*cannot be used: .*Pin"):
        keyring.load(path, None).sign(b"x")
    with pytest.raises(Rejected, match="cannot be used"):
        keyring.adopt("hsm:9?label=nobody", None, tmp_path / "other.json")
    with pytest.raises(Rejected, match="never overwritten"):
        keyring.adopt(f"hsm:1?label={LABEL}", None, path)


def test_a_key_service_signs_what_our_files_need(kms: str, tmp_path: Path) -> None:
    path = tmp_path / "release-1.json"
    public = keyring.adopt(f"awskms:{kms}", None, path)
    assert public.scheme == keys.SCHEME
    assert "PRIVATE" not in path.read_text()
    signer = keyring.load(path, None)
    root = files.root(1, {"root": [public], "targets": [public]}, "image", NOW)
    root.roles["root"].threshold = root.roles["targets"].threshold = 1
    signed = files.read("role", files.sign(files.product_role(1, PRODUCT, {}, NOW), [signer]), files.Targets)
    assert files.verifies(root, "targets", signed)


def test_a_key_that_signs_for_another_is_caught_before_anything_is_handed_in(
    kms: str, tmp_path: Path
) -> None:
    path = tmp_path / "release-1.json"
    other = keys.public_dict(keys.generate().public_key)
    path.write_text(json.dumps({"uri": f"awskms:{kms}", "public": other}))
    with pytest.raises(Rejected, match="UnverifiedSignature"):
        keyring.load(path, None).sign(b"x")


def test_another_key_service_is_named_by_its_uri_and_public_key(tmp_path: Path) -> None:
    """Without its library installed, or out of reach, it is an error that says so, at the time of signing."""
    other = keys.generate()
    pem = other.public_key.keyval["public"].encode()
    uri = "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
    path = tmp_path / "root-1.json"
    assert keyring.adopt(uri, pem, path).keyid == other.public_key.keyid
    assert keyring.public(path, None).keyid == other.public_key.keyid
    with pytest.raises(Rejected, match="cannot be used"):
        keyring.load(path, None).sign(b"x")
    with pytest.raises(Rejected, match="uri is 'floppy:a': begins with one of"):
        keyring.adopt("floppy:a", pem, tmp_path / "x.json")


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"uri": "hsm:1"}', '{"uri": 1, "public": {}}'])
def test_a_file_that_stands_for_no_key_is_refused(body: str, tmp_path: Path) -> None:
    path = tmp_path / "root-1.json"
    path.write_text(body)
    with pytest.raises(Rejected):
        keyring.load(path, None)


def test_a_key_whose_id_is_not_its_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "root-1.json"
    told = {**keys.public_dict(keys.generate().public_key), "keyid": "ab" * 32}
    path.write_text(json.dumps({"uri": "hsm:1", "public": told}))
    with pytest.raises(Rejected, match="is not the id of this key"):
        keyring.public(path, None)


def test_nothing_is_asked_of_a_token_to_read_its_public_part(tmp_path: Path) -> None:
    path = tmp_path / "root-1.json"
    made = keys.generate().public_key
    path.write_text(json.dumps({"uri": "hsm:1", "public": keys.public_dict(made)}))
    assert keyring.public(path, None).keyid == made.keyid
