"""What a patch says before anything is made: its header, the tables of its profile, and what it can promise.

Read here for the decoder in Python and for whoever wants to know of a patch; the same as
native/decoder/header.c and layout.c.
"""

import zlib
from dataclasses import dataclass
from struct import Struct

from skylift.firmware.fields import MACHINES
from skylift.firmware.native import DeltaError

HEADER = Struct("<4sBBHH5I16s16sI")
MAGIC = b"SKD2"
PRIME_UNIT = 65536
MOST_PRIME = 64  # units: priming costs a decoder time, and a patch nothing
BLOCK, PAGE = 48, 4096  # bytes of which one bit can say that they are as predicted
# How often a byte of patch can say "as predicted": 8 / log2(65536 / p), p at its limit, and some more.
SUREST_RUN, SUREST_BYTE = 800, 133_000  # of a run or page (p 65024), of a byte (p 65533)
STATE = 3584  # bytes that a decoder's own state is reckoned at


@dataclass(frozen=True, slots=True)
class Size:
    """A profile's tables, in entries; `memory` in bytes."""

    slots: int
    pairs: int
    links: int
    history: int
    sets: int
    seen: int
    memory: int
    lazy: bool
    rate: int


SIZES = (
    Size(1536, 192, 96, 0, 24, 0, 16 << 10, True, 20),
    Size(11264, 1024, 512, 0, 96, 0, 64 << 10, True, 24),
    Size(1 << 21, 1 << 16, 1 << 14, 1 << 22, 1024, 1 << 19, 16 << 20, False, 28),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """A header, read."""

    profile: int
    arch: int
    blocks: bool
    base_size: int
    target_size: int
    matches: int
    prime: int
    base_crc: int
    target_crc: int
    body: int  # bytes after the header
    base_sha256: bytes  # the first half
    target_sha256: bytes


def read_header(patch: bytes) -> Facts:
    """Raises `DeltaError` when these bytes are no patch of ours, or ask for more than their profile has."""
    if len(patch) < HEADER.size or patch[:4] != MAGIC:
        raise DeltaError("this is no delta, or a damaged one")
    unpacked = HEADER.unpack_from(patch)
    _, kind, blocks, matches, prime, base, target, body, crc, target_crc, a, b, own = unpacked
    profile, arch = kind >> 4, kind & 15
    if own != zlib.crc32(patch[: HEADER.size - 4]) or blocks > 1 or prime > MOST_PRIME:
        raise DeltaError("this is no delta, or a damaged one")
    if not 1 <= profile <= len(SIZES) or arch >= len(MACHINES) or max(base, target) > 0xFFFFFF00:
        raise DeltaError("this is no delta, or a damaged one")
    if matches > most_matches(SIZES[profile - 1], 4 if (base | target) >> 24 else 3):
        raise DeltaError("this is no delta, or a damaged one")
    prime = min(prime * PRIME_UNIT, base)
    return Facts(profile, arch, bool(blocks), base, target, matches, prime, crc, target_crc, body, a, b)


def most_matches(size: Size, width: int) -> int:
    """How many matches a profile's memory holds."""
    parts = (
        size.slots * 2,
        size.slots,
        size.sets * 48,
        size.links * 8,
        size.pairs * 4,
        size.seen * 4,
        size.history,
        640,
    )
    fixed = sum((part + 7) & ~7 for part in parts) + STATE
    return min((size.memory - fixed) // (3 * width + 2), 65535)


def most_told(facts: Facts) -> int:
    """Bytes that a body of this length can tell at most: no bit costs less than its counter's limit says."""
    if not facts.blocks:
        each = SUREST_BYTE
    else:
        each = SUREST_RUN * (PAGE if SIZES[facts.profile - 1].history else BLOCK + 8)
    return (facts.body + 16) * each
