"""What an image says of itself: whole images pass, corrupt ones of a known format are refused."""

import contextlib
import hashlib
import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylift.core.errors import Rejected
from skylift.firmware.image import check_config, inspect
from skylift.testkit.image import Behaviour, build


def zipped(how: int = zipfile.ZIP_STORED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", how) as archive:
        archive.writestr("__main__.py", "print('hello')\n" * 40)
        archive.writestr("data.bin", hashlib.shake_256(b"data").digest(500))
    return body.getvalue()


def esp(hashed: bool = True) -> bytes:
    """A whole ESP-IDF application image of two segments, for an ESP32-C3."""
    segments = [b"first segment" * 10, b"and the second one"]
    header = struct.pack("<BBBBIB3sHB8sB", 0xE9, 2, 0, 0, 0x40000000, 0, b"\0" * 3, 5, 0, b"\0" * 8, hashed)
    body, checksum = header, 0xEF
    for number, data in enumerate(segments):
        body += struct.pack("<II", 0x3F400000 + number, len(data)) + data
        for byte in data:
            checksum ^= byte
    body += bytes(15 - len(body) % 16) + bytes([checksum])
    return body + (hashlib.sha256(body).digest() if hashed else b"")


def elf(bits: int = 64, sections: int = 3) -> bytes:
    head = bytearray(64)
    head[:6] = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1])
    struct.pack_into("<H", head, 18, 0xF3)
    if bits == 64:
        struct.pack_into("<Q", head, 40, 64)
        struct.pack_into("<HH", head, 58, 64, sections)
    else:
        struct.pack_into("<I", head, 32, 64)
        struct.pack_into("<HH", head, 46, 64, sections)
    return bytes(head) + bytes(64 * sections)


def squashfs() -> bytes:
    head = bytearray(96)
    head[:4] = b"hsqs"
    struct.pack_into("<H", head, 20, 6)
    struct.pack_into("<Q", head, 40, 600)
    return bytes(head) + bytes(504)


WHOLE = {
    "zip": (zipped(), "zip"),
    "deflated zip": (zipped(zipfile.ZIP_DEFLATED), "zip"),
    "zipapp": (b"#!/usr/bin/env python3\n" + zipped(), "zip"),
    "script": (b"#!/bin/sh\nexit 0\n", "script"),
    "esp": (esp(), "esp"),
    "esp without hash": (esp(hashed=False), "esp"),
    "elf": (elf(), "elf"),
    "elf of 32 bits": (elf(32), "elf"),
    "squashfs": (squashfs(), "squashfs"),
    "anything": (b"\x01\x02 some raw firmware", "raw"),
}


def look(path: Path, body: bytes) -> dict[str, object]:
    path.write_bytes(body)
    return inspect(path)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_image_is_known_by_its_format(name: str, tmp_path: Path) -> None:
    body, kind = WHOLE[name]
    assert look(tmp_path / "image", body)["format"] == kind


def test_an_esp_image_tells_its_chip(tmp_path: Path) -> None:
    segments = ["0x3f400000+130", "0x3f400001+18"]
    assert look(tmp_path / "image", esp()) == {"format": "esp", "chip": "ESP32-C3", "segments": segments}


def test_an_elf_tells_its_machine(tmp_path: Path) -> None:
    assert look(tmp_path / "image", elf()) == {"format": "elf", "machine": 0xF3, "bits": 64}


@pytest.mark.parametrize("name", ["zip", "deflated zip", "zipapp", "esp", "elf", "squashfs"])
def test_an_image_cut_short_is_refused(name: str, tmp_path: Path) -> None:
    body, _ = WHOLE[name]
    for length in (len(body) - 1, len(body) * 3 // 4, len(body) // 2):
        with pytest.raises(Rejected, match="corrupt"):
            look(tmp_path / "image", body[:length])


def test_an_elf_cut_inside_its_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="corrupt"):
        look(tmp_path / "image", elf()[:60])


def test_an_empty_image_and_erased_flash_are_refused(tmp_path: Path) -> None:
    for body in (b"", bytes(5000), b"\xff" * 5000):
        with pytest.raises(Rejected, match="corrupt"):
            look(tmp_path / "image", body)


def test_an_esp_image_with_a_wrong_byte_is_refused(tmp_path: Path) -> None:
    body = esp()
    for at in range(40, len(body)):
        bad = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        with pytest.raises(Rejected, match="corrupt"):
            look(tmp_path / "image", bad)


def test_a_stored_zip_with_a_wrong_byte_inside_is_refused(tmp_path: Path) -> None:
    body = zipped()
    at = body.index(b"print('hello')") + 5
    with pytest.raises(Rejected, match="checksum"):
        look(tmp_path / "image", body[:at] + b"!" + body[at + 1 :])


@pytest.mark.parametrize("name", WHOLE)
def test_no_flipped_byte_of_any_format_is_more_than_a_refusal(name: str, tmp_path: Path) -> None:
    body, _ = WHOLE[name]
    for at in range(len(body)):
        for bits in (0x01, 0x80):
            try:
                look(tmp_path / "image", body[:at] + bytes([body[at] ^ bits]) + body[at + 1 :])
            except Rejected:
                continue


@settings(max_examples=200, deadline=None)
@given(
    magic=st.sampled_from([b"PK\x03\x04", b"#!", b"\x7fELF", b"hsqs", b"\xe9"]), rest=st.binary(max_size=200)
)
def test_garbage_behind_a_known_beginning_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, magic: bytes, rest: bytes
) -> None:
    with contextlib.suppress(Rejected):
        look(tmp_path_factory.getbasetemp() / "garbage", magic + rest)


def test_a_demo_image_is_whole_and_always_the_same(tmp_path: Path) -> None:
    one = build(tmp_path / "one", "1.0.0")
    assert inspect(one)["format"] == "zip"
    assert build(tmp_path / "two", "1.0.0").read_bytes() == one.read_bytes()
    assert build(tmp_path / "three", "1.0.0", Behaviour.UNHEALTHY).read_bytes() != one.read_bytes()


@pytest.mark.parametrize(
    ("body", "kind"), [(b'{"interval": 30}', "json"), (b"interval = 30\n", "toml"), (b"{}", "json")]
)
def test_a_configuration_is_json_or_toml(body: bytes, kind: str) -> None:
    assert check_config(body)["format"] == kind


@pytest.mark.parametrize(
    "body", [b"[1, 2]", b"3", b'"text"', b"\xff\xfe", b"{", b"= nothing", b"[" * 100_000]
)
def test_what_is_no_configuration_is_refused(body: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        check_config(body)
    assert (refused.value.code, refused.value.field) == ("bad_config", "body")


# --- bombs ---------------------------------------------------------------------------------------------


def _told(body: bytes, tmp_path: Path) -> str:
    path = tmp_path / "image"
    path.write_bytes(body)
    with pytest.raises(Rejected) as caught:
        inspect(path)
    return str(caught.value)


def _zip_of(count: int, how: int, size: int = 0) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", how) as archive:
        for number in range(count):
            archive.writestr(f"{number}", bytes(size))
    return body.getvalue()


def test_a_zip_that_unpacks_to_more_than_anything_is_not_unpacked(tmp_path: Path) -> None:
    bomb = bytearray(_zip_of(3, zipfile.ZIP_DEFLATED, 1000))
    at = bomb.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", bomb, at + 24, 0x70000000)
        at = bomb.find(b"PK\x01\x02", at + 1)
    assert "unpacks to" in _told(bytes(bomb), tmp_path)


def test_a_zip_of_more_files_than_anything_has_is_refused(tmp_path: Path) -> None:
    assert "files inside" in _told(_zip_of(10_001, zipfile.ZIP_STORED), tmp_path)


def test_a_zip_whose_directory_is_larger_than_memory_allows_is_refused(tmp_path: Path) -> None:
    body = zipped() + bytes(5 << 20)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 5 << 20, len(zipped()), 0)
    assert "zip directory" in _told(body + end, tmp_path)


@pytest.mark.parametrize("how", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_zip_that_takes_an_unknown_dictionary_to_read_is_refused(how: int, tmp_path: Path) -> None:
    assert "neither stored nor deflated" in _told(_zip_of(1, how, 1000), tmp_path)


def test_a_squashfs_whose_dictionary_fits_no_device_is_refused(tmp_path: Path) -> None:
    head = bytearray(squashfs())
    struct.pack_into("<H", head, 20, 4)
    struct.pack_into("<H", head, 24, 0x400)
    struct.pack_into("<HI", head, 96, 0x8008, 64 << 20)
    assert "dictionary" in _told(bytes(head), tmp_path)
    struct.pack_into("<I", head, 98, 8 << 20)
    (tmp_path / "image").write_bytes(bytes(head))
    assert inspect(tmp_path / "image")["compression"] == "xz"
