"""The entry point that the TUF conformance suite drives, against a repository of ours, over real HTTP: what a
client asks for, keeps, takes and refuses. Keys, versions and times are in test_conformance_roles, delegations
in test_conformance_delegations.

`SUITE` names every case of the suite (theupdateframework/tuf-conformance) and the test of ours that does the
like; the suite itself is run by `bench trust --conformance PATH`.
"""

import ast
import json
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import MetaFile

from .simulated import TOP, Client, Simulated

SUITE = {
    "test_basic": {
        "basic_refresh_requests": "test_refresh_asks_in_order_and_keeps_what_it_verified",
        "basic_refresh_trusted_data": "test_refresh_asks_in_order_and_keeps_what_it_verified",
        "implicit_refresh": "test_a_download_refreshes_first",
        "invalid_initial_root": "test_a_first_root_that_is_none_leads_nowhere",
        "unsigned_initial_root": "test_a_first_root_that_nobody_signed_leads_nowhere",
        "unsigned_metadata": "test_an_unsigned_role_is_refused_and_what_came_before_it_is_kept",
        "url_and_metadata_version_mismatch": "test_a_file_of_another_version_than_was_asked_for_is_refused",
        "timestamp_content_changes": "test_a_timestamp_of_the_same_version_changes_nothing",
        "basic_metadata_hash_support": "test_hashes_and_lengths_of_metadata_are_held_to",
        "metadata_bytes_match": "test_what_is_kept_is_what_came_byte_for_byte",
        "custom_fields": "test_unknown_fields_are_part_of_what_is_signed",
        "deprecated_keyid_hash_algorithms": "test_a_field_that_the_specification_dropped_means_nothing",
        "snapshot_404": "test_a_missing_file_ends_the_refresh_where_it_is_missing",
        "targets_404": "test_a_missing_file_ends_the_refresh_where_it_is_missing",
        "timestamp_404": "test_a_missing_file_ends_the_refresh_where_it_is_missing",
        "incorrect_metadata_type": "test_a_snapshot_is_no_timestamp_whoever_signed_it",
        "faketime": "test_the_clock_is_the_one_that_faketime_shows",
    },
    "test_keys": {
        "snapshot_does_not_meet_threshold": "test_too_few_signatures_are_none",
        "snapshot_has_too_few_keys": "test_a_threshold_above_the_number_of_keys_is_never_met",
        "duplicate_keys": "test_one_key_signs_once_however_often_it_is_named",
        "duplicate_sig_keyids": "test_a_key_that_signs_twice_makes_the_file_invalid",
        "keytype_and_scheme": "test_keys_of_every_kind_sign_and_are_held_to_it",
        "invalid_sig_in_valid_metadata": "test_a_bad_signature_beside_enough_good_ones_does_no_harm",
    },
    "test_rollback": {
        "new_timestamp_version_rollback": "test_no_role_goes_back",
        "snapshot_rollback": "test_no_role_goes_back",
        "targets_rollback": "test_no_role_goes_back",
        "targets_role_removal": "test_a_role_does_not_vanish_from_the_snapshot",
        "targets_fast_forward_recovery": "test_new_keys_undo_a_fast_forward",
        "new_snapshot_fast_forward_recovery": "test_new_keys_undo_a_fast_forward",
        "new_timestamp_fast_forward_recovery": "test_new_keys_undo_a_fast_forward",
    },
    "test_expiration": {
        "root_expired": "test_an_expired_role_is_refused",
        "timestamp_expired": "test_an_expired_role_is_refused",
        "snapshot_expired": "test_an_expired_role_is_refused",
        "targets_expired": "test_an_expired_role_is_refused",
        "expired_metadata": "test_what_expired_here_still_leads_to_what_is_new",
        "expired_local_root": "test_what_expired_here_still_leads_to_what_is_new",
        "expired_local_timestamp": "test_what_expired_here_still_leads_to_what_is_new",
        "expired_local_snapshot": "test_what_expired_here_still_leads_to_what_is_new",
    },
    "test_delegated_expiration": {
        "delegated_targets_expired": "test_an_expired_delegated_role_vouches_for_nothing",
        "expired_local_delegated_targets": "test_a_delegated_role_that_expired_here_vouches_for_nothing",
        "expired_local_delegated_targets_updates": "test_a_delegated_role_that_expired_here_is_renewed",
    },
    "test_file_download": {
        "client_downloads_expected_file": "test_download_fetches_once_and_refuses_what_nobody_vouches_for",
        "client_downloads_expected_file_in_sub_dir": "test_targets_with_odd_names_stay_in_their_folder",
        "repository_substitutes_target_file": "test_other_bytes_are_refused_and_what_was_there_stays",
        "multiple_changes_to_target": "test_a_target_that_changes_is_replaced",
        "download_with_hash_algorithms": "test_digests_of_every_kind_are_held_to",
        "download_with_unknown_hash_algorithm": "test_a_digest_of_an_unknown_kind_vouches_for_nothing",
        "artifact_cache": "test_download_fetches_once_and_refuses_what_nobody_vouches_for",
    },
    "test_quoting_issues": {"unusual_role_name": "test_roles_with_odd_names_are_asked_for_and_kept_quoted"},
    "test_updater_delegation_graphs": {
        "graph_traversal": "test_delegations_are_searched_in_order_and_depth_first",
        "targetfile_search": "test_a_target_is_found_where_every_role_above_delegates_it",
        "succinct_roles_graph_traversal": "test_hash_bins_lead_to_one_bin",
        "hash_prefix": "test_hash_prefixes_lead_to_their_role",
        "cached_role_is_verified_against_current_delegator": (
            "test_a_role_seen_on_one_way_is_verified_again_on_another"
        ),
        "delegation_not_in_snapshot": "test_a_role_that_the_snapshot_does_not_list_is_not_asked_for",
    },
    "test_updater_key_rotations": {
        "root_rotation": "test_roots_follow_each_other_by_both_sets_of_keys",
        "non_root_rotations": "test_other_roles_follow_the_root",
    },
    "test_static_repositories": {"static_repository": "test_a_repository_of_files_as_others_write_them"},
}


def test_every_case_of_the_suite_has_its_test() -> None:
    named = {ours for cases in SUITE.values() for ours in cases.values()}
    written = {
        node.name
        for path in Path(__file__).parent.glob("test_conformance*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert named <= written, sorted(named - written)


# --- refresh -------------------------------------------------------------------------------------------


def test_refresh_asks_in_order_and_keeps_what_it_verified(client: Client) -> None:
    assert client.init() == 0
    assert client.simulated.asked == []
    assert client.refresh() == 0
    assert client.simulated.asked == [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)]
    assert client.trusted == dict.fromkeys(TOP, 1)
    for role in TOP:
        assert (client.metadata / f"{role}.json").read_bytes() == client.simulated.files[role][0]


def test_without_consistent_snapshots_names_have_no_versions(client: Client) -> None:
    repository = client.simulated
    repository.root.consistent_snapshot = False
    repository.add("targets", "dir/image", b"an image")
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.init() == 0
    assert client.download("dir/image") == 0
    unversioned = [("timestamp", None), ("snapshot", None), ("targets", None)]
    assert repository.asked == [("root", 2), ("root", 3), *unversioned]
    assert (client.got, repository.fetched) == ([b"an image"], ["dir/image"])


@pytest.mark.parametrize("root", [b"", b"[]", b"{" * 5000, b'{"signatures":[],"signed":{}}'])
def test_a_first_root_that_is_none_leads_nowhere(root: bytes, client: Client) -> None:
    client.init(root)
    assert client.refresh() == 1
    assert client.simulated.asked == []


@pytest.mark.parametrize("how", ["versionless", "another's signature"])
def test_a_first_root_that_nobody_signed_leads_nowhere(how: str, client: Client, other: Simulated) -> None:
    root = json.loads(client.simulated.files["root"][0])
    if how == "versionless":
        del root["signed"]["version"]
    else:
        root["signatures"][0]["sig"] = json.loads(other.files["root"][0])["signatures"][0]["sig"]
    client.init(json.dumps(root).encode())
    assert client.refresh() == 1
    assert client.simulated.asked == []


KEPT = {
    "root": {"root": 1},
    "timestamp": {"root": 2},
    "snapshot": {"root": 2, "timestamp": 2},
    "targets": {"root": 2, "timestamp": 2, "snapshot": 2},
}


@pytest.mark.parametrize("role", TOP)
def test_an_unsigned_role_is_refused_and_what_came_before_it_is_kept(role: str, client: Client) -> None:
    client.simulated.signers[role].clear()
    client.simulated.publish("root", "targets", "snapshot", "timestamp")
    assert client.init() == 0
    assert client.refresh() == 1
    assert client.trusted == KEPT[role]


@pytest.mark.parametrize("role", ["root", "snapshot", "targets"])
def test_a_file_of_another_version_than_was_asked_for_is_refused(role: str, client: Client) -> None:
    repository = client.simulated
    listed = repository.signed["snapshot"].meta, repository.signed["timestamp"]
    repository.signed[role].version += 1  # the second file says that it is the third
    repository.publish("root", "targets")
    listed[0]["targets.json"] = MetaFile(2)
    repository.publish("snapshot")
    listed[1].snapshot_meta = MetaFile(2)
    repository.publish("timestamp")
    assert client.init() == 0
    assert client.refresh() == 1
    assert client.trusted == KEPT[role]


def test_a_timestamp_of_the_same_version_changes_nothing(client: Client) -> None:
    assert client.init() == client.refresh() == 0
    before = (client.metadata / "timestamp.json").read_bytes()
    client.simulated.signed["timestamp"].snapshot_meta = MetaFile(100)
    client.simulated.again_from("timestamp", 1)
    client.simulated.publish("timestamp")
    assert client.refresh() == 0
    assert client.simulated.asked[-1] == ("timestamp", None)
    assert (client.metadata / "timestamp.json").read_bytes() == before


def test_hashes_and_lengths_of_metadata_are_held_to(client: Client) -> None:
    repository = client.simulated
    repository.with_hashes = True
    repository.publish("targets", "snapshot", "timestamp")
    assert client.init() == client.refresh() == 0
    for what, value in (("hashes", {"sha256": sha256(b"").hexdigest()}), ("length", 20)):
        repository.publish("targets")
        setattr(repository.signed["snapshot"].meta["targets.json"], what, value)
        repository.publish("snapshot", "timestamp")
        assert client.refresh() == 1
        assert client.trusted["targets"] == 2
        assert client.trusted["snapshot"] == repository.signed["snapshot"].version
    repository.publish("targets", "snapshot")
    repository.signed["timestamp"].snapshot_meta.hashes = {"sha256": sha256(b"").hexdigest()}
    repository.publish("timestamp")
    assert client.refresh() == 1
    assert client.trusted["snapshot"] == 4


def test_what_is_kept_is_what_came_byte_for_byte(client: Client) -> None:
    client.simulated.files["timestamp"][-1] += b" \n"
    assert client.init() == client.refresh() == 0
    assert (client.metadata / "timestamp.json").read_bytes() == client.simulated.files["timestamp"][-1]


def test_unknown_fields_are_part_of_what_is_signed(client: Client) -> None:
    assert client.init() == client.refresh() == 0
    repository = client.simulated
    key = repository.signers["root"][0].public_key
    repository.root.unrecognized_fields["x-own"] = {"name": "J\u00f6rg", "list": [1, True, None]}
    repository.root.keys[key.keyid].unrecognized_fields["x-own"] = {"a": 1}
    repository.root.roles["root"].unrecognized_fields["x-own"] = "value"
    repository.publish("root")
    repository.changed("root", lambda root: root.update({"x-own": "beside what is signed"}))
    assert client.refresh() == 0
    assert client.trusted["root"] == 2
    repository.publish("root")
    repository.changed("root", lambda root: root["signed"].update({"x-own": "changed"}))
    assert client.refresh() == 1
    assert client.trusted["root"] == 2


def test_a_field_that_the_specification_dropped_means_nothing(client: Client) -> None:
    repository = client.simulated
    repository.rotate("snapshot")
    key = repository.root.keys[repository.signers["snapshot"][0].public_key.keyid]
    key.unrecognized_fields["keyid_hash_algorithms"] = "md5"
    repository.publish("root", "snapshot", "timestamp")
    assert client.init() == client.refresh() == 0
    assert (client.trusted["root"], client.trusted["snapshot"]) == (2, 2)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_missing_file_ends_the_refresh_where_it_is_missing(role: str, client: Client) -> None:
    assert client.init() == client.refresh() == 0
    repository = client.simulated
    repository.publish("targets", "snapshot", "timestamp")
    del repository.files[role][-1 if role != "timestamp" else 0 :]
    assert client.refresh() == 1
    assert repository.asked[-1] == (role, None if role == "timestamp" else 2)
    after = {"timestamp": (1, 1, 1), "snapshot": (2, 1, 1), "targets": (2, 2, 1)}[role]
    assert tuple(client.trusted[kept] for kept in ("timestamp", "snapshot", "targets")) == after


def test_a_snapshot_is_no_timestamp_whoever_signed_it(client: Client) -> None:
    repository = client.simulated
    repository.add_key("snapshot", repository.signers["timestamp"][0])
    repository.signed["snapshot"].meta = {"snapshot.json": MetaFile(1)}
    repository.publish("root", "snapshot")
    repository.files["timestamp"].append(repository.files["snapshot"].pop())
    assert client.init() == 0
    assert client.refresh() == 1
    assert client.trusted == {"root": 2}


# --- download ------------------------------------------------------------------------------------------


def test_a_download_refreshes_first(client: Client) -> None:
    assert client.init() == 0
    assert client.download("nobody's") == 1
    assert client.simulated.asked == [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)]
    assert client.trusted == dict.fromkeys(TOP, 1)


def with_targets(repository: Simulated, **bodies: bytes) -> None:
    for path, body in bodies.items():
        repository.add("targets", path, body)
    repository.publish("targets", "snapshot", "timestamp")


def test_download_fetches_once_and_refuses_what_nobody_vouches_for(client: Client) -> None:
    with_targets(client.simulated, image=b"an image", other=b"another")
    assert client.init() == client.refresh() == 0
    assert client.got == []
    for _ in range(2):
        assert client.download("image") == 0
    assert client.got == [b"an image"]
    assert len(client.simulated.fetched) == 1
    assert client.download("image", "nobody's", "other") == 1
    assert client.got == [b"an image"], "it ends with the first that fails"
    assert client.download("other", "image") == 0
    assert client.got == [b"an image", b"another"]


def test_nothing_named_is_nothing_downloaded(client: Client) -> None:
    assert client.init() == 0
    assert client.download() == 1


NAMES = ("path/to/a/target.txt", "../above", "/rooted", "a b", "\u00e9t\u00e9", "x" * 200, ".hidden", "a%2Fb")


def test_targets_with_odd_names_stay_in_their_folder(client: Client) -> None:
    repository = client.simulated
    for name in NAMES:
        repository.add("targets", name, name.encode())
    repository.publish("targets", "snapshot", "timestamp")
    assert client.init() == 0
    before = {path.name for path in client.folder.iterdir()}
    taken = [name for name in NAMES if client.download(name) == 0]
    assert taken[0] == NAMES[0]
    assert client.got == [name.encode() for name in taken]
    assert {path.name for path in client.folder.iterdir()} == before
    assert all(path.is_file() for path in client.targets.iterdir()), "every name is one file here"


def test_other_bytes_are_refused_and_what_was_there_stays(client: Client) -> None:
    repository = client.simulated
    with_targets(repository, first=b"an image", second=b"another image", empty=b"")
    assert client.init() == client.download("first") == 0
    for evil in (b"evil", b"evil imag", b"an image and more", b""):
        repository.artifacts = {"first": evil, "second": evil[:8], "empty": evil or b"something"}
        client.download("first")
        for name in ("second", "empty"):
            assert client.download(name) == 1
        assert client.got == [b"an image"]


def test_a_target_that_changes_is_replaced(client: Client) -> None:
    repository = client.simulated
    with_targets(repository, image=b"first")
    assert client.init() == client.download("image") == 0
    for number in range(3):
        for _ in range(4):  # versions that the client never sees
            with_targets(repository, image=f"version {number}".encode())
        with_targets(repository, **{f"new-{number}": f"new {number}".encode()})
        assert client.download("image", f"new-{number}") == 0
        expected = [*(f"new {each}".encode() for each in range(number)), f"version {number}".encode()]
        assert client.got == [*expected, f"new {number}".encode()]
        repository.artifacts["image"] = b"malicious"
        repository.publish("targets", "snapshot", "timestamp")
        client.download("image")
        assert b"malicious" not in client.got


@pytest.mark.parametrize("algorithms", [("sha256",), ("sha512",), ("sha256", "sha512"), ("sha384",)])
def test_digests_of_every_kind_are_held_to(algorithms: tuple[str, ...], client: Client) -> None:
    target = client.simulated.add("targets", "image", b"an image", algorithms)
    client.simulated.publish("targets", "snapshot", "timestamp")
    assert client.init() == client.download("image") == 0
    assert client.simulated.fetched == [f"{target.hashes[algorithms[0]]}.image"]
    assert client.got == [b"an image"]


def test_a_digest_of_an_unknown_kind_vouches_for_nothing(client: Client) -> None:
    target = client.simulated.add("targets", "image", b"an image")
    target.hashes = {"unknown": target.hashes["sha256"]}
    client.simulated.publish("targets", "snapshot", "timestamp")
    assert client.init() == 0
    assert client.download("image") == 1
    assert client.got == []


class Files:
    """A folder, served as any web server would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, int]] = []

    def served(self, path: str) -> bytes | None:
        found = self.folder / path
        body = found.read_bytes() if found.is_file() else None
        self.asked.append((path, HTTPStatus.OK if body else HTTPStatus.NOT_FOUND))
        return body


def test_a_repository_of_files_as_others_write_them(
    client: Client, tmp_path: Path, host: Any, make_client: Any
) -> None:
    """Indented, with fields of the tool's own, with signatures that are yet to come, some roots old."""
    made = client.simulated
    for role in TOP:
        made.signed[role].unrecognized_fields.update(
            {"x-tool-expiry-period": 365, "x-tool-signing-period": 60}
        )
    waiting = made.add_key("root").public_key
    made.signers["root"].pop()
    made.root.keys[waiting.keyid].unrecognized_fields["x-tool-keyowner"] = "@somebody"
    made.delegate("targets", "delegatedrole", ["delegatedrole/*", "delegatedrole/*/*"], terminating=True)
    target = made.add("delegatedrole", "delegatedrole/artifact", b"an artifact")
    made.publish("root", "delegatedrole", "targets", "snapshot", "timestamp", "root")
    folder = tmp_path / "static"
    for role, bodies in made.files.items():
        for number, body in enumerate(bodies, 1):
            found = json.loads(body)
            if role == "root" and number > 1:
                found["signatures"].append({"keyid": waiting.keyid, "sig": ""})
            name = "timestamp.json" if role == "timestamp" else f"{number}.{role}.json"
            path = folder / "metadata" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1, sort_keys=True))
    artifact = folder / "targets" / "delegatedrole" / f"{target.hashes['sha256']}.artifact"
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(b"an artifact")
    files = Files(folder)
    fresh: Client = make_client(made, host.serve(files))
    assert fresh.init() == fresh.refresh() == 0
    assert fresh.download("delegatedrole/artifact") == 0
    assert (fresh.got, fresh.trusted["root"]) == ([b"an artifact"], 3)
    assert files.asked[-1][1] == HTTPStatus.OK
