"""Which deltas are made, in which order, and which of them is kept: pure.

A full image is measured as it would travel at best, compressed: a delta that beats only the raw image saves
nothing that a compressor would not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_RATIO = 0.7  # of the compressed full image: above it the full image is sent
COMPRESSES_TO = 0.02  # of an image: what is below max_ratio of that is taken without measuring


@dataclass(frozen=True, slots=True)
class Pair:
    """A missing delta: from what a device may run to what it may be offered. `back`: to an older one."""

    old_version: str
    new_version: str
    device_type: str
    back: bool


def in_order(pairs: Iterable[Pair], devices: Mapping[tuple[str, str], int]) -> list[Pair]:
    """Hot ones first: by how many devices of the type run the base; then ways forward before ways back.

    `devices`: (device type, version) -> how many. The order of what is equal stays.
    """
    return sorted(pairs, key=lambda pair: (-devices.get((pair.device_type, pair.old_version), 0), pair.back))


def surely_worth_it(patch: int, image: int, max_ratio: float = MAX_RATIO) -> bool:
    """Whether a patch of this size (bytes) is worth it unless the image is next to empty."""
    return patch < max_ratio * COMPRESSES_TO * image


def worth_it(patch: int, compressed: int, max_ratio: float = MAX_RATIO) -> bool:
    """Whether a patch is sent instead of the full image, by the sizes in bytes; at the limit it is not."""
    return patch < max_ratio * compressed
