"""Our readers of microcontrollers' images against esptool and imgtool, on images of every form and on broken
ones.

Both are programs that are started as they are, many times in one process each; esptool is GPL, and nothing of
ours imports it. What they take, ours take, and tell the same of it; what they refuse, ours refuse.
"""

import hashlib
import importlib.util
import json
import random
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conftest import missing
from skylift.core.errors import Rejected
from skylift.firmware.chips import ESP_CHIPS, UF2_FAMILIES
from skylift.firmware.image import inspect

CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "mcu"
# As a shell would, line by line: words in, (exit code, what was printed) out.
RUNNER = """
import contextlib, io, json, runpy, sys
for line in sys.stdin:
    program, words = json.loads(line)
    sys.argv, said, code = [program, *words], io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_module(program, run_name="__main__", alter_sys=False)
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else int(e.code is not None)
        except Exception as e:
            code = 70
            print(type(e).__name__, e)
    print(json.dumps([code, said.getvalue()]), flush=True)
"""
# Where constants are mapped: there stands the description of an application.
CONSTANTS = {
    "ESP32": 0x3F400020,
    "ESP32-S2": 0x3F000020,
    "ESP32-C3": 0x3C000020,
    "ESP32-S3": 0x3C000020,
    "ESP32-C2": 0x3C000020,
    "ESP32-C6": 0x42000020,
    "ESP32-H2": 0x42000020,
    "ESP32-P4": 0x40000020,
    "ESP32-C61": 0x42000020,
    "ESP32-C5": 0x42000020,
}
IDS = {name: number for number, name in ESP_CHIPS.items()}


def run(program: str, calls: Sequence[Sequence[object]]) -> list[tuple[int, str]]:
    """What each call of this program came to."""
    where = program.partition(".")[0]
    if importlib.util.find_spec(where) is None:
        missing(f"{where} (requirements.lock)")
    lines = "".join(json.dumps([program, [str(word) for word in words]]) + "\n" for words in calls)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=lines, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(calls)
    return [(code, said) for code, said in found]


def ours(path: Path) -> dict[str, Any] | None:
    """The facts, or None where the image is refused."""
    try:
        return inspect(path)
    except Rejected:
        return None


def damaged(chance: random.Random, body: bytes) -> bytes:
    """A bit, some bytes, an end."""
    how, at = chance.randrange(3), chance.choice((chance.randrange(64), chance.randrange(len(body))))
    at = min(at, len(body) - 1)
    if how == 0:
        return body[:at] + bytes([body[at] ^ 1 << chance.randrange(8)]) + body[at + 1 :]
    if how == 1:
        return body[:at] + chance.randbytes(chance.randrange(1, 40)) + body[at + 1 :]
    return body[:at]


# --- ESP32 ------------------------------------------------------------------------------------------------


def esp_image(chance: random.Random, chip: str) -> bytes:
    """Any application: segments of any length, described or not, with a digest or without."""
    text = "".join(map(chr, range(0x20, 0x7F))).replace("\\", "").replace("[", "")
    words = ["".join(chance.choices(text, k=chance.randrange(n + 1))).strip() for n in (32, 32, 16, 16, 32)]
    described = struct.pack(
        "<II8x32s32s16s16s32s32s80x",
        *(0xABCD5432, chance.randrange(1 << 32), *(word.encode() for word in words)),
        chance.choice((bytes(32), chance.randbytes(32))),
    )
    first = (described if chance.random() < 0.8 else b"") + chance.randbytes(256)
    more = [(0x40380000, chance.randbytes(4 * chance.randrange(600))) for _ in range(chance.randrange(16))]
    segments = [(CONSTANTS[chip], first), *more]
    hashed = chance.random() < 0.7
    body = struct.pack(
        "<BBBBIB3sHBHH4sB",
        *(0xE9, len(segments), 2, 0x20, 0x40380000, 0xEE, b"\0" * 3),
        *(IDS[chip], 0, 0, 0xFFFF, b"\0" * 4, hashed),
    )
    checksum = 0xEF
    for address, data in segments:
        body += struct.pack("<II", address, len(data)) + data
        for byte in data:
            checksum ^= byte
    body += b"\0" * (15 - len(body) % 16) + bytes([checksum])
    body += hashlib.sha256(body).digest() if hashed else b""
    return body + chance.choice((b"", b"\xff" * 100))  # what stands behind it is not its own


SAID = {
    "chip": r"Detected image type: (\S+)",
    "project": r"Project name: (.*)",
    "version": r"App version: (.*)",
    "idf": r"ESP-IDF: (.*)",
    "security_version": r"Secure version: (\d+)",
    "elf_sha256": r"ELF file SHA256: ([0-9a-f]{64})",
}


def esptool_facts(code: int, said: str) -> dict[str, Any] | None:
    """What esptool tells, in our words; None where it refuses, or says that something is invalid. An image
    that it takes for an ESP8266's is none of an ESP32."""
    chip = re.search(SAID["chip"], said)
    if code or "(invalid" in said or chip is None or chip[1] == "ESP8266":
        return None
    found: dict[str, Any] = {"format": "esp", "segments": []}
    for length, address in re.findall(r"^ +\d+  (0x[0-9a-f]+)  (0x[0-9a-f]+)  0x", said, re.MULTILINE):
        found["segments"].append(f"{int(address, 16):#010x}+{int(length, 16)}")
    for name, pattern in SAID.items():
        told = re.search(pattern, said)
        if told and told[1]:
            found[name] = int(told[1]) if name == "security_version" else told[1]
    if found.get("elf_sha256", "").strip("0") == "":
        found.pop("elf_sha256", None)
    return found


def test_esp32_images_are_read_as_esptool_reads_them(tmp_path: Path) -> None:
    """Generated ones, and real firmware where this machine has some."""
    chance = random.Random(17)
    bodies = [esp_image(chance, chance.choice(list(CONSTANTS))) for _ in range(120)]
    paths = [tmp_path / f"{number}.bin" for number in range(len(bodies))]
    for path, body in zip(paths, bodies, strict=True):
        path.write_bytes(body)
    paths += sorted(CORPUS.glob("wled-*/*.bin"))
    found = run("esptool", [["image-info", path] for path in paths])
    described = 0
    for path, (code, said) in zip(paths, found, strict=True):
        facts = ours(path)
        assert facts is not None, said
        assert facts == esptool_facts(code, said)
        described += "version" in facts
    assert described > 60


def test_a_broken_esp32_image_that_esptool_refuses_is_refused(tmp_path: Path) -> None:
    """One whose head no longer says that it is one is nobody's: that it is no ESP32's is noticed where the
    device type had one before."""
    chance = random.Random(18)
    paths, counts = [tmp_path / f"{number}.bin" for number in range(150)], {"refused": 0, "taken": 0}
    for path in paths:
        path.write_bytes(damaged(chance, esp_image(chance, chance.choice(list(CONSTANTS)))) or b"\xe9")
    for path, (code, said) in zip(
        paths, run("esptool", [["image-info", path] for path in paths]), strict=True
    ):
        facts, theirs = ours(path), esptool_facts(code, said)
        if theirs is None:
            assert facts is None or facts == {"format": "raw"}, (path.read_bytes()[:24].hex(), said)
            counts["refused"] += facts is None
        else:
            assert facts is not None  # a segment that is elsewhere now: esptool looks no longer into it
            assert theirs.items() <= facts.items()
            counts["taken"] += 1
    assert counts["refused"] > 80
    assert counts["taken"] > 3


def test_every_chip_has_the_name_that_esptool_gives_it(tmp_path: Path) -> None:
    body = bytearray(esp_image(random.Random(1), "ESP32"))
    paths = [tmp_path / f"{number}.bin" for number in range(64)]
    for number, path in enumerate(paths):
        body[12] = number
        path.write_bytes(body)
    names: dict[int, str] = {}
    for number, (_, said) in enumerate(run("esptool", [["image-info", path] for path in paths])):
        told = re.search(SAID["chip"], said)
        if told and told[1] != "ESP8266":
            names[number] = told[1]
    assert names == ESP_CHIPS


# --- UF2 ----------------------------------------------------------------------------------------------------


def test_uf2_files_of_esptool_are_read(tmp_path: Path) -> None:
    """Of one file or of several, which esptool numbers each for itself; for every chip that it has a family
    for."""
    chance, calls, expected = random.Random(19), [], []
    for number, name in enumerate(sorted({*ESP_CHIPS.values(), "ESP8266"})):
        if name not in UF2_FAMILIES.values():
            continue
        words: list[object] = ["--chip", name.lower().replace("-", ""), "merge-bin", "--format", "uf2"]
        out, blocks = tmp_path / f"{number}.uf2", 0
        if chance.random() < 0.5:
            words.append("--md5-disable")
        size = chance.choice((64, 256, 448))
        words += ["--chunk-size", size, "--output", out]
        for part in range(chance.randrange(1, 4)):
            file = tmp_path / f"{number}-{part}.part"
            file.write_bytes(b"\x01" + chance.randbytes(chance.randrange(1, 3000)))
            blocks += -(-file.stat().st_size // size)
            words += [hex(part << 16), file]
        calls.append(words)
        expected.append((out, {"format": "uf2", "blocks": blocks, "chip": name}))
    for (code, said), (out, facts) in zip(run("esptool", calls), expected, strict=True):
        assert code == 0, said
        assert ours(out) == facts
    assert len(calls) >= 10


# --- MCUboot ----------------------------------------------------------------------------------------------


def signings(
    chance: random.Random, folder: Path, count: int
) -> list[tuple[Path, list[object], dict[str, Any]]]:
    """Images as builds make them: where, imgtool's words, and what is to be read from them."""
    made = []
    key = folder / "key.pem"
    assert run("imgtool.main", [["keygen", "-k", key, "-t", "ecdsa-p256"]])[0][0] == 0
    for number in range(count):
        payload, out = folder / f"{number}.payload", folder / f"{number}.img"
        payload.write_bytes(chance.randbytes(chance.randrange(1, 6000)))
        major, minor, revision = chance.randrange(256), chance.randrange(256), chance.randrange(65536)
        build = chance.choice((0, chance.randrange(1, 1 << 32)))
        version = f"{major}.{minor}.{revision}" + (f"+{build}" if build else "")
        facts: dict[str, Any] = {"format": "mcuboot", "version": version}
        words: list[object] = ["sign", "--header-size", chance.choice((32, 64, 512)), "--pad-header"]
        words += ["--slot-size", 1 << 17, "--align", chance.choice((1, 4, 8)), "--version", version]
        if chance.random() < 0.6:
            facts["security_version"] = chance.randrange(1 << 32)
            words += ["--security-counter", facts["security_version"]]
        if chance.random() < 0.4:
            words += ["--key", key, *chance.choice(([], ["--public-key-format", "full"]))]
        else:
            words += ["--sha", chance.choice(("256", "384", "512", "auto"))]
        if chance.random() < 0.3:
            words += ["--custom-tlv", "0x00a0", "0x" + chance.randbytes(9).hex()]
        if chance.random() < 0.3:
            words += ["--dependencies", "(1, 1.2.3+0)"]
        if chance.random() < 0.3:
            words += ["--boot-record", "app"]
        if chance.random() < 0.2:
            words.append(chance.choice(("--pad", "--confirm")))
        made.append((out, [*words, payload, out], facts))
    return made


def test_images_of_imgtool_are_read(tmp_path: Path) -> None:
    made = signings(random.Random(20), tmp_path, 100)
    for code, said in run("imgtool.main", [words for _, words, _ in made]):
        assert code == 0, said
    for out, words, facts in made:
        assert ours(out) == facts, words


def test_a_broken_mcuboot_image_that_imgtool_refuses_is_refused(tmp_path: Path) -> None:
    """Ours refuse more: areas that are not as long as the header says, which imgtool does not look at."""
    chance = random.Random(21)
    made = signings(chance, tmp_path, 150)
    run("imgtool.main", [words for _, words, _ in made])
    for out, _, _ in made:
        out.write_bytes(damaged(chance, out.read_bytes()) or b"\x3d")
    refused = 0
    verdicts = run("imgtool.main", [["verify", out] for out, _, _ in made])
    for (out, _, facts), (code, said) in zip(made, verdicts, strict=True):
        found = ours(out)
        if code:
            assert found is None or found == {"format": "raw"}, (said, found)
            refused += found is None
        else:
            assert found in (None, facts), said
    assert refused > 100
