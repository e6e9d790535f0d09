"""The log's arithmetic: RFC 9162's trees, every proof of every small size, and no other proof."""

from hashlib import sha256
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylift.core import merkle
from skylift.core.merkle import Get, extends, includes, leaf_hash, node_hash

MOST = 140  # sizes: past a power of two


def naive(leaves: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive(leaves[:k]) + naive(leaves[k:])).digest()


class Tree:
    """A log as a server keeps it: complete subtrees, each written once."""

    def __init__(self, entries: list[bytes]) -> None:
        self.entries = entries
        self.nodes: dict[tuple[int, int], bytes] = {}
        for size, entry in enumerate(entries):
            for level, number, made in merkle.appended(size, leaf_hash(entry), self.get):
                assert (level, number) not in self.nodes
                self.nodes[level, number] = made

    @property
    def get(self) -> Get:
        return lambda level, number: self.nodes[level, number]

    def root(self, size: int) -> bytes:
        return merkle.root(size, self.get)


TREE = Tree([f"entry {n}".encode() for n in range(MOST)])

# The test vectors of RFC 6962's reference implementation: leaves, and the roots of the first one to eight.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def test_the_roots_are_those_of_the_known_vectors() -> None:
    assert merkle.EMPTY.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    tree = Tree(LEAVES)
    assert [tree.root(size).hex() for size in range(1, 9)] == list(ROOTS)


def test_the_proofs_are_those_of_the_known_vectors() -> None:
    tree = Tree(LEAVES)
    assert [step.hex() for step in merkle.inclusion(0, 8, tree.get)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [step.hex() for step in merkle.consistency(6, 8, tree.get)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_every_root_is_the_rfcs_own_definition() -> None:
    for size in range(MOST + 1):
        assert TREE.root(size) == naive(TREE.entries[:size])


def test_every_leaf_of_every_size_is_proved() -> None:
    for size in range(1, MOST + 1):
        root = TREE.root(size)
        for index in range(size):
            proof = merkle.inclusion(index, size, TREE.get)
            assert includes(leaf_hash(TREE.entries[index]), index, size, proof, root)
            assert len(proof) <= (size - 1).bit_length()


def test_every_size_is_proved_to_extend_every_smaller_one() -> None:
    for second in range(MOST + 1):
        for first in range(second + 1):
            proof = merkle.consistency(first, second, TREE.get)
            assert extends(first, TREE.root(first), second, TREE.root(second), proof)


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    second = draw(st.integers(1, MOST))
    return draw(st.integers(0, second - 1)), second


def mutants(proof: list[bytes], draw: Random) -> list[list[bytes]]:
    """Near misses of a proof."""
    made = [[*proof, draw.randbytes(32)], [draw.randbytes(32), *proof]]
    for at, step in enumerate(proof):
        flipped = bytes([step[0] ^ 1 << draw.randrange(8)]) + step[1:]
        made += [
            proof[:at] + proof[at + 1 :],
            [*proof[:at], flipped, *proof[at + 1 :]],
            [*proof[:at], step, *proof[at:]],
        ]
    if len(proof) > 1:
        made.append(proof[::-1])
    return [mutant for mutant in made if mutant != proof]


@given(sizes(), st.randoms(use_true_random=False))
def test_no_changed_proof_of_inclusion_passes(given_: tuple[int, int], draw: Random) -> None:
    index, size = given_
    leaf, root = leaf_hash(TREE.entries[index]), TREE.root(size)
    proof = merkle.inclusion(index, size, TREE.get)
    for mutant in mutants(proof, draw):
        assert not includes(leaf, index, size, mutant, root)
    assert not includes(leaf_hash(b"another entry"), index, size, proof, root)
    for other in {draw.randrange(size), size - 1, 0} - {index}:
        assert not includes(leaf, other, size, proof, root)
    assert not includes(leaf, index, size, proof, draw.randbytes(32))
    assert not includes(leaf, -1, size, proof, root)
    assert not includes(leaf, size, size, proof, root)
    assert not includes(leaf, index, 1 << 70, proof, root)


@given(sizes(), st.randoms(use_true_random=False))
def test_no_changed_proof_of_consistency_passes(given_: tuple[int, int], draw: Random) -> None:
    first, second = given_
    roots = TREE.root(first), TREE.root(second)
    proof = merkle.consistency(first, second, TREE.get)
    for mutant in mutants(proof, draw):
        assert not extends(first, roots[0], second, roots[1], mutant)
    stranger = draw.randbytes(32)
    assert not extends(first, stranger, second, roots[1], proof)
    if first:  # everything extends a tree without leaves
        assert not extends(first, roots[0], second, stranger, proof)
    assert not extends(second, roots[1], first, roots[0], proof)


@given(st.integers(2, MOST), st.data())
def test_a_tree_in_which_one_entry_was_changed_extends_nothing_that_held_it(
    size: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(1, size - 1))
    changed = data.draw(st.integers(0, first - 1))
    forged = list(TREE.entries[:size])
    forged[changed] = b"something else"
    fork = Tree(forged)
    proof = merkle.consistency(first, size, fork.get)
    assert not extends(first, TREE.root(first), size, fork.root(size), proof)


def test_a_leaf_is_never_taken_for_a_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


@pytest.mark.parametrize("size", [1 << 20, (1 << 40) + 12345])
def test_proofs_of_large_trees_stay_short(size: int) -> None:
    """Nodes as they come: only their number matters."""
    asked: list[tuple[int, int]] = []

    def get(level: int, number: int) -> bytes:
        asked.append((level, number))
        return sha256(f"{level}/{number}".encode()).digest()

    proof = merkle.inclusion(size // 3, size, get)
    assert len(proof) <= (size - 1).bit_length()
    assert includes(get(0, size // 3), size // 3, size, proof, merkle.root(size, get)) is (size == 1)
    assert len(asked) < 2 * size.bit_length() ** 2
