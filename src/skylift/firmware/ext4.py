"""Where an ext4 file system keeps its files: read from its inodes, nothing is mounted.

A file lies in extents; between them may be the file system's own blocks, and blocks of nothing but zeros are
often not there at all. What does not read as ext4 has no files here.
"""

import struct
from collections.abc import Iterator
from typing import Any

Row = tuple[int, int, int]  # place in the file, place in the image, bytes
_SUPERBLOCK = 1024
_MAGIC, _EXTENTS, _TREE = 0xEF53, 0x80000, 0xF30A
_WIDE = 0x80  # feature: 64 bit
_FILE = 0x8000
_DEEPEST, _MOST_ROWS = 5, 4096
_MOST_INODES = 1 << 22
_UNWRITTEN = 0x8000  # from this length on


def files(image: Any, smallest: int) -> Iterator[tuple[Row, ...]]:
    """The rows of each file of at least so many bytes, in the file's order; only files that lie in the image
    in that order too."""
    try:
        yield from _files(image, smallest)
    except struct.error:
        return  # it reaches beyond its own end


def _files(image: Any, smallest: int) -> Iterator[tuple[Row, ...]]:
    if len(image) < 2 * _SUPERBLOCK or struct.unpack_from("<H", image, _SUPERBLOCK + 56)[0] != _MAGIC:
        return
    inodes, blocks = struct.unpack_from("<II", image, _SUPERBLOCK)
    first, log = struct.unpack_from("<II", image, _SUPERBLOCK + 20)
    per_group, _, inodes_per_group = struct.unpack_from("<III", image, _SUPERBLOCK + 32)
    (each,) = struct.unpack_from("<H", image, _SUPERBLOCK + 88)
    (features,) = struct.unpack_from("<I", image, _SUPERBLOCK + 96)
    (wide,) = struct.unpack_from("<H", image, _SUPERBLOCK + 254)
    if log > 6 or each < 128 or not per_group or not inodes_per_group or inodes > _MOST_INODES:
        return
    block, described = _SUPERBLOCK << log, wide if features & _WIDE and wide >= 64 else 32
    for group in range(-(-(blocks - first) // per_group)):
        at = (first + 1) * block + group * described
        (table,) = struct.unpack_from("<I", image, at + 8)
        if described >= 64:
            table |= struct.unpack_from("<I", image, at + 40)[0] << 32
        for k in range(min(inodes_per_group, inodes - group * inodes_per_group)):
            rows = _rows(image, table * block + k * each, block, smallest)
            if rows:
                yield rows


def _rows(image: Any, inode: int, block: int, smallest: int) -> tuple[Row, ...]:
    """Of one inode: none for what is no such file."""
    mode, _, low = struct.unpack_from("<HHI", image, inode)
    (flags,) = struct.unpack_from("<I", image, inode + 32)
    size = low | struct.unpack_from("<I", image, inode + 108)[0] << 32
    if mode & 0xF000 != _FILE or not flags & _EXTENTS or size < smallest:
        return ()
    rows: list[Row] = []
    end = 0
    for logical, place, length in _leaves(image, inode + 40, block):
        length = min(length, size - logical)
        if place < end or length <= 0 or place + length > len(image) or len(rows) == _MOST_ROWS:
            return ()
        end = place + length
        rows.append((logical, place, length))
    return tuple(rows)


def _leaves(image: Any, root: int, block: int) -> Iterator[Row]:
    waiting, looked_at = [(root, _DEEPEST)], 0
    while waiting and looked_at < _MOST_ROWS:
        looked_at += 1
        at, deep = waiting.pop()
        magic, count, _, depth = struct.unpack_from("<HHHH", image, at)
        if magic != _TREE or count > block // 12 or depth > deep:
            return
        below = []
        for entry in range(at + 12, at + 12 + 12 * count, 12):
            if depth:
                leaf, upper = struct.unpack_from("<IH", image, entry + 4)
                below.append(((leaf | upper << 32) * block, depth - 1))
                continue
            logical, length, upper, low = struct.unpack_from("<IHHI", image, entry)
            if length <= _UNWRITTEN:
                yield logical * block, (low | upper << 32) * block, length * block
        waiting += reversed(below)
