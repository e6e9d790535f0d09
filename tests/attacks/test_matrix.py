"""Every row of the compromise matrix, played: what its attacker can do works, what he cannot do fails."""

import ast
from datetime import timedelta
from pathlib import Path

import httpx2

from skylift.cli.client import Client
from skylift.testkit import hostile
from skylift.testkit.loot import HARDWARE, PRODUCT, Files
from skylift.testkit.threats import ATTACKS, MATRIX
from skylift.testkit.victims import OTHER_HARDWARE, OTHER_PRODUCT, Scene, Victim
from skylift.trust import files, keys
from skylift.trust.roles import DIRECTOR, IMAGE

from .conftest import BLOB, SIGNATURE, MakeVictim

HERE = Path(__file__).parent


def told(victim: Victim, *forged: Files) -> None:
    for each in forged:
        victim.proxy.files(victim.name, each)


def test_every_attack_and_every_row_has_its_test() -> None:
    named = {each.test for each in (*ATTACKS, *MATRIX)}
    written = {
        node.name
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert named <= written, sorted(named - written)
    assert len(named) == len(ATTACKS) + len(MATRIX)


def test_who_owns_the_network_can_withhold_and_no_more(scene: Scene, victim: Victim) -> None:
    victim.proxy.lie("^/", hostile.withheld(503))  # can: withhold
    victim.holds_out()
    victim.proxy.honest()
    today = victim.looked()
    victim.forget()
    victim.proxy.lie("^/(director|image)/", hostile.replayed(today))  # can: delay what comes
    victim.off_by = timedelta(hours=25)  # seen within a day
    victim.refuses("metadata_expired")
    victim.off_by = timedelta(0)
    victim.proxy.honest()
    scene.order(victim, "0.9.0")
    victim.looked()
    victim.forget()
    scene.order(victim)
    victim.proxy.lie("^/director/", hostile.replayed(today))  # cannot: downgrade
    victim.refuses("metadata_rollback")
    victim.proxy.honest()
    scene.order(victim)
    lie = {"version": "6.6.6", "sha256": "0" * 64, "url": f"/api/blobs/{'0' * 64}", "size": 1}
    victim.proxy.lie("^/api/updates/check", hostile.said(delta=None, **lie))  # cannot: misdirect
    victim.proxy.lie(BLOB, hostile.changed(lambda body: body[::-1]))  # cannot: change
    victim.refuses("hash_mismatch")
    victim.recovers()


def test_who_owns_the_server_orders_what_was_released_and_no_more(
    scene: Scene, make_victim: MakeVictim
) -> None:
    loot = scene.loot()
    victim = make_victim()
    scene.order(victim)
    victim.proxy.lie("^/api/updates/check", hostile.said(update_available=False))  # can: stop updates
    victim.holds_out()
    victim.proxy.lie("^/api/deployments/", hostile.said(status="complete"))  # can: lie to operators
    lied_to = Client(victim.proxy.url, scene.client.token).get(f"/api/deployments/{victim.deployments[-1]}")
    assert (lied_to["status"], victim.version) == ("complete", "1.0.0")
    victim.proxy.honest()
    told(victim, loot.order(victim, loot.released("1.1.0")))  # can: order what was released
    victim.until(lambda: victim.version == "1.1.0" and victim.settled(), "what was released")
    evil, body = loot.evil()
    camera = loot.released("5.0.0", OTHER_PRODUCT)
    altered = files.target(*(lambda t: (t.path, t.length, "0" * 64, t.unrecognized_fields["custom"]))(
        loot.released("1.1.0")
    ))  # fmt: skip
    victim.proxy.lie(BLOB, hostile.instead(body))
    for number, (image, reason) in enumerate(
        (
            (evil, SIGNATURE),  # cannot: new code
            (altered, "hash_mismatch"),  # cannot: altered code
            (camera, "wrong_hardware"),  # cannot: cross hardware
            (loot.released("0.9.0"), "below_security_floor"),  # cannot: go below the floor
        )
    ):
        scene.order(victim, "1.0.0")
        told(victim, loot.order(victim, image, version=1001 + number))
        victim.refuses(reason)
    own = keys.generate()
    scene.order(victim, "1.0.0")
    everyone = dict.fromkeys(("root", "targets", "snapshot", "timestamp"), own)
    told(victim, loot.root(DIRECTOR, [own, loot.director, loot.image], **everyone))  # cannot: change roots
    victim.refuses(SIGNATURE)


def test_one_release_key_adds_nothing_to_the_server(scene: Scene, make_victim: MakeVictim) -> None:
    loot, victim = scene.loot(1), make_victim()
    evil, body = loot.evil()
    victim.proxy.lie(BLOB, hostile.instead(body))
    role = loot.role(evil)
    twice = loot.role(evil, signers=[*loot.release, loot.image, loot.director, keys.generate()])
    for number, (version, signed) in enumerate((role, twice)):
        scene.order(victim)
        forged = loot.repository({PRODUCT: (version, signed)}, version=1000 + number)
        told(victim, loot.order(victim, evil, version=1000 + number), forged)
        victim.refuses(SIGNATURE)


def test_two_release_keys_reach_the_devices_of_their_product_only(
    scene: Scene, make_victim: MakeVictim
) -> None:
    loot = scene.loot(0, 2)
    victim = make_victim()
    scene.order(victim)
    evil, body = loot.evil()
    repository = loot.repository({PRODUCT: loot.role(evil)})
    told(victim, loot.order(victim, evil), repository)
    loot.logged(victim, evil, repository)
    victim.proxy.lie("^/api/updates/check", hostile.said(delta=None))
    victim.proxy.lie(BLOB, hostile.instead(body))
    victim.until(lambda: victim.version == "6.6.6", "new code, by two of three: that is what they are for")

    sound = make_victim()  # cannot: survive a rotation
    scene.order(sound)
    fresh, targets = scene.rotated()
    stale = {PRODUCT: loot.role(evil), "targets": targets}
    told(sound, loot.order(sound, evil), loot.repository(stale, version=1001))
    sound.proxy.lie(BLOB, hostile.instead(body))
    sound.refuses(SIGNATURE)
    renewed = loot.repository({PRODUCT: loot.role(signers=fresh[1:]), "targets": targets}, version=1002)
    scene.order(sound)
    sound.proxy.honest()
    honest = loot.released("1.1.0")
    told(sound, loot.order(sound, honest, version=1001), renewed)
    loot.logged(sound, honest, renewed)
    sound.until(lambda: sound.version == "1.1.0" and sound.settled(), "what the fresh keys vouch for")

    for settings in ({"product": OTHER_PRODUCT}, {}):  # told at the factory; learned with the first update
        camera = make_victim(hardware=OTHER_HARDWARE, factory="5.0.0", **settings)
        if not settings:
            camera.config.state_dir.joinpath("products.json").write_text(f'{{"image": "{OTHER_PRODUCT}"}}')
        scene.order(camera, "5.0.0")
        for_cameras, body = loot.evil(OTHER_HARDWARE)  # of product sensor, it says, and fits a camera
        told(camera, loot.order(camera, for_cameras), loot.repository({PRODUCT: loot.role(for_cameras)}))
        camera.proxy.lie(
            "^/api/updates/check", hostile.said(update_available=True, deployment="d", attempt=1)
        )
        camera.proxy.lie(BLOB, hostile.instead(body))
        with camera.resists():
            camera.until(lambda c=camera: any("refused" in said for said in c.log), "the refusal")  # type: ignore[misc]
        assert (
            "of product sensor, not of camera"
            in camera.log[-1] + camera.log[-2 if len(camera.log) > 1 else -1]
        )


def test_a_device_learns_its_product_with_its_first_update(scene: Scene, victim: Victim) -> None:
    victim.recovers(order=False)
    assert (victim.config.state_dir / "products.json").read_text() == '{"image": "sensor"}'


def test_one_root_key_is_worth_nothing(scene: Scene, victim: Victim) -> None:
    loot, own = scene.loot(), keys.generate()
    everyone = dict.fromkeys(("root", "targets", "snapshot", "timestamp"), own)
    holder = scene.desk.signers("root", 3)[:1]
    for repo in (DIRECTOR, IMAGE):
        told(victim, loot.root(repo, [*holder, own], **everyone))
        victim.refuses(SIGNATURE)
        victim.proxy.honest()
        scene.order(victim)
    victim.recovers(order=False)


def test_one_device_speaks_for_itself_only(scene: Scene, make_victim: MakeVictim) -> None:
    mine, other = make_victim(), make_victim()
    for each in (mine, other):
        scene.order(each)
    looked_at = len(other.proxy.asked)
    mine.proxy.lie(BLOB, hostile.withheld(503))
    mine.until(lambda: mine.waits, "an order of its own")
    token = {"Authorization": f"Bearer {mine.transport.token}"}
    with httpx2.Client(base_url=scene.server.url, headers=token, timeout=60) as stolen:
        own = {
            "device_id": mine.name,
            "deployment": mine.deployments[-1],
            "attempt": 1,
            "state": "installing",
        }
        assert (
            stolen.post("/api/updates/status", json=own).status_code == 200
        )  # can: say of itself what it likes
        anothers = {**own, "device_id": other.name, "deployment": other.deployments[-1], "state": "complete"}
        assert stolen.post("/api/updates/status", json=anothers).status_code in (401, 403, 404)
        for path in (
            f"/director/{other.name}/timestamp.json",
            f"/director/{other.name}/1.targets.json",
            f"/api/updates/check?device_id={other.name}&device_type={HARDWARE}&current_version=1.0.0",
        ):
            assert stolen.get(path).status_code in (401, 403, 404), path
        assert stolen.get("/api/devices").status_code in (401, 403)
        assert stolen.post(f"/api/trust/pending/{PRODUCT}/signatures", json={}).status_code in (401, 403)
    assert scene.client.get(f"/api/deployments/{other.deployments[-1]}/devices")["items"] == []
    assert len(other.proxy.asked) == looked_at
