"""The MQTT doorbell: wakes the poll, and is believed in nothing else."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from skylift.agent.config import Config


class Doorbell:
    """Connects in the background, for as long as the agent runs; a broker that is away does no harm."""

    def __init__(self, config: Config, token: str, ring: Callable[[], None]) -> None:
        import paho.mqtt.client as mqtt  # only where a broker is configured
        from paho.mqtt.enums import CallbackAPIVersion

        where = urlsplit(config.mqtt)
        self._topic = f"devices/{config.device_id}/ota"
        self._ring = ring
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=config.device_id)
        self._client.username_pw_set(config.device_id, token)
        if where.scheme == "mqtts":
            self._client.tls_set(config.ca_file or None)
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
