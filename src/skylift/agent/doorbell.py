"""The MQTT doorbell: wakes the poll, and is believed in nothing else."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from skylift.agent.config import Config


class Doorbell:
    """Connects in the background, for as long as the agent runs; a broker that is away does no harm."""

    def __init__(self, config: Config, token: str, ring: Callable[[], None]) -> None:
        where = urlsplit(config.mqtt)
        self._topic = f"devices/{config.device_id}/ota"
        self._ring = ring
        self._client = _client(config, token, config.device_id)
        self._client.reconnect_delay_set(1, 60)
        self._client.on_connect = self._connected
        self._client.on_message = self._message
        self._client.connect_async(where.hostname or "", where.port or 1883, keepalive=60)
        self._client.loop_start()

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        client.subscribe(self._topic, qos=1)
        self._ring()  # something may have been said while we were away

    def _message(self, client: Any, userdata: Any, message: Any) -> None:
        self._ring()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _client(config: Config, token: str, client_id: str) -> Any:
    import paho.mqtt.client as mqtt  # only where a broker is configured
    from paho.mqtt.enums import CallbackAPIVersion

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
    client.username_pw_set(config.device_id, token)
    if urlsplit(config.mqtt).scheme == "mqtts":
        client.tls_set(config.ca_file or None)
    return client


def answers(config: Config, token: str, seconds: float) -> str:
    """ "" when the broker lets this device in within that time, else why not. Under a name of its own: the
    doorbell's connection stays."""
    where = urlsplit(config.mqtt)
    client = _client(config, token, f"{config.device_id}-health")
    said: list[Any] = []
    client.on_connect = lambda _client, _userdata, _flags, reason, _properties: said.append(reason)
    client.connect_timeout = seconds
    until = time.monotonic() + seconds
    try:
        client.connect(where.hostname or "", where.port or 1883, keepalive=60)
        while not said and time.monotonic() < until:
            if client.loop(timeout=min(0.5, seconds)) != 0:  # a dead connection says nothing more
                break
    finally:
        client.disconnect()
    if not said:
        return f"no answer within {seconds:g} s from {config.mqtt}"
    return "" if not said[0].is_failure else f"{said[0]} from {config.mqtt}"
