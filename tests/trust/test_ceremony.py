"""The key ceremony at the desk, and what the server takes in of it: nothing unverified."""

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from skylift.core.errors import Rejected
from skylift.engine import gathering, publish
from skylift.engine.online import OnlineKeys
from skylift.engine.publish import NewRelease
from skylift.store import trustfiles
from skylift.store.db import Database
from skylift.testkit.trustlab import HARDWARE, PRODUCT, Lab, stranger
from skylift.trust import files, keys
from skylift.trust.ceremony import Desk, export_linux, hold
from skylift.trust.keys import KeySigner
from skylift.trust.roles import DIRECTOR, IMAGE


@pytest.fixture
def bare(tmp_path: Path, sqlite_database: Database, clock: Any) -> Lab:
    """A server at its first start: online keys, and no ceremony."""
    return Lab(tmp_path / "lab", sqlite_database, clock)


def refusal(lab: Lab, given: dict[str, bytes]) -> str:
    """Why the server does not take these files; that it kept nothing of them."""
    before = lab.published()
    with pytest.raises(Rejected) as caught:
        lab.give(given)
    assert lab.published() == before
    return str(caught.value)


def root_of(lab: Lab, repo: str, signers: Sequence[KeySigner], version: int = 1, **by_role: Any) -> bytes:
    """A root with the desk's keys, except where `by_role` says otherwise."""
    online = lab.online.image if repo == IMAGE else lab.online.director
    named: dict[str, Any] = {"root": [s.public_key for s in lab.desk.signers("root", 3)]}
    named |= {role: [online.public_key] for role in ("snapshot", "timestamp", "targets")}
    if repo == IMAGE:
        named["targets"] = [s.public_key for s in lab.desk.signers("targets", 3)]
    return files.sign(files.root(version, {**named, **by_role}, repo, lab.clock()), signers)


# --- at the desk ----------------------------------------------------------------------------------------


def test_the_ceremony_makes_three_keys_for_every_role_and_two_must_sign(bare: Lab) -> None:
    bare.ceremony("sensor", "camera")
    made = sorted(path.stem for path in (bare.desk.path / "keys").iterdir())
    names = ("release-camera", "release-sensor", "root", "targets")
    assert made == [f"{name}-{n}" for name in names for n in (1, 2, 3)]
    root = files.read("root", bare.desk.public("image.root").read_bytes(), files.Root).signed
    assert (len(root.roles["root"].keyids), root.roles["root"].threshold) == (3, 2)
    assert (len(root.roles["targets"].keyids), root.roles["targets"].threshold) == (3, 2)
    targets = files.read("targets", bare.desk.public("image.targets").read_bytes(), files.Targets).signed
    assert targets.delegations is not None
    roles = targets.delegations.roles or {}
    assert {name: (role.threshold, role.terminating, role.paths) for name, role in roles.items()} == {
        "sensor": (2, True, ["sensor/*/*"]),
        "camera": (2, True, ["camera/*/*"]),
    }
    assert not targets.targets


def test_private_keys_are_readable_by_their_owner_alone(bare: Lab) -> None:
    bare.ceremony()
    for folder in (bare.desk.path / "keys", bare.directory / "server"):
        for path in folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_private_is_handed_to_the_server(bare: Lab) -> None:
    given = bare.ceremony()
    for path in (bare.desk.path / "keys").iterdir():
        secret = path.read_bytes().split(b"\n")[1]
        assert not any(secret in body for body in given.values())
    assert all(b"PRIVATE" not in body for body in given.values())


def test_the_ceremony_held_again_changes_nothing(bare: Lab) -> None:
    first = bare.ceremony()
    before = bare.published()
    bare.clock.forward(days=3)  # type: ignore[attr-defined] # the tests' clock
    assert bare.ceremony() == first
    assert bare.published() == before


def test_a_second_product_is_added_and_the_first_keeps_its_keys(bare: Lab) -> None:
    bare.ceremony("sensor")
    release = bare.released("1.0.0")
    keyids = [key.public_key.keyid for key in bare.release_keys()]
    bare.ceremony("camera")
    assert [key.public_key.keyid for key in bare.release_keys()] == keyids
    bare.released("1.0.0", b"", "camera-v1", product="camera")
    device, camera = bare.enroll(), bare.enroll("cam-1", "camera-v1")
    device.order(release)
    camera.order(bare.released("1.1.0", b"", "camera-v1", product="camera"), "camera-v1")
    assert device.verify() is not None
    assert camera.verify() is not None


@pytest.mark.parametrize("name", ["root", "targets", "snapshot", "timestamp", "", "a/b", "x" * 65, ".."])
def test_a_product_with_an_impossible_name_is_refused(bare: Lab, name: str) -> None:
    with pytest.raises(Rejected, match="product"):
        bare.ceremony(name)
    assert not list((bare.directory).glob("desk/public/*"))


def test_a_desk_for_another_servers_keys_is_refused(bare: Lab) -> None:
    bare.ceremony()
    other = stranger().public_key
    with pytest.raises(Rejected, match="another online key"):
        hold(bare.desk, [PRODUCT], other, bare.online.director.public_key, bare.clock())


def test_a_key_that_carries_anothers_id_is_not_taken(bare: Lab) -> None:
    """A root keeps keys by their id: a server's key with a root holder's id would take the holder's place."""
    holder, own = stranger().public_key, bare.online.image.public_key
    with pytest.raises(Rejected, match="is not the id of this key"):
        keys.from_public_dict("image", {**keys.public_dict(own), "keyid": holder.keyid})
    assert keys.from_public_dict("image", keys.public_dict(own)) == own


@pytest.mark.parametrize("given", [None, 7, {}, {"keyid": "x"}, {"keyid": "x", "keyval": {"public": "y"}}])
def test_what_is_no_public_key_is_refused(given: object) -> None:
    with pytest.raises(Rejected):
        keys.from_public_dict("image", given)


def test_the_first_roots_are_exported_for_the_factory(bare: Lab, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="no roots yet"):
        export_linux(bare.desk, tmp_path / "roots")
    bare.ceremony()
    written = export_linux(bare.desk, tmp_path / "roots")
    assert sorted(path.name for path in written) == ["director.root.json", "image.root.json"]
    assert (tmp_path / "roots" / "image.root.json").read_bytes() == bare.published()[IMAGE, "1.root.json"]


# --- at the server --------------------------------------------------------------------------------------


def test_without_a_ceremony_nothing_is_released_or_deployed(bare: Lab) -> None:
    with pytest.raises(Rejected, match="hold the key ceremony first") as caught:
        bare.draft(NewRelease(PRODUCT, "1.0.0"))
    assert caught.value.code == "no_ceremony"
    with bare.database.read() as conn:
        assert publish.offerable(conn, "rel_1", HARDWARE) is None
        assert gathering.status(conn, bare.clock()) == {"ready": False, "roles": [], "pending": []}


def test_without_release_keys_for_a_product_it_has_no_release(lab: Lab) -> None:
    with pytest.raises(Rejected, match="trust init --product camera"):
        lab.draft(NewRelease("camera", "1.0.0"))


def test_the_online_keys_are_made_once(bare: Lab) -> None:
    again = OnlineKeys.open(bare.directory / "server")
    assert again.public() == bare.online.public()
    assert again.image.public_key.keyid != again.director.public_key.keyid


@pytest.mark.parametrize("field", ["image_root", "director_root", "targets"])
@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[" * 5000, b" " * (2 << 20)])
def test_what_is_no_metadata_is_refused(bare: Lab, field: str, body: bytes) -> None:
    image, director = bare.online.image.public_key, bare.online.director.public_key
    made = hold(bare.desk, [PRODUCT], image, director, bare.clock())
    good = {"image_root": made.image_root, "director_root": made.director_root, "targets": made.targets}
    assert field in refusal(bare, {**good, field: body})
    bare.give(good)


def test_files_in_each_others_places_are_refused(bare: Lab) -> None:
    image, director = bare.online.image.public_key, bare.online.director.public_key
    made = hold(bare.desk, [PRODUCT], image, director, bare.clock())
    refusal(
        bare, {"image_root": made.director_root, "director_root": made.image_root, "targets": made.targets}
    )
    refusal(bare, {"image_root": made.targets, "director_root": made.director_root, "targets": made.targets})


def test_a_root_signed_by_one_holder_is_refused(bare: Lab) -> None:
    given = ceremony_of(bare)
    one = root_of(bare, IMAGE, bare.desk.signers("root", 3)[:1])
    assert "signatures" in refusal(bare, {**given, "image_root": one})


def ceremony_of(lab: Lab) -> dict[str, bytes]:
    image, director = lab.online.image.public_key, lab.online.director.public_key
    made = hold(lab.desk, [PRODUCT], image, director, lab.clock())
    return {"image_root": made.image_root, "director_root": made.director_root, "targets": made.targets}


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
def test_a_root_that_names_another_online_key_is_refused(bare: Lab, role: str) -> None:
    given = ceremony_of(bare)
    other = {role: [stranger().public_key]}
    body = root_of(bare, IMAGE, bare.desk.signers("root", 3), **other)
    assert "online key" in refusal(bare, {**given, "image_root": body})


@pytest.mark.parametrize("role", ["root", "targets"])
def test_a_root_with_a_threshold_of_one_is_refused(bare: Lab, role: str) -> None:
    given = ceremony_of(bare)
    made = files.read("root", given["image_root"], files.Root).signed
    made.roles[role].threshold = 1
    body = files.sign(made, bare.desk.signers("root", 3))
    assert "threshold 1" in refusal(bare, {**given, "image_root": body})


def test_the_next_root_must_be_signed_by_the_one_before(lab: Lab) -> None:
    """Version 2 with all new holders, properly signed by them: not by the old ones."""
    given = lab.ceremony()
    fresh = [stranger() for _ in range(3)]
    keys_ = [signer.public_key for signer in fresh]
    body = root_of(lab, IMAGE, fresh, version=2, root=keys_)
    assert "signatures" in refusal(lab, {**given, "image_root": body})
    both = root_of(lab, IMAGE, [*fresh, *lab.desk.signers("root", 3)], version=2, root=keys_)
    lab.give({**given, "image_root": both})
    assert lab.published()[IMAGE, "2.root.json"] == both


@pytest.mark.parametrize("version", [1, 3])
def test_root_versions_grow_by_one(lab: Lab, version: int) -> None:
    given = lab.ceremony()
    body = root_of(lab, IMAGE, lab.desk.signers("root", 3)[1:], version=version)
    assert "version 2 comes next" in refusal(lab, {**given, "image_root": body})


def test_a_new_root_for_which_the_delegations_are_not_signed_is_refused(lab: Lab) -> None:
    """Else every device would refuse everything from now on."""
    given = lab.ceremony()
    fresh = [stranger().public_key for _ in range(3)]
    body = root_of(lab, IMAGE, lab.desk.signers("root", 3), version=2, targets=fresh)
    assert "targets" in refusal(lab, {**given, "image_root": body})


def test_an_expired_root_is_refused(bare: Lab) -> None:
    given = ceremony_of(bare)
    bare.clock.forward(days=366)  # type: ignore[attr-defined] # the tests' clock
    assert "has expired" in refusal(bare, given)


def test_files_in_a_form_that_a_microcontroller_cannot_read_are_refused(bare: Lab) -> None:
    given = ceremony_of(bare)
    for field, body in given.items():
        pretty = json.dumps(json.loads(body), indent=1).encode()
        assert "byte rule" in refusal(bare, {**given, field: pretty})


def delegations(lab: Lab, version: int, products: dict[str, list[KeySigner]], **changes: Any) -> bytes:
    named = {name: [s.public_key for s in signers] for name, signers in products.items()}
    made = files.delegations(version, named, lab.clock())
    for role in (made.delegations.roles or {}).values() if made.delegations else ():
        role.threshold = changes.get("threshold", role.threshold)
    signers = changes.get("signers", lab.desk.signers("targets", 3))
    return files.sign(made, signers)


def test_delegations_are_held_to_their_rules(lab: Lab) -> None:
    given = lab.ceremony()
    own = {PRODUCT: lab.release_keys()}
    for sentence, body in (
        ("signatures", delegations(lab, 2, own, signers=lab.desk.signers("targets", 3)[:1])),
        ("signatures", delegations(lab, 2, own, signers=lab.desk.signers("root", 3))),
        ("release keys must sign", delegations(lab, 2, own, threshold=1)),
        ("above 1", delegations(lab, 1, {**own, "camera": own[PRODUCT]})),
        ("never dropped", delegations(lab, 2, {"camera": own[PRODUCT]})),
    ):
        assert sentence in refusal(lab, {**given, "targets": body})


def test_top_level_targets_hold_no_image(lab: Lab) -> None:
    given = lab.ceremony()
    made = files.delegations(2, {PRODUCT: [key.public_key for key in lab.release_keys()]}, lab.clock())
    made.targets["sensor/1/x"] = files.target("sensor/1/x", 1, "ab" * 32, {})
    body = files.sign(made, lab.desk.signers("targets", 3))
    assert "only delegate" in refusal(lab, {**given, "targets": body})


def test_new_release_keys_must_keep_what_is_published(lab: Lab) -> None:
    """All three replaced at once: the published role would verify nowhere any more."""
    lab.released("1.0.0")
    given = lab.ceremony()
    fresh = [stranger() for _ in range(3)]
    body = delegations(lab, 2, {PRODUCT: fresh})
    assert "must stay signed" in refusal(lab, {**given, "targets": body})


def test_half_signed_begins_again_when_its_keys_change(lab: Lab) -> None:
    """A signature by a key that is out does not count, and does not block the others."""
    release = lab.sealed("1.0.0")
    lab.sign(0)
    given = lab.ceremony()
    new = stranger()
    first, second, third = lab.release_keys()
    lab.give({**given, "targets": delegations(lab, 2, {PRODUCT: [second, third, new]})})
    with pytest.raises(Rejected, match="not one of sensor's keys"):
        lab.hand_in(first)
    assert lab.hand_in(second)["signatures"] == 1
    assert lab.hand_in(new)["published"]
    assert lab.status_of(release) == "published"
    device = lab.enroll()
    device.order(release)
    assert device.verify() is not None


def test_status_tells_the_days_left_and_when_to_renew(lab: Lab) -> None:
    with lab.database.read() as conn:
        roles = {(r["repo"], r["role"]): r for r in gathering.status(conn, lab.clock())["roles"]}
    assert roles[IMAGE, "root"]["days_left"] == 365
    assert roles[IMAGE, "targets"]["days_left"] == 180
    assert roles[DIRECTOR, "root"]["days_left"] == 365
    assert not any(role["renew"] for role in roles.values())
    lab.clock.forward(days=136)  # type: ignore[attr-defined] # the tests' clock
    with lab.database.read() as conn:
        roles = {(r["repo"], r["role"]): r for r in gathering.status(conn, lab.clock())["roles"]}
    assert roles[IMAGE, "targets"]["renew"]
    assert not roles[IMAGE, "root"]["renew"]


def test_versions_are_never_replaced(lab: Lab) -> None:
    with lab.database.read() as conn:
        known = trustfiles.latest(conn, IMAGE, "root")
    assert known is not None
    with pytest.raises(Exception, match=r"(?i)unique"):
        lab.database.write(lambda conn: trustfiles.put(conn, known))


def test_a_desk_with_a_passphrase_opens_with_it_alone(tmp_path: Path, bare: Lab) -> None:
    bare.desk = Desk(tmp_path / "locked", b"correct horse")
    bare.ceremony()
    body = (tmp_path / "locked" / "keys" / "root-1.pem").read_bytes()
    assert b"ENCRYPTED" in body
    for passphrase in (None, b"wrong"):
        with pytest.raises(Rejected, match="passphrase"):
            keys.load(tmp_path / "locked" / "keys" / "root-1.pem", passphrase)
    assert bare.desk.signers("root", 3)


def test_the_power_fails_at_every_write_of_a_ceremony(bare: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held again after any of them, it comes to an end, and the server takes it."""

    class PowerCut(BaseException):
        pass

    cuts = 0
    for last in range(100):
        bare.desk = Desk(bare.directory / f"desk-{last}", None)
        seen = 0

        def cut(handle: int, last: int = last, real: Any = os.fsync) -> None:
            nonlocal seen
            seen += 1
            if seen > last:
                raise PowerCut
            real(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", cut)
            try:
                ceremony_of(bare)
            except PowerCut:
                cuts += 1
        again = ceremony_of(bare)
        assert again == ceremony_of(bare)
        if seen <= last:
            bare.give(again)
            break
    assert cuts >= 20
