"""Every parser of the C++ client that reads from the network, fuzzed by libFuzzer under AddressSanitizer and
UndefinedBehaviorSanitizer: `clients/esp32/tests/fuzz`. Needs clang; `compilers()` says whether it is there.

Each parser is a process with a corpus that begins with files that are right, made by the code that makes the
server's. The scene is small: what an input costs is what it makes the parser do, and little else.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from skylift.firmware import native
from skylift.testkit import esp32, esp32scene, forge

# Bytes of an input: a little more than a device takes, or than there is to say.
LONGEST = {
    "json": 4 << 10,
    "order": 4200,
    "role": 16500,
    "root": 16500,
    "http": 4 << 10,
    "mqtt": 1 << 10,
    "p256": 256,
    "check": 9 << 10,
    "delta": 2 << 10,
    "log": 16500,
}
PARSERS = tuple(LONGEST)
SIZE = 1 << 10  # of the image that deltas begin at
TIMEOUT_S = 20  # for one input, on a machine that does other things too
# Inputs are told apart by the ways they take. To look at what is compared, too, took half of the time and
# more, for words that the files here begin with anyway.
SANITIZE = (
    "-O2",
    "-g",
    "-fsanitize=fuzzer-no-link,address,undefined",
    "-fno-sanitize-coverage=trace-cmp",
    "-fno-sanitize-recover=all",
)
SIGNED = {
    "order": ("director!dev-1!order.json", "order-unlogged.json"),
    "role": ("image!2.sensor.json",),
    "root": (
        "image.root",
        "director.root",
        "image!2.root.json",
        "director!dev-1!2.root.json",
        "image!1.targets.json",
    ),
    "log": ("api!log!compact", "proofs-rotated.json", "proofs-since.json"),
}
CHECKS = ("check.json", "check-delta.json")
HTTP = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 206 P\r\nContent-Range: bytes 1-2/3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\nx",
)
MQTT = (
    b"\x20\x02\x00\x00\x90\x03\x00\x01\x01\x30\x0d\x00\x0adevices/x/z\x32\x10\x00\x0adevices/xx\x12\x34{}",
)
HTTP_WORDS = (
    b"HTTP/1.",
    b"Content-Length: ",
    b"Content-Range: bytes ",
    b"Transfer-Encoding: chunked",
    b"Retry-After: ",
    b"Connection: close",
    b"\r\n\r\n",
    b"\r\n0\r\n",
    b"4294967295",
    b"4294967296",
)
PIECES = (255, 6, 5)  # bytes that come at a time, less one; and, by parser, which of its ways is taken


@cache
def compilers() -> tuple[str, str] | None:
    """clang++ and clang, where libFuzzer is with them."""
    cpp, c = shutil.which("clang++"), shutil.which("clang")
    if cpp is None or c is None or not esp32.CORE.is_dir():
        return None
    home = subprocess.run([c, "-print-resource-dir"], capture_output=True, text=True, check=True).stdout
    return (cpp, c) if any(Path(home.strip()).rglob("libclang_rt.fuzzer*")) else None


def sources() -> list[Path]:
    host = esp32.HOME / "host"
    chapters = sorted((esp32.HOME / "tests" / "fuzz").glob("*.cpp"))
    return [*chapters, host / "chip.cpp", host / "desk.cpp"]


def program() -> Path:
    return esp32.build(
        "fuzz",
        sources(),
        SANITIZE,
        ["-fsanitize=fuzzer"],
        without=("p256.cpp",),
        compilers=compilers(),
    )


def digest() -> str:
    """Of everything that makes these figures: the client, the harness, and the inputs it begins with."""
    tests = esp32.HOME / "tests"
    headers = [tests / "cuts.hpp", tests / "fuzz" / "fuzz.hpp", *(esp32.HOME / "host").glob("*.hpp")]
    core = [*esp32.core_sources(), *esp32.CORE.glob("*.hpp"), *esp32.DECODER.glob("*.[ch]")]
    made = hashlib.sha256(repr((SANITIZE, LONGEST, HTTP_WORDS)).encode())
    for path in sorted([*sources(), *headers, *core]):
        made.update(hashlib.sha256(path.read_bytes()).digest())
    with tempfile.TemporaryDirectory() as scratch:
        scene = esp32scene.scene(size=SIZE).write(Path(scratch))
        for body in (body for parser in PARSERS for body in _bodies(parser, scene)):
            made.update(hashlib.sha256(body).digest())
    return made.hexdigest()


@dataclass(frozen=True)
class Corpora:
    """The scene, and a folder of inputs for each parser: they grow while it runs."""

    home: Path

    def __post_init__(self) -> None:
        if not (self.home / "scene").exists():
            scene = esp32scene.scene(size=SIZE).write(self.home / "scene")
            (self.home / "http.words").write_text("".join(f'"{_escaped(word)}"\n' for word in HTTP_WORDS))
            for parser in PARSERS:
                _write(self.home / parser, _bodies(parser, scene))

    def words(self, parser: str) -> list[str]:
        listed = self.home / f"{parser}.words"
        return [f"-dict={listed}"] if listed.exists() else []


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _write(folder: Path, bodies: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for number, body in enumerate(bodies):
        for piece in PIECES:
            (folder / f"{number}-{piece}").write_bytes(bytes([piece]) + body)


def _bodies(parser: str, scene: Path) -> list[bytes]:
    if parser in SIGNED:
        return [(scene / name).read_bytes() for name in SIGNED[parser]]
    if parser in ("json", "check"):
        return [(scene / name).read_bytes() for name in CHECKS]
    if parser == "p256":
        key = forge.STRANGER
        at = key.private.public_key().public_numbers()
        point = at.x.to_bytes(32, "big") + at.y.to_bytes(32, "big")
        return [point + bytes.fromhex(key.sign(b"x").signature)]
    if parser == "delta":
        old, new = (scene / "old.bin").read_bytes(), (scene / "new.bin").read_bytes()
        moved = new[:300] + bytes(range(40)) + new[300:-100]
        machines = ("plain", "thumb", "xtensa", "riscv")
        return [native.make(old, to, "mcu-16k", arch=arch).patch for arch in machines for to in (new, moved)]
    return list(HTTP if parser == "http" else MQTT)


@dataclass(frozen=True)
class Ran:
    """`inputs`: changed ones that the parser was given. `finding`: "" or what libFuzzer says of it."""

    inputs: int
    finding: str


def run(fuzzer: Path, corpora: Corpora, parser: str, inputs: int, seed: int) -> Ran:
    """So many inputs, besides those that are there already, or as many as it takes to find something."""
    corpus = corpora.home / parser
    there = {**os.environ, "SKYLIFT_SCENE": str(corpora.home / "scene"), "SKYLIFT_PARSER": parser}
    words = [
        str(fuzzer),
        str(corpus),
        *corpora.words(parser),
        f"-runs={inputs + len(list(corpus.iterdir()))}",
        f"-seed={seed}",
        f"-max_len={LONGEST[parser]}",
        f"-artifact_prefix={corpora.home}/found-{parser}-",
        f"-timeout={TIMEOUT_S}",
        "-rss_limit_mb=2000",
        "-print_final_stats=1",
        "-detect_leaks=0",
        "-reload=0",
    ]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, env=there)
    every = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    begun = re.search(r"^#(\d+)\s+INITED", done.stderr, re.MULTILINE)
    if not done.returncode and not (every and begun):
        raise RuntimeError(done.stderr[-3000:])
    inputs = int(every[1]) - int(begun[1]) if every and begun else 0
    return Ran(inputs, _said(done.stderr) if done.returncode else "")


def _said(errors: str) -> str:
    """What a sanitizer or libFuzzer said, without what went before."""
    begins = re.search(r"^.*(runtime error: |ERROR: )", errors, re.MULTILINE)
    return errors[begins.start() :][:4000] if begins else errors[-4000:]
