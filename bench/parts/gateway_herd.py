"""Of bench gateway: a region comes back at once, before a real fleet server.

Every device knocks on a new connection, all of them within one second, and sends its request the moment it is
let in. Two processes knock, each from an address of its own, because one may not hold so many connections
open; they do nothing else that second but send and hear. Whoever finds the queue full knocks again when its
kernel does (after 1, 3, 7 s).
"""

import json
import multiprocessing
import tempfile
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from parts.gateway_proxies import ours, running
from parts.shell import say
from skylift.testkit import press
from skylift.testkit.identity import Identity
from skylift.testkit.press import Pressed
from skylift.testkit.seed import seeded
from skylift.testkit.server import Server

FRONT = Path(__file__).resolve().parents[2] / "deploy" / "gateway"
KNOCKERS = 2
WITHIN_S = 0.9  # of the second; the rest is for the last turn through those that were let in
PATIENCE_S = 60.0  # a device's own time limit
REQUEST = (
    "GET /api/updates/check?device_id={}&device_type=sensor-v2&current_version=1.0.0 HTTP/1.1\r\n"
    "Host: fleet\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n"
)
Part = tuple[float, Pressed]  # when it began, by the clock that all processes share


def herd(devices: int) -> dict[str, float]:
    """Devices that all come within a second, through the gateway as it is shipped, to a real fleet server
    that knows them: answered, or told when to come back, or failed; and within what time all of them had
    knocked, and the last was answered."""
    identity = Identity(seed=7, count=devices)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "fleet"
        now = datetime.now(UTC)
        seeded(data, identity, device_type="sensor-v2", version="1.0.0", now=now).close()
        server = Server(data)
        server.start()
        try:
            where = json.dumps({"inventory": {"fleet:8080": server.url.removeprefix("http://")}})
            text = (FRONT / "fleet.yaml").read_text()
            with running(ours("herd", [(text, "fleet.yaml"), (where, "inventory.json")])) as proxy:
                envoy = proxy.pids()
                found = _told(_knocked(proxy.port, identity))
                if proxy.pids() != envoy:
                    raise SystemExit("Envoy ended under the herd, and was started again")
            server.check()  # raises when it has ended
        finally:
            server.stop()
    say(f"herd of {devices}: {found}")
    return {"devices": devices, **found}


def _told(parts: list[Part]) -> dict[str, float]:
    began = min(at for at, _ in parts)
    everybody = [told for _, told in parts]
    answered = sum(told.answered - told.wrong for told in everybody)
    told_to_wait = sum(told.postponed for told in everybody)
    failed = sum(told.failed + told.wrong - told.postponed for told in everybody)
    return {
        "answered": answered,
        "told_to_wait": told_to_wait,
        "failed": failed,
        "knocked_s": round(max(at + told.seconds for at, told in parts) - began, 2),
        "last_answer_s": round(max(max(told.latencies, default=0.0) for told in everybody), 2),
    }


def _knocked(port: int, identity: Identity) -> list[Part]:
    """What came of it, a part for each process; they begin together."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(KNOCKERS)
    told: list[Connection] = []
    knockers = []
    for first in range(KNOCKERS):
        here, there = context.Pipe(duplex=False)
        numbers = range(first, identity.count, KNOCKERS)
        source = f"127.0.0.{first + 1}"
        words = (port, identity, numbers, source, together, there)
        knockers.append(context.Process(target=_knock, args=words))
        knockers[-1].start()
        there.close()  # or the end of who died would not be seen
        told.append(here)
    try:
        return [part.recv() for part in told]
    finally:
        for knocker in knockers:
            knocker.join()


def _knock(
    port: int, identity: Identity, numbers: range, source: str, together: Barrier, told: Connection
) -> None:
    requests = [REQUEST.format(identity.name(n), identity.token(n)).encode() for n in numbers]
    together.wait(PATIENCE_S)
    began, count = time.monotonic(), len(requests)
    found = press.opened(
        "127.0.0.1",
        port,
        requests.__getitem__,
        per_second=count / WITHIN_S,
        seconds=WITHIN_S,
        burst=count,
        patience_s=PATIENCE_S,
        source=source,
    )
    told.send((began, found))
