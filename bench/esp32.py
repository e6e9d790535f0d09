"""The ESP32's clients, measured: power cuts, memory, code, flash writes, fuzzing, coverage.

Everything runs the C++ of `clients/esp32` as it is flashed, on the host's chip; sizes are of what the
cross-compilers make of it. What a machine lacks (clang, the cross-compilers, gcovr) is not measured, and
its key is absent. Tables to stderr, JSON to stdout.

    python3 dev.py bench esp32 [--json] [--full] [--fuzz N] [--pairs N] [--step N] [--seed S]
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from skylift.testkit import esp32, esp32scene, forge, micropython

FULL, SHORT = 1_000_000, 20_000  # fuzzed inputs of each parser
PARSERS = ("json", "order", "role", "root", "http", "mqtt", "p256", "check", "delta", "log")
# Bytes of an input, where fewer than a signed file's 16 KB say all there is to say.
LONGEST = {"mqtt": 1024, "p256": 256, "check": 9 << 10, "http": 4096}
MICROPYTHON_PAIRS = {False: 20, True: 200}  # lives of processes: all pairs would be a night
SIZE = 48 << 10  # of the image whose every operation is cut
LARGE = 1 << 20  # of the one whose writes are weighed
TARGETS = {
    "riscv32": (
        "riscv64-unknown-elf",
        [
            "-march=rv32imc",
            "-mabi=ilp32",
            "-msave-restore",
            "-malign-data=natural",
        ],  # as CMakeLists.txt has them
        "1<<SD_RISCV",
    ),
    "cortex_m": ("arm-none-eabi", ["-mcpu=cortex-m4", "-mthumb"], "1<<SD_THUMB"),
}
# Everything that a device has of ours: the client, its doorbell, HTTP of its own, the decoder's stack, and
# a program that uses all of it. Hardware and TLS are declared, not there.
PROGRAM = """
#include "skylift/client.hpp"
#include "skylift/http1.hpp"
#include "skylift/mqtt.hpp"
using namespace skylift;
extern Port& port;
extern Socket& socket_;
extern Config config;
class Own final : public Hooks {} hooks;
Server servers[2];
alignas(8) unsigned char stack_room[6144];
Client client(port, hooks);
Http1 http(socket_, servers[0]);
Doorbell bell(socket_, port);
extern "C" void _start() {
  Head head;
  server_of("http://h", servers[0]);
  http.open(*reinterpret_cast<Ask*>(stack_room));
  http.head(head);
  http.read(stack_room, 1);
  http.close();
  bell.begin(servers[1], "", "");
  client.begin(config);
  for (;;) {
    client.step();
    bell.step();
    if (bell.rang()) client.ring();
    if (bell.connected()) client.rollback(), client.finish(), bell.end();
  }
}
"""


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


def run(words: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


# --- power cuts, flash, heap --------------------------------------------------------------------------


def cuts(folder: Path, pairs: str, step: int) -> dict[str, Any]:
    """Every operation, and pairs, some or all: see clients/esp32/tests/powercut.cpp."""
    scene = esp32scene.scene(size=SIZE).write(folder / "scene")
    done = run([str(esp32.power_cuts()), str(scene), pairs, str(step)])
    say(done.stderr.strip()[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    say(
        f"power cuts: {found['cuts']:,}, and {found['pairs']:,} pairs, in {found['lives']:,} lives from "
        f"{found['starts']} starting chips: "
        f"{found['unbootable']} unbootable, {found['unverified_boots']} unverified; ends: {found['ends']}"
    )
    keys = ("cuts", "pairs", "unbootable", "unverified_boots", "stuck", "neither_old_nor_new", "lives")
    return {key: found[key] for key in keys}


def writes(folder: Path) -> dict[str, Any]:
    """Bytes written to flash by one update of a usual image, its journal and boot control included; and
    the heap."""
    scene = esp32scene.scene(size=LARGE).write(folder / "large")
    program = esp32.harness("weigh", ("-O2", "-g"))
    done = run([str(program), str(scene)])
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    say(
        f"flash: {found['written']:,} bytes for an image of {found['image']:,}; heap after begin: "
        f"{found['heap_after_begin']} allocations; the decoder's stack: {found['stack']} bytes on this host"
    )
    return {
        "flash_write_ratio": round(found["written"] / found["image"], 4),
        "heap_after_begin": found["heap_after_begin"],
        "delta_stack_host": found["stack"],
    }


def micropython_cuts(folder: Path, step: int, pairs: int, seed: int) -> dict[str, Any]:
    """The MicroPython client's power cuts, each and some pairs; {} without its interpreter."""
    if micropython.interpreter() is None:
        say("no micropython here: its power cuts are not measured")
        return {}
    library = micropython.packed(folder / "library")
    scene = esp32scene.scene(size=SIZE)
    found = micropython.cut_everywhere(folder / "micropython", library, scene, step)
    say(
        f"MicroPython: {found.cuts} cuts in {found.operations} operations: {found.unbootable} unbootable, "
        f"{found.unverified} unverified; ends: {found.ends}"
    )
    both = micropython.cut_pairs(folder / "pairs", library, scene, pairs, seed)
    say(
        f"MicroPython, {pairs} lives cut twice: {both.cuts} cuts: {both.unbootable} unbootable, "
        f"{both.unverified} unverified; ends: {both.ends}"
    )
    keys = ("operations", "cuts", "unbootable", "unverified")
    told = {key: getattr(found, key) for key in keys} | {"pairs": pairs}
    for key in ("unbootable", "unverified"):
        told[key] += getattr(both, key)
    return {"micropython": told}


def micropython_fuzz(folder: Path, each: int, seed: int) -> dict[str, Any]:
    """`each` inputs for everything of the MicroPython client that reads what a stranger sent."""
    if micropython.interpreter() is None:
        return {}
    where = folder / "micropython-fuzz"
    where.mkdir()
    library = micropython.packed(where / "library")
    found = micropython.fuzz(where, library, esp32scene.scene(size=4 << 10), each, seed)
    say(f"fuzz MicroPython: {found.inputs:,} inputs, {len(found.findings)} findings", *found.findings[:5])
    return {"micropython_fuzz": {"inputs": found.inputs, "findings": len(found.findings)}}


# --- sizes --------------------------------------------------------------------------------------------


def sizes(folder: Path) -> dict[str, Any]:
    """Code and static memory of a linked program with every feature, -Os: the client, HTTP, MQTT, the
    delta decoder, the compiler's helpers. C library and hardware are not in it, nor TLS and TCP: SHA-256 and
    P-256 are the TLS library's there, by PSA. `code_bytes_own_crypto`: with ours instead, for chips without
    TLS."""
    found: dict[str, Any] = {"code_bytes": {}, "code_bytes_own_crypto": {}}
    for name in TARGETS:
        if shutil.which(f"{TARGETS[name][0]}-g++") is None:
            say(f"{name}: no {TARGETS[name][0]}-g++ here")
            continue
        code, _, _ = linked(folder / f"{name}-psa", name, psa=True)
        own, ram, table = linked(folder / name, name, psa=False)
        found["code_bytes"][name], found["code_bytes_own_crypto"][name] = code, own
        if name == "riscv32":
            found["ram_static"] = ram
        say(
            f"{name}: {code:,} bytes of code with the platform's crypto, {own:,} with our own, {ram:,} of "
            "memory; before linking: "
            + ", ".join(f"{part} {n:,}" for part, n in sorted(table.items(), key=lambda item: -item[1]))
        )
    return found


def linked(where: Path, name: str, *, psa: bool) -> tuple[int, int, dict[str, int]]:
    """(code and constants, memory, object sizes) of the program for this target."""
    prefix, machine, arches = TARGETS[name]
    where.mkdir()
    flags = [
        *machine,
        "-Os",
        "-ffreestanding",
        "-ffunction-sections",
        "-fdata-sections",
        *esp32.SMALL,
        "-DSD_FREESTANDING",
        f"-DSD_ARCHS={arches}",
        *(["-DSKYLIFT_CRYPTO_PSA", "-I", str(esp32.HOME / "stubs")] if psa else []),
        "-I",
        str(esp32.DECODER),
        "-I",
        str(esp32.CORE.parent),
    ]
    plus = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"]
    program = where / "program.cpp"
    program.write_text(PROGRAM)
    objects, table = [], {}
    glue = [esp32.CORE.parent / "esp" / "crypto_psa.cpp"] if psa else []
    for source in (*esp32.core_sources(), *glue, *esp32.DECODER.glob("*.c"), program):
        out = where / f"{source.name}.o"
        language = [f"{prefix}-gcc", "-std=c11"] if source.suffix == ".c" else [f"{prefix}-g++", *plus]
        _must([*language, *flags, "-c", str(source), "-o", str(out)])
        objects.append(str(out))
        if source != program:
            table[source.name] = int(_must([f"{prefix}-size", str(out)]).splitlines()[1].split()[0])
    if re.search(r"\bU (malloc|calloc|realloc|_Zn[wa])", _must([f"{prefix}-nm", *objects])):
        raise RuntimeError("the core allocates")
    elf = where / "program.elf"
    _must(
        [
            f"{prefix}-g++",
            *machine,
            "-nostartfiles",
            "-nodefaultlibs",
            "-Wl,--gc-sections",
            "-Wl,--unresolved-symbols=ignore-all",
            *objects,
            "-lgcc",
            "-o",
            str(elf),
        ]
    )
    text, data, bss = map(int, _must([f"{prefix}-size", str(elf)]).splitlines()[1].split()[:3])
    return text, data + bss, table


def _must(words: list[str]) -> str:
    done = run(words)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout


# --- fuzzing ------------------------------------------------------------------------------------------


def fuzz(folder: Path, each: int, seed: int) -> dict[str, Any]:
    """`each` inputs for every parser, by libFuzzer with sanitizers, beginning at files that are right."""
    clang = shutil.which("clang++")
    if clang is None:
        say("fuzz: no clang++ here")
        return {}
    program = fuzzer(folder, clang)
    scene = esp32scene.scene(size=8 << 10).write(folder / "small")
    say(f"fuzz: seed {seed}")
    inputs = findings = 0
    for number, name in enumerate(PARSERS):
        corpus = seeds(folder / f"corpus-{name}", scene, number)
        words = [
            str(program),
            str(corpus),
            f"-runs={each}",
            f"-seed={seed}",
            f"-max_len={LONGEST.get(name, 16 << 10)}",
            "-rss_limit_mb=2000",
            f"-artifact_prefix={folder}/{name}-",
            "-timeout=20",
            "-print_final_stats=1",
            "-detect_leaks=0",
        ]
        begun = time.monotonic()
        done = run(words, env={**os.environ, "SKYLIFT_SCENE": str(scene), "SKYLIFT_PARSER": str(number)})
        ran = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        inputs += int(ran[1]) if ran else 0
        if done.returncode:
            findings += 1
            say(f"fuzz {name}: {done.stderr[-3000:]}")
        say(f"fuzz {name}: {ran[1] if ran else '?'} inputs in {time.monotonic() - begun:.0f} s")
    return {"fuzz_inputs": inputs, "fuzz_findings": findings}


def fuzzer(folder: Path, clang: str) -> Path:
    """libFuzzer, AddressSanitizer, UndefinedBehaviorSanitizer."""
    flags = ["-O1", "-g", "-fsanitize=fuzzer-no-link,address,undefined", "-fno-sanitize-recover=all"]
    include = ["-I", str(esp32.DECODER), "-I", str(esp32.CORE.parent)]
    host = esp32.HOME / "host"
    objects = []
    for source in (
        *esp32.core_sources(),
        host / "chip.cpp",
        host / "desk.cpp",
        esp32.HOME / "tests" / "fuzz.cpp",
        *esp32.DECODER.glob("*.c"),
    ):
        out = folder / f"fuzz-{source.stem}.o"
        standard = (
            ["-x", "c", "-std=c11", *esp32.SMALL, esp32.ARCHES] if source.suffix == ".c" else ["-std=c++17"]
        )
        done = run([clang, *standard, *flags, *include, "-c", str(source), "-o", str(out)])
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        objects.append(str(out))
    program = folder / "fuzzer"
    done = run([clang, "-fsanitize=fuzzer,address,undefined", *objects, "-o", str(program)])
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return program


HTTP = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 206 P\r\nContent-Range: bytes 1-2/3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\nx",
)
MQTT = (
    b"\x20\x02\x00\x00\x90\x03\x00\x01\x01\x30\x0d\x00\x0adevices/x/z\x32\x10\x00\x0adevices/xx\x12\x34{}",
)


def seeds(folder: Path, scene: Path, number: int) -> Path:
    """Inputs that are right, for one parser."""
    folder.mkdir()
    signed = {
        1: ["director!dev-1!order.json"],
        2: ["image!2.sensor.json"],
        3: ["image.root", "director.root", "image!1.targets.json"],
        9: ["api!log!compact", "proofs-rotated.json", "proofs-since.json"],
    }
    bodies: list[bytes] = []
    if number in signed:
        bodies = [(scene / name).read_bytes() for name in signed[number]]
    elif number in (0, 7):
        bodies = [(scene / name).read_bytes() for name in ("check.json", "check-delta.json")]
    elif number == 4:
        bodies = list(HTTP)
    elif number == 5:
        bodies = list(MQTT)
    elif number == 6:
        key = forge.STRANGER
        bodies = [b"\x01" * 64 + bytes.fromhex(key.sign(b"x").signature)]
    else:
        bodies = [path.read_bytes() for path in scene.glob("api!blobs!*") if path.read_bytes()[:3] == b"SKD"]
    for at, body in enumerate(bodies):
        for piece in (0, 255):
            (folder / f"{at}-{piece}").write_bytes(bytes([number, piece]) + body)
    return folder


# --- coverage -----------------------------------------------------------------------------------------


def coverage(folder: Path) -> dict[str, Any]:
    """Lines and branches of the core that the host's tests reach."""
    if shutil.which("gcovr") is None:
        say("coverage: no gcovr here")
        return {}
    where = folder / "coverage"
    where.mkdir()
    include = ["-I", str(esp32.DECODER), "-I", str(esp32.CORE.parent)]
    flags = ["-O0", "-g", "--coverage", "-fno-exceptions", "-fno-rtti", "-std=c++17", *include]
    shared = []
    for source in esp32.core_sources():
        out = where / f"{source.stem}.o"
        done = run(["g++", *flags, "-c", str(source), "-o", str(out)], cwd=where)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        shared.append(str(out))
    for each in esp32.DECODER.glob("*.c"):
        out = where / f"{each.name}.o"
        run(
            [
                "gcc",
                "-std=c11",
                "-O1",
                *esp32.SMALL,
                esp32.ARCHES,
                *include,
                "-c",
                str(each),
                "-o",
                str(out),
            ]
        )
        shared.append(str(out))
    scene = str(esp32scene.scene(size=24 << 10).write(folder / "covered"))
    plain = [flag for flag in flags if flag not in ("--coverage", "-fno-exceptions")]
    for name, words, lines in (
        ("units", [scene], ""),
        ("powercut", [scene, "2", "9"], ""),
        ("vectors", ["p256"], _p256_lines()),
        ("vectors", ["json"], "".join(f"{text.hex()}\n" for text in _texts())),
        *_trust_lines(folder),
    ):
        program = where / name
        if not program.exists():
            sources = map(str, esp32.harness_sources(name))
            done = run(["g++", *plain, *sources, *shared, "--coverage", "-o", str(program)], cwd=where)
            if done.returncode:
                raise RuntimeError(done.stderr[-3000:])
        done = run([str(program), *words], cwd=where, input=lines)
        if done.returncode:
            say(f"coverage: {name} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    out = where / "summary.json"
    done = run(
        [
            "gcovr",
            "-r",
            str(esp32.CORE),
            "--object-directory",
            str(where),
            str(where),
            "--exclude-throw-branches",
            "--exclude-unreachable-branches",
            "--json-summary",
            str(out),
        ],
        cwd=where,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = json.loads(out.read_text())
    for file in found["files"]:
        say(
            f"  {file['filename']:16} lines {file['line_percent']:5.1f} %,"
            f" branches {file['branch_percent'] or 100:5.1f} %"
        )
    say(f"coverage: lines {found['line_percent']} %, branches {found['branch_percent']} %")
    return {"line_coverage": found["line_percent"], "branch_coverage": found["branch_percent"]}


def _p256_lines() -> str:
    sys.path.insert(0, str(esp32.ROOT / "tests" / "clients"))
    lines: list[str] = []
    key = forge.STRANGER
    import hashlib

    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for number in (1, 2, 7, n - 1):
        private = ec.derive_private_key(number, ec.SECP256R1())
        at = private.public_key().public_numbers()
        body = bytes([number & 255])
        good = private.sign(body, ec.ECDSA(SHA256()))
        digest = hashlib.sha256(body).hexdigest()
        point = f"{at.x:064x}{at.y:064x}"
        lines += [
            f"{point} {digest} {good.hex()}",
            f"{point} {'11' * 32} {good.hex()}",
            f"{'ff' * 64} {digest} {good.hex()}",
            f"{'01' * 64} {digest} {good.hex()}",
            f"{point} {digest} 3006020101020101",
            f"{point} {digest} 3006020100020101",
            f"{point} {digest} 300702020001020101",
            f"{point} {digest} 3006020181020101",
            f"{point} {digest} {good.hex()}00",
            f"{point} {digest} 3006020101020100",
            f"{point} {digest} 3106020101020101",
            f"{point} {digest} 3006020002020101",
            f"{point} {digest} 3006020901020101",
            f"{point} {digest} 3006030101020101",
            f"{point} {digest} 3007020101020101",
            f"{point} {digest} 30{'00' * 80}",
            f"{point} {digest} ",
            f"{point} {digest} {'30'}{'26'}{'0221' + '01' * 33}{'020101'}",
        ]
    assert key
    return "".join(f"{line}\n" for line in lines)


def _texts() -> list[bytes]:
    chance = random.Random(7)
    rights = [b'{"a":1,"b":[true,false,null,{"c":"x\\n\\u00e9"}]}', b"[]", b"{}", b'{"b":-1.5e+3,"a":2}']
    made = list(rights)
    for text in rights:
        for _ in range(200):
            broken = bytearray(text)
            broken[chance.randrange(len(broken))] = chance.choice(b'{}[]",:\\1a \x80u')
            made.append(bytes(broken))
    return [*made, b"[" * 20]


def _trust_lines(folder: Path) -> list[tuple[str, list[str], str]]:
    """The vectors of conformance/trust as `vectors` reads them: by the test's own writing."""
    import base64
    import zlib

    path = esp32.ROOT / "conformance" / "trust" / "vectors.json"
    every = json.loads(path.read_text())
    where = folder / "vectors"
    where.mkdir()
    for name, body in every["files"].items():
        (where / name).write_bytes(zlib.decompress(base64.b64decode(body)))
    sys.path[:0] = [str(esp32.ROOT / "tests"), str(esp32.ROOT / "tests" / "clients")]
    from test_esp32_core import _line  # type: ignore[import-not-found]  # tests are not a package

    lines = "".join(f"{_line(case)}\n" for case in every["cases"])
    who = [every["device_id"], every["hardware"], every["product"]]
    return [("vectors", ["trust", str(where), *who], lines)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} inputs for each parser")
    parser.add_argument("--fuzz", type=int, default=None, metavar="N", help="inputs for each parser")
    parser.add_argument(
        "--pairs",
        default=None,
        help="pairs of cuts from each starting chip, each kind of update, or all; 40, or all with --full",
    )
    parser.add_argument("--step", type=int, default=1, help="cut at every so many operations")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if esp32.compiler() is None:
        say("a C++ and a C compiler (g++, gcc) are needed")
        return 1
    each = asked.fuzz if asked.fuzz is not None else FULL if asked.full else SHORT
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = {
            **sizes(folder),
            **writes(folder),
            **coverage(folder),
            **cuts(folder, asked.pairs or ("all" if asked.full else "40"), asked.step),
            **micropython_cuts(folder, asked.step, MICROPYTHON_PAIRS[asked.full], asked.seed),
            **(fuzz(folder, each, asked.seed) if each else {}),
            **(micropython_fuzz(folder, each, asked.seed) if each else {}),
        }
    print(json.dumps(found, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
