"""The decoder of small chips counts addresses in 32 bits: of every patch it makes what the one of 64 bits
makes, damaged ones too."""

import base64
import json
import random
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import missing
from skylift.firmware import native
from skylift.testkit import esp32

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "conformance" / "delta" / "vectors.json").read_text())
MUTANTS = 3000
NARROW = ("thumb", "xtensa", "riscv")


def _raw(packed: str) -> bytes:
    return zlib.decompress(base64.b64decode(packed))


def _shifted(seed: int, size: int) -> tuple[bytes, bytes]:
    """An Espressif image of chance, where every form of field stands somewhere, and one with bytes more."""
    before = esp32.image("1.0.0", size=size, seed=seed)
    chance = random.Random(seed)
    after = bytearray(before)
    for _ in range(6):
        at = chance.randrange(400, len(after))
        after[at:at] = chance.randbytes(4 * chance.randrange(1, 20))
    return before, bytes(after)


def cases() -> Iterator[tuple[str, bytes, bytes]]:
    """(name, base, patch)"""
    for case in VECTORS:
        if case.get("arch") in NARROW and case.get("profile", "").startswith("mcu"):
            yield case["name"], _raw(case["base"]), _raw(case["patch"])
    for seed, arch in enumerate(("riscv", "xtensa", "thumb")):
        before, after = _shifted(seed, 6000)
        yield f"{arch} by chance", before, native.make(before, after, "mcu-16k", arch=arch).patch


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 64 bits, and of 32."""
    cc = shutil.which("cc") or shutil.which("gcc")
    if cc is None:
        missing("a C compiler")
    folder = tmp_path_factory.mktemp("decoders")
    sources = [str(path) for path in (ROOT / "native" / "fuzz.c", *esp32.DECODER.glob("*.c"))]
    made = []
    for name, flags in (("wide", esp32.SMALL[:2]), ("narrow", esp32.SMALL)):
        made.append(folder / name)
        words = [cc, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", *flags, esp32.ARCHES, *sources]
        subprocess.run([*words, "-o", str(made[-1])], check=True)
    return made[0], made[1]


def test_32_bits_make_what_64_make(built: bool, decoders: tuple[Path, Path], tmp_path: Path) -> None:
    assert built
    seen = 0
    for name, base, patch in cases():
        (tmp_path / "base").write_bytes(base)
        (tmp_path / "patch").write_bytes(patch)
        words = [str(tmp_path / "base"), str(tmp_path / "patch"), str(MUTANTS), "7"]
        wide, narrow = (
            subprocess.run([str(each), *words], check=True, capture_output=True, text=True).stdout
            for each in decoders
        )
        assert narrow == wide, name
        seen += int(wide.split()[2])
    assert seen, "no mutant came out right: nothing was compared"
