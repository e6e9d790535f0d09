"""The simulator's parts: the wheel, the wire, the meter, bulk enrollment."""

import asyncio
import hashlib
from datetime import UTC, datetime
from random import Random

import pytest

from skylift.core.bucket import device_hash
from skylift.core.errors import Rejected
from skylift.store import devices
from skylift.store.db import Database
from skylift.testkit.behaviours import Behaviour
from skylift.testkit.identity import Identity
from skylift.testkit.meter import Histogram, Kind, Meter
from skylift.testkit.seed import seed
from skylift.testkit.wheel import SLOTS, TICK_S, Wheel
from skylift.testkit.wire import Lost, Wire

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


# --- who acts next --------------------------------------------------------------------------------------


def test_everybody_comes_out_once_and_not_before_their_time() -> None:
    draw, count = Random(4), 2_000
    times = [draw.uniform(0, SLOTS * TICK_S * 2.5) for _ in range(count)]  # also those of later rounds
    wheel = Wheel(count)
    for number, at in enumerate(times):
        wheel.put(number, at)
    came: dict[int, float] = {}
    now = 0.0
    while wheel.waiting:
        now += draw.uniform(0, 3)
        for number, due in wheel.due(now):
            assert number not in came
            assert times[number] <= due <= times[number] + 2 * TICK_S
            came[number] = now
    assert len(came) == count


def test_who_is_put_back_while_the_wheel_turns_comes_again() -> None:
    wheel = Wheel(1)
    wheel.put(0, 0.0)
    came = 0
    for number, due in wheel.due(1.0):
        came += 1
        if came < 5:
            wheel.put(number, due)
    assert came == 5
    assert wheel.waiting == 0


# --- the wire -------------------------------------------------------------------------------------------

ANSWERS = {
    "/plain": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "/empty": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n yo\r\n0\r\n\r\n",
    "/bye": b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "/noise": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers byte by byte what the path asks for; /cut closes instead, /fresh does on a used connection."""
    used = False
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ")[1].decode()
            if path == "/cut" or (path == "/fresh" and used):
                break
            used = True
            for byte in ANSWERS.get(path, ANSWERS["/plain"]):
                writer.write(bytes([byte]))
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


def test_the_wire_reads_answers_and_tells_of_their_loss() -> None:
    async def story() -> None:
        server = await asyncio.start_server(_serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        wire = Wire(f"http://127.0.0.1:{port}")
        for path, status, body in (("/plain", 200, b"hi"), ("/empty", 204, b""), ("/chunked", 200, b"hi yo")):
            reply = await wire.send("GET", path, "t")
            assert (reply.status, reply.body, reply.size) == (status, body, len(body))
        assert wire.opened == 1, "connections are kept"
        counted = await wire.send("GET", "/plain", "t", keep=False)
        assert (counted.body, counted.size) == (b"", 2)
        assert (await wire.send("GET", "/bye", "t")).status == 503
        for path in ("/cut", "/noise"):
            with pytest.raises(Lost):
                await wire.send("GET", path, "t")
        await wire.send("GET", "/plain", "t")
        again = await wire.send("GET", "/fresh", "t")
        assert again.body == b"hi", "a kept connection that was closed meanwhile is no loss"
        wire.close()
        server.close()
        await server.wait_closed()
        with pytest.raises(Lost):
            await wire.send("GET", "/plain", "t")

    asyncio.run(story())


# --- the meter ------------------------------------------------------------------------------------------


def test_percentiles_are_within_one_percent() -> None:
    draw, found = Random(1), Histogram()
    measured = sorted(draw.lognormvariate(-5, 1.5) for _ in range(20_000))
    for seconds in measured:
        found.add(seconds)
    for percent in (50, 90, 99, 99.9):
        exact = measured[int(len(measured) * percent / 100) - 1]
        assert found.percentile(percent) == pytest.approx(exact, rel=0.015)
    assert found.longest == measured[-1]
    assert Histogram().percentile(50) is None


def test_a_second_counts_and_begins_anew() -> None:
    meter = Meter()
    for number in range(100):
        meter.answered(Kind.POLL, (number + 1) / 1000, 0.001)
    meter.turn(in_flight=3, queued=4)
    meter.turn(in_flight=0, queued=0)
    first, second = meter.seconds
    assert (first.polls, first.reports, first.in_flight, first.queued) == (100, 0, 3, 4)
    assert first.percentiles["poll"] == {"p50": 51.0, "p99": 100.0}
    assert (second.polls, second.percentiles) == (0, {})


# --- bulk enrollment ------------------------------------------------------------------------------------


def test_devices_are_enrolled_in_bulk_as_one_by_one(database: Database) -> None:
    behaviours = (
        Behaviour("well", 50),
        Behaviour("B", 50, labels={"hw": 'B "\\ late', "site": "Köln"}),
    )
    identity, told = Identity(3, 300, behaviours), []
    seed(database, identity, device_type="sensor-v2", version="1.0.0", now=NOW, moved=told.append)
    with database.read() as conn:
        found = {device.device_id: device for device in devices.page(conn, limit=1_000)}
    assert told[-1] == len(found) == 300
    for number in range(300):
        device = found[identity.name(number)]
        assert device.h == device_hash(device.device_id)
        assert device.token_hash == hashlib.sha256(identity.token(number).encode()).hexdigest()
        assert (device.device_type, device.current_version, device.status) == ("sensor-v2", "1.0.0", "active")
        assert device.labels == identity.behaviour(number).labels
        assert (device.enrolled_at, device.deployment_id, device.attempt) == (NOW, None, None)


def test_bulk_enrollment_is_no_way_into_a_real_fleet(database: Database) -> None:
    def enroll(conn: object) -> None:
        devices.insert(conn, device_id="d1", device_type="t", token_hash="h", labels={}, now=NOW)  # type: ignore[arg-type]

    database.write(enroll)
    with pytest.raises(Rejected, match="an empty database"):
        seed(database, Identity(1, 10), device_type="t", version="1.0.0", now=NOW)
