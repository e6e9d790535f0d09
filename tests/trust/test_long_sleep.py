"""A device that slept for three years: meanwhile every key was replaced, one after the other."""

from datetime import datetime
from functools import partial

from skylift.engine import gathering, signing
from skylift.store.db import Connection
from skylift.testkit.trustlab import ACTOR, HARDWARE, PRODUCT, Lab
from skylift.trust import books, compact
from skylift.trust.ceremony import Desk
from skylift.trust.keyring import load
from skylift.trust.roles import DIRECTOR, IMAGE, IMAGE_TARGETS, ROOTS


def follow(lab: Lab) -> None:
    """The desk's books, up to the server's newest."""
    published = lab.published()
    numbers = [int(name.split(".")[0]) for _, name in published if name.endswith(".targets.json")]

    def get(role: str, version: int) -> bytes | None:
        if role == IMAGE_TARGETS:
            return published[IMAGE, f"{max(numbers)}.targets.json"]
        return published.get((ROOTS[role], f"{version}.root.json"))

    books.catch_up(lab.desk, get)


def hand_in(lab: Lab, proposals: dict[str, bytes], *names: str) -> None:
    """Proposed, and signed by whoever of these has a key that counts."""
    folder = lab.desk.path / "keys"
    every = [load(path, None) for name in names for path in sorted(folder.glob(f"{name}-*"))]
    now = lab.clock()
    for role, body in proposals.items():
        lab.database.write(partial(propose, lab, role, body, now))
    for role in [*proposals, PRODUCT]:
        for signer in every:
            with lab.database.read() as conn:
                waiting = {each["role"]: each for each in gathering.status(conn, now)["pending"]}
            if role in waiting and signer.public_key.keyid in waiting[role]["keyids"]:
                lab.hand_in(signer, role)
    follow(lab)


def propose(lab: Lab, role: str, body: bytes, now: datetime, conn: Connection) -> None:
    gathering.propose(conn, lab.online, role, body, ACTOR, now)


def replaced(lab: Lab, role: str) -> None:
    """The longest-serving key of this role goes, a new one comes."""
    own = books.Books.open(lab.desk)
    known = own.image_root.keys[own.image_root.roles[role].keyids[0]]
    fresh = load(Desk(lab.desk.path, None).fresh(role), None).public_key
    hand_in(lab, books.rotated(own, role, known, fresh, lab.clock()), "root", "targets")


def test_a_device_that_slept_three_years_follows_the_whole_chain(lab: Lab) -> None:
    first = lab.released("1.0.0")
    device = lab.enroll()
    device.order(first)
    assert device.verify() is not None
    roots = [lab.desk.public(f"{repo}.root").read_bytes() for repo in (IMAGE, DIRECTOR)]
    small = compact.Device("dev-1", HARDWARE, PRODUCT, *roots)
    for quarter in range(12):
        lab.clock.forward(days=85)  # type: ignore[attr-defined] # the tests' clock
        lab.database.write(lambda conn: signing.freshen(conn, lab.online, lab.clock()))
        lab.database.write(lambda conn: signing.renew(conn, PRODUCT, ACTOR, lab.clock()))
        hand_in(lab, {}, f"release-{PRODUCT}")
        replaced(lab, ("root", "targets", "root")[quarter % 3])
        if quarter == 6:
            own = books.Books.open(lab.desk)
            hand_in(lab, books.renewed(own, "targets", lab.clock()), "targets")
    lab.rotate_online()
    follow(lab)
    lab.sealed("2.0.0", b"after three years")
    hand_in(lab, {}, f"release-{PRODUCT}")
    with lab.database.read() as conn:
        versions = {(r["repo"], r["role"]): r for r in gathering.status(conn, lab.clock())["roles"]}
    assert versions[IMAGE, "root"]["version"] >= 12
    assert versions[DIRECTOR, "root"]["version"] >= 8
    release = next(r for r in lab.releases() if r.version == "2.0.0")
    device.order(release.id)
    found = device.verify()
    assert found is not None
    assert found.version == "2.0.0"
    published = lab.published()
    for version in range(2, versions[DIRECTOR, "root"]["version"] + 1):
        small.take_root(DIRECTOR, published[DIRECTOR, f"{version}.root.json"])
    for version in range(2, versions[IMAGE, "root"]["version"] + 1):
        small.take_root(IMAGE, published[IMAGE, f"{version}.root.json"])
    now = int(lab.clock().timestamp())
    small.take_delegations(published[IMAGE, f"{versions[IMAGE, 'targets']['version']}.targets.json"], now)
    role = published[IMAGE, f"{versions[IMAGE, PRODUCT]['version']}.{PRODUCT}.json"]
    taken = small.decide(device.honest(DIRECTOR, "order.json"), role, None, now)
    assert taken is not None
    assert taken.version == "2.0.0"
