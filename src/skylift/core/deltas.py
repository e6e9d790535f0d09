"""Which deltas are made, in which order, which are worth keeping, and which stay in the cache: pure.

A full image is measured as it would travel at best, compressed: a delta that beats only the raw image saves
nothing that a compressor would not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from skylift.core.ways import MAX_RATIO as MAX_RATIO

RECENT = 5  # releases whose devices get a delta to a new one, whoever runs them
FEW = 10  # devices: fewer on an older release go by a chain where there is one, and no delta is made for them


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


def is_wanted(devices: int, *, recent: bool, chained: bool) -> bool:
    """Whether a delta is made from a base that so many devices run. `chained`: a chain from it would do."""
    return recent or devices >= FEW or (devices > 0 and not chained)


def worth_it(patch: int, compressed: int, max_ratio: float = MAX_RATIO) -> bool:
    """Whether a patch is sent instead of the full image, by the sizes in bytes; at the limit it is not."""
    return patch < max_ratio * compressed


# --- the cache --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cached:
    """A file that could be in the cache: how large it is, how many devices it serves, when it was used last
    (any number that grows with time)."""

    key: str
    size: int
    devices: int
    used: float


def kept(files: Iterable[Cached], budget: int) -> frozenset[str]:
    """The keys of what stays within so many bytes: what most devices need, then what was used last. A file
    that does not fit any more makes way for a smaller one behind it."""
    found, left = set(), budget
    for file in sorted(files, key=lambda file: (-file.devices, -file.used, file.size, file.key)):
        if file.size <= left:
            found.add(file.key)
            left -= file.size
    return frozenset(found)


def wanted_again(evicted: Iterable[Cached], there: Iterable[Cached], budget: int) -> list[str]:
    """The keys of what was evicted and would stay today, the hottest first: they are made again."""
    gone = list(evicted)
    stays = kept([*gone, *there], budget)
    hot = sorted(gone, key=lambda file: (-file.devices, file.key))
    return [file.key for file in hot if file.key in stays and file.devices > 0]
