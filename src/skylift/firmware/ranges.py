"""Ranges of an image, in order and apart: what lies between them, without others, where they touch."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from skylift.firmware.layers import Step

Range = tuple[int, int]  # start, end


def complement(ranges: Iterable[Range], size: int) -> list[Range]:
    gaps, at = [], 0
    for start, end in ranges:
        if start > at:
            gaps.append((at, start))
        at = max(at, end)
    if at < size:
        gaps.append((at, size))
    return gaps


def without(ranges: list[Range], gone: list[Range]) -> Iterator[Range]:
    k = 0
    for start, end in ranges:
        while k < len(gone) and gone[k][1] <= start:
            k += 1
        j = k
        while j < len(gone) and gone[j][0] < end:
            if gone[j][0] > start:
                yield start, gone[j][0]
            start = max(start, gone[j][1])
            j += 1
        if start < end:
            yield start, end


def cut(copied: list[Step], gone: list[Range]) -> Iterator[Step]:
    for at, start, length in copied:
        for begin, end in without([(at, at + length)], touching(gone, at, at + length)):
            yield begin, start + begin - at, end - begin


def touching(ranges: list[Range], start: int, end: int) -> list[Range]:
    """Those that have a byte in common with this one."""
    k = max(bisect_right(ranges, (start, 0)) - 1, 0)
    found = []
    while k < len(ranges) and ranges[k][0] < end:
        if ranges[k][1] > start:
            found.append(ranges[k])
        k += 1
    return found
