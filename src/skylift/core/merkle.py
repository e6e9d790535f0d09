"""Merkle trees over an append-only list, hashed as RFC 9162 says: the arithmetic, and nothing else.

Two proofs make a log trustworthy without reading it. *Inclusion*: this leaf stands at this place of the tree
with this root. *Consistency*: the tree with this root begins with the whole of that smaller one: nothing was
changed or taken away, only added. Whoever keeps one root, 32 bytes, can hold a log to all it ever said.

Makers of proofs read complete subtrees through `Get`: `(level, number) -> hash` of the leaves from
`number << level` on, `1 << level` of them. A subtree that is complete never changes, so these can be stored
once; `appended` says which of them a new leaf completes. Verifiers need nothing but the proof.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

Get = Callable[[int, int], bytes]

EMPTY = sha256(b"").digest()  # the root of a tree without leaves
LARGEST = 1 << 62  # leaves: more than anybody will see


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


# --- making ------------------------------------------------------------------------------------------


def appended(size: int, leaf: bytes, get: Get) -> Iterator[tuple[int, int, bytes]]:
    """(level, number, hash) of each subtree that this leaf completes in a tree of `size` leaves: the leaf
    itself, and one more for every trailing 1 of `size`."""
    level, number, found = 0, size, leaf
    yield level, number, found
    while number & 1:
        found = node_hash(get(level, number - 1), found)
        level, number = level + 1, number >> 1
        yield level, number, found


def root(size: int, get: Get) -> bytes:
    """The root of the tree of the first `size` leaves."""
    return _subtree(0, size, get) if size else EMPTY


def inclusion(index: int, size: int, get: Get) -> list[bytes]:
    """The proof that leaf `index` is in the tree of `size` leaves; needs index < size."""
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_subtree(middle, high, get))
            high = middle
        else:
            proof.append(_subtree(low, middle, get))
            low = middle
    return proof[::-1]


def consistency(first: int, second: int, get: Get) -> list[bytes]:
    """The proof that the tree of `second` leaves begins with that of `first`; needs first <= second."""
    if first in (0, second):
        return []
    proof: list[bytes] = []
    low, high, whole = 0, second, True  # `whole`: the verifier has the hash of what is left of `first`
    while high != first:
        middle = low + _split(high - low)
        if first <= middle:
            proof.append(_subtree(middle, high, get))
            high = middle
        else:
            proof.append(_subtree(low, middle, get))
            low, whole = middle, False
    if not whole:
        proof.append(_subtree(low, high, get))
    return proof[::-1]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _subtree(low: int, high: int, get: Get) -> bytes:
    """The hash over leaves [low, high); `low` is where RFC 9162 would split."""
    count = high - low
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return get(level, low >> level)
    middle = low + _split(count)
    return node_hash(_subtree(low, middle, get), _subtree(middle, high, get))


# --- verifying ---------------------------------------------------------------------------------------


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
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


def extends(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree `second` begins with the whole of the tree `first`."""
    if not 0 <= first <= second <= LARGEST:
        return False
    if first == second:
        return not proof and first_root == second_root
    if first == 0:
        return not proof and first_root == EMPTY
    steps = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
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
