"""Images of microcontrollers: what they tell, and that a wrong byte or length is noticed."""

import hashlib
import struct
from pathlib import Path

import pytest

from skylift.core.errors import Rejected
from skylift.firmware.image import inspect
from skylift.testkit import esp32


def tlv(kind: int, body: bytes) -> bytes:
    return struct.pack("<HH", kind, len(body)) + body


def mcuboot(version: tuple[int, int, int, int] = (1, 2, 3, 4), counter: int | None = 7) -> bytes:
    """As imgtool writes them: a header of 32 bytes, protected TLVs, the digest."""
    payload = bytes(range(256)) * 5
    guarded = tlv(0x50, struct.pack("<I", counter)) if counter is not None else b""
    protected = struct.pack("<HH", 0x6908, 4 + len(guarded)) + guarded if guarded else b""
    head = struct.pack("<IIHHIIBBHII", 0x96F3B83D, 0, 32, len(protected), len(payload), 0, *version, 0)
    body = head + payload + protected
    digest = tlv(0x10, hashlib.sha256(body).digest())
    return body + struct.pack("<HH", 0x6907, 4 + len(digest)) + digest


def uf2(family: int = 0xE48BFF56, count: int = 4) -> bytes:
    made = b""
    for number in range(count):
        head = (0x0A324655, 0x9E5D5157, 0x2000, 0x10000000 + 256 * number, 256, number, count, family)
        made += struct.pack("<8I", *head) + bytes(476) + struct.pack("<I", 0x0AB16F30)
    return made


def look(path: Path, body: bytes) -> dict[str, object]:
    path.write_bytes(body)
    return inspect(path)


def test_an_esp_application_tells_what_its_description_says(tmp_path: Path) -> None:
    found = look(tmp_path / "image", esp32.image("2.0.1", security_version=3, project="sensor"))
    assert found == {
        "format": "esp",
        "chip": "ESP32-C3",
        "segments": ["0x3c000020+65280"],
        "version": "2.0.1",
        "project": "sensor",
        "security_version": 3,
    }


def test_an_mcuboot_image_tells_its_version_and_counter(tmp_path: Path) -> None:
    found = look(tmp_path / "image", mcuboot())
    assert found == {"format": "mcuboot", "version": "1.2.3+4", "security_version": 7}
    assert look(tmp_path / "image", mcuboot((1, 0, 0, 0), None)) == {"format": "mcuboot", "version": "1.0.0"}


def test_a_uf2_file_tells_its_chip(tmp_path: Path) -> None:
    assert look(tmp_path / "image", uf2()) == {"format": "uf2", "blocks": 4, "chip": "RP2040"}
    assert look(tmp_path / "image", uf2(0x12345678))["chip"] == "family 0x12345678"


@pytest.mark.parametrize("make", [mcuboot, uf2])
def test_one_that_is_cut_is_refused(make, tmp_path: Path) -> None:
    body = make()
    for length in (len(body) - 1, len(body) - 512, len(body) // 2, 40):
        with pytest.raises(Rejected, match="corrupt"):
            look(tmp_path / "image", body[:length])


def test_a_wrong_byte_of_an_mcuboot_image_is_noticed(tmp_path: Path) -> None:
    body = mcuboot()
    for at in range(4, len(body) - 40, 5):  # the last 40 are the digest, and how its area is marked
        with pytest.raises(Rejected, match="corrupt"):
            look(tmp_path / "image", body[:at] + bytes([body[at] ^ 0x40]) + body[at + 1 :])


def test_a_uf2_file_with_a_block_out_of_its_place_is_refused(tmp_path: Path) -> None:
    body = uf2()
    swapped = body[512:1024] + body[:512] + body[1024:]
    with pytest.raises(Rejected, match="block 0 says it is 1 of 4"):
        look(tmp_path / "image", swapped)
    with pytest.raises(Rejected, match="block 2 is no UF2"):
        look(tmp_path / "image", body[:1024] + b"\0" * 512 + body[1536:])
