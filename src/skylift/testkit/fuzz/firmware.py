"""Images and deltas."""

import random
import struct
import zlib
from contextlib import suppress
from pathlib import Path

from skylift.core.errors import Rejected
from skylift.firmware import delta, hdiff, image, native, purepython, skd2
from skylift.testkit.fuzz.mutate import Target
from skylift.testkit.image import build


def targets(folder: Path) -> list[Target]:
    return [*_delta_targets(folder), _image_target(folder)]


def _delta_targets(folder: Path) -> list[Target]:
    chance = random.Random("deltas")
    old = chance.randbytes(300) + b"some code " * 60
    new = old[:200] + b"other" + old[200:700] + chance.randbytes(50)
    made = [hdiff.make(old, new)]
    if native.available():
        made += [native.make(old, new, profile).patch for profile in ("mcu-16k", "mcu-64k")]

    def header(body: bytes) -> bool:
        with suppress(delta.DeltaError):
            delta.read_header(body)
        return False

    def rebuilt(body: bytes) -> bool:
        pieces: list[bytes] = []
        try:
            delta.rebuild(old, body, pieces.append, 4096, 64 << 10)
        except delta.DeltaError:
            return False
        return b"".join(pieces) != new

    def in_python(body: bytes) -> bool:
        pieces: list[bytes] = []
        try:
            if skd2.read_header(body).target_size > 4096:
                return False  # `rebuild` refuses it by its header
            purepython.apply(old, body, pieces.append)
        except delta.DeltaError:
            return False
        return b"".join(pieces) != new

    own = tuple(made[1:2]) or tuple(made)
    return [
        Target("delta headers", 200, tuple(made), header, mend=_mended),
        Target("deltas, native", 60, tuple(made), rebuilt, mend=_mended),
        Target("deltas, in Python", 2, own, in_python, mend=_mended),
    ]


def _mended(body: bytes) -> bytes:
    """With a header checksum that is right, so that what stands behind it is reached."""
    at = skd2.HEADER.size
    if not body.startswith(skd2.MAGIC) or len(body) < at:
        return body
    return body[: at - 4] + struct.pack("<I", zlib.crc32(body[: at - 4])) + body[at:]


def _image_target(folder: Path) -> Target:
    zipped = build(folder / "seed.pyz", "1.0.0", size=300).read_bytes()
    elf = bytearray(b"\x7fELF\x02\x01" + bytes(58) + bytes(128))
    esp = struct.pack("<BBBBIB3sHB8sB", 0xE9, 1, 0, 0, 0x40000000, 0, b"\0" * 3, 5, 0, b"\0" * 8, 1)
    esp += struct.pack("<II", 0x3F400000, 40) + bytes(40) + bytes(64)
    squashfs = b"hsqs" + bytes(16) + struct.pack("<HHH", 4, 0, 0x400) + bytes(80)
    path = folder / "fuzzed"

    def feed(body: bytes) -> bool:
        path.write_bytes(body)
        with suppress(Rejected):
            image.inspect(path)
        return False

    return Target("images", 60, (zipped, bytes(elf), esp, squashfs, b"#!/bin/sh\n" + zipped), feed)
