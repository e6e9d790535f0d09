"""Programs and libraries that lie in an image one behind the other: found by their ELF headers.

Addresses in a program count from its own beginning; compared file by file they can be predicted.
"""

import re
import struct
from collections.abc import Iterator
from typing import Any

from skylift.firmware import native

_HEAD = re.compile(rb"\x7fELF[\x01\x02]\x01\x01[\x00\x03]")
_STRIDE = 16 << 20


def extents(image: Any) -> list[tuple[int, int]]:
    """(start, end) of every ELF file that looks whole, in order, none overlapping."""
    found: list[tuple[int, int]] = []
    for at in _heads(image):
        size = _size(image, at)
        if not size or at + size > len(image) or (found and at < found[-1][1]):
            continue
        found.append((at, at + size))
    return found


def _heads(image: Any) -> Iterator[int]:
    """In strides, so that a mapped image need not stay in memory."""
    for start in range(0, len(image), _STRIDE):
        for hit in _HEAD.finditer(image[start : start + _STRIDE + 8]):
            if hit.start() < _STRIDE:
                yield start + hit.start()
        native.drop(image)


def _size(image: Any, at: int) -> int:
    """Up to the end of the section headers, which linkers put last; 0 for what is no ELF file."""
    if at + 64 > len(image):
        return 0
    if image[at + 4] == 2:
        (sections,) = struct.unpack_from("<Q", image, at + 40)
        head, _, _, each, count = struct.unpack_from("<HHHHH", image, at + 52)
        right = head == 64 and each == 64
    else:
        (sections,) = struct.unpack_from("<I", image, at + 32)
        head, _, _, each, count = struct.unpack_from("<HHHHH", image, at + 40)
        right = head == 52 and each == 40
    return sections + each * count if right and count and sections >= head else 0
