"""Virtual ESP32s that run MicroPython: the client of `clients/micropython` as it is installed on a board, on
MicroPython's own interpreter, with the desk's flash file beneath. `interpreter()` says whether there is one.
"""

import json
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
    found, reports = Cuts(), list[dict[str, Any]]()
    scene.write(home)
    for repo in ("image", "director"):
        (home / f"{repo}.root.json").write_bytes(forge.root(repo))
    with served(scene, reports) as address:
        one = _Lives(home, library, address)
        if one.live(home / "uncut") != 0:
            raise RuntimeError(f"an update with no cut does not end:\n{one.said}")
        found.operations = int(json.loads((home / "uncut" / "status.json").read_text())["operations"])
        for operation in range(1, found.operations + 1, step):
            told(operation, found.operations)
            reports.clear()
            folder = home / f"cut-{operation}"
            if one.live(folder, operation) == CUT:
                found.cuts += 1
                if one.live(folder) != 0:
                    found.unbootable += 1
            _judge(folder, scene, reports, found)
            shutil.rmtree(folder)
    return found


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
