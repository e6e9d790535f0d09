"""Virtual ESP32s: the C++ client of `clients/esp32`, built for this machine, each a process with its own
flash file.

Nothing is simulated but the chip: the code is what is flashed, the network is this machine's, the flash only
clears bits, is erased by sectors, and tears its writes when the power goes. Needs a C++ compiler and the
source tree; `compiler()` says whether there is one. Builds are kept by the digest of their sources.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skylift.testkit.server import end

ROOT = Path(__file__).resolve().parents[3]
HOME, DECODER = ROOT / "clients" / "esp32", ROOT / "native" / "decoder"
CORE, BUILD = HOME / "src" / "skylift", HOME / "build"
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
CHIP_C3, CHIP_ESP32 = 5, 0  # ESP-IDF's esp_chip_id_t
# The delta decoder as chips have it: small profiles, no encoder, addresses of 32 bits.
SMALL = ("-DSD_MCU", "-DSD_DECODER_ONLY", "-DSD_NARROW")
ARCHES = "-DSD_ARCHS=1<<SD_THUMB|1<<SD_XTENSA|1<<SD_RISCV"


class NoCompiler(Exception):
    """There is no C++ compiler, or no source tree, on this machine."""


def compiler() -> tuple[str, str] | None:
    """A C++ and a C compiler, or None."""
    found = shutil.which(os.environ.get("CXX", "g++")), shutil.which(os.environ.get("CC", "gcc"))
    return (found[0], found[1]) if found[0] and found[1] and CORE.is_dir() else None


def has_openssl() -> bool:
    """Whether programs can be built that speak TLS."""
    return Path("/usr/include/openssl/ssl.h").exists()


def core_sources() -> list[Path]:
    return sorted(CORE.glob("*.cpp"))


def build(
    name: str,
    sources: Sequence[Path],
    flags: Sequence[str] = (),
    libraries: Sequence[str] = (),
    without: Sequence[str] = (),
    compilers: tuple[str, str] | None = None,
) -> Path:
    """A program of these sources, the core and the decoder. What was compiled before, by this or by another
    program with the same flags, is not compiled again. `without`: files of the core that `sources`
    replace, or have within. `compilers`: others than this machine's usual ones."""
    compilers = compilers or compiler()
    if compilers is None:
        raise NoCompiler("a C++ and a C compiler (g++, gcc) and the source tree are needed")
    core = [path for path in core_sources() if path.name not in without]
    headers, within = _headers(), [path for path in core_sources() if path.name in without]
    every = [*sources, *core, *DECODER.glob("*.c")]
    reads = dict.fromkeys(every, _digest(headers)) | dict.fromkeys(sources, _digest([*headers, *within]))
    with ThreadPoolExecutor(2) as both:
        objects = list(both.map(lambda source: _object(source, flags, compilers, reads[source]), every))
    program = BUILD / _digest(objects, repr((name, flags, libraries)))[:16] / name
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        temporary = program.with_name(f"{name}.{os.getpid()}")
        linked = [flag for flag in flags if flag.startswith(("-g", "-f", "--coverage"))]
        _run([compilers[0], *linked, *map(str, objects), *libraries, "-o", str(temporary)])
        temporary.replace(program)
    return program


def _headers() -> list[Path]:
    folders = (CORE, HOME / "host", HOME / "tests")
    return sorted([*(path for folder in folders for path in folder.rglob("*.hpp")), *DECODER.glob("*.h")])


def _digest(files: Sequence[Path], more: str = "") -> str:
    """Of names and contents, which for what was compiled is its name alone."""
    digest = hashlib.sha256(more.encode())
    for path in files:
        digest.update(path.name.encode())
        if path.suffix != ".o":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _object(source: Path, flags: Sequence[str], compilers: tuple[str, str], reads: str) -> Path:
    """`reads`: the digest of what it includes."""
    cxx, cc = compilers
    include = ["-I", str(DECODER), "-I", str(CORE.parent)]
    if source.suffix == ".c":
        plain = [flag for flag in flags if flag.startswith(("-O", "-g", "-f", "--coverage"))]
        words = [cc, "-std=c11", *plain, *SMALL, ARCHES, *include]
    else:
        words = [cxx, "-std=c++17", *WARNINGS, *flags, *include]
    made = BUILD / "objects" / f"{_digest([source], repr(words) + reads)[:24]}.o"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        temporary = made.with_suffix(f".{os.getpid()}.tmp.o")
        _run([*words, "-c", str(source), "-o", str(temporary)])
        temporary.replace(made)
    return made


def _run(words: list[str]) -> None:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed:\n{done.stderr[-4000:]}")


def harness(name: str, flags: Sequence[str] = ("-O1", "-g", *SANITIZERS)) -> Path:
    """One of `clients/esp32/tests`, by its name, on the chip of `host`."""
    return build(name, harness_sources(name), flags)


def harness_sources(name: str) -> list[Path]:
    """Its file, its chapters if it has a folder of them, and the chip."""
    tests, host = HOME / "tests", HOME / "host"
    return [
        tests / f"{name}.cpp",
        *sorted((tests / name).glob("*.cpp")),
        host / "chip.cpp",
        host / "desk.cpp",
    ]


def power_cuts() -> Path:
    """`powercut`, fast: not sanitized; what P-256 verified once, or the delta decoder made, is remembered."""
    host, tests = HOME / "host", HOME / "tests"
    memories = [tests / "p256_memo.cpp", tests / "delta_memo.cpp"]
    sources = [tests / "powercut.cpp", *memories, host / "chip.cpp", host / "desk.cpp"]
    flags, libraries = ("-O2", "-g"), ["-Wl,--wrap=sd_apply"]
    return build("powercut", sources, flags, libraries, without=("p256.cpp",))


def device_program() -> Path:
    """The virtual ESP32, with sanitizers and, where OpenSSL's headers are, TLS."""
    host = HOME / "host"
    sources = [host / each for each in ("chip.cpp", "desk.cpp", "socket.cpp", "device.cpp")]
    tls = has_openssl()
    flags = ["-O1", "-g", *SANITIZERS, *(["-DSKYLIFT_TLS"] if tls else [])]
    return build("device", sources, flags, ["-lssl", "-lcrypto"] if tls else [])


# --- images -------------------------------------------------------------------------------------------


def image(
    version: str,
    *,
    behaviour: str = "",
    size: int = 64 << 10,
    security_version: int = 0,
    chip: int = CHIP_C3,
    project: str = "sensor",
    seed: int = 1,
) -> bytes:
    """An Espressif application image, whole: description, checksum, appended SHA-256. `behaviour`: "",
    "crashes" or "unhealthy". Two versions of one seed differ in few places, as builds of one program do."""
    name = f"{project}-{behaviour}" if behaviour else project
    described = struct.pack("<IIQ32s32s", 0xABCD5432, security_version, 0, version.encode(), name.encode())
    body = bytearray(random.Random(seed).randbytes(size - 512))
    for place in random.Random(version).sample(range(len(body)), 40):
        body[place] ^= 0x5A
    data = described.ljust(256, b"\0") + bytes(body)
    data += b"\0" * (-len(data) % 4)
    header = struct.pack(
        "<BBBBIB3sHBHH4sB", 0xE9, 1, 2, 0, 0x40380000, 0xEE, b"\0" * 3, chip, 0, 0, 0xFFFF, b"\0" * 4, 1
    )
    made = header + struct.pack("<II", 0x3C000020, len(data)) + data
    checksum = 0xEF
    for byte in data:
        checksum ^= byte
    made += b"\0" * (15 - len(made) % 16) + bytes([checksum])
    return made + hashlib.sha256(made).digest()


# --- devices ------------------------------------------------------------------------------------------


@dataclass
class VirtualEsp32:
    """One device: its folder, its settings by name (see host/device.cpp), and its process while it runs."""

    home: Path
    settings: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    runs: list[int] = field(default_factory=list)  # exit codes

    def program(self) -> list[str]:
        """What its process runs, before the folder and the settings."""
        return [str(device_program())]

    def start(self, **more: str) -> None:
        """Power on. `more` settings hold for this run only."""
        self.home.mkdir(parents=True, exist_ok=True)
        words = [f"{name}={value}" for name, value in (self.settings | more).items()]
        with (self.home / "device.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program(), str(self.home), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Cut its power, from outside."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None

    @property
    def log(self) -> str:
        path = self.home / "device.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def status(self) -> dict[str, Any]:
        """`version`, `slot`, `trial`, `wear`, `written`...; {} before its first boot."""
        try:
            found: dict[str, Any] = json.loads((self.home / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def version(self) -> str:
        """The confirmed version that runs; "" on a trial."""
        found = self.status()
        return str(found["version"]) if found and not found["trial"] else ""
