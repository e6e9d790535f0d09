"""What people see before they sign, what waits, and a release that two of them sign by passing a file."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from skylift.testkit.image import build
from skylift.testkit.stage import DEVICE_TYPE, PRODUCT, Stage

from .conftest import Cli, Said

SAYS = {"--notes": "closes the hole in the radio", "--security-version": "3", "--version": "1.7.0"}


def shown(said: Said, body: bytes) -> bool:
    """Whether everything that is signed, and the notes, stood there to be read."""
    digest = hashlib.sha256(body).hexdigest()
    words = ("image 1.7.0", f"for {DEVICE_TYPE}", "security_version 3", f"{len(body)} bytes", digest)
    missing = [word for word in (*words, SAYS["--notes"], "version", "until 20") if word not in said.err]
    assert not missing, (missing, said.err)
    return True


def test_two_people_on_two_machines_sign_one_release_by_a_file(cli: Cli, stage: Stage) -> None:
    """Each sees version, digest, size, hardware, security_version and notes, not a digest alone; the second
    has one key and copies of the public files, and no server."""
    image = build(stage.home / "1.7.0.pyz", "1.7.0")
    about = ["--product", PRODUCT, "--device-type", DEVICE_TYPE, *(w for pair in SAYS.items() for w in pair)]
    made = cli("release", "create", image, *about, "--json")
    assert made.code == 0, made.err
    release = json.loads(made.out)["id"]
    waits = cli("trust", "status")
    assert re.search(
        rf"{PRODUCT} version \d+: 0 of 2 signatures; sign with `skylift trust sign {PRODUCT}`", waits.err
    )
    assert re.search(r"image\s+root\s+1\s+36\d\s+good\s+people", waits.out)
    assert cli("trust", "renew", PRODUCT, "--out", "round.json", "--keys", "desk").code == 0
    other = stage.home / "other-desk"
    (other / "keys").mkdir(parents=True)
    shutil.copytree(stage.home / "desk" / "public", other / "public")
    second = stage.home / "desk" / "keys" / f"release-{PRODUCT}-2.pem"
    mine = shutil.move(second, other / "keys" / "mine.pem")
    try:
        first = cli("trust", "sign", "--file", "round.json", "--keys", "desk", "--yes",
                    "--key", f"desk/keys/release-{PRODUCT}-1.pem")  # fmt: skip
        assert first.code == 0, first.err
        assert shown(first, image.read_bytes())
        half = cli("trust", "publish", "round.json", "--keys", "desk", "--json")
        assert json.loads(half.out)["waiting"] == [PRODUCT]
        assert "1 of 2 signatures" in cli("trust", "status").err
        assert cli("deploy", "create", release, "--all").code == 1, "half signed is not released"
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("SKYLIFT_SERVER")
            patch.delenv("SKYLIFT_TOKEN")
            last = cli("trust", "sign", "--file", "round.json", "--keys", other, "--key", mine, "--yes")
        assert last.code == 0, last.err
        assert shown(last, image.read_bytes())
    finally:
        shutil.move(mine, second)
    assert "PRIVATE" not in Path(stage.home / "round.json").read_text()
    done = cli("trust", "publish", "round.json", "--keys", "desk", "--json")
    assert json.loads(done.out) == {"published": [PRODUCT], "waiting": []}
    assert json.loads(cli("release", "show", release, "--json").out)["status"] == "published"


def test_at_the_server_the_signer_sees_the_same_and_may_say_no(cli: Cli, stage: Stage) -> None:
    image = build(stage.home / "1.7.1.pyz", "1.7.1")
    about = ["--product", PRODUCT, "--version", "1.7.1", "--device-type", DEVICE_TYPE, "--notes", "faster"]
    release = json.loads(cli("release", "create", image, *about, "--json").out)["id"]
    key = f"desk/keys/release-{PRODUCT}-1.pem"
    refused = cli("trust", "sign", PRODUCT, "--keys", "desk", "--key", key)  # nobody answers: no terminal
    assert refused.code != 0
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    notes = "notes (of the server, not signed): faster"
    for word in ("image 1.7.1", DEVICE_TYPE, "security_version 0", digest, notes):
        assert word in refused.err
    assert "0 of 2 signatures" in cli("trust", "status").err, "nothing was signed"
    for number in (1, 2):
        assert stage.sign(release, number)["published"] is (number == 2)


def test_keys_without_a_passphrase_are_said_to_be_in_clear(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SKYLIFT_KEY_PASSPHRASE", "")
    fresh = cli("trust", "init", "--product", "x", "--keys", tmp_path / "new-desk")
    assert "new keys are NOT encrypted" in fresh.err
