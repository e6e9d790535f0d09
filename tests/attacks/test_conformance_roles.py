"""The client that the conformance suite drives: keys, thresholds, rotations, versions and times, against a
repository that does whatever a repository must not."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata

from skylift.trust import keys

from .simulated import Client, Simulated, days

KEY = {
    "rsassa-pss-sha256": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-pkcs1v15-sha256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa-sha2-nistp256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-sha2-nistp384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-sha2-nistp521": lambda: ec.generate_private_key(ec.SECP521R1()),
}


# --- keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", KEY)
def test_keys_of_every_kind_sign_and_are_held_to_it(scheme: str, client: Client) -> None:
    """The second of two signatures that the next root needs is by such a key; then by another of its kind."""
    own, another = (
        CryptoSigner(private, SSlibKey.from_crypto(private.public_key(), scheme=scheme))
        for private in (KEY[scheme](), KEY[scheme]())
    )
    repository = client.simulated
    repository.add_key("root", own)
    repository.root.roles["root"].threshold = 2
    repository.publish("root")
    assert client.init() == client.refresh() == 0
    assert client.trusted["root"] == 2
    repository.publish("root")
    payload = Metadata.from_bytes(repository.files["root"][-1]).signed_bytes
    forged = another.sign(payload).signature

    def forge(root: dict[str, Any]) -> None:
        next(made for made in root["signatures"] if made["keyid"] == own.public_key.keyid)["sig"] = forged

    repository.changed("root", forge)
    assert client.refresh() == 1
    assert client.trusted["root"] == 2


def test_a_root_with_a_key_of_an_unknown_kind_is_refused(client: Client) -> None:
    """It could never count what that key signs; the former root stays."""
    repository = client.simulated
    assert client.init() == client.refresh() == 0
    repository.root.add_key(SSlibKey("ab" * 32, "unknown", "unknown", {"public": "key"}), "root")
    repository.publish("root")
    assert client.refresh() == 1
    assert client.trusted["root"] == 1


def test_too_few_signatures_are_none(client: Client) -> None:
    repository = client.simulated
    for _ in range(2):
        repository.add_key("snapshot")
    repository.root.roles["snapshot"].threshold = 3
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.init() == client.refresh() == 0
    repository.signers["snapshot"].pop()
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted["snapshot"] == 2


def test_a_threshold_above_the_number_of_keys_is_never_met(client: Client) -> None:
    repository = client.simulated
    for _ in range(4):
        repository.add_key("snapshot")
    repository.root.roles["snapshot"].threshold = 6
    repository.publish("root", "snapshot", "timestamp")
    assert client.init() == 0
    assert client.refresh() == 1
    assert client.trusted.keys() & {"root", "snapshot"} == {"root"}
    assert client.trusted["root"] == 2


def test_one_key_signs_once_however_often_it_is_named(client: Client) -> None:
    """Its id stands in the role many times, its signature in the file; or it has many ids."""
    repository = client.simulated
    repository.root.roles["snapshot"].threshold = 3
    repository.publish("root", "snapshot", "timestamp")

    def name_often(root: dict[str, Any]) -> None:
        root["signed"]["roles"]["snapshot"]["keyids"] *= 9

    unsigned = Metadata.from_bytes(repository.files["root"][-1])
    root = unsigned.to_dict()
    name_often(root)
    repository.files["root"][-1] = signed_anew(root, repository)
    repository.changed("snapshot", lambda file: file["signatures"].extend(file["signatures"] * 8))
    assert client.init() == 0
    assert client.refresh() == 1
    assert "snapshot" not in client.trusted


def signed_anew(file: dict[str, Any], repository: Simulated) -> bytes:
    """What no library would write, signed by the root's key all the same."""
    payload = encode_canonical(file["signed"])
    assert payload is not None
    made = repository.signers["root"][0].sign(payload.encode())
    return json.dumps({**file, "signatures": [made.to_dict()]}).encode()


def test_a_key_that_signs_twice_makes_the_file_invalid(client: Client) -> None:
    client.simulated.changed("snapshot", lambda file: file["signatures"].append(file["signatures"][0]))
    assert client.init() == 0
    assert client.refresh() == 1
    assert "snapshot" not in client.trusted


@pytest.mark.parametrize("bad", ["another's", "", "zz", "00" * 70])
def test_a_bad_signature_beside_enough_good_ones_does_no_harm(bad: str, client: Client) -> None:
    repository = client.simulated
    first = repository.signers["timestamp"][0].public_key.keyid
    repository.add_key("timestamp")
    repository.publish("root", "timestamp")
    old = Metadata.from_bytes(repository.files["timestamp"][0]).signatures[first].signature

    def spoil(file: dict[str, Any]) -> None:
        made = next(each for each in file["signatures"] if each["keyid"] == first)
        made["sig"] = old if bad == "another's" else bad

    repository.changed("timestamp", spoil)
    assert client.init() == client.refresh() == 0
    assert client.trusted["timestamp"] == 2


# --- roots follow each other ---------------------------------------------------------------------------

Step = tuple[Sequence[int], int, Sequence[int]]  # keys, threshold, who signs

FOLLOW: dict[str, Sequence[Step]] = {
    "another key, signed by both": [([1], 1, [1]), ([2], 1, [2, 1]), ([2], 1, [2])],
    "strangers sign too": [([1], 1, [3, 1, 4]), ([2], 1, [3, 2, 1, 4]), ([2], 1, [3, 2, 4])],
    "any three of five": [(range(5), 3, [0, 2, 4]), (range(5), 3, [0, 4, 1]), (range(5), 3, [0, 1, 3])],
    "one of five replaced": [(range(5), 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 1])],
    "one replaced, old and new sign": [
        (range(5), 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4, 5]), ([0, 1, 3, 4, 5], 3, [0, 4, 5]),
    ],
    "all replaced at once": [
        (range(5), 3, [0, 2, 4]), (range(5, 10), 3, [0, 2, 4, 5, 6, 7]), (range(5, 10), 3, [5, 6, 7]),
    ],
    "a higher threshold": [([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2])],
    "a lower threshold": [([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1, 2]), ([1, 2, 3], 1, [1])],
    "a second key and a higher threshold": [([1], 1, [1]), ([1, 2], 2, [1, 2])],
}  # fmt: skip
BREAK: dict[str, Sequence[Step]] = {
    "not signed by the old key": [([1], 1, [1]), ([2], 1, [2, 3, 4])],
    "not signed by the new key": [([1], 1, [1]), ([2], 1, [1, 3, 4])],
    "not by three of the new": [(range(5), 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4])],
    "not by three of the old": [(range(5), 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 5])],
    "below its own higher threshold": [([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2])],
    "below the old threshold": [([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1])],
}


@pytest.fixture(scope="module")
def holders() -> list[keys.KeySigner]:
    return [keys.generate() for _ in range(10)]


def hold(repository: Simulated, role: str, step: Step, holders: list[keys.KeySigner]) -> None:
    named, threshold, signing = step
    for keyid in list(repository.root.roles[role].keyids):
        repository.root.revoke_key(keyid, role)
    repository.root.roles[role].threshold = threshold
    for number in named:
        repository.root.add_key(holders[number].public_key, role)
    repository.signers[role] = [holders[number] for number in signing]


@pytest.mark.parametrize("name", [*FOLLOW, *BREAK])
def test_roots_follow_each_other_by_both_sets_of_keys(
    name: str, client: Client, holders: list[keys.KeySigner]
) -> None:
    repository = client.simulated
    steps = FOLLOW.get(name) or BREAK[name]
    repository.again_from("root", 0)
    for step in steps:
        hold(repository, "root", step, holders)
        repository.files.setdefault("root", [])
        repository.publish("root")
    assert client.init() == 0
    assert client.refresh() == (0 if name in FOLLOW else 1)
    kept = repository.files["root"][-1 if name in FOLLOW else -2]
    assert (client.metadata / "root.json").read_bytes() == kept


SIGNED: dict[str, tuple[Step, bool]] = {
    "another key": (([2], 1, [2]), True),
    "strangers sign too": (([1], 1, [3, 1, 4]), True),
    "not signed by the new key": (([2], 1, [1, 3, 4]), False),
    "not by three that are named": (([0, 1, 3, 4, 5], 3, [0, 2, 4]), False),
    "by two of three": (([0, 1, 3, 4, 5], 3, [0, 4]), False),
    "by any three": ((range(5), 3, [2, 3, 4]), True),
}


@pytest.mark.parametrize("name", SIGNED)
def test_other_roles_follow_the_root(name: str, client: Client, holders: list[keys.KeySigner]) -> None:
    repository = client.simulated
    step, good = SIGNED[name]
    assert client.init() == client.refresh() == 0
    for role in ("timestamp", "snapshot", "targets"):
        hold(repository, role, step, holders)
        repository.publish("root", "targets", "snapshot", "timestamp")
        assert client.refresh() == (0 if good else 1)
        kept = (client.metadata / f"{role}.json").read_bytes()
        assert (kept == repository.files[role][-1]) is good
        if not good:
            break


def test_a_client_that_slept_follows_every_root(client: Client) -> None:
    for _ in range(40):
        client.simulated.rotate("timestamp")
        client.simulated.publish("root")
    client.simulated.publish("timestamp")
    assert client.init() == client.refresh() == 0
    assert client.trusted["root"] == 41


# --- versions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_hashes", [False, True])
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_no_role_goes_back(role: str, with_hashes: bool, client: Client) -> None:
    repository = client.simulated
    repository.with_hashes = with_hashes
    repository.publish("targets", "snapshot", "timestamp")
    assert client.init() == client.refresh() == 0
    before = client.trusted
    repository.again_from(role, 1)
    order = {"timestamp": (), "snapshot": ("timestamp",), "targets": ("snapshot", "timestamp")}[role]
    repository.publish(role, *order)
    assert client.refresh() == 1
    kept = client.trusted
    assert {name: kept[name] for name in (role, "snapshot")} == {
        name: before[name] for name in (role, "snapshot")
    }


def test_a_role_does_not_vanish_from_the_snapshot(client: Client) -> None:
    repository = client.simulated
    repository.delegate("targets", "delegated")
    repository.publish("delegated", "targets", "snapshot", "timestamp")
    assert client.init() == client.refresh() == 0
    del repository.signed["snapshot"].meta["delegated.json"]
    repository.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted["snapshot"] == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_new_keys_undo_a_fast_forward(role: str, client: Client) -> None:
    """Whoever had a key drove the versions up; its successor begins low again."""
    repository = client.simulated
    repository.delegate("targets", "delegated")
    repository.publish("delegated")
    repository.signed[role].version = 99_999
    repository.publish("targets", "snapshot", "timestamp")
    newest = repository.files[role][-1]
    repository.files[role] = [newest] * 100_000
    assert client.init() == client.refresh() == 0
    assert client.trusted[role] == 100_000
    for replaced in {"targets": ("snapshot",), "snapshot": ("snapshot", "timestamp")}.get(role, (role,)):
        repository.rotate(replaced)
    repository.again_from(role, 1)
    if role == "targets":
        del repository.signed["snapshot"].meta["delegated.json"]
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.trusted[role] == 1


# --- times ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_an_expired_role_is_refused(role: str, client: Client) -> None:
    """A root is kept all the same: its successor may be good again. So is a timestamp no more."""
    assert client.init() == client.refresh() == 0
    repository = client.simulated
    repository.signed[role].expires = days(-1)
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    kept = client.trusted
    assert kept["root"] == 2
    after = ["timestamp", "snapshot", "targets"]
    reached = after[: after.index(role)] if role in after else []
    assert {name: kept[name] for name in after} == {name: 2 if name in reached else 1 for name in after}
    if role == "root":
        repository.signed["root"].expires = days(1)
        repository.publish("root")
        assert client.refresh() == 0


def test_the_clock_is_the_one_that_faketime_shows(client: Client) -> None:
    repository = client.simulated
    repository.root.expires = days(7)
    repository.publish("root")
    assert client.init() == client.refresh() == client.refresh(days(6)) == 0
    assert client.refresh(days(8)) == 1


def test_what_expired_here_still_leads_to_what_is_new(client: Client) -> None:
    """Root, timestamp and snapshot of the first day; on the eighteenth all three have expired here."""
    repository = client.simulated
    for role in ("root", "timestamp", "snapshot"):
        repository.signed[role].expires = days(7)
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.init() == client.refresh() == 0
    for role in ("root", "timestamp", "snapshot"):
        repository.signed[role].expires = days(21)
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh(days(18)) == 0
    assert set(client.trusted.values()) == {3}
    repository.again_from("timestamp", 1)
    repository.publish("timestamp")
    assert client.refresh(days(22)) == client.refresh(days(20)) == 1, "expired or not, it is no older one"


def delegated(repository: Simulated, expires: datetime) -> None:
    repository.delegate("targets", "delegated", ["path/*"]).expires = expires
    for name in ("first", "second"):
        repository.add("delegated", f"path/{name}", name.encode())
    repository.publish("delegated", "targets", "snapshot", "timestamp")


def test_an_expired_delegated_role_vouches_for_nothing(client: Client) -> None:
    delegated(client.simulated, days(-1))
    assert client.init() == client.refresh() == 0
    assert client.download("path/first") == 1
    assert (client.got, "delegated" in client.trusted) == ([], False)


def test_a_delegated_role_that_expired_here_vouches_for_nothing(client: Client) -> None:
    delegated(client.simulated, days(7))
    assert client.init() == client.download("path/first") == 0
    assert client.download("path/second", at=days(18)) == 1
    assert client.got == [b"first"]


def test_a_delegated_role_that_expired_here_is_renewed(client: Client) -> None:
    repository = client.simulated
    delegated(repository, days(7))
    assert client.init() == client.download("path/first") == 0
    repository.signed["delegated"].expires = days(21)
    repository.publish("delegated", "snapshot", "timestamp")
    assert client.download("path/second", at=days(18)) == 0
    assert client.got == [b"first", b"second"]
