"""Makes vectors.json: synthetic code of every machine, moved, in every small profile, and bad patches."""

import base64
import hashlib
import json
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

from skylift.firmware import native
from skylift.firmware.skd2 import HEADER

WHERE = Path(__file__).with_name("vectors.json")
LOADED_AT = {
    "thumb": 0x08000000,
    "arm": 0x8000,
    "arm+thumb": 0x8000,
    "riscv": 0x42000020,
    "xtensa": 0x400D0020,
}


def thumb_bl(pc: int, target: int) -> bytes:
    d = (target - pc - 4) & 0x1FFFFFF
    s, i1, i2 = d >> 24 & 1, d >> 23 & 1, d >> 22 & 1
    first = 0xF000 | s << 10 | d >> 12 & 0x3FF
    return struct.pack("<HH", first, 0xD000 | (i1 ^ 1 ^ s) << 13 | (i2 ^ 1 ^ s) << 11 | d >> 1 & 0x7FF)


def arm_bl(pc: int, target: int) -> bytes:
    return struct.pack("<I", 0xEB000000 | ((target - pc - 8) >> 2 & 0xFFFFFF))


def a64_bl(pc: int, target: int) -> bytes:
    return struct.pack("<I", 0x94000000 | ((target - pc) >> 2 & 0x3FFFFFF))


def x86_call(pc: int, target: int) -> bytes:
    return b"\xe8" + struct.pack("<i", target - pc - 5)


def xtensa_call8(pc: int, target: int) -> bytes:
    return struct.pack("<I", 0x25 | ((target - (pc & ~3) - 4) >> 2 & 0x3FFFF) << 6)[:3]


def riscv_call(pc: int, target: int) -> bytes:
    d = (target - pc) & 0xFFFFFFFF
    high = (d + 0x800) & 0xFFFFF000
    return struct.pack("<II", high | 0x097, (d & 0xFFF) << 20 | 0x080E7)


CALLS = {
    "thumb": (thumb_bl, b"\x10\xb5"),
    "arm": (arm_bl, b"\x10\x40\x2d\xe9"),
    "arm+thumb": (arm_bl, b"\x10\x40\x2d\xe9"),
    "aarch64": (a64_bl, b"\xfd\x7b\xbf\xa9"),
    "x86-64": (x86_call, b"\x55\x48\x89\xe5"),
    "xtensa": (xtensa_call8, b"\x36\x41\x00"),
    "riscv": (riscv_call, b"\x41\x11"),
}


# Instructions that hold no address, for what stands between the calls.
FILLER = {
    "thumb": "c046 0130 4018 8a42 0120 0868",
    "arm": "0000a0e1 010080e2 021081e0 000051e3 0120a0e3 001090e5",
    "aarch64": "1f2003d5 0000018b 200080d2 210002cb 420001aa 000001eb",
    "x86-64": "90 4889c7 31c0 4801d0 83c001 4c89e6",
    "xtensa": "f02000 1022a0 20a320 c02011 3df0 802280",
    "riscv": "0100 13051500 3305b500 b3059540 2a86 9305a500",
}
FILLER["arm+thumb"] = FILLER["arm"]


def filling(arch: str, random: Random, many: int) -> bytes:
    words = [bytes.fromhex(word) for word in FILLER[arch].split()]
    body = b"".join(random.choice(words) for _ in range(many))
    return body + bytes(-len(body) % 4 if arch != "xtensa" else 0)


def program(arch: str, functions: int, grown: int, seed: int = 7) -> bytes:
    """Functions that call each other and a table of their addresses; function `grown` has more inside."""
    call, entry = CALLS[arch]
    random = Random(seed)
    bodies = []
    for number in range(functions):
        calls = [random.randrange(functions) for _ in range(random.randrange(2, 6))]
        filler = [filling(arch, random, random.randrange(2, 12)) for _ in calls]
        if number == grown:
            filler[0] += filling(arch, Random(99), 8)
        bodies.append((calls, filler))
    starts, at, va = [], 0, LOADED_AT.get(arch, 0)
    sized = len(call(0, 0))
    for calls, filler in bodies:
        starts.append(at)
        at += len(entry) + sum(map(len, filler)) + sized * len(calls)
        at = (at + 3) & ~3
    out = bytearray()
    for (calls, filler), start in zip(bodies, starts, strict=True):
        out += bytes(start - len(out)) + entry
        for callee, words in zip(calls, filler, strict=True):
            out += words
            out += call(va + len(out), va + starts[callee])
    out += bytes(-len(out) % 8)
    wide = "<Q" if arch in ("aarch64", "x86-64") else "<I"
    for start in starts:
        out += struct.pack(wide, va + start + (arch == "thumb"))
    if arch in ("xtensa", "riscv"):
        chip = 5 if arch == "riscv" else 0
        head = struct.pack("<BBHIBBBBH10x", 0xE9, 1, 0, va, 0, 0, 0, 0, chip)
        return head + struct.pack("<II", va, len(out)) + bytes(out)
    return bytes(out)


def packed(body: bytes) -> str:
    return base64.b64encode(zlib.compress(body, 9)).decode()


def resealed(patch: bytes, **changed: int) -> bytes:
    """The patch with other header fields and a header checksum that fits."""
    names = (
        "magic",
        "kind",
        "blocks",
        "matches",
        "prime",
        "base",
        "target",
        "body",
        "base_crc",
        "target_crc",
    )
    fields = dict(zip(names, HEADER.unpack_from(patch), strict=False))
    fields.update(changed)
    head = HEADER.pack(*fields.values(), *HEADER.unpack_from(patch)[10:12], 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head)) + patch[HEADER.size :]


def vectors() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def good(name: str, base: bytes, target: bytes, profile: str, arch: str | None) -> bytes:
        made = native.make(base, target, profile, arch=arch)
        bodies = {"base": packed(base), "patch": packed(made.patch), "target": packed(target)}
        found.append({"name": name, "profile": profile, "arch": made.arch, **bodies})
        return made.patch

    for arch in CALLS:
        base, target = program(arch, 24, -1), program(arch, 24, 8)
        for profile in ("mcu-16k", "mcu-64k"):
            patch = good(f"{arch} in {profile}", base, target, profile, arch)
    words = b"".join(hashlib.sha256(bytes([k])).digest() for k in range(100))
    good("plain, in the largest profile", words, words[:900] + b"inserted" + words[950:], "linux-16m", None)
    good("identical", words, words, "mcu-16k", None)
    good("from nothing", b"", b"something " * 30, "mcu-16k", None)
    good("to nothing", words, b"", "mcu-16k", None)
    patch = good(
        "what the bad ones are made of", words, words[:900] + b"inserted" + words[950:], "mcu-16k", None
    )

    def bad(name: str, body: bytes, error: str, base: bytes = words, **limits: int) -> None:
        found.append({"name": name, "base": packed(base), "patch": packed(body), "error": error, **limits})

    flipped = bytearray(words)
    flipped[1000] ^= 1
    bad("base differs by one bit", patch, "base", bytes(flipped))
    bad("base is one byte short", patch, "base", words[:-1])
    bad("cut in the header", patch[:40], "cut")
    bad("cut behind the header", patch[: HEADER.size], "cut")
    bad("last byte missing", patch[:-1], "cut")
    bad("another magic", b"SKD9" + patch[4:], "damaged")
    bad("header flipped", patch[:9] + bytes([patch[9] ^ 1]) + patch[10:], "damaged")
    bad("a profile nobody knows", resealed(patch, kind=0x90), "damaged")
    bad("a machine nobody knows", resealed(patch, kind=0x1F), "damaged")
    bad("more matches than the profile holds", resealed(patch, matches=60000), "damaged")
    bad("a target of 4 GB", resealed(patch, target=0xFFFFFFF0), "damaged")
    bad("a larger target than it makes", resealed(patch, target=len(words) * 2), "result")
    bad("a target larger than allowed", patch, "limit", max_target=100)
    bad("more memory than allowed", patch, "memory", max_memory=4096)
    bad("another target promised", resealed(patch, target_crc=1), "result")
    return found


if __name__ == "__main__":
    WHERE.write_text(json.dumps(vectors(), indent=1) + "\n")
