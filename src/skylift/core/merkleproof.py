"""Proofs of a Merkle tree (`merkle`), verified: what a device needs, and nothing of how they are made. Runs
on CPython and on MicroPython.
"""

from hashlib import sha256

try:  # noqa: SIM105 - contextlib is not there either
    from collections.abc import Sequence
except ImportError:  # MicroPython has none, and evaluates no annotations
    pass

EMPTY = sha256(b"").digest()  # the root of a tree without leaves
LARGEST = 1 << 62  # leaves: more than anybody will see


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def includes(leaf: bytes, index: int, size: int, proof: "Sequence[bytes]", root: bytes) -> bool:
    """Whether the leaf with this hash stands at `index` of the tree with this size and root."""
    if not 0 <= index < size <= LARGEST:
        return False
    at, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(step, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, step)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def extends(first: int, first_root: bytes, second: int, second_root: bytes, proof: "Sequence[bytes]") -> bool:
    """Whether the tree `second` begins with the whole of the tree `first`."""
    if not 0 <= first <= second <= LARGEST:
        return False
    if first == second:
        return not proof and first_root == second_root
    if first == 0:
        return not proof and first_root == EMPTY
    steps = [first_root] if first & (first - 1) == 0 else []
    steps.extend(proof)
    if not steps:
        return False
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, step)
        at, last = at >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root
