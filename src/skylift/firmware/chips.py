"""Images of microcontrollers, read from their own bytes: ESP-IDF applications, MCUboot images, UF2 files.

Layouts: ESP-IDF's `esp_app_format.h` and `esp_app_desc.h`, MCUboot's `image.h`, the UF2 specification. A
reader gives facts to show and to compare (`chip`, `version`, `security_version`, `project`; `segments` as
ADDRESS+BYTES), or raises `corrupt_image`. esptool and imgtool judge them in tests.
"""

import hashlib
import struct
from typing import Any, BinaryIO

from skylift.core.errors import Rejected

# ESP-IDF's esp_chip_id_t.
ESP_CHIPS = {
    0: "ESP32",
    2: "ESP32-S2",
    5: "ESP32-C3",
    9: "ESP32-S3",
    12: "ESP32-C2",
    13: "ESP32-C6",
    16: "ESP32-H2",
    18: "ESP32-P4",
    20: "ESP32-C61",
    23: "ESP32-C5",
    25: "ESP32-H21",
    28: "ESP32-H4",
    31: "ESP32-E22",
    32: "ESP32-S31",
}
_ESP_MAX_SEGMENTS = 16
_ESP_MOST = 32 << 20  # bytes: more than any flash of theirs
_ESP_DESCRIBED = struct.Struct("<II8x32s32s16s16s32s32s")  # esp_app_desc_t, as far as its ELF's digest
_ESP_DESCRIBED_AT, _ESP_DESCRIBED_AS = 32, 0xABCD5432

_MCUBOOT = struct.Struct("<IIHHIIBBHI4x")  # struct image_header
_MCUBOOT_TLVS = {0x6907: "unprotected", 0x6908: "protected"}
_MCUBOOT_DIGESTS = {0x10: "sha256", 0x11: "sha384", 0x12: "sha512"}
_MCUBOOT_PURE = 0x25  # its signature is over the image itself: no digest
_MCUBOOT_COUNTER = 0x50  # the security counter
_MCUBOOT_MOST = 64 << 20

_UF2_BLOCK = 512
_UF2_MAGICS = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
_UF2_NO_FLASH, _UF2_FAMILY = 0x1, 0x2000
UF2_FAMILIES = {
    0x1C5F21B0: "ESP32",
    0xBFDD4EEE: "ESP32-S2",
    0xD42BA06C: "ESP32-C3",
    0xC47E5767: "ESP32-S3",
    0x2B88D29C: "ESP32-C2",
    0x540DDF62: "ESP32-C6",
    0x77D850C4: "ESP32-C61",
    0xF71C0343: "ESP32-C5",
    0x332726F6: "ESP32-H2",
    0xB6DD00AF: "ESP32-H21",
    0x9E0BAA8A: "ESP32-H4",
    0x3D308E94: "ESP32-P4",
    0x3101F7C1: "ESP32-S31",
    0x7EAB61ED: "ESP8266",
    0xE48BFF56: "RP2040",
    0xE48BFF59: "RP2350",
    0x68ED2B88: "SAMD21",
    0x55114460: "SAMD51",
    0xADA52840: "nRF52840",
    0x57755A57: "STM32F4",
}


def corrupt(sentence: str) -> Rejected:
    return Rejected(
        "corrupt_image", f"body is a corrupt image: {sentence}", field="body", rule="a whole image"
    )


def esp(file: BinaryIO, head: bytes, size: int) -> dict[str, Any]:
    """ESP-IDF application image: header, segments, one checksum byte, optionally SHA-256 over all of it."""
    if len(head) < 24:
        raise corrupt("an ESP image header has 24 bytes")
    segments, chip, hashed = head[1], struct.unpack_from("<H", head, 12)[0], head[23]
    if size > _ESP_MOST or chip not in ESP_CHIPS or not 1 <= segments <= _ESP_MAX_SEGMENTS:
        return {"format": "raw"}  # the magic is one byte only: something else begins with it
    if hashed > 1:
        raise corrupt(f"its header says {hashed} of whether a SHA-256 is appended: 0 or 1")
    at, checksum, table = 24, 0xEF, list[str]()
    for number in range(segments):
        file.seek(at)
        header = file.read(8)
        address, length = struct.unpack("<II", header) if len(header) == 8 else (0, size)
        if at + 8 + length > size:
            raise corrupt(f"segment {number} ends at {at + 8 + length}, the file at {size}")
        checksum ^= _xor(file.read(length))
        table.append(f"{address:#010x}+{length}")
        at += 8 + length
    at = (at | 15) + 1  # padded so that the checksum is the last byte of a block of 16
    file.seek(at - 1)
    if file.read(1) != bytes([checksum]):
        raise corrupt("its checksum byte is wrong")
    if hashed:
        file.seek(0)
        body, told = file.read(at), file.read(32)
        if hashlib.sha256(body).digest() != told:
            raise corrupt("its appended SHA-256 is wrong")
    return {"format": "esp", "chip": ESP_CHIPS[chip], "segments": table, **_described(head)}


def _described(head: bytes) -> dict[str, Any]:
    """What `esp_app_desc_t` says, which stands first in the first segment of an application."""
    if len(head) < _ESP_DESCRIBED_AT + _ESP_DESCRIBED.size:
        return {}
    magic, secure, version, project, _, _, idf, elf = _ESP_DESCRIBED.unpack_from(head, _ESP_DESCRIBED_AT)
    if magic != _ESP_DESCRIBED_AS:
        return {}
    found = {"version": _text(version), "project": _text(project), "idf": _text(idf)}
    told: dict[str, Any] = {name: value for name, value in found.items() if value}
    told["security_version"] = secure
    if any(elf):
        told["elf_sha256"] = elf.hex()
    return told


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("ascii", "replace")


def _xor(data: bytes) -> int:
    """All bytes xored, eight bytes at a time."""
    whole = len(data) & ~7
    total = 0
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        total ^= word
    for byte in data[whole:]:
        total ^= byte
    for shift in (32, 16, 8):
        total ^= total >> shift
    return total & 0xFF


def mcuboot(file: BinaryIO, head: bytes, size: int) -> dict[str, Any]:
    """Header, payload, and after them TLVs, one of which must be the digest of everything before it."""
    if len(head) < _MCUBOOT.size:
        raise corrupt(f"an MCUboot header has {_MCUBOOT.size} bytes")
    _, _, header, protected, payload, _, major, minor, revision, build = _MCUBOOT.unpack_from(head)
    end = header + payload
    if size > _MCUBOOT_MOST:
        raise corrupt(f"it has {size} bytes, an MCUboot image at most {_MCUBOOT_MOST}")
    if header < _MCUBOOT.size or end + protected + 4 > size:
        raise corrupt(f"its payload and TLVs end at {end + protected + 4}, the file at {size}")
    file.seek(0)
    body = file.read(size)
    found: dict[int, bytes] = {}
    if protected and _tlvs(body, end, 0x6908, found) != end + protected:
        raise corrupt("its protected TLVs are not as long as its header says")
    _tlvs(body, end + protected, 0x6907, found)
    _check_digest(found, body[: end + protected])
    facts: dict[str, Any] = {"format": "mcuboot", "version": f"{major}.{minor}.{revision}"}
    if build:
        facts["version"] += f"+{build}"
    if len(found.get(_MCUBOOT_COUNTER, b"")) == 4:
        facts["security_version"] = struct.unpack("<I", found[_MCUBOOT_COUNTER])[0]
    return facts


def _check_digest(found: dict[int, bytes], guarded: bytes) -> None:
    told = {name: found[kind] for kind, name in _MCUBOOT_DIGESTS.items() if kind in found}
    if not told and _MCUBOOT_PURE not in found:
        raise corrupt("it has no digest")
    for name, digest in told.items():
        if hashlib.new(name, guarded).digest() != digest:
            raise corrupt(f"its {name} is wrong")


def _tlvs(body: bytes, at: int, magic: int, found: dict[int, bytes]) -> int:
    """Reads one area; where it ends."""
    told, total = struct.unpack_from("<HH", body, at)
    end: int = at + total
    if told != magic or total < 4 or end > len(body):
        raise corrupt(
            f"its {_MCUBOOT_TLVS[magic]} TLVs are not where its header says, or end behind the file"
        )
    at += 4
    while at < end:
        if at + 4 > end:
            raise corrupt("a TLV is cut")
        kind, length = struct.unpack_from("<HH", body, at)
        if at + 4 + length > end:
            raise corrupt("a TLV ends behind its area")
        found[kind & 0xFF] = body[at + 4 : at + 4 + length]
        at += 4 + length
    return end


def uf2(file: BinaryIO, head: bytes, size: int) -> dict[str, Any]:
    """Blocks of 512 bytes, each with its number, their count and what family of chips it is for. Several
    files behind each other, each with its own count, are one, as esptool writes them."""
    if size % _UF2_BLOCK:
        raise corrupt(f"it has {size} bytes, and UF2 is blocks of {_UF2_BLOCK}")
    file.seek(0)
    count, families = size // _UF2_BLOCK, set[int]()
    due, whole = 0, 0  # the number that comes next, and the count of the file it belongs to
    for number in range(count):
        block = file.read(_UF2_BLOCK)
        first, second, flags, _, payload, told, of, family = struct.unpack_from("<8I", block)
        last = struct.unpack_from("<I", block, _UF2_BLOCK - 4)[0]
        if (first, second, last) != _UF2_MAGICS or payload > 476:
            raise corrupt(f"block {number} is no UF2")
        if not flags & _UF2_NO_FLASH:
            whole = whole if due else of
            if (told, of) != (due, whole) or not due < whole:
                raise corrupt(f"block {number} says it is {told} of {of}, where {due} of {whole} is due")
            due = (due + 1) % whole
        if flags & _UF2_FAMILY:
            families.add(family)
    if due:
        raise corrupt(f"it ends before block {due} of {whole}")
    facts: dict[str, Any] = {"format": "uf2", "blocks": count}
    if len(families) == 1:
        (family,) = families
        facts["chip"] = UF2_FAMILIES.get(family, f"family {family:#010x}")
    return facts
