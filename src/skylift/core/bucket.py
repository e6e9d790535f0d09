"""A device's fixed place in a deployment.

Every device carries `h`, a 63-bit hash of its id. Mixed with a deployment's salt it gives the device's
place in [0, SPAN) for that deployment: stable, so a phase (a range of places) never changes its members
when the fleet grows, and independent between deployments, so the same unlucky devices are not always
the canaries.
"""

import hashlib

SPAN = 1 << 63
_MASK = (1 << 64) - 1


def device_hash(device_id: str) -> int:
    """63 bits of SHA-256 of the id: stable for ever, fits a signed 64-bit column."""
    return int.from_bytes(hashlib.sha256(device_id.encode()).digest()[:8], "big") >> 1


def place(h: int, salt: int) -> int:
    """The device's place in [0, SPAN) for the deployment with this `salt` (splitmix64's finaliser)."""
    x = (h ^ salt) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return (x ^ (x >> 31)) >> 1


def upto(percent: float) -> int:
    """The last place (inclusive) of the first `percent` of all devices, on average; -1 holds nobody."""
    return min(SPAN, round(SPAN * (percent / 100))) - 1
