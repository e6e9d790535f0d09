"""Identifiers: what they look like, who makes them, which strings strangers may choose.

Ids that we make sort by their time of birth, so that a keyset cursor over ids is a cursor over time.
"""

import re
from datetime import datetime
from typing import NewType

from skylift.core.errors import invalid

DeviceId = NewType("DeviceId", str)
DeploymentId = NewType("DeploymentId", str)
ReleaseId = NewType("ReleaseId", str)
ArtifactId = NewType("ArtifactId", str)
GroupId = NewType("GroupId", str)

# Strangers' names end up in URLs, topics, file names and signed metadata: one small alphabet for all of
# them, no separator of any of those worlds, never a leading dot or dash.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
NAME_RULE = "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
VERSION_RULE = "1 to 64 of A-Z a-z 0-9 . _ + -, beginning with a letter or digit"
_NONCE = re.compile(r"[0-9a-f]{16,64}", re.ASCII)
NONCE_RULE = "16 to 64 lower-case hexadecimal digits, made at random for this check"

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case: sorts as it counts


def mint(prefix: str, now: datetime, entropy: bytes) -> str:
    """An id like `dep_01jb...`: 48 bits of milliseconds, then at least 5 bytes of `entropy`."""
    number = int(now.timestamp() * 1000) << (8 * len(entropy)) | int.from_bytes(entropy, "big")
    digits = -(-(48 + 8 * len(entropy)) // 5)
    return prefix + "_" + "".join(_ALPHABET[number >> (5 * i) & 31] for i in reversed(range(digits)))


def check_name(field: str, value: str) -> str:
    """`value`, if it may name a device, a device type, a product or a group."""
    if not _NAME.fullmatch(value):
        raise invalid(field, value, NAME_RULE)
    return value


def check_version(field: str, value: str) -> str:
    """`value`, if it may name a version."""
    if not _VERSION.fullmatch(value):
        raise invalid(field, value, VERSION_RULE)
    return value


def is_nonce(value: str) -> bool:
    return _NONCE.fullmatch(value) is not None


def check_nonce(field: str, value: str) -> str:
    """`value`, if it may be what a device sends to know an answer to its question from an older one."""
    if not is_nonce(value):
        raise invalid(field, value, NONCE_RULE)
    return value
