"""The runbooks of docs/operate/keys.md, executed: the real command line, a real server, real agents.

In the order of the page, on one fleet, as it would go in its life: after each an honest update arrives, and
who should have lost his power has lost it.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skylift.cli.app import run
from skylift.testkit import hostile
from skylift.testkit.loot import PRODUCT
from skylift.testkit.victims import Scene
from skylift.trust import files, keys
from skylift.trust.files import Root, Targets
from skylift.trust.keys import KeySigner

from .conftest import BLOB, SIGNATURE, MakeVictim


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def cli(scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `skylift` with these words at the scene's desk; it must succeed."""
    monkeypatch.setenv("SKYLIFT_SERVER", scene.server.url)
    monkeypatch.setenv("SKYLIFT_TOKEN", (scene.home / "data" / "admin.token").read_text().strip())
    monkeypatch.setenv("SKYLIFT_KEY_PASSPHRASE", "")
    monkeypatch.chdir(scene.home)

    def type_(*words: object, code: int = 0) -> Said:
        monkeypatch.setattr(sys, "argv", ["skylift", *map(str, words)])
        capsys.readouterr()
        found = run()
        said = capsys.readouterr()
        assert found == code, (words, said.err)
        return Said(found, said.out, said.err)

    return type_


def key(scene: Scene, name: str) -> Path:
    return scene.desk.path / "keys" / f"{name}.pem"


def held(scene: Scene, name: str) -> KeySigner:
    return keys.load(key(scene, name), None)


def signed(cli: Cli, scene: Scene, *names: str, desk: str = "desk", more: tuple[str, ...] = ()) -> Said:
    """Everything that waits, by these keys."""
    words = [word for name in names for word in ("--key", key(scene, name))]
    return cli("trust", "sign", "--keys", desk, *words, *more, "--yes", "--json")


def newest(scene: Scene, role: str) -> Any:
    kind = Root if role == "root" else Targets
    return files.read(role, scene.file(f"{scene.published()[role]}.{role}.json"), kind).signed


def holders(scene: Scene, role: str) -> set[str]:
    if role == PRODUCT:
        return set(newest(scene, "targets").delegations.roles[role].keyids)
    return set(newest(scene, "root").roles[role].keyids)


# --- a release key lost ---------------------------------------------------------------------------------


def test_a_lost_release_key_is_replaced_and_the_fleet_goes_on(
    cli: Cli, scene: Scene, make_victim: MakeVictim
) -> None:
    lost = held(scene, "release-sensor-3").public_key.keyid
    key(scene, "release-sensor-3").rename(scene.home / "lost.pem")
    told = cli("trust", "rotate", PRODUCT, "--remove", lost[:12], "--keys", "desk", "--json")
    assert told.json["proposed"] == ["image:targets", PRODUCT]
    assert "image:targets" in cli("trust", "status").err
    shown = cli("trust", "sign", "image:targets", "--keys", "desk", "--yes", "--key", key(scene, "targets-1"))
    assert f"key {lost[:16]} goes" in shown.err
    assert lost in holders(scene, PRODUCT), "one signature publishes nothing"
    signed(cli, scene, "targets-2")
    assert lost not in holders(scene, PRODUCT)
    assert len(holders(scene, PRODUCT)) == 3
    signed(cli, scene, "release-sensor-1", "release-sensor-3")  # the fresh one took the free number
    assert cli("trust", "status", "--json").json["pending"] == []
    victim = make_victim()
    victim.recovers()


# --- a release key stolen -------------------------------------------------------------------------------


def test_a_stolen_release_key_counts_nothing_any_more(
    cli: Cli, scene: Scene, make_victim: MakeVictim
) -> None:
    """Its holder also has the server: with the second key of three he had been one theft away."""
    thief = held(scene, "release-sensor-1")
    cli("trust", "revoke", thief.public_key.keyid[:12], "--of", PRODUCT, "--keys", "desk", "--yes")
    signed(cli, scene, "targets-1", "targets-2")
    signed(cli, scene, "release-sensor-2", "release-sensor-4")
    assert thief.public_key.keyid not in holders(scene, PRODUCT)
    role = files.read(PRODUCT, scene.file(f"{scene.published()[PRODUCT]}.{PRODUCT}.json"), Targets)
    assert thief.public_key.keyid not in role.signatures
    victim = make_victim()
    scene.order(victim)
    loot = scene.loot()
    image, body = loot.evil()
    second = held(scene, "release-sensor-3")
    number, evil = loot.role(image, signers=[thief, second])
    victim.proxy.files(victim.name, loot.order(victim, image))
    victim.proxy.files(victim.name, loot.repository({PRODUCT: (number, evil)}))
    victim.proxy.lie(BLOB, hostile.instead(body))
    victim.refuses(SIGNATURE)
    fresh = make_victim()
    fresh.recovers()


# --- a release withdrawn --------------------------------------------------------------------------------


def test_a_withdrawn_release_ends_its_deployments_and_is_refused_by_devices(
    cli: Cli, scene: Scene, make_victim: MakeVictim
) -> None:
    victim = make_victim()
    deployment = scene.order(victim, "0.9.0")
    loot = scene.loot()
    image = loot.released("0.9.0")
    done = cli("trust", "revoke", "sensor/0.9.0", "--reason", "leaks", "--keys", "desk", "--yes", "--json")
    assert done.json["aborted"] == [deployment]
    found = scene.client.get(f"/api/deployments/{deployment}")
    assert (found["status"], found["status_reason"]) == ("aborted", "sensor 0.9.0 was withdrawn: leaks")
    refused = cli("deploy", "create", scene.releases["0.9.0"], "--all", code=1)
    assert "was withdrawn" in refused.err
    second = key(scene, "release-sensor-2")
    unmeant = cli("trust", "sign", PRODUCT, "--keys", "desk", "--yes", "--key", second, code=1)
    assert "it drops sensor/0.9.0" in unmeant.err
    shown = signed(cli, scene, "release-sensor-2", "release-sensor-3", more=("--withdraws", "0.9.0"))
    assert "withdraws sensor/0.9.0/sensor-v2" in shown.err
    assert scene.client.get(f"/api/releases/{scene.releases['0.9.0']}")["status"] == "withdrawn"
    scene.order(victim)  # a taken server orders the withdrawn image all the same
    victim.proxy.files(victim.name, loot.order(victim, image))
    victim.refuses(SIGNATURE)


# --- a root holder gone, by a file, on two machines -------------------------------------------------------


def test_a_root_holder_is_replaced_by_two_people_on_two_machines(
    cli: Cli, scene: Scene, make_victim: MakeVictim
) -> None:
    """The second desk has its own key and copies of the public files; nothing private goes along."""
    early = make_victim()
    other = scene.home / "other-desk"
    (other / "keys").mkdir(parents=True)
    shutil.copytree(scene.desk.path / "public", other / "public")
    shutil.move(key(scene, "root-2"), other / "keys" / "root-2.pem")
    gone = held(scene, "root-3").public_key.keyid
    key(scene, "root-3").unlink()
    cli("trust", "rotate", "root", "--remove", gone[:12], "--out", "round.json", "--keys", "desk")
    for desk, name in (("desk", "root-1"), ("other-desk", "root-2")):
        path = scene.home / desk / "keys" / f"{name}.pem"
        cli("trust", "sign", "--file", "round.json", "--keys", desk, "--key", path, "--yes")
    assert "PRIVATE" not in Path(scene.home / "round.json").read_text()
    told = cli("trust", "publish", "round.json", "--keys", "desk", "--json")
    assert (set(told.json["published"]), told.json["waiting"]) == ({"image:root", "director:root"}, [])
    assert gone not in holders(scene, "root")
    assert len(holders(scene, "root")) == 3
    early.recovers()  # from the factory's roots, along the chain
    assert json.loads(scene.desk.public("image.root").read_bytes())["signed"]["version"] == 2
    shutil.move(other / "keys" / "root-2.pem", key(scene, "root-2"))


# --- the director's root, and everything that expires -----------------------------------------------------


def test_the_directors_root_is_replaced_before_it_expires(
    cli: Cli, scene: Scene, make_victim: MakeVictim
) -> None:
    victim = make_victim()
    cli("trust", "renew", "root", "--keys", "desk")
    shown = signed(cli, scene, "root-1", "root-2")
    assert "nothing but a later date" in shown.err
    cli("trust", "renew", "targets", "--keys", "desk")
    signed(cli, scene, "targets-1", "targets-3")
    cli("trust", "renew", PRODUCT, "--keys", "desk")
    signed(cli, scene, "release-sensor-2", "release-sensor-4")
    assert cli("trust", "status", "--json").json["pending"] == []
    victim.recovers()


# --- the online keys stolen -------------------------------------------------------------------------------


def test_stolen_online_keys_order_nothing_any_more(cli: Cli, scene: Scene, make_victim: MakeVictim) -> None:
    """The thief had driven a device's versions up; new roots make it forget them."""
    victim = make_victim()
    scene.order(victim)
    stolen = scene.loot()
    with victim.resists():
        victim.proxy.files(victim.name, stolen.order(victim, version=1_000_000))
        victim.reads_its_order()
    victim.proxy.honest()
    scene.server.stop()
    shutil.move(scene.home / "data" / "keys", scene.home / "stolen-keys")
    scene.server.settings["SKYLIFT_NEW_KEYS"] = "true"
    scene.server.start()
    cli("trust", "rotate", "online", "--keys", "desk")
    signed(cli, scene, "root-1", "root-2")
    del scene.server.settings["SKYLIFT_NEW_KEYS"]
    scene.server.stop()
    scene.server.start()
    victim.recovers()
    late = make_victim()
    late.recovers()
    scene.order(late, "1.0.0")
    late.proxy.files(late.name, stolen.order(late, stolen.released("1.0.0"), version=2_000_000))
    late.refuses(SIGNATURE)
