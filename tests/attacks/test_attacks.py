"""Attackers by name, over real HTTP, against the real agent: nothing is installed, the slot that runs stays
as it is, the device says why where it can, and takes the honest update when the attacker is gone.

The attacker owns the line in every test; what else he owns is said there. What the line alone can do is in
test_line, what too much metadata and odd names do in test_metadata, the log in test_log.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from skylift.firmware import hdiff
from skylift.firmware.delta import make
from skylift.testkit import hostile
from skylift.testkit.loot import PRODUCT
from skylift.testkit.victims import OTHER_PRODUCT, Scene, Victim
from skylift.trust import files, keys, verify
from skylift.trust.roles import DIRECTOR, IMAGE

from .conftest import BLOB, CHECK, EXPIRED, HASH, ROLLBACK, SIGNATURE, MakeVictim, no_delta, ordered

# --- code ---------------------------------------------------------------------------------------------


def test_arbitrary_software(scene: Scene, victim: Victim) -> None:
    """Other bytes where the image should be, of the same length."""
    no_delta(victim)
    _, evil = scene.loot().evil()
    victim.proxy.lie(BLOB, hostile.changed(lambda body: (evil * 2)[: len(body)]))
    victim.refuses(HASH)
    victim.recovers()


def test_one_stolen_release_key_with_all_online_keys(scene: Scene, victim: Victim) -> None:
    loot = scene.loot(0)
    image, body = loot.evil()
    number, role = loot.role(image)
    ordered(victim, loot, image)
    victim.proxy.files(victim.name, loot.repository({PRODUCT: (number, role)}))
    victim.proxy.lie(BLOB, hostile.instead(body))
    victim.refuses(SIGNATURE)


def test_a_revoked_key(scene: Scene, victim: Victim) -> None:
    """Two release keys are stolen; the holders of the targets keys replace all three. (The server's part is
    played here by its own keys: no other test of this server should live with other release keys.)"""
    stolen, online = scene.loot(0, 1), scene.loot()
    fresh, targets = scene.rotated()
    renewed = stolen.role(signers=fresh[:2])
    after = online.repository({"targets": targets, PRODUCT: renewed})
    image, body = stolen.evil()
    evil = stolen.role(image)
    victim.proxy.lie(BLOB, hostile.instead(body))
    with victim.resists():
        ordered(victim, online, image)
        victim.proxy.files(victim.name, after)
        victim.proxy.files(victim.name, {(IMAGE, f"{evil[0]}.{PRODUCT}.json"): evil[1]})
        victim.until(lambda: victim.last.get("state") == "failed", "the refusal")
    assert victim.last["reason"] == SIGNATURE
    victim.proxy.honest()
    scene.order(victim)
    victim.proxy.files(victim.name, after)
    honest = online.released("1.1.0")
    ordered(victim, online, honest, version=1001)
    online.logged(victim, honest, after)
    victim.until(lambda: victim.version == "1.1.0", "what the fresh keys vouch for")


def director_as_image(scene: Scene, victim: Victim) -> None:
    """The root holders gave the director a second root. Whoever has its online key serves that root as the
    image repository's, where the same key now holds `targets`, and names release keys of his own."""
    loot, own = scene.loot(), [keys.generate() for _ in range(3)]
    image, body = loot.evil()
    named = {product: [key.public_key for key in own] for product in (PRODUCT, OTHER_PRODUCT)}
    targets = files.sign(files.delegations(1000, named, datetime.now(UTC)), [loot.director])
    ordered(victim, loot, image)
    renewed = loot.root(DIRECTOR, scene.desk.signers("root", 3)[:2])[DIRECTOR, "2.root.json"]
    root = {(IMAGE, "2.root.json"): renewed}
    evil = {"targets": (1000, targets), PRODUCT: loot.role(image, signers=own[:2])}
    repository = loot.repository(evil, signer=loot.director)
    for forged in (root, repository):
        victim.proxy.files(victim.name, forged)
    loot.logged(victim, image, root, repository)
    victim.proxy.lie(BLOB, hostile.instead(body))


def test_the_directors_next_root_as_the_images(
    scene: Scene, make_victim: MakeVictim, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = make_victim()
    scene.order(victim)
    director_as_image(scene, victim)
    assert "root of 'director'" in victim.refuses(SIGNATURE)
    without = make_victim()
    scene.order(without)
    director_as_image(scene, without)
    monkeypatch.setattr(verify, "_check_repository", lambda body, name, repo: None)
    without.until(lambda: without.version == "6.6.6", "what the check keeps out")


# --- old things ---------------------------------------------------------------------------------------


def test_metadata_rollback(scene: Scene, victim: Victim) -> None:
    """An order that was true once, after a newer one was seen."""
    old = victim.looked()
    victim.forget()
    scene.order(victim, "0.9.0")
    victim.looked()
    victim.forget()
    scene.order(victim)
    victim.proxy.lie("^/director/", hostile.replayed(old))
    victim.refuses(ROLLBACK)
    victim.recovers()


def test_image_rollback(scene: Scene, make_victim: MakeVictim) -> None:
    """An older image with known holes: released, signed, and below the floor that 1.1.0 raised."""
    victim = make_victim()
    victim.recovers()
    scene.order(victim, "1.0.0")
    loot = scene.loot()
    ordered(victim, loot, loot.released("0.9.0"))
    victim.refuses("below_security_floor")


def test_freeze(scene: Scene, victim: Victim) -> None:
    """What was true yesterday, for ever: seen within a day."""
    old = victim.looked()
    victim.forget()
    victim.off_by = timedelta(hours=25)
    victim.proxy.lie("^/(director|image)/", hostile.replayed(old))
    victim.refuses(EXPIRED)
    victim.off_by = timedelta(0)
    victim.recovers()


def test_replay_of_an_old_repository(scene: Scene, make_victim: MakeVictim) -> None:
    """Everything as it was before an update, director and image repository together."""
    victim = make_victim()
    scene.order(victim, "1.0.0")
    scene.order(victim)
    old = victim.looked()
    victim.recovers()
    scene.order(victim, "1.0.0")
    victim.looked()
    victim.forget()
    scene.order(victim, "1.0.0")
    victim.proxy.lie("^/(director|image)/", hostile.replayed(old))
    victim.refuses(ROLLBACK)
    victim.recovers("1.0.0")


# --- things that do not belong together ---------------------------------------------------------------


def test_mix_and_match(scene: Scene, victim: Victim) -> None:
    """A snapshot of another time, and a role that the snapshot does not mean."""
    known = scene.published()["snapshot"]
    old = scene.file(f"{known - 1}.snapshot.json")
    victim.proxy.lie(f"/image/{known}.snapshot.json$", hostile.instead(old))
    victim.refuses(SIGNATURE)
    scene.order(victim)
    victim.proxy.honest()
    role = scene.published()[PRODUCT]
    before = scene.file(f"{role - 1}.{PRODUCT}.json")
    victim.proxy.lie(f"/image/{role}.{PRODUCT}.json$", hostile.instead(before))
    victim.refuses(ROLLBACK)
    victim.recovers()


def test_cross_device_replay(scene: Scene, make_victim: MakeVictim) -> None:
    mine, other = make_victim(), make_victim()
    for each in (mine, other):
        scene.order(each)
    for version in ("0.9.0", "1.1.0"):  # its versions are higher: kept, they would make mine a rollback
        other.looked()
        other.forget()
        scene.order(other, version)
    stolen = {
        path.replace(other.name, mine.name): answer
        for path, answer in other.looked().items()
        if path.startswith("/director/")
    }
    mine.proxy.lie("^/director/", hostile.replayed(stolen))
    assert other.name in mine.refuses(SIGNATURE)
    mine.recovers()


def test_wrong_hardware(scene: Scene, victim: Victim) -> None:
    loot = scene.loot(product=OTHER_PRODUCT)
    ordered(victim, loot, loot.released("5.0.0"))
    victim.refuses("wrong_hardware")


def test_fast_forward_and_recovery_from_it(scene: Scene, victim: Victim) -> None:
    """The stolen online key says that it is 2090, and version a million. A new root (2 of 3) undoes it."""
    loot = scene.loot()
    far = replace(loot, now=lambda: datetime(2090, 1, 1, tzinfo=UTC))
    with victim.resists():
        victim.proxy.files(victim.name, far.order(victim, version=1_000_000))
        victim.reads_its_order()
    victim.proxy.honest()
    victim.refuses(EXPIRED, ROLLBACK)
    scene.order(victim)
    fresh = keys.generate()
    holders = scene.desk.signers("root", 3)
    roles = dict.fromkeys(("targets", "snapshot", "timestamp"), fresh)
    root, image = loot.root(DIRECTOR, holders[:2], **roles), loot.released("1.1.0")
    victim.proxy.files(victim.name, root)
    victim.proxy.files(victim.name, loot.order(victim, image, version=1, signer=fresh))
    loot.logged(victim, image, root, signer=fresh)
    victim.until(lambda: victim.version == "1.1.0", "the update after the new root")


def test_fast_forward_of_the_image_repository_and_recovery_from_it(scene: Scene, victim: Victim) -> None:
    """The stolen online key of the image repository; the holders of its root replace it."""
    loot, fresh = scene.loot(), keys.generate()
    image = loot.released("1.1.0")
    ordered(victim, loot, image)
    with victim.resists():
        victim.proxy.files(victim.name, loot.repository({}, version=1_000_000))
        victim.proxy.lie("^/api/log/", hostile.withheld(503))
        victim.until(lambda: victim.waits, "that it has seen the image repository of the far future")
    victim.proxy.honest()
    victim.refuses(ROLLBACK)
    scene.order(victim)
    ordered(victim, loot, image, version=1001)
    holders = scene.desk.signers("root", 3)
    root = loot.root(IMAGE, holders[1:], snapshot=fresh, timestamp=fresh)
    after = loot.repository({}, version=1, signer=fresh)
    for each in (root, after):
        victim.proxy.files(victim.name, each)
    loot.logged(victim, image, root)
    victim.until(lambda: victim.version == "1.1.0" and victim.settled(), "the update after the new root")


# --- deltas -------------------------------------------------------------------------------------------


def patches(scene: Scene) -> dict[str, bytes]:
    old, new, evil = (scene.images[v].read_bytes() for v in ("1.0.0", "1.1.0", "0.9.0"))
    good = make(old, new)
    middle = len(good) // 2
    return {
        "tampered": good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :],
        "truncated": good[:middle],
        "oversized": good + b"\0" * 5000,
        "of another image": make(old, evil),
        "bomb": hdiff.make(old, old + b"\0" * (4 << 20)),
        "empty": b"\0",
    }


def test_tampered_truncated_oversized_and_bomb_deltas(scene: Scene, make_victim: MakeVictim) -> None:
    """A delta is trusted for nothing: a bad one costs its bytes, and the full image comes instead."""
    base = scene.images["1.0.0"].read_bytes()
    for name, patch in patches(scene).items():
        victim = make_victim()
        scene.order(victim)
        hint = {"url": "/api/blobs/" + "d" * 64, "sha256": "d" * 64, "size": len(patch)}
        hint["base_sha256"] = files.sha256(base).hexdigest()
        victim.proxy.lie(CHECK, hostile.said(delta=hint))
        victim.proxy.lie("d" * 64, hostile.instead(patch))
        with victim.resists():
            victim.proxy.lie(f"{BLOB}(?!dddd)", hostile.withheld(503))
            victim.until(lambda v=victim: v.waits, f"the {name} delta")  # type: ignore[misc]
        assert any(asked.where.endswith("d" * 64) for asked in victim.proxy.asked), name
        victim.recovers(order=False)
        assert not victim.last.get("reason"), name


# --- clocks -------------------------------------------------------------------------------------------


def test_a_clock_set_to_1970(scene: Scene, victim: Victim) -> None:
    """The newest time that was signed counts: old files do not become young again, honest ones work."""
    old = victim.looked()
    victim.forget()
    victim.off_by = datetime(1970, 1, 2, tzinfo=UTC) - datetime.now(UTC)
    ahead = replace(scene.loot(), now=lambda: datetime.now(UTC) + timedelta(days=3))
    with victim.resists():
        victim.proxy.files(victim.name, ahead.order(victim, version=900))  # a signed time, three days on
        victim.reads_its_order()
    victim.proxy.honest()
    (victim.config.state_dir / "trust" / DIRECTOR / "timestamp.json").unlink(missing_ok=True)
    (victim.config.state_dir / "trust" / DIRECTOR / "snapshot.json").unlink(missing_ok=True)
    victim.proxy.lie("^/(director|image)/", hostile.replayed(old))
    victim.refuses(EXPIRED)


def test_a_clock_at_1970_takes_honest_updates(victim: Victim) -> None:
    victim.off_by = datetime(1970, 1, 2, tzinfo=UTC) - datetime.now(UTC)
    victim.recovers(order=False)


def test_a_clock_set_to_2100(victim: Victim) -> None:
    """Everything has expired; and when the clock is right again, so is everything else."""
    victim.off_by = datetime(2100, 1, 1, tzinfo=UTC) - datetime.now(UTC)
    victim.refuses(EXPIRED)
    victim.off_by -= victim.off_by
    victim.recovers()
