"""Images for demos and tests: executable Python zip applications with a health endpoint, bytes reproducible.

About 200 KB of payload that hardly compresses and differs a little from version to version, as firmware does.
"""

import io
import random
import zipfile
from enum import StrEnum
from pathlib import Path

PAYLOAD = 200 << 10
_CHANGED = 64  # places that differ from one version to the next
_EPOCH = (2026, 1, 1, 0, 0, 0)


class Behaviour(StrEnum):
    """What the image does when it is booted."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # runs, but its health endpoint answers 500
    CRASHES = "crashes"  # ends at once
    HANGS = "hangs"  # runs, and never listens


_MAIN = """
import http.server, json, os, sys

VERSION, BEHAVIOUR = {version!r}, {behaviour!r}
if BEHAVIOUR == "crashes":
    sys.exit(1)
if BEHAVIOUR == "hangs":
    import time
    while True:
        time.sleep(3600)
path = os.environ.get("SKYLIFT_CONFIG", "")
config = {{}}
if path:
    with open(path) as file:
        config = json.load(file)
healthy = BEHAVIOUR == "healthy" and not config.get("break_health")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"version": VERSION, "healthy": healthy, "config": config}}).encode()
        self.send_response(200 if healthy else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.HTTPServer):
    allow_reuse_address = True


Server(("127.0.0.1", int(os.environ["SKYLIFT_PORT"])), Handler).serve_forever()
"""


def build(path: Path, version: str, behaviour: Behaviour = Behaviour.HEALTHY, size: int = PAYLOAD) -> Path:
    """Write the image of this version; the same arguments always give the same bytes."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN.format(version=version, behaviour=behaviour.value).encode())
        _add(archive, "payload.bin", _payload(version, size))
    path.write_bytes(body.getvalue())
    return path


def _payload(version: str, size: int) -> bytes:
    """The same noise for every version, changed in a few places."""
    payload = bytearray(random.Random("skylift").randbytes(size))
    places = random.Random(version)
    for _ in range(_CHANGED if size else 0):
        at = places.randrange(size)
        payload[at : at + 4] = places.randbytes(min(4, size - at))
    return bytes(payload)


def _add(archive: zipfile.ZipFile, name: str, body: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, body)
