"""A device's fixed place in a deployment.

Every device carries `h`, a 63-bit hash of its id: a point on a ring of SPAN points. A deployment's salt turns
the ring, which gives the device's place in [0, SPAN) for that deployment: stable, so a phase (a range of
places) never changes its members when the fleet grows, and another one for every deployment, so the same
unlucky devices are not always the canaries.

A turn, not a second hash: a range of places is then one or two ranges of `h`, which a database counts and
lists by itself, in SQL that both databases speak (docs/decisions/buckets.md).
"""

import hashlib

SPAN = 1 << 63


def device_hash(device_id: str) -> int:
    """63 bits of SHA-256 of the id: stable for ever, fits a signed 64-bit column."""
    return int.from_bytes(hashlib.sha256(device_id.encode()).digest()[:8], "big") >> 1


def place(h: int, salt: int) -> int:
    """The device's place in [0, SPAN) for the deployment with this `salt`, itself in [0, SPAN)."""
    return (h + salt) % SPAN


def upto(percent: float) -> int:
    """The last place (inclusive) of the first `percent` of all devices, on average; -1 holds nobody."""
    return min(SPAN, round(SPAN * (percent / 100))) - 1


def arcs(low: int, high: int, salt: int) -> list[tuple[int, int]]:
    """The ranges of `h`, both ends inclusive, whose places lie in (low, high]: none, one, or two around the
    ring's seam."""
    if high <= low:
        return []
    if high - low >= SPAN:
        return [(0, SPAN - 1)]
    first, last = (low + 1 - salt) % SPAN, (high - salt) % SPAN
    return [(first, last)] if first <= last else [(0, last), (first, SPAN - 1)]
