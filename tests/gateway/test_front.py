"""The gateway before the fleet service, as it is shipped: both at once, the last answers while the service is
away, firmware that streams, certificates that are told."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import wait_until
from gateway.conftest import Answer, ask
from gateway.door import Door
from skylift.testkit.identity import Identity
from skylift.testkit.ports import free_port
from skylift.testkit.seed import seeded
from skylift.testkit.server import Server

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "gateway" / "fleet.yaml"
DEVICES = Identity(seed=7, count=3)


@pytest.fixture(scope="module")
def both(limits_filter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """`skylift serve --gateway`, with devices that it knows; and the gateway's port."""
    data = tmp_path_factory.mktemp("front") / "fleet"
    now = datetime.now(UTC)
    seeded(data, DEVICES, device_type="sensor-v2", version="1.0.0", now=now).close()
    port = free_port()
    words = ("--gateway", str(SHIPPED), "--gateway-listen", f"127.0.0.1:{port}")
    server = Server(data, words=words)
    server.start()
    wait_until(lambda: healthy(port), 60, "the gateway answers for the service")
    yield server, port
    server.stop()
    wait_until(lambda: not listens(port), 30, "the gateway ended with the service")


def healthy(port: int) -> bool:
    try:
        return ask(port, "/healthz").status == 200
    except OSError:
        return False


def listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def check(port: int, device: int) -> Answer:
    words = f"device_id={DEVICES.name(device)}&device_type=sensor-v2&current_version=1.0.0"
    return ask(port, f"/api/updates/check?{words}", authorization=f"Bearer {DEVICES.token(device)}")


def test_serve_runs_both_and_the_gateway_stands_before_it(both: tuple[Server, int]) -> None:
    server, port = both
    answer = check(port, 0)
    assert answer.status == 200
    assert json.loads(answer.body)["update_available"] is False
    assert int(answer.headers["ratelimit-limit"]) == 3000
    assert answer.headers["server"] == "gateway"
    assert ask(port, "/metrics").status == 404
    assert ask(port, "/api/deployments").status == 401
    server.check()


def test_while_the_service_is_away_a_device_hears_what_it_heard_last(
    both: tuple[Server, int], door: Door
) -> None:
    """The service itself is another process here, so that it can be away alone."""
    server, _ = both
    where = server.url.removeprefix("http://")
    text = SHIPPED.read_text().replace("'fleet:8080'", f"'{where}'")
    door.open(text)
    before = check(door.port, 1)
    assert before.status == 200
    door.open(text.replace(where, f"127.0.0.1:{free_port()}"))
    for _ in range(4):  # whichever worker is asked
        stale = check(door.port, 1)
        assert (stale.status, json.loads(stale.body)) == (200, json.loads(before.body))
        assert stale.headers["warning"].startswith("111")
    assert check(door.port, 2).status == 503  # who has heard nothing yet is told so, and nobody else's answer
    door.open(text)
    assert "warning" not in check(door.port, 1).headers


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / (1 << 20)


def test_firmware_streams_and_is_held_nowhere(door: Door) -> None:
    size, block = 96 << 20, b"f" * 65536
    go_on = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def backend() -> None:
        line, _ = listening.accept()
        line.recv(4096)
        line.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for sent in range(0, size, len(block)):
            if sent == len(block):
                go_on.wait(60)
            line.sendall(block)
        line.close()

    threading.Thread(target=backend, daemon=True).start()
    where = f"127.0.0.1:{listening.getsockname()[1]}"
    door.open(SHIPPED.read_text().replace("'fleet:8080'", f"'{where}'"))
    line = http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)
    line.request("GET", "/api/blobs/0123")
    answer = line.getresponse()
    got = len(answer.read(len(block)))  # the first of it is here while the backend holds the rest
    before = rss_mib(door.supervisor.envoy.pid)
    go_on.set()
    most = before
    while part := answer.read(1 << 20):
        got += len(part)
        most = max(most, rss_mib(door.supervisor.envoy.pid))
    line.close()
    listening.close()
    assert got == size
    assert most - before < 32


def test_firmware_has_no_time_limit_but_that_of_silence(door: Door) -> None:
    door.open(SHIPPED.read_text())
    (table,) = door.compiled().routes
    routes = {
        route["name"]: route["route"] for route in table["virtual_hosts"][0]["routes"] if "route" in route
    }
    assert routes["images"]["timeout"] == "0.000s"
    assert routes["images"]["idle_timeout"] == "600.000s"
