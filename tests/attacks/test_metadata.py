"""Metadata that is too much, refused before anything is verified; and names that look like others, which lead
nowhere whoever signs."""

import json

from skylift.testkit import hostile
from skylift.testkit.loot import Loot
from skylift.testkit.victims import Scene
from skylift.trust import files
from skylift.trust.roles import DIRECTOR

from .conftest import SIGNATURE, MakeVictim, ordered

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
