"""Of bench gateway: a region comes back at once, before a real fleet server."""

import asyncio
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from parts.gateway_proxies import ours, running, say
from skylift.testkit.identity import Identity
from skylift.testkit.seed import seeded
from skylift.testkit.server import Server

FRONT = Path(__file__).resolve().parents[2] / "deploy" / "gateway"


def herd(devices: int) -> dict[str, int]:
    """Devices that all ask within a second, through the gateway as it is shipped, at a real fleet server that
    knows them: answered, or told when to come back, or failed."""
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
                found = asyncio.run(_herd(proxy.port, identity))
            server.check()  # raises when it has ended
        finally:
            server.stop()
    say(f"herd of {devices}: {found}")
    return {"devices": devices, **found}


async def _herd(port: int, identity: Identity) -> dict[str, int]:
    tally = {"answered": 0, "told_to_wait": 0, "failed": 0}
    request = (
        "GET /api/updates/check?device_id={}&device_type=sensor-v2&current_version=1.0.0 HTTP/1.1\r\n"
        "Host: fleet\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n"
    )
    at_once = asyncio.Semaphore(2000)

    async def one(number: int) -> None:
        await asyncio.sleep(number / identity.count)
        async with at_once:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request.format(identity.name(number), identity.token(number)).encode())
                head = (await asyncio.wait_for(reader.read(), 60)).decode("latin1").lower()
                writer.close()
            except (OSError, TimeoutError):
                tally["failed"] += 1
                return
        status = head.split(" ", 2)[1] if head.startswith("http/1.1 ") else ""
        if status == "429" and "retry-after:" in head:
            tally["told_to_wait"] += 1
        elif status == "200":
            tally["answered"] += 1
        else:
            tally["failed"] += 1

    await asyncio.gather(*(one(number) for number in range(identity.count)))
    return tally
