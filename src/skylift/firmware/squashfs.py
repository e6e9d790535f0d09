"""The compressed blocks of a squashfs image, found by its own tables: data, fragments and metadata.

Version 4.0, little-endian; nothing is unpacked but the tables that say where the blocks are. What is not as
it should be ends the search: the caller then compares the image as it is.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from skylift.firmware import codecs
from skylift.firmware.native import DeltaError
from skylift.firmware.unit import Unit

MAGIC = b"hsqs"
KINDS = {1: "zlib", 4: "xz", 5: "lz4", 6: "zstd"}  # 2 and 3, lzma and lzo, are not opened
_SUPER = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_META = 8192
_STORED = 1 << 24  # a data block that is kept as it is
_NOWHERE = 0xFFFFFFFFFFFFFFFF
_NO_FRAGMENT = 0xFFFFFFFF
_FILE, _LONG_FILE = 2, 9
# bytes of an inode behind the 16 that all have; what varies is added in _inodes
_FIXED = {1: 16, 2: 16, 3: 8, 4: 8, 5: 8, 6: 4, 7: 4, 8: 24, 9: 40, 10: 8, 11: 12, 12: 12, 13: 8, 14: 8}


@dataclass(frozen=True, slots=True)
class Super:
    """The superblock, as far as it is needed."""

    inodes: int
    block: int
    fragments: int
    kind: str
    flags: int
    ids: int
    used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int


def superblock(image: memoryview) -> Super | None:
    """None when this is no squashfs that can be opened."""
    if len(image) < _SUPER.size or image[:4] != MAGIC:
        return None
    (_, inodes, _, block, fragments, kind, log, flags, ids, major, _, _, used, *tables) = _SUPER.unpack_from(
        image
    )
    if major != 4 or kind not in KINDS or block != 1 << min(log, 31) or not 4096 <= block <= 1 << 20:
        return None
    if used > len(image) or not tables[2] <= tables[3] <= used:
        return None
    return Super(inodes, block, fragments, KINDS[kind], flags, ids, used, *tables)


def units(image: memoryview) -> list[Unit]:
    """Every compressed block, in order. Raises `DeltaError` when the tables contradict each other."""
    found = superblock(image)
    if found is None:
        return []
    try:
        return sorted(_units(image, found), key=lambda unit: unit.at)
    except (struct.error, IndexError, KeyError, OverflowError, MemoryError) as e:
        raise DeltaError(f"the squashfs is damaged: {e!r}") from e


def _units(image: memoryview, found: Super) -> Iterator[Unit]:
    tables = list(_pointed(image, found))
    first = min((at for at, _ in tables), default=found.used)
    directories = min(max(found.directory_table, found.inode_table), first)
    inodes, metadata = _metadata(image, found, found.inode_table, directories)
    yield from metadata
    yield from _metadata(image, found, directories, first)[1]
    for at, length in tables:
        yield from _metadata(image, found, at, at + length)[1]
    for at, length in _fragments(image, found):
        yield from _data(found, at, length)
    for at, lengths in _inodes(inodes, found):
        for length in lengths:
            yield from _data(found, at, length)
            at += length & ~_STORED


def _data(found: Super, at: int, length: int) -> Iterator[Unit]:
    """A data block's content is a whole block, but for the last of a file: `size` 0, until it is opened."""
    if length and not length & _STORED:
        if at + length > found.inode_table:
            raise DeltaError("the squashfs is damaged: a block lies behind its tables")
        yield Unit(at, length, 0, found.kind)


def _metadata(image: memoryview, found: Super, at: int, end: int) -> tuple[bytes, list[Unit]]:
    """What the metadata blocks of a stretch hold, and those that are compressed."""
    held, units = bytearray(), []
    while at + 2 <= end:
        (head,) = struct.unpack_from("<H", image, at)
        length = head & 0x7FFF
        if not length or at + 2 + length > len(image):
            raise DeltaError("the squashfs is damaged: a metadata block has no length")
        body = bytes(image[at + 2 : at + 2 + length])
        if not head & 0x8000:
            body = opened_block(found.kind, body, _META)
            units.append(Unit(at + 2, length, len(body), found.kind))
        held += body
        at += 2 + length
    return bytes(held), units


def opened_block(kind: str, packed: bytes, most: int) -> bytes:
    """What a block holds, whose size is known only as at most this."""
    return codecs.opened_at_most(kind, packed, most)


def _pointed(image: memoryview, found: Super) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of the metadata blocks that the tables of pointers name."""
    lists = [(found.fragment_table, found.fragments * 16), (found.id_table, found.ids * 4)]
    if found.export_table != _NOWHERE:
        lists.append((found.export_table, found.inodes * 8))
    for table, held in lists:
        if table == _NOWHERE or not held:
            continue
        for k in range((held + _META - 1) // _META):
            (at,) = struct.unpack_from("<Q", image, table + 8 * k)
            (head,) = struct.unpack_from("<H", image, at)
            yield at, 2 + (head & 0x7FFF)


def _fragments(image: memoryview, found: Super) -> Iterator[tuple[int, int]]:
    for k in range((found.fragments + 511) // 512):
        (at,) = struct.unpack_from("<Q", image, found.fragment_table + 8 * k)
        (head,) = struct.unpack_from("<H", image, at)
        held, _ = _metadata(image, found, at, at + 2 + (head & 0x7FFF))
        for place in range(0, len(held) - 15, 16):
            start, length, _ = struct.unpack_from("<QII", held, place)
            yield start, length


def _inodes(table: bytes, found: Super) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(start, lengths of the blocks) of every file."""
    at = 0
    for _ in range(found.inodes):
        (kind,) = struct.unpack_from("<H", table, at)
        body = at + 16
        at = body + _FIXED[kind]
        if kind in (_FILE, _LONG_FILE):
            if kind == _FILE:
                start, fragment, _, size = struct.unpack_from("<IIII", table, body)
            else:
                start, size, _, _, fragment = struct.unpack_from("<QQQII", table, body)
            count = size // found.block if fragment != _NO_FRAGMENT else -(-size // found.block)
            yield start, struct.unpack_from(f"<{count}I", table, at)
            at += 4 * count
        elif kind in (3, 10):  # a link's target; with extended attributes another word
            (length,) = struct.unpack_from("<I", table, body + 4)
            at += length + (4 if kind == 10 else 0)
        elif kind == 8:  # a directory's index: entries of 12 bytes and a name
            (entries,) = struct.unpack_from("<H", table, body + 16)
            for _ in range(entries):
                (name,) = struct.unpack_from("<I", table, at + 8)
                at += 12 + name + 1
