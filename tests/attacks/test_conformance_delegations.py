"""The client that the conformance suite drives: which delegated roles it asks for, in which order, and
whom it believes there."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from .simulated import Client, Simulated

Edge = tuple[str, str, Sequence[str], bool]  # who, to whom, paths, terminating


def edge(who: str, whom: str, *paths: str, ends: bool = False) -> Edge:
    return who, whom, paths or ("*",), ends


T = "targets"
GRAPHS: dict[str, tuple[Sequence[Edge], str]] = {
    "one": ([edge(T, "A")], "A"),
    "two": ([edge(T, "A"), edge(T, "B")], "AB"),
    "two levels": ([edge(T, "A"), edge(T, "B"), edge("B", "C")], "ABC"),
    "depth first": ([edge(T, "A"), edge(T, "B"), edge("A", "C"), edge("A", "D")], "ACDB"),
    "depth first, three levels": ([edge(T, "A"), edge(T, "B"), edge("A", "C"), edge("C", "D")], "ACDB"),
    "an end in the middle": (
        [edge(T, "A"), edge(T, "B"), edge("A", "C", ends=True), edge("A", "D")], "AC"),
    "an end with descendants": (
        [edge(T, "A"), edge(T, "B"), edge("A", "C", ends=True), edge("C", "D")], "ACD"),
    "other paths": ([edge(T, "A", "*.py"), edge(T, "B"), edge("A", "C")], "B"),
    "other paths below": (
        [edge(T, "A"), edge(T, "B"), edge("A", "C", "*.py"), edge("C", "D")], "AB"),
    "an end on other paths is none": ([edge(T, "A", "*.py", ends=True), edge(T, "B")], "B"),
    "a circle": ([edge(T, "A"), edge(T, "B"), edge("B", "C"), edge("C", "D"), edge("D", "B")], "ABCD"),
    "a third of two": ([edge(T, "A"), edge(T, "B"), edge("B", "C"), edge("A", "C")], "ACB"),
    "a third of two, on other paths": (
        [edge(T, "A"), edge(T, "B"), edge("B", "C"), edge("A", "C", "*.py")], "ABC"),
}  # fmt: skip


def draw(repository: Simulated, edges: Sequence[Edge]) -> None:
    for who, whom, paths, ends in edges:
        repository.delegate(who, whom, paths, terminating=ends)
    drawn = sorted({whom for _, whom, _, _ in edges})
    repository.publish(*drawn, "targets", "snapshot", "timestamp")


@pytest.mark.parametrize("name", GRAPHS)
def test_delegations_are_searched_in_order_and_depth_first(name: str, client: Client) -> None:
    edges, visited = GRAPHS[name]
    draw(client.simulated, edges)
    assert client.init() == 0
    assert client.download("nobody's") == 1
    assert [role for role, _ in client.simulated.asked[4:]] == list(visited)


TREE = [
    edge(T, "A", "*.doc", "*.md", "foo-?.tgz"),
    edge(T, "B", "releases/*/*"),
    edge("B", "C", "releases/x/*"),
    edge("B", "D", "releases/y/*.zip"),
]
VOUCHED = {
    T: ["targetfile"],
    "A": ["README.md", "releases/README.md", "foo-1.tgz", "foo-alpha.tgz"],
    "C": ["releases/x/x_v1"],
    "D": ["releases/y/y_v1.zip", "releases/z/z_v1.zip"],
}
FOUND = {
    "targetfile": "",
    "README.md": "A",
    "releases/x/x_v1": "BC",
    "releases/y/y_v1.zip": "BD",
    "foo-1.tgz": "A",
}
NOT_FOUND = {"releases/z/z_v1.zip": "B", "releases/README.md": "", "foo-alpha.tgz": "", "README.MD": ""}


@pytest.mark.parametrize("path", [*FOUND, *NOT_FOUND])
def test_a_target_is_found_where_every_role_above_delegates_it(path: str, client: Client) -> None:
    repository = client.simulated
    for who, whom, paths, ends in TREE:
        repository.delegate(who, whom, paths, terminating=ends)
    for role, names in VOUCHED.items():
        for name in names:
            repository.add(role, name, f"{name} of {role}".encode())
    repository.publish("A", "B", "C", "D", "targets", "snapshot", "timestamp")
    assert client.init() == 0
    assert client.download(path) == (0 if path in FOUND else 1)
    visited = FOUND.get(path, NOT_FOUND.get(path))
    assert [role for role, _ in repository.asked[4:]] == list(visited or "")
    assert client.got == ([repository.artifacts[path]] if path in FOUND else [])


def test_hash_bins_lead_to_one_bin(client: Client) -> None:
    repository = client.simulated
    repository.succinct(4, "bin")
    path = "some/image"
    number = int(hashlib.sha256(path.encode()).hexdigest()[0], 16)
    bins = [f"bin-{each:x}" for each in range(16)]
    repository.add(bins[number], path, b"an image")
    repository.publish(*bins, "targets", "snapshot", "timestamp")
    assert client.init() == client.download(path) == 0
    assert [role for role, _ in repository.asked[4:]] == [bins[number]]


def test_hash_prefixes_lead_to_their_role(client: Client) -> None:
    repository = client.simulated
    path = "some/image"
    prefix = hashlib.sha256(path.encode()).hexdigest()[:3]
    others = ["0" if prefix[0] != "0" else "1", "ffff"]
    repository.delegate("targets", "others", None, path_hash_prefixes=others)
    repository.delegate("targets", "own", None, path_hash_prefixes=["abcdef", prefix])
    repository.add("own", path, b"an image")
    repository.publish("others", "own", "targets", "snapshot", "timestamp")
    assert client.init() == client.download(path) == 0
    assert [role for role, _ in repository.asked[4:]] == ["own"]


@pytest.mark.parametrize("role", ["?", "#", "/role", "../role", "a b", "\u0440\u043e\u043b\u044c", "a%2Fb"])
def test_roles_with_odd_names_are_asked_for_and_kept_quoted(
    role: str, client: Client, tmp_path: Path
) -> None:
    before = {path for path in tmp_path.rglob("*") if path.is_dir()}
    draw(client.simulated, [edge(T, role)])
    assert client.init() == 0
    assert client.download("nobody's") == 1
    assert client.simulated.asked[4:] == [(quote(role, ""), 1)]
    assert len(client.trusted) == 5
    kept = {path for path in tmp_path.rglob("*") if path.is_dir()}
    assert {path.name for path in kept - before} == {"root_history"}


def test_a_role_seen_on_one_way_is_verified_again_on_another(client: Client) -> None:
    """Two roles delegate one name to different keys; the file is signed for the first only."""
    repository = client.simulated
    for parent, paths in (("parent-a", "a/*"), ("parent-b", "b/*")):
        repository.delegate("targets", parent, [paths])
        repository.delegate(parent, "release", [paths])
    repository.signers["release"].pop()
    for path in ("a/image", "b/image"):
        repository.add("release", path, path.encode())
    repository.publish("release", "parent-a", "parent-b", "targets", "snapshot", "timestamp")
    assert client.init() == 0
    assert client.download("a/image", "b/image") == 1
    assert client.got == [b"a/image"]
    assert client.download("b/image") == 1


def test_a_role_that_the_snapshot_does_not_list_is_not_asked_for(client: Client) -> None:
    repository = client.simulated
    repository.delegate("targets", "delegated")
    repository.publish("delegated", "targets")
    del repository.signed["snapshot"].meta["delegated.json"]
    repository.publish("snapshot", "timestamp")
    assert client.init() == client.refresh() == 0
    repository.asked.clear()
    assert client.download("some/image") == 1
    assert repository.asked == [("root", 2), ("timestamp", None)]
    assert "delegated" not in client.trusted


def test_a_graph_without_end_ends(client: Client) -> None:
    """Each role delegates to the next, a hundred deep."""
    chain = [edge(T if not number else f"r{number - 1}", f"r{number}") for number in range(100)]
    draw(client.simulated, chain)
    assert client.init() == 0
    assert client.download("nobody's") == 1
    assert len(client.simulated.asked) < 50
