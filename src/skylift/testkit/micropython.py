"""Virtual ESP32s that run MicroPython: the client of `clients/micropython` as it is installed on a board, on
MicroPython's own interpreter, with the desk's flash file beneath. `interpreter()` says whether there is one.
"""

import json
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from skylift.testkit import forge
from skylift.testkit.esp32 import ROOT, VirtualEsp32
from skylift.testkit.esp32scene import NONCE, Scene

HOME = ROOT / "clients" / "micropython"
HEAP = "512k"  # objects are twice as large as on a 32-bit chip, and the desk's own chip lives in it too


def interpreter() -> str | None:
    """Of the system, or where dev.py unpacked it; None without it or without the source tree."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("micropython") or shutil.which("micropython", path=beside)
    return found if found and HOME.is_dir() else None


def packed(out: Path, *words: str) -> Path:
    """The library as a board gets it, by `clients/micropython/pack.py`."""
    subprocess.run([sys.executable, HOME / "pack.py", out, *words], check=True, capture_output=True)
    return out


@dataclass
class VirtualMicropython(VirtualEsp32):
    """`library`: the packed folder."""

    library: Path = Path()

    def program(self) -> list[str]:
        device = HOME / "host" / "device.py"
        return [str(interpreter()), "-X", f"heapsize={HEAP}", str(device), str(self.library)]


# --- power cuts ---------------------------------------------------------------------------------------

SLOT = 512 << 10
SLOTS_AT = 10 * 4096  # of the desk's flash file
CUT = 7  # the exit code of a life that lost its power
PATIENCE_S = 120


@dataclass
class Cuts:
    """What cuts came to. `ends`: the version that runs and the last word to the server -> how often."""

    operations: int = 0
    cuts: int = 0
    unbootable: int = 0
    unverified: int = 0
    ends: dict[str, int] = field(default_factory=dict)


@contextmanager
def served(scene: Scene, reports: list[dict[str, Any]]) -> Iterator[str]:
    """Its files over real HTTP, as a server gives them; what devices report is kept. The address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/api/updates/check":
                return self.answer(200, json.dumps(scene.check).encode())
            body = scene.files.get(path)
            if body is None:
                return self.answer(404, b"")
            begins = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
            if begins is None:
                return self.answer(200, body)
            at = int(begins[1])
            return self.answer(206, body[at:], f"bytes {at}-{len(body) - 1}/{len(body)}")

        def do_POST(self) -> None:
            reports.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(200, json.dumps({"state": reports[-1].get("state", "")}).encode())

        def answer(self, status: int, body: bytes, part: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if part:
                self.send_header("Content-Range", part)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass  # the reports are what is looked at

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def cut_everywhere(
    home: Path, library: Path, scene: Scene, step: int = 1, told: Callable[[int, int], None] = lambda *_: None
) -> Cuts:
    """One update of `scene`, again and again, the power cut in each `step`th operation of flash and files;
    each device then lives on until the server has heard how it ended. `told(operation, of)` as it goes on."""
    found = Cuts()
    with _bench(home, library, scene, found) as cut:
        for operation in range(1, found.operations + 1, step):
            told(operation, found.operations)
            cut(operation)
    return found


def cut_pairs(home: Path, library: Path, scene: Scene, count: int, seed: int = 1) -> Cuts:
    """The same with two cuts each: one anywhere, and one in the life that follows, where that is long
    enough."""
    chance, found = random.Random(seed), Cuts()
    with _bench(home, library, scene, found) as cut:
        for _ in range(count):
            cut(chance.randint(1, found.operations), chance.randint(1, found.operations))
    return found


@contextmanager
def _bench(home: Path, library: Path, scene: Scene, found: Cuts) -> Iterator[Callable[..., None]]:
    """`cut(operation, ...)`: one device's lives, the power cut once in each; judged at its end."""
    reports = list[dict[str, Any]]()
    scene.write(home)
    for repo in ("image", "director"):
        (home / f"{repo}.root.json").write_bytes(forge.root(repo))
    with served(scene, reports) as address:
        one = _Lives(home, library, address)
        if one.live(home / "uncut") != 0:
            raise RuntimeError(f"an update with no cut does not end:\n{one.said}")
        found.operations = int(json.loads((home / "uncut" / "status.json").read_text())["operations"])

        def cut(*operations: int) -> None:
            reports.clear()
            folder = home / "cut"
            for operation in operations:
                ended = one.live(folder, operation)
                found.cuts += ended == CUT
            if ended not in (0, CUT) or (ended == CUT and one.live(folder) != 0):
                found.unbootable += 1
            _judge(folder, scene, reports, found)
            shutil.rmtree(folder)

        yield cut


class _Lives:
    def __init__(self, home: Path, library: Path, address: str) -> None:
        told = {
            "server": address,
            "device_id": forge.DEVICE,
            "device_type": forge.HARDWARE,
            "product": forge.PRODUCT,
            "roots": str(home),
            "factory": str(home / "old.bin"),
            "poll": "1",
            "save_every": "8192",
            "no_clock": "1",
            "settled": "1",
            "chance": NONCE[:2],
        }
        self._library, self._words = library, [f"{name}={value}" for name, value in told.items()]
        self.said = ""

    def live(self, folder: Path, cut_at: int = 0) -> int:
        """One process, to its end; its exit code."""
        folder.mkdir(parents=True, exist_ok=True)
        program = VirtualMicropython(folder, {}, library=self._library).program()
        words = [*program, str(folder), *self._words, f"cut_at={cut_at}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        self.said = done.stdout + done.stderr
        return done.returncode


def _judge(folder: Path, scene: Scene, reports: list[dict[str, Any]], found: Cuts) -> None:
    """What runs must be, byte by byte, one of the two that were signed."""
    status = json.loads((folder / "status.json").read_text())
    flash = (folder / "flash.bin").read_bytes()
    at = SLOTS_AT + status["slot"] * SLOT
    image = {"1.0.0": scene.old, "1.1.0": scene.new}.get(status["version"], b"?")
    if flash[at : at + len(image)] != image:
        found.unverified += 1
    last = reports[-1]["state"] if reports else "nothing"
    end = f"{status['version']} {last}"
    found.ends[end] = found.ends.get(end, 0) + 1


# --- fuzzing ------------------------------------------------------------------------------------------

CALM = {  # what is nearly right is made of these
    "http": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;x=y\r\n!\r\n0\r\n\r\n",
        b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 1\r\n\r\nx",
    ),
    "report": (b'{"recorded": true, "state": "downloading", "retry_after": 5}',),
    "mqtt": (
        b"\x20\x02\x00\x00\x90\x03\x00\x01\x00\x30\x0d\x00\x0bdevices/x/z{}",
        b"\x20\x02\x00\x00\xd0\x00",
    ),
    "records": (
        b'{"stage": 1, "slot": "ota_1", "tries": 1, "answered": ["dep_1/1"], "length": 9}',
        b'{"floor": 1, "token": "t", "images": {"ota_0": [9, "ab"]}, "log_size": 3}',
    ),
}
FUZZED = ("http", "check", "report", "mqtt", "signed", "records")  # its parsers


@dataclass
class Fuzzed:
    """`findings`: exceptions that no caller expects, with the input in hexadecimal."""

    inputs: int = 0
    findings: list[str] = field(default_factory=list)


def fuzz(home: Path, library: Path, scene: Scene, each: int, seed: int) -> Fuzzed:
    """`each` inputs for everything that reads what a stranger sent, on the interpreter itself."""
    place, seeds = scene.write(home / "scene"), home / "seeds"
    seeds.mkdir()
    given = {name: list(bodies) for name, bodies in CALM.items()}
    given["check"] = [json.dumps(scene.check).encode(), json.dumps(scene.by_delta).encode()]
    given["signed"] = [body for path, body in scene.files.items() if path.endswith(".json")]
    for name, bodies in given.items():
        for number, body in enumerate(bodies):
            (seeds / f"{name}-{number}").write_bytes(body)
    begin = [str(interpreter()), "-X", f"heapsize={HEAP}", str(HOME / "host" / "fuzz.py"), str(library)]
    words = [*begin, str(place), str(seeds), str(each), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    found = Fuzzed()
    for line in done.stdout.splitlines():
        if line.startswith("finding "):
            found.findings.append(line)
        elif line.partition(" ")[2].isdigit():
            found.inputs += int(line.partition(" ")[2])
    return found
