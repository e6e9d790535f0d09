"""Trust under attack: attacks that install something, parsers that break, and what verifying costs.

Attacks are those of tests/attacks (a real server, real agents, a hostile proxy), counted as they are played.
Fuzzing feeds every parser that strangers reach, from a seed that is printed. Times are medians, interleaved
with plain P-256 and Ed25519 operations of the same library. Tables to stderr, JSON to stdout.

    python3 dev.py bench trust [--json] [--full] [--fuzz N] [--seed S] [--no-attacks] [--conformance PATH]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256

from skylift.settings import Settings
from skylift.testkit import fuzz
from skylift.testkit.victims import TALLY
from skylift.trust import compact, files, keys
from skylift.trust.roles import DIRECTOR, IMAGE, target_path
from skylift.wiring import SkyliftServer, build

ROOT = Path(__file__).resolve().parents[1]
FULL, SHORT = 1_000_000, 50_000
ROUNDS = 60


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


def attacks() -> dict[str, int]:
    """Play tests/attacks; how many attacks were tried, and how many got something installed."""
    with tempfile.TemporaryDirectory() as scratch:
        tally = Path(scratch) / "tally"
        environment = {**os.environ, TALLY: str(tally)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/attacks"]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
        counted = [json.loads(line) for line in tally.read_text().splitlines()] if tally.exists() else []
    if done.returncode:
        say("some attacks did not end as they should: see above")
    return {
        "attacks": sum(each["tried"] for each in counted),
        "installed": sum(each["installed"] for each in counted),
        "attack_tests_failed": int(bool(done.returncode)),
    }


def fuzzed(inputs: int, seed: int) -> dict[str, Any]:
    """Feed every parser; what broke is written to tests/attacks/finds, to be kept."""

    def server(folder: Path, admin: str) -> SkyliftServer:
        return build(Settings(data_dir=folder, mqtt_url="off", admin_token=admin))

    with tempfile.TemporaryDirectory() as scratch, fuzz.targets(Path(scratch), server) as targets:
        begun = time.monotonic()
        found = fuzz.run(targets, inputs, seed)
        took = time.monotonic() - begun
    say(f"fuzz: {found.inputs:,} inputs from seed {seed} in {took:.0f} s, {len(found.uncaught)} uncaught")
    for name, ms in sorted(found.slowest_ms.items()):
        say(f"  {name:20} slowest input {ms:8.1f} ms")
    kinds: dict[tuple[str, str], bytes] = {}
    for name, body, why in found.uncaught:
        if (name, why[:40]) not in kinds:
            kinds[name, why[:40]] = body
            say(f"  {name}: {why}")
    for number, ((name, _), body) in enumerate(kinds.items()):
        (ROOT / "tests" / "attacks" / "finds" / f"{fuzz.stem(name)}.{seed}-{number}").write_bytes(body)
    return {
        "fuzz_inputs": found.inputs,
        "uncaught": len(found.uncaught),
        "fuzz_installed": found.installed,
        "fuzz_seed": seed,
        "fuzz_slowest_ms": round(max(found.slowest_ms.values()), 1),
    }


# --- times -----------------------------------------------------------------------------------------------


def times() -> dict[str, Any]:
    """Medians of interleaved rounds: what we do, and the plain operations it is made of."""
    with tempfile.TemporaryDirectory() as scratch:
        deeds = _deeds(Path(scratch))
        taken: dict[str, list[float]] = {name: [] for name in deeds}
        for _ in range(ROUNDS):
            for name, deed in deeds.items():
                begun = time.perf_counter()
                deed()
                taken[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    figures = {
        name: round(seconds * (1e3 if name.endswith("_ms") else 1e6), 3 if name.endswith("_ms") else 1)
        for name, seconds in medians.items()
    }
    figures["orders_per_s"] = round(1 / medians["order_sign_us"])
    for name, figure in figures.items():
        say(f"  {name:20} {figure:>10}")
    return figures


def _deeds(folder: Path) -> dict[str, Callable[[], object]]:
    repo = fuzz.Repository(folder / "repo")
    signer = keys.generate()
    said = {"image": {"version": "1.1.0"}, "device_id": fuzz.DEVICE, "deployment": "d", "attempt": 1}
    path = target_path(fuzz.PRODUCT, "1.1.0", fuzz.HARDWARE)
    order = files.order(1, fuzz.DEVICE, {path: files.target(path, 9, repo.digest, said)}, fuzz.NOW)
    p256, algorithm = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(SHA256())
    edwards, message = ed25519.Ed25519PrivateKey.generate(), b"m" * 800
    p256_signed, edwards_signed = p256.sign(message, algorithm), edwards.sign(message)

    def full() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            found = repo.device(Path(cache)).verify(repo.fetch({}), fuzz.NOW, 0, fuzz.NOW)
        assert found is not None

    deeds: dict[str, Callable[[], object]] = {
        "order_sign_us": lambda: files.sign(order, [signer]),
        "full_verify_ms": full,
        "p256_sign_us": lambda: p256.sign(message, algorithm),
        "p256_verify_us": lambda: p256.public_key().verify(p256_signed, message, algorithm),
        "ed25519_sign_us": lambda: edwards.sign(message),
        "ed25519_verify_us": lambda: edwards.public_key().verify(edwards_signed, message),
    }
    return deeds | _small(repo)


def _small(repo: fuzz.Repository) -> dict[str, Callable[[], object]]:
    """A microcontroller's verification of the same files, in pure Python: an order and a role (three
    signatures), and the first time, with the delegations (two more)."""
    order, role = repo.files[DIRECTOR, "1.targets.json"], repo.files[IMAGE, f"1.{fuzz.PRODUCT}.json"]
    delegations, now = repo.files[IMAGE, "1.targets.json"], int(fuzz.NOW.timestamp())

    def made() -> compact.Device:
        roots = repo.image_root, repo.director_root
        own = compact.Device(fuzz.DEVICE, fuzz.HARDWARE, fuzz.PRODUCT, *roots)
        own.take_delegations(delegations, now)
        return own

    known = made()
    return {
        "compact_verify_ms": lambda: known.decide(order, role, None, now),
        "compact_first_ms": lambda: made().decide(order, role, None, now),
    }


# --- the official suite ----------------------------------------------------------------------------------


def conformance(suite: Path) -> dict[str, int]:
    """Run a checkout of theupdateframework/tuf-conformance against the agent's client."""
    if not (suite / "tuf_conformance").is_dir():
        say(f"the conformance suite is not at hand: {suite} is no checkout of tuf-conformance")
        return {}
    if shutil.which("faketime") is None:
        say("faketime is not installed: the suite's cases about other times will fail")
    with tempfile.TemporaryDirectory() as scratch:
        entry, report = Path(scratch) / "skylift-conformance", Path(scratch) / "report.xml"
        entry.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m skylift.agent.conformance "$@"\n')
        entry.chmod(0o755)
        pytest = [_suites_python(suite), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*pytest, "tuf_conformance", "--entrypoint", str(entry), f"--junit-xml={report}"],
            cwd=suite,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(suite)])},
            stdout=sys.stderr,
            check=False,
        )
        if not report.exists():
            say(f"the conformance suite did not run: pytest ended with {done.returncode}")
            return {}
        found = counted(report.read_text())
    say(", ".join(f"{name.replace('_', ' ')} {number}" for name, number in found.items()))
    return found


def _suites_python(suite: Path) -> str:
    """The environment that the checkout made for itself, or ours, which has all that it imports."""
    own = (suite / name / "bin" / "python" for name in ("env", ".venv", "venv"))
    return next((str(python) for python in own if python.exists()), sys.executable)


def counted(report: str) -> dict[str, int]:
    """What a JUnit report says of its cases. A case that is expected to fail, or skipped, does not apply; one
    that broke in its preparation failed, and one that passed and then broke did not pass."""
    outcomes: dict[tuple[str, str], str] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):  # noqa: S314 - pytest has just written it
        name = case.get("classname", ""), case.get("name", "")
        said = {part.tag for part in case}
        if said & {"failure", "error"}:
            outcomes[name] = "failed"
        elif outcomes.get(name) != "failed":
            outcomes[name] = "not_applicable" if "skipped" in said else "passed"
    kinds = ("passed", "failed", "not_applicable")
    return {f"conformance_{kind}": sum(each == kind for each in outcomes.values()) for kind in kinds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="(always printed; kept for symmetry)")
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} fuzz inputs instead of {SHORT:,}")
    parser.add_argument("--fuzz", type=int, default=None, metavar="N")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--no-attacks", action="store_true")
    parser.add_argument("--conformance", type=Path, default=None, metavar="PATH")
    asked = parser.parse_args()
    found: dict[str, Any] = {} if asked.no_attacks else attacks()
    inputs = asked.fuzz if asked.fuzz is not None else FULL if asked.full else SHORT
    found |= fuzzed(inputs, asked.seed)
    found |= times()
    if asked.conformance is not None:
        suite = conformance(asked.conformance.resolve())
        found |= suite or {"conformance_ran": 0}
    else:
        say("the conformance suite is not at hand (--conformance PATH)")
    print(json.dumps(found))
    bad = ("installed", "attack_tests_failed", "uncaught", "fuzz_installed", "conformance_failed")
    return int(any(found.get(name) for name in bad) or found.get("conformance_ran") == 0)


if __name__ == "__main__":
    sys.exit(main())
