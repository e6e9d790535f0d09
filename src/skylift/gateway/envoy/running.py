"""`skylift gateway run`: a source, a supervisor, a view, until a signal says otherwise."""

import signal
import sys
import threading
from dataclasses import dataclass
from types import FrameType

from skylift.gateway.envoy.edge import Extras
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.source import place, source
from skylift.gateway.envoy.supervisor import Supervisor
from skylift.gateway.envoy.view import View


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command's words. `listen`: NAME=ADDRESS:PORT; `admin`: ADDRESS:PORT, or empty."""

    files: tuple[str, ...]
    listen: tuple[str, ...] = ()
    admin: str = ""
    access_log: str = ""
    traces: str = ""
    workers: int = 2
    until_eof: bool = False


def say(sentence: str) -> None:
    print(f"gateway: {sentence}", file=sys.stderr, flush=True)


def _until_eof(stop: threading.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    stop.set()


def run(wanted: Wanted) -> None:
    """Until SIGTERM or SIGINT; SIGHUP puts a fresh Envoy in the running one's place. Raises Refused or
    Rejected when the first configuration does not hold."""
    places = dict(place(text) for text in wanted.listen)
    origin = source(
        wanted.files, places, Extras(wanted.access_log, wanted.traces, counted=bool(wanted.admin))
    )
    supervisor = Supervisor(origin, say, Options(concurrency=wanted.workers))
    stop, swap = threading.Event(), threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        (swap if number == signal.SIGHUP else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    if wanted.until_eof:
        threading.Thread(target=_until_eof, args=(stop,), name="gateway-eof", daemon=True).start()
    view: View | None = None
    try:
        supervisor.start()
        say(f"configuration {supervisor.status.digest} is in place")
        if wanted.admin:
            _, (address, port) = place(f"admin={wanted.admin}")
            view = View(supervisor, address, port)
            say(f"admin view at http://{address}:{view.port}")
        while not stop.wait(0.5):
            supervisor.look()
            if swap.is_set():
                swap.clear()
                say("a fresh Envoy takes over")
                supervisor.swap()
    finally:
        if view is not None:
            view.close()
        supervisor.stop()
