"""The doorbell, on the embedded broker and on a real mosquitto with the access rules we ship."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from conftest import missing, wait_until
from skylift.engine.broker import EmbeddedBroker
from skylift.engine.notify import Doorbell
from skylift.testkit.ports import free_port

ROOT = Path(__file__).parents[2]
TOKENS = {"dev-1": "token-of-dev-1-0123", "dev-2": "token-of-dev-2-0123"}
RING = {"action": "update_available", "version": "1.1.0", "mandatory": False}


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=pytest.mark.mosquitto)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """(the server's own URL, port)."""
    if request.param == "embedded":
        made = EmbeddedBroker(lambda user, password: TOKENS.get(user) == password, "127.0.0.1", 0)
        made.start()
        yield made.own_url, made.port
        made.stop()
        return
    yield from _mosquitto(tmp_path)


def _mosquitto(folder: Path) -> Iterator[tuple[str, int]]:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    passwd = shutil.which("mosquitto_passwd")
    if program is None or passwd is None:
        missing("mosquitto")
        return
    passwords, port = folder / "passwords", free_port()
    passwords.touch()
    for user, password in {**TOKENS, "skylift": "secret-of-the-server"}.items():
        subprocess.run([passwd, "-b", passwords, user, password], check=True, capture_output=True)
    shutil.copy(ROOT / "deploy" / "mosquitto" / "acl", folder / "acl")
    for file in (passwords, folder / "acl"):
        file.chmod(0o644)
    config = folder / "mosquitto.conf"
    # What we ship, but for TLS and paths.
    shipped = (ROOT / "deploy" / "mosquitto" / "mosquitto.conf").read_text().splitlines()
    kept = [line for line in shipped if line.startswith(("allow_anonymous", "max_queued_messages"))]
    own = [
        f"listener {port} 127.0.0.1",
        f"password_file {passwords}",
        f"acl_file {folder / 'acl'}",
        "user root",
    ]
    config.write_text("\n".join(own + kept) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", config], stdout=log, stderr=log)
    try:
        yield f"mqtt://skylift:secret-of-the-server@127.0.0.1:{port}", port
    finally:
        process.terminate()
        process.wait(60)


class Listener:
    """A device's side: what it hears."""

    def __init__(self, port: int, user: str, password: str, topic: str) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.answers: list[str] = []
        self.subscribed: list[bool] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=user + topic.replace("/", "-"))
        self.client.username_pw_set(user, password)
        self.client.on_connect = lambda c, u, f, reason, p: self._connected(reason, topic)
        self.client.on_subscribe = lambda c, u, m, codes, p: self.subscribed.append(codes[0].is_failure)
        self.client.on_message = lambda c, u, m: self.heard.append((m.topic, json.loads(m.payload)))
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()
        wait_until(lambda: self.answers, what=f"{user} gets an answer")

    def _connected(self, reason: Any, topic: str) -> None:
        self.answers.append(str(reason))
        if not reason.is_failure:
            self.client.subscribe(topic, qos=1)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def listen(broker: tuple[str, int]) -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def start(user: str, topic: str, password: str | None = None) -> Listener:
        made.append(Listener(broker[1], user, password or TOKENS[user], topic))
        return made[-1]

    yield start
    for listener in made:
        listener.close()


@pytest.fixture
def bell(broker: tuple[str, int]) -> Iterator[Doorbell]:
    made = Doorbell(broker[0])
    yield made
    made.close()


def test_a_device_hears_its_own_doorbell(bell: Doorbell, listen: Callable[..., Listener]) -> None:
    device = listen("dev-1", "devices/dev-1/ota")
    wait_until(lambda: device.subscribed == [False], what="subscribed")
    assert bell.ring(iter([("dev-1", RING), ("dev-2", RING)])) == 2
    wait_until(lambda: device.heard, what="the bell rings")
    assert device.heard == [("devices/dev-1/ota", RING)]


def test_a_device_never_hears_another_ones(bell: Doorbell, listen: Callable[..., Listener]) -> None:
    nosy = listen("dev-1", "devices/dev-2/ota")
    greedy = listen("dev-1", "#")
    honest = listen("dev-2", "devices/dev-2/ota")
    wait_until(lambda: honest.subscribed and nosy.subscribed and greedy.subscribed, what="answers")
    for _ in range(3):
        bell.ring(iter([("dev-2", RING)]))
    wait_until(lambda: len(honest.heard) == 3, what="dev-2 hears it")
    assert nosy.heard == []
    assert greedy.heard == []


def test_a_device_cannot_ring(bell: Doorbell, listen: Callable[..., Listener]) -> None:
    victim = listen("dev-2", "devices/dev-2/ota")
    liar = listen("dev-1", "devices/dev-1/ota")
    wait_until(lambda: victim.subscribed and liar.subscribed, what="subscribed")
    liar.client.publish("devices/dev-2/ota", json.dumps({"action": "lie"}), qos=0)
    bell.ring(iter([("dev-2", RING)]))
    wait_until(lambda: victim.heard, what="the honest ring")
    assert victim.heard == [("devices/dev-2/ota", RING)]


@pytest.mark.parametrize(("user", "password"), [("dev-1", "wrong-password"), ("stranger", "x" * 20)])
def test_nobody_gets_in_without_the_right_token(
    listen: Callable[..., Listener], user: str, password: str
) -> None:
    device = listen(user, f"devices/{user}/ota", password)
    assert device.answers[0] != "Success"
    assert device.subscribed == []
