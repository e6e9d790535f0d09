"""Attackers by name, over real HTTP, against the real agent: nothing is installed, the slot that runs stays
as it is, the device says why where it can, and takes the honest update when the attacker is gone.

The attacker owns the line in every test; what else he owns is said there.
"""

import base64
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from skylift.agent import transport
from skylift.firmware import hdiff
from skylift.firmware.delta import make
from skylift.testkit import hostile
from skylift.testkit.loot import PRODUCT, Loot
from skylift.testkit.victims import OTHER_PRODUCT, Scene, Victim
from skylift.trust import files, keys, verify
from skylift.trust.roles import DIRECTOR, IMAGE

from .conftest import MakeVictim

SIGNATURE, HASH, EXPIRED = "signature_invalid", "hash_mismatch", "metadata_expired"
ROLLBACK, HARDWARE_ERROR = "metadata_rollback", "wrong_hardware"
BLOB = "^/api/blobs/"
FINDS = Path(__file__).parent / "finds"
CHECK = "^/api/updates/check"


def no_delta(victim: Victim) -> None:
    victim.proxy.lie(CHECK, hostile.said(delta=None))


def ordered(victim: Victim, loot: Loot, *images: files.TargetFile, **more: object) -> None:
    victim.proxy.files(victim.name, loot.order(victim, *images, **more))  # type: ignore[arg-type]


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


# --- time that never ends -----------------------------------------------------------------------------


def test_endless_data(scene: Scene, make_victim: MakeVictim) -> None:
    victim = make_victim()
    for file in ("timestamp.json", "2.root.json", "targets.json"):
        scene.order(victim)
        whole = b"HTTP/1.1 200 OK\r\n\r\n"
        victim.proxy.lie(f"/director/.*{file}$", hostile.endless_raw(whole, b" " * 65536))
        sent = victim.proxy.sent
        victim.refuses(SIGNATURE)
        assert victim.proxy.sent - sent < 8 << 20, "the line is closed, not drained"
        victim.proxy.honest()
    scene.order(victim)
    victim.proxy.lie("^/api/log/", hostile.endless_raw(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536))
    victim.refuses(SIGNATURE)
    victim.proxy.honest()
    scene.order(victim)
    no_delta(victim)
    victim.proxy.lie(BLOB, hostile.endless(b"\0" * 65536, before=False))
    victim.refuses(HASH)
    victim.recovers()


def test_slow_retrieval(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then never runs into a socket's timeout: the rate and the deadline do."""
    monkeypatch.setattr(transport, "ANSWER_S", 0.3)
    monkeypatch.setattr(transport, "SLOW_WINDOW_S", 0.2)
    for path, head in ((CHECK, True), ("timestamp.json", True), ("timestamp.json", False)):
        victim.proxy.lie(path, hostile.trickled(victim.proxy, 0.05, head))
        victim.holds_out(2)
        assert "within 0.3 s" in victim.log[-1]
        victim.proxy.honest()
    flood = b"HTTP/1.1 100 Continue\r\n\r\n"
    for piece in (flood, b"X-More: and more\r\n", b"1"):
        victim.proxy.lie(
            "timestamp.json", hostile.endless_raw(b"" if piece == flood else b"HTTP/1.1 200 OK\r\n", piece)
        )
        victim.holds_out(2)
        assert victim.waits
        victim.proxy.honest()
    monkeypatch.setattr(transport, "ANSWER_S", 60.0)  # what is honest may be slow on a busy machine
    no_delta(victim)
    victim.proxy.lie(BLOB, hostile.trickled(victim.proxy, 0.05))
    victim.holds_out(3)
    assert "too slow" in victim.log[-1]
    victim.recovers(order=False)


def test_slow_retrieval_past_its_deadline(scene: Scene, make_victim: MakeVictim) -> None:
    """Never slower than the minimum rate, and without end all the same: the deadline ends it."""
    victim = make_victim(download_deadline_seconds=1.0, min_bytes_per_second=1)
    scene.order(victim)
    no_delta(victim)
    victim.proxy.lie(BLOB, hostile.trickled(victim.proxy, 0.05))
    assert "deadline" in victim.refuses("download_error")
    victim.off()
    victim.config = victim.transport.config = replace(victim.config, download_deadline_seconds=3600.0)
    victim.recovers()


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
    victim.refuses(HARDWARE_ERROR)


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


# --- metadata that is too much ------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    deep = b'{"signatures":[],"signed":' + b'{"a":' * 3000 + b"1" + b"}" * 3001
    key = {"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": "x"}}
    role = {"keyids": [f"{n:064x}" for n in range(3)], "threshold": 2}
    many: dict[str, object] = {
        "signatures": {"signatures": [{"keyid": f"{n:064x}", "sig": "30"} for n in range(500)], "signed": {}},
        "keys": {"signatures": [], "signed": {"keys": {f"{n:064x}": key for n in range(200)}}},
        "key ids": {"signatures": [], "signed": {"roles": {"root": {**role, "keyids": ["ab"] * 500}}}},
        "delegations": {
            "signatures": [],
            "signed": {"delegations": {"keys": {}, "roles": [{**role, "name": f"r{n}"} for n in range(600)]}},
        },
        "a number": {"signatures": [], "signed": {"version": 10**300}},
    }
    made = {name: json.dumps(body, separators=(",", ":")).encode() for name, body in many.items()}
    return made | {
        "size": b" " * (600 << 10),
        "depth": deep,
        "brackets": b"[" * 15000,
        "a fraction": b'{"signatures":[],"signed":{"version":1.5}}',
        "twice": b'{"signatures":[],"signed":{"version":1,"version":2}}',
        "not ASCII": '{"signatures":[],"signed":{"device_id":"dev-\u0430"}}'.encode(),
        "escaped": b'{"signatures":[],"signed":{"device_id":"dev-\\u0430"}}',
        "compressed": b"\x1f\x8b" + b"\0" * 100,
    }


REFUSED_FOR = {
    "signatures": "500 signatures",
    "keys": "200 keys",
    "key ids": "500 keys of a role",
    "delegations": "600 delegated roles",
    "a number": "a number of 301 digits",
    "size": "larger than",
    "depth": "nested deeper",
    "brackets": "nested deeper",
    "a fraction": "no whole number",
    "twice": "stands twice",
    "not ASCII": "not ASCII",
    "escaped": "an escape",
    "compressed": "not ASCII",
}


def test_metadata_bombs(scene: Scene, make_victim: MakeVictim) -> None:
    """Size, depth, number of keys, signatures, delegations: refused before anything is verified."""
    victim = make_victim()
    for number, (name, bomb) in enumerate(bombs().items()):
        scene.order(victim)
        small = ("/director/.*timestamp.json$", "/image/timestamp.json$")[number % 2]
        file = small if len(bomb) <= 16 << 10 else "/image/.*targets.json$"
        victim.proxy.lie(file, hostile.instead(bomb))
        assert REFUSED_FOR[name] in victim.refuses(SIGNATURE), name
        victim.proxy.honest()
    victim.recovers()


# --- names --------------------------------------------------------------------------------------------

TRICKS = (
    "../../etc/passwd",
    "/etc/passwd",
    "sensor/../camera/5.0.0/camera-v1",
    "sensor/1.1.0/sensor-v2/",
    "sensor//1.1.0",
    "a" * 3000,
)
LOOK_ALIKES = (
    "sens\u043er/1.1.0/sensor-v2",
    "sensor/1.1.0/sensor\u2010v2",
    "\uff53ensor/1.1.0/sensor-v2",
    "sensor/1.1.0/sensor-v2\u200b",
)


def renamed(loot: Loot, path: str) -> files.TargetFile:
    known = loot.released("1.1.0")
    return files.target(path, known.length, known.hashes["sha256"], known.unrecognized_fields["custom"])


def test_path_tricks_in_target_names(scene: Scene, make_victim: MakeVictim) -> None:
    """The director's key is stolen; no path but one that release keys vouch for leads anywhere."""
    victim, loot = make_victim(), scene.loot()
    before = set(scene.home.iterdir())
    for number, path in enumerate(TRICKS):
        scene.order(victim)
        ordered(victim, loot, renamed(loot, path), version=1000 + number)
        victim.refuses(SIGNATURE)
        victim.proxy.honest()
    assert set(scene.home.iterdir()) == before, "nothing was written elsewhere"


def test_unicode_look_alikes(scene: Scene, make_victim: MakeVictim) -> None:
    """A name that reads the same and is another: not even spelled in our files, whoever signs."""
    victim, loot = make_victim(), scene.loot()
    for number, path in enumerate(LOOK_ALIKES):
        scene.order(victim)
        order = files.order(1000 + number, victim.name, {path: renamed(loot, path)}, loot.now())
        raw = files.Metadata(order)
        raw.sign(loot.director)
        forged = loot.order(victim, loot.released("1.1.0"), version=1000 + number)
        forged[DIRECTOR, f"{1000 + number}.targets.json"] = raw.to_bytes()
        victim.proxy.files(victim.name, forged)
        assert "an escape" in victim.refuses(SIGNATURE)
        victim.proxy.honest()


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


# --- the line -----------------------------------------------------------------------------------------


def test_a_proxy_that_strips_reorders_and_duplicates(scene: Scene, make_victim: MakeVictim) -> None:
    """Headers go, files are swapped, answers come twice: what cannot be used is waited out or refused, and
    what is still whole is installed as what it is."""
    victim = make_victim()
    scene.order(victim)
    victim.proxy.lie(
        "^/", hostile.stripped("Content-Length", "Content-Type", "ETag", "Retry-After", "Accept-Ranges")
    )
    victim.until(lambda: victim.version == "1.1.0" and victim.settled(), "an update without headers")
    swapped = make_victim()
    scene.order(swapped)
    swap = lambda path: path.replace("targets.json", "snapshot.json")  # noqa: E731
    swapped.proxy.lie("/director/.*targets.json", hostile.swapped(swapped.proxy, swap))
    swapped.refuses(SIGNATURE)
    swapped.recovers()
    twice = make_victim()
    scene.order(twice)
    twice.proxy.lie("^/", hostile.doubled())
    twice.until(
        lambda: twice.version == "1.1.0" and twice.settled(), "an update in which everything comes twice"
    )


def test_a_withheld_file_is_no_verdict(victim: Victim) -> None:
    for file in ("timestamp.json", "snapshot.json", "targets.json"):
        for status in (404, 500, 301):
            victim.proxy.lie(f"/(director|image)/.*{file}", hostile.withheld(status))
            victim.holds_out(2)
            victim.proxy.honest()
    victim.recovers(order=False)


def test_a_delayed_answer_is_the_same_answer(victim: Victim) -> None:
    until = threading.Event()
    victim.proxy.lie("^/image/timestamp.json", hostile.delayed(until, 0.2))
    victim.recovers(order=False)


@pytest.mark.parametrize("keep", [0, 40, 400])
def test_truncated_metadata(victim: Victim, keep: int) -> None:
    """Cut off, it is waited for; cut off and called whole, it is refused."""
    victim.proxy.lie("timestamp.json", hostile.truncated(keep))
    victim.holds_out(2)
    victim.proxy.honest()
    victim.proxy.lie("timestamp.json", hostile.shortened(keep))
    victim.refuses(SIGNATURE)


def test_a_certificate_that_nobody_can_read_ends_no_agent(scene: Scene, make_victim: MakeVictim) -> None:
    """Found by fuzzing: one of a curve that the library does not know, one of no known version."""
    for find in sorted(FINDS.glob("certificates.*")):
        victim = make_victim(own_key=True)
        scene.order(victim)
        told = base64.encodebytes(find.read_bytes()).decode()
        pem = f"-----BEGIN CERTIFICATE-----\n{told}-----END CERTIFICATE-----\n"
        dates = {"issued_at": "2026-01-01T00:00:00+00:00", "expires_at": "2027-01-01T00:00:00+00:00"}
        body = json.dumps({"certificate": pem, **dates}).encode()
        victim.proxy.lie("/certificate$", hostile.instead(body))
        victim.proxy.lie("^/(director|image)/", hostile.withheld(503))
        with victim.resists():
            victim.until(lambda v=victim: any("not certified" in said for said in v.log), "the refusal")  # type: ignore[misc]
        victim.recovers(order=False)


# --- the log ------------------------------------------------------------------------------------------


def test_a_log_that_forks(scene: Scene, victim: Victim) -> None:
    """The attacker owns the server with every online key, and rewrites what it said before. Nothing that he
    orders is new: only the log could show it."""
    loot, versions = scene.loot(), count(1000)
    victim.recovers(order=False)  # an honest update: the device has pinned the log
    pinned = json.loads((victim.config.state_dir / "trust" / "log.json").read_text())
    scene.order(victim, "1.0.0")
    image = loot.released("1.0.0")
    ordered(victim, loot, image, version=next(versions))
    entry = loot.order_entry(victim, image)
    loot.log(entry, without=pinned["size"] - 1).shown_by(victim.proxy)
    assert "forks" in victim.refuses(SIGNATURE)

    def again() -> None:
        victim.proxy.honest()
        scene.order(victim, "1.0.0")
        ordered(victim, loot, image, version=next(versions))

    again()
    loot.log(loot.order_entry(victim, image), first=pinned["size"] - 2).shown_by(victim.proxy)
    assert "shrank" in victim.refuses(ROLLBACK)
    again()
    loot.log().shown_by(victim.proxy)  # goes on, but has nothing of this order
    assert "not in the log" in victim.refuses(SIGNATURE)
    again()
    stolen = replace(loot, director=keys.generate())
    stolen.log(loot.order_entry(victim, image)).shown_by(victim.proxy)
    assert "online key" in victim.refuses(SIGNATURE)
    again()
    for nonsense in (b"[]", b"{}", b'{"size": -1}', b"\xff", b"[" * 5000):
        victim.proxy.lie("^/api/log/checkpoint", hostile.instead(nonsense))
        victim.refuses(SIGNATURE)
        again()
    victim.proxy.lie("^/api/log/", hostile.withheld(404))
    victim.holds_out()
    kept = json.loads((victim.config.state_dir / "trust" / "log.json").read_text())
    assert kept == pinned
    again()  # the director's versions he has pushed up; the log is honest again
    victim.until(lambda: victim.version == "1.0.0" and victim.settled(), "what the honest log has")
    assert json.loads((victim.config.state_dir / "trust" / "log.json").read_text())["size"] > pinned["size"]


def test_two_devices_are_not_shown_different_logs_unseen(scene: Scene, make_victim: MakeVictim) -> None:
    """One device that has pinned nothing yet is shown a log of its own, and installs what it says. The last
    word of that update tells which log it was."""
    loot, lonely, other = scene.loot(), make_victim(), make_victim()
    for each in (lonely, other):
        scene.order(each)
    image = loot.released("1.1.0")
    ordered(lonely, loot, image)
    mine = loot.log(loot.order_entry(lonely, image), without=0)
    mine.shown_by(lonely.proxy)
    lonely.until(lambda: lonely.version == "1.1.0" and lonely.settled(), "what it was shown")
    other.recovers(order=False)
    seen = scene.client.get("/api/log/witnessed")["items"]
    theirs = [one for one in seen if one["device_id"] in (lonely.name, other.name)]
    strange = [(one["device_id"], one["size"], one["root"]) for one in theirs if not one["agrees"]]
    assert strange == [(lonely.name, mine.size, mine.root)]
    assert other.name in {one["device_id"] for one in seen if one["agrees"]}
    told = scene.client.get(f"/api/devices/{lonely.name}/timeline")["items"]
    assert [one["data"]["code"] for one in told if one["kind"] == "report_refused"] == ["split_view"]
    # And from now on that device is held to its own log: the honest one forks from it.
    lonely.proxy.honest()
    scene.order(lonely, "1.0.0")
    ordered(lonely, loot, loot.released("1.0.0"), version=1001)
    assert "forks" in lonely.refuses(SIGNATURE)


def test_a_device_whose_factory_pinned_the_log_never_goes_without(
    scene: Scene, make_victim: MakeVictim
) -> None:
    victim = make_victim(require_log=True)
    scene.order(victim)
    victim.proxy.lie("^/api/log/", hostile.withheld(404))
    victim.holds_out()
    victim.recovers(order=False)
