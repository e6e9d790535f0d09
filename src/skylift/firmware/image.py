"""What an image is, read from its own bytes. Known formats are checked for being whole; others pass as raw.

An image that says of itself that it is longer than it is, or whose own checksum is wrong, is refused at
upload with the reason: sooner and cheaper than on a thousand devices.
"""

import json
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from skylift.core.errors import invalid
from skylift.firmware import chips
from skylift.firmware.chips import corrupt

HEAD = 4096
# A zip archive is looked through when it is uploaded; what these allow is done in seconds, in little memory.
MOST_DIRECTORY = 4 << 20
MOST_MEMBERS = 10_000
MOST_UNPACKED = 1 << 30  # or four times the archive, where that is more
MOST_DICTIONARY = 8 << 20  # of a squashfs's xz: what a small device can hold


def inspect(path: Path) -> dict[str, Any]:
    """The facts of the image in this file: `format`, and what the format tells. Raises `Rejected` when the
    image is of a known format and not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
        if not head.strip(b"\x00\xff"):
            raise corrupt("it begins with nothing but erased flash")
        for magic, reader in _FORMATS:
            if head.startswith(magic):
                return reader(file, head, size)
    return {"format": "raw"}


class _Sparing:
    """A zip file's bytes, never many of them at once: its directory is what a reader takes into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        asked = MOST_DIRECTORY + 1 if size is None or size < 0 else size
        if asked > MOST_DIRECTORY + 1:
            raise corrupt(f"its zip directory has {asked} bytes, at most {MOST_DIRECTORY} are read")
        found = self._file.read(asked)
        if len(found) > MOST_DIRECTORY:
            raise corrupt(f"its zip directory has more than {MOST_DIRECTORY} bytes")
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Nothing is unpacked that says it is a bomb; what lies about its size ends at the size it says."""
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise corrupt(f"{len(members)} files inside, at most {MOST_MEMBERS} are read")
    whole = sum(member.file_size for member in members)
    if whole > max(MOST_UNPACKED, 4 * size):
        raise corrupt(f"it unpacks to {whole} bytes")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise corrupt(
                f"{member.filename[:80]!r} inside is neither stored nor deflated: no device reads it"
            )
    if sum(member.compress_size for member in members) > size:
        raise corrupt("the files inside overlap")


def _zip(file: BinaryIO, head: bytes, size: int) -> dict[str, Any]:
    if head.startswith(b"#!") and b"PK\x03\x04" not in head:
        return {"format": "script"}
    try:
        with zipfile.ZipFile(cast(BinaryIO, _Sparing(file))) as archive:
            _check_members(archive, size)
            bad = archive.testzip()
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, struct.error),
        *(IndexError, KeyError, TypeError, AttributeError),
    ) as e:
        raise corrupt(f"its zip directory does not read ({e})") from e
    if bad:
        raise corrupt(f"{bad} inside does not match its checksum")
    return {"format": "zip"}


def _elf(file: BinaryIO, head: bytes, size: int) -> dict[str, Any]:
    wide, little = head[4:5] == b"\x02", head[5:6] == b"\x01"
    if len(head) < (64 if wide else 52):
        raise corrupt("it ends inside its ELF header")
    order = "<" if little else ">"
    machine = struct.unpack_from(f"{order}H", head, 18)[0]
    if wide:
        offset, entry, count = _sections(head, f"{order}Q", 40, f"{order}HH", 58)
    else:
        offset, entry, count = _sections(head, f"{order}I", 32, f"{order}HH", 46)
    if offset + entry * count > size:
        raise corrupt(f"its section table ends at {offset + entry * count}, the file at {size}")
    return {"format": "elf", "machine": machine, "bits": 64 if wide else 32}


def _sections(head: bytes, wide: str, at: int, pair: str, pair_at: int) -> tuple[int, int, int]:
    (offset,) = struct.unpack_from(wide, head, at)
    entry, count = struct.unpack_from(pair, head, pair_at)
    return offset, entry, count


def _squashfs(file: BinaryIO, head: bytes, size: int) -> dict[str, Any]:
    if len(head) < 96:
        raise corrupt("a squashfs superblock has 96 bytes")
    (used,) = struct.unpack_from("<Q", head, 40)
    if used > size:
        raise corrupt(f"the squashfs needs {used} bytes, the file has {size}")
    (compression,) = struct.unpack_from("<H", head, 20)
    (flags,) = struct.unpack_from("<H", head, 24)
    if compression == 4 and flags & 0x400 and len(head) >= 102:  # its options stand behind the superblock
        (dictionary,) = struct.unpack_from("<I", head, 98)
        if dictionary > MOST_DICTIONARY:
            raise corrupt(f"its xz dictionary has {dictionary} bytes, at most {MOST_DICTIONARY} fit a device")
    names = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
    return {"format": "squashfs", "compression": names.get(compression, str(compression))}


_FORMATS: tuple[tuple[bytes, Callable[[BinaryIO, bytes, int], dict[str, Any]]], ...] = (
    (b"PK\x03\x04", _zip),
    (b"#!", _zip),
    (b"\x7fELF", _elf),
    (b"hsqs", _squashfs),
    (b"\x3d\xb8\xf3\x96", chips.mcuboot),
    (b"UF2\n", chips.uf2),
    (b"\xe9", chips.esp),
)


def check_config(body: bytes) -> dict[str, Any]:
    """A configuration document: JSON or TOML, an object at the top. Raises `Rejected` when it is neither."""
    try:
        text = body.decode()
    except UnicodeDecodeError as e:
        raise invalid("body", body[:20], "a configuration is UTF-8 text", code="bad_config") from e
    for name, parse in (("json", json.loads), ("toml", tomllib.loads)):
        try:
            found = parse(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(found, dict):
            raise invalid("body", text[:40], "a configuration has an object at the top", code="bad_config")
        return {"format": name, "keys": len(found)}
    raise invalid("body", text[:40], "a configuration is JSON or TOML", code="bad_config")
