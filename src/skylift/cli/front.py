"""The gateway that runs before the fleet server, as a process of its own: `skylift serve --gateway FILE`."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ANNOUNCED = "server.json"  # the server writes it when it listens
LOOK_S, AGAIN_S = 0.1, 2.0
FLEET = "fleet:8080"  # what the shipped configuration calls the server


@contextmanager
def before(data: Path, files: tuple[Path, ...], listen: str) -> Iterator[None]:
    """A gateway as long as the block lasts, once the server listens; started again if it ends."""
    if not files:
        yield
        return
    (data / ANNOUNCED).unlink(missing_ok=True)
    stop = threading.Event()
    watching = threading.Thread(target=_keep, args=(data, files, listen, stop), name="gateway")
    watching.start()
    try:
        yield
    finally:
        stop.set()
        watching.join()


def _keep(data: Path, files: tuple[Path, ...], listen: str, stop: threading.Event) -> None:
    announced = data / ANNOUNCED
    while not announced.exists():
        if stop.wait(LOOK_S):
            return
    where = urlsplit(json.loads(announced.read_text())["url"])
    inventory = data / "gateway-inventory.json"
    inventory.write_text(json.dumps({"inventory": {FLEET: f"{where.hostname}:{where.port}"}}))
    words = [*map(str, files), str(inventory), "--listen", f"http={listen}", "--admin", "", "--until-eof"]
    while not stop.is_set():
        # It ends when its standard input does: also when this process is killed.
        child = subprocess.Popen(
            [sys.executable, "-m", "skylift", "gateway", "run", *words],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=os.environ,
        )
        while child.poll() is None and not stop.wait(LOOK_S):
            pass
        assert child.stdin is not None
        child.stdin.close()
        if child.wait() and not stop.wait(AGAIN_S):
            print("skylift: the gateway has ended; it is started again", file=sys.stderr, flush=True)
