"""Merkle trees over an append-only list, hashed as RFC 9162 says: the arithmetic, and nothing else.

Two proofs make a log trustworthy without reading it. *Inclusion*: this leaf stands at this place of the tree
with this root. *Consistency*: the tree with this root begins with the whole of that smaller one: nothing was
changed or taken away, only added. Whoever keeps one root, 32 bytes, can hold a log to all it ever said.

Makers of proofs read complete subtrees through `Get`: `(level, number) -> hash` of the leaves from
`number << level` on, `1 << level` of them. A subtree that is complete never changes, so these can be stored
once; `appended` says which of them a new leaf completes. Verifiers need the proof only (`merkleproof`).
"""

from collections.abc import Callable, Iterator

from skylift.core.merkleproof import EMPTY as EMPTY
from skylift.core.merkleproof import LARGEST as LARGEST
from skylift.core.merkleproof import extends as extends
from skylift.core.merkleproof import includes as includes
from skylift.core.merkleproof import leaf_hash as leaf_hash
from skylift.core.merkleproof import node_hash as node_hash

Get = Callable[[int, int], bytes]


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
