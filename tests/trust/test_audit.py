"""An auditor with a copy of the log and two roots: what holds, and each lie by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from skylift.core import merkle
from skylift.core.errors import TrustError
from skylift.engine import director, log
from skylift.store import log as stored
from skylift.store import trustfiles
from skylift.testkit.trustlab import PRODUCT, Lab, stranger
from skylift.trust import files
from skylift.trust.audit import Audited, Copy, verify, wanted
from skylift.trust.log import Checkpoint, Pin, file_entry, order_entry, sign
from skylift.trust.roles import DIRECTOR, IMAGE


@pytest.fixture
def lived(lab: Lab) -> Lab:
    """A server with two releases, orders, and new online keys."""
    device = lab.enroll()
    device.order(lab.released("1.0.0"))
    lab.rotate_online()
    device.order(lab.released("1.1.0"))
    device.order(None)
    return lab


def own(lab: Lab) -> dict[str, bytes]:
    """The desk's roots: it did not follow the rotation of online keys yet."""
    return {repo: lab.desk.public(f"{repo}.root").read_bytes() for repo in (IMAGE, DIRECTOR)}


def copied(lab: Lab) -> Copy:
    """As `skylift trust log save` takes it down."""
    with lab.database.read() as conn:
        checkpoint = log.checkpoint(conn, lab.online, 0, lab.clock())
        entries = [entry.entry for entry in stored.page(conn, 0, checkpoint["size"])]
        kept = {}
        for repo, role, version in wanted(entries):
            file = trustfiles.get(conn, repo, role, version)
            assert file is not None
            kept[f"{repo}/{version}.{role}.json"] = file.body
    return Copy(checkpoint, entries, kept)


def signed(lab: Lab, entries: list[str]) -> dict[str, Any]:
    """A checkpoint over these, as whoever has the online key would sign it."""
    nodes: dict[tuple[int, int], bytes] = {}
    for size, entry in enumerate(entries):
        leaf = merkle.leaf_hash(entry.encode())
        for level, number, made in merkle.appended(size, leaf, lambda *at: nodes[at]):
            nodes[level, number] = made
    root = merkle.root(len(entries), lambda *at: nodes[at])
    return sign(Checkpoint(len(entries), root.hex(), 0), lab.online.director)


def lying(lab: Lab, change: Callable[[list[str], dict[str, bytes]], None]) -> Copy:
    """A taken server's copy: another log, properly signed."""
    honest = copied(lab)
    entries, kept = list(honest.entries), dict(honest.files)
    change(entries, kept)
    return Copy(signed(lab, entries), entries, kept)


def test_a_whole_log_holds_through_a_rotation_by_roots_from_before_it(lived: Lab) -> None:
    found = verify(copied(lived), own(lived), None)
    assert isinstance(found, Audited)
    assert (found.newest[IMAGE, "root"], found.newest[DIRECTOR, "root"]) == (2, 2)
    assert (found.newest[IMAGE, PRODUCT], found.orders) == (2, 2)
    assert found.published == len(copied(lived).entries) - 2
    assert verify(copied(lived), own(lived), Pin(found.checkpoint.size, found.checkpoint.root))


def place(entries: list[str], **said: Any) -> int:
    """Where the entry stands that says this."""
    return next(n for n, entry in enumerate(entries) if said.items() <= json.loads(entry).items())


def drop(entries: list[str], kept: dict[str, bytes], **said: Any) -> None:
    del entries[place(entries, **said)]


def hide(entries: list[str], kept: dict[str, bytes], name: str) -> None:
    del kept[name]


def unlogged_root(lab: Lab, entries: list[str], kept: dict[str, bytes]) -> None:
    """A third director root for some devices only: shown to nobody else, not in the log."""
    known = files.read("root", kept["director/2.root.json"], files.Root).signed
    known.version = 3
    kept["director/3.root.json"] = files.sign(known, lab.desk.signers("root", 3)[:2])


def unsigned_root(lab: Lab, entries: list[str], kept: dict[str, bytes]) -> None:
    known = files.read("root", kept["director/2.root.json"], files.Root).signed
    swap(entries, kept, DIRECTOR, "root", 2, files.sign(known, [stranger(), stranger()]))


def own_role(lab: Lab, entries: list[str], kept: dict[str, bytes]) -> None:
    """A role that the server's own keys signed."""
    role = files.read(PRODUCT, kept[f"image/2.{PRODUCT}.json"], files.Targets).signed
    swap(entries, kept, IMAGE, PRODUCT, 2, files.sign(role, [lab.online.image, lab.online.director]))


def own_delegations(lab: Lab, entries: list[str], kept: dict[str, bytes]) -> None:
    known = files.read("targets", kept["image/1.targets.json"], files.Targets).signed
    swap(entries, kept, IMAGE, "targets", 1, files.sign(known, [lab.online.image]))


def swap(entries: list[str], kept: dict[str, bytes], repo: str, role: str, version: int, body: bytes) -> None:
    from hashlib import sha256

    entry = file_entry(repo, role, version, len(body), sha256(body).hexdigest())
    entries[place(entries, repo=repo, role=role, version=version)] = entry.decode()
    kept[f"{repo}/{version}.{role}.json"] = body


def evil_order(entries: list[str], kept: dict[str, bytes]) -> None:
    entries.append(order_entry("dep_9", "sensor/6.6.6/sensor-v2", 9, "66" * 32, True).decode())


def early_order(entries: list[str], kept: dict[str, bytes]) -> None:
    entries.insert(place(entries, role=PRODUCT, version=2), entries.pop(len(entries) - 1))


def again(entries: list[str], kept: dict[str, bytes]) -> None:
    """Another timestamp of a version that was out already."""
    entries.append(file_entry(IMAGE, "timestamp", 1, 9, "00" * 32).decode())


def nonsense(entries: list[str], kept: dict[str, bytes]) -> None:
    entries.append('{"entry":"order"}')


def torn(entries: list[str], kept: dict[str, bytes]) -> None:
    kept["director/1.root.json"] += b" "


LIES: dict[str, tuple[Callable[..., None], str]] = {
    "a director root that is not logged": (unlogged_root, "director/3.root.json is published, not logged"),
    "a director root that strangers signed": (unsigned_root, "2.root.json is not signed by its holders"),
    "a root taken out of the log": (
        partial(drop, repo=DIRECTOR, role="root", version=2), "2.root.json is published, not logged"),
    "a first root taken out of the log": (
        partial(drop, repo=DIRECTOR, role="root", version=1), "root version 2 was published after"),
    "a root that is not shown": (partial(hide, name="director/1.root.json"), "end with 0, yours is"),
    "a root of other bytes": (torn, "director root of version 1 is another than yours"),
    "a role that is not shown": (partial(hide, name="image/1.sensor.json"), "is logged, not shown"),
    "a role by the server's own keys": (own_role, "2.sensor.json is not signed by its release keys"),
    "delegations by the server's own key": (own_delegations, "not signed by the targets keys of any root"),
    "an order of what was never released": (evil_order, "dep_9 ordered sensor/6.6.6"),
    "an order before its release": (early_order, "which was not released before"),
    "a version published twice": (again, "timestamp version 1 was published after version"),
    "an entry that is none": (nonsense, "is no entry"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_an_auditor_finds(name: str, lived: Lab) -> None:
    lie, sentence = LIES[name]
    whose = partial(lie, lived) if lie in (unlogged_root, unsigned_root, own_role, own_delegations) else lie
    with pytest.raises(TrustError, match=sentence):
        verify(lying(lived, whose), own(lived), None)


def test_an_auditor_finds_a_log_that_forks_or_that_old_keys_signed(lived: Lab) -> None:
    honest = copied(lived)
    with pytest.raises(TrustError, match="forks"):
        verify(honest, own(lived), Pin(4, "00" * 32))
    other = replace(honest, checkpoint={**honest.checkpoint, "size": honest.checkpoint["size"] - 1})
    with pytest.raises(TrustError, match="not signed by the director's online key"):
        verify(other, own(lived), None)
    short = replace(honest, entries=honest.entries[:-1])
    with pytest.raises(TrustError, match="not what the checkpoint signs"):
        verify(short, own(lived), None)


def test_an_auditor_of_another_fleet_is_told_so(lived: Lab) -> None:
    foreign = files.read("root", own(lived)[DIRECTOR], files.Root).signed
    body = files.sign(foreign, [stranger()])
    with pytest.raises(TrustError, match="is another than yours"):
        verify(copied(lived), {**own(lived), DIRECTOR: body}, None)


# --- nothing is ordered unlogged ------------------------------------------------------------------------


def test_every_order_that_is_written_down_is_logged_in_the_same_transaction(lived: Lab) -> None:
    """`director.assign` is where orders come from: cut off after it, neither order nor entry is there."""
    line, release = lived.enroll("dev-2"), lived.released("1.2.0")
    target = lived.target(release)
    before = copied(lived).entries

    def fails(conn: Any) -> None:
        director.assign(conn, line.device_pk, target, lived.clock())
        raise RuntimeError("the power fails")

    with pytest.raises(RuntimeError):
        lived.database.write(fails)
    assert copied(lived).entries == before
    with lived.database.read() as conn:
        assert trustfiles.order_of(conn, line.device_pk) is None
