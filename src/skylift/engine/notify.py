"""The doorbell: tells a phase's devices by MQTT that there is something to ask for. Never trusted, never
needed: a device that misses it asks at its next poll."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
import structlog
from paho.mqtt.enums import CallbackAPIVersion

from skylift.core.errors import Unavailable
from skylift.engine import select
from skylift.store import deployments, members
from skylift.store.db import Connection, Database
from skylift.store.members import Want

LOG = structlog.get_logger("skylift.doorbell")
ANSWER_S = 15.0


def topic(device_id: str) -> str:
    return f"devices/{device_id}/ota"


class Doorbell:
    """Publishes through one broker connection, kept open and reopened by the library."""

    def __init__(self, url: str, client_id: str = "") -> None:
        where = urlsplit(url)
        self._connected = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
        if where.username:
            self._client.username_pw_set(unquote(where.username), unquote(where.password or ""))
        if where.scheme == "mqtts":
            self._client.tls_set()
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.max_queued_messages_set(0)  # no limit: a phase may hold a hundred thousand devices
        self._client.connect_async(where.hostname or "", where.port or 1883, keepalive=30)
        self._client.loop_start()

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not reason.is_failure:
            self._connected.set()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._connected.clear()

    def ring(self, messages: Iterator[tuple[str, dict[str, Any]]]) -> int:
        """Publish (device_id, payload) pairs and wait until the broker has them; how many. `Unavailable` when
        it does not answer: the outbox comes again."""
        if not self._connected.wait(ANSWER_S):
            raise Unavailable("the MQTT broker does not answer")
        sent, last = 0, None
        for device_id, payload in messages:
            last = self._client.publish(topic(device_id), json.dumps(payload), qos=1)
            sent += 1
        if last is not None:
            last.wait_for_publish(ANSWER_S + sent / 100)
            if not last.is_published():
                raise Unavailable("the MQTT broker took only a part")
        return sent

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class PhaseBell:
    """The outbox's `doorbell` handler."""

    def __init__(self, database: Database, bell: Doorbell) -> None:
        self._database = database
        self._bell = bell

    def __call__(self, payload: dict[str, Any]) -> None:
        """Ring for the devices of one phase, or of every opened one (`phase` null)."""
        with self._database.read() as conn:
            sent = self._bell.ring(_messages(conn, payload["deployment"], payload["phase"]))
        LOG.info("rang", deployment=payload["deployment"], phase=payload["phase"], devices=sent)


def _messages(
    conn: Connection, deployment_id: str, number: int | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    row = deployments.find(conn, deployment_id)
    if row is None:
        return
    types = deployments.device_types(conn, row.release_id)
    low, ranges = -1, []
    for phase in deployments.phases_of(conn, deployment_id):
        if phase.number == number or (number is None and phase.opened_at is not None):
            ranges.append((low, phase.upto))
        low = phase.upto
    said = {"action": "update_available", "version": row.version, "mandatory": row.mandatory}
    scope = select.scope(conn, deployment_id, row.selector)
    want = Want(row.kind, row.version, types)
    for device_id in members.ids_between(conn, scope, want, row.salt, ranges):
        yield device_id, said
