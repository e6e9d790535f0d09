"""Everything of the ESP32's clients that reads what a stranger sent, given what is nearly right."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from parts.shell import say
from parts.tally import Tally
from skylift.testkit import esp32fuzz, esp32scene, micropython

AT_ONCE = 100_000  # inputs between two looks at the tally
LEAST = 200  # inputs that are worth a process
MICROPYTHON_AT_ONCE = 2_000  # of each of its parsers


def fuzz(folder: Path, each: int, seed: int, tally: Tally, kept: Path | None, jobs: int) -> dict[str, Any]:
    """At least `each` inputs for every parser of the C++ client, by libFuzzer with sanitizers, `jobs` of them
    at a time. Their corpora grow in `kept`, else in `folder`."""
    if esp32fuzz.compilers() is None:
        say("fuzz: no clang here")
        return {}
    fuzzer, digest = esp32fuzz.program(), esp32fuzz.digest()
    corpora = esp32fuzz.Corpora((kept or folder) / f"corpora-{digest[:12]}")
    say(f"fuzz: seed {seed}, sources {digest[:12]}")

    def one(parser: str) -> tuple[int, int]:
        count, begun = tally.of(parser, digest), time.monotonic()
        before = count.inputs
        while count.inputs < each and not count.findings:
            count.seed += 1
            inputs = min(AT_ONCE, max(LEAST, each - count.inputs))
            ran = esp32fuzz.run(fuzzer, corpora, parser, inputs, seed * 10_000 + count.seed)
            count.inputs += ran.inputs
            count.findings += bool(ran.finding)
            tally.save()
            if ran.finding:
                say(f"fuzz {parser}: {ran.finding}")
        rest = f", {before:,} of them before" if before else ""
        say(
            f"fuzz {parser}: {count.inputs:,} inputs{rest}, {count.findings} findings, "
            f"{time.monotonic() - begun:.0f} s"
        )
        return count.inputs, count.findings

    with ThreadPoolExecutor(jobs) as several:
        found = dict(zip(esp32fuzz.PARSERS, several.map(one, esp32fuzz.PARSERS), strict=True))
    return {
        "fuzz": {parser: inputs for parser, (inputs, _) in found.items()},
        "fuzz_inputs": sum(inputs for inputs, _ in found.values()),
        "fuzz_findings": sum(findings for _, findings in found.values()),
    }


def micropython_fuzz(folder: Path, each: int, seed: int, tally: Tally) -> dict[str, Any]:
    """At least `each` inputs for each parser of the MicroPython client, on its own interpreter."""
    if micropython.interpreter() is None:
        say("fuzz: no micropython here")
        return {}
    wanted = each * len(micropython.FUZZED)
    count = tally.of("micropython", _digest())
    library = micropython.packed(folder / "micropython-fuzzed")
    scene = esp32scene.scene(size=4 << 10)
    while count.inputs < wanted and not count.findings:
        count.seed += 1
        where = folder / f"micropython-fuzz-{count.seed}"
        where.mkdir()
        at_once = min(MICROPYTHON_AT_ONCE, -(-(wanted - count.inputs) // len(micropython.FUZZED)))
        found = micropython.fuzz(where, library, scene, at_once, seed * 10_000 + count.seed)
        count.inputs += found.inputs
        count.findings += len(found.findings)
        tally.save()
        for finding in found.findings[:5]:
            say(finding)
    say(f"fuzz MicroPython: {count.inputs:,} inputs, {count.findings} findings")
    return {"micropython_fuzz": {"inputs": count.inputs, "findings": count.findings}}


def _digest() -> str:
    """Of the client, what feeds it, and what it begins with."""
    own = [Path(micropython.__file__), Path(esp32scene.__file__)]
    every = [*own, *micropython.HOME.glob("skylift/*.py"), *micropython.HOME.glob("host/*.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(every))).hexdigest()
