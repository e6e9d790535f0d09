"""Of bench delta: mutated patches and descriptions of types, under ASan and UBSan.

A subject is a patch that is sound, and its base; `native/fuzz.c` makes mutants of it. Subjects are the
vectors of every machine and profile, Espressif images of chance, and real code with bytes put in: of the core
itself, and of the corpus where one is. The decoder of small chips, which counts in 32 bits, gets half of what
it can read. A subject whose own patch does not come out right is a finding: mutants of nothing find nothing.
"""

import base64
import hashlib
import json
import random
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from parts.shell import say
from parts.tally import Count, Tally
from skylift.firmware import containers, native
from skylift.testkit import esp32

NATIVE = Path(__file__).resolve().parents[2] / "native"
VECTORS = NATIVE.parent / "conformance" / "delta"
DECODER = sorted((NATIVE / "decoder").glob("*.c"))
SANITIZED = (*esp32.SANITIZERS, "-O2", "-std=c11")
SMALL, LARGE = ("mcu-16k", "mcu-64k"), "linux-16m"
NARROW = ("thumb", "xtensa", "riscv")  # what the decoder of small chips is built for
AT_ONCE = 5000
LARGE_EVERY, LARGE_AT_ONCE = 32, 250  # its 16 MiB are cleared for every input


@dataclass(frozen=True, slots=True)
class Subject:
    """A sound patch, from which mutants are made."""

    name: str
    profile: str
    machine: str
    base: bytes
    patch: bytes

    @property
    def count(self) -> int:
        return LARGE_AT_ONCE if self.profile == LARGE else AT_ONCE

    @property
    def narrow(self) -> bool:
        return self.machine in NARROW and self.profile != LARGE


class Subjects:
    """One for every seed, the same whenever it is asked."""

    def __init__(self, corpus: Path) -> None:
        cases = json.loads((VECTORS / "vectors.json").read_text())
        self._vectors = [case for case in cases if "error" not in case]
        core = native.library_file().read_bytes()
        images = [path.read_bytes() for path in sorted(corpus.glob("*/old.bin"))]
        self._code: dict[str, list[bytes]] = {}
        for image in images:
            self._code.setdefault(native.detect(image), []).append(image)
        self._any = [core, *images]

    def of(self, seed: int) -> Subject:
        chance = random.Random(seed)
        if seed % 4 == 0:
            case = self._vectors[seed // 4 % len(self._vectors)]
            base, patch = (zlib.decompress(base64.b64decode(case[name])) for name in ("base", "patch"))
            return Subject(case["name"], case["profile"], case["arch"], base, patch)
        machine = native.ARCHES[1 + seed % (len(native.ARCHES) - 1)]
        profile = LARGE if seed % LARGE_EVERY == 2 else chance.choice(SMALL)
        size = chance.choice((300, 600, 1200) if profile != LARGE else (1200, 9000))
        if seed % 4 == 1:
            name, before = "an Espressif image", esp32.image("1.0.0", size=size + 512, seed=seed)
        else:
            code = chance.choice(self._code.get(machine, self._any))
            at = chance.randrange(len(code) - size) & ~15
            name, before = f"code at {at}", code[at : at + size]
        after = bytearray(before)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(after)) & ~3
            after[at : at + chance.choice((0, 0, 20))] = chance.randbytes(4 * chance.randrange(6))
        made = native.make(before, bytes(after), profile, arch=machine)
        return Subject(name, profile, machine, before, made.patch)


def fuzz(cc: str, count: int, corpus: Path, tally: Tally) -> Count:
    """Mutants until so many were tried; `read`: inputs whose header was taken, so that the body was looked
    at."""
    done, subjects = tally.of("delta", _digest()), Subjects(corpus)
    with tempfile.TemporaryDirectory() as scratch:
        wide, narrow = Path(scratch) / "wide", Path(scratch) / "narrow"
        sources = [str(path) for path in (NATIVE / "fuzz.c", *DECODER)]
        for program, flags in ((wide, ("-DSD_DECODER_ONLY",)), (narrow, (*esp32.SMALL, esp32.ARCHES))):
            subprocess.run([cc, *SANITIZED, *flags, "-o", str(program), *sources], check=True)
        while done.inputs < count:
            done.seed += 1
            subject = subjects.of(done.seed)
            program = narrow if subject.narrow and done.seed % 2 else wide
            read = mutated(program, Path(scratch), subject, done.seed)
            done.findings += int(read is None)
            done.inputs += subject.count
            done.read += read or 0
            tally.save()
    say(f"fuzz: {done.inputs:,} mutated patches, {done.read:,} bodies read, {done.findings} findings")
    return done


def _digest() -> str:
    """Of the decoder, and of what makes its mutants."""
    sources = [*DECODER, *sorted((NATIVE / "decoder").glob("*.h")), NATIVE / "fuzz.c", Path(__file__)]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def mutated(program: Path, scratch: Path, subject: Subject, seed: int) -> int | None:
    """How many mutants of it had their body read; None when one was neither refused nor came out right."""
    (scratch / "base").write_bytes(subject.base)
    (scratch / "patch").write_bytes(subject.patch)
    words = [str(program), str(scratch / "base"), str(scratch / "patch"), str(subject.count), str(seed)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        say(f"fuzz: seed {seed}, {subject.name}, {subject.machine}, {subject.profile}: {done.stderr[:2000]}")
        return None
    return int(done.stdout.split()[4])


def fuzz_types(cc: str, count: int) -> tuple[int, int]:
    """(inputs, findings): mutated descriptions of a kernel's types, opened and closed."""
    vectors = json.loads((VECTORS / "layers.json").read_text())
    case = next(case for case in vectors if case.get("needs") == ["btf"])
    image = zlib.decompress(base64.b64decode(case["base"]))
    (unit,) = containers.units(memoryview(image))
    inputs = findings = 0
    with tempfile.TemporaryDirectory() as scratch:
        program, types = Path(scratch) / "fuzz", Path(scratch) / "types"
        types.write_bytes(image[unit.at : unit.end])
        sources = [str(NATIVE / "fuzz_btf.c"), str(NATIVE / "btf.c")]
        subprocess.run([cc, *SANITIZED, "-o", str(program), *sources], check=True)
        while inputs < count:
            words = [str(program), str(types), str(AT_ONCE), str(inputs // AT_ONCE)]
            done = subprocess.run(words, check=False, capture_output=True, text=True)
            if done.returncode:
                say(f"fuzz: types, seed {inputs // AT_ONCE}: {done.stderr[:2000]}")
            findings += int(bool(done.returncode))
            inputs += AT_ONCE
    say(f"fuzz: {inputs:,} mutated descriptions of types, {findings} findings")
    return inputs, findings
