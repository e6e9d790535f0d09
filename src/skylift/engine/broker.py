"""The embedded MQTT broker: amqtt in a thread of its own, for servers without a broker beside them.

Devices log in with their id and their token, and may read `devices/<own id>/ota`, nothing else. Only the
server's own user publishes.
"""

import asyncio
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

from skylift.core.errors import Unavailable
from skylift.engine.notify import topic

START_S = 10.0
Admits = Callable[[str, str], bool]

# amqtt makes its plugins itself, from a path and plain values: they find their broker's rules by this key.
_RULES: dict[str, "Rules"] = {}


@dataclass(frozen=True, slots=True)
class Rules:
    """Who gets in: `admits(device_id, token)`, and the server's own user."""

    admits: Admits
    user: str
    password: str


class Gatekeeper(BaseAuthPlugin):
    """amqtt's question: may this session in?"""

    @dataclass
    class Config:
        key: str = ""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self.rules = _RULES[str(self._get_config_option("key"))]

    async def authenticate(self, *, session: Session) -> bool | None:
        user, password = session.username or "", session.password or ""
        if user == self.rules.user:
            return secrets.compare_digest(password, self.rules.password)
        return await asyncio.to_thread(self.rules.admits, user, password)


class TopicRules(BaseTopicPlugin):
    """amqtt's question: may this session do that on this topic?"""

    @dataclass
    class Config:
        key: str = ""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self.rules = _RULES[str(self._get_config_option("key"))]

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        if session is None or topic is None:
            return False
        if session.username == self.rules.user:
            return action is Action.PUBLISH
        return action is not Action.PUBLISH and topic == _own(session.username or "")


def _own(device_id: str) -> str:
    return topic(device_id)


class EmbeddedBroker:
    """Start, stop, and the URL the server's own doorbell uses."""

    def __init__(self, admits: Admits, host: str, port: int) -> None:
        self._host = host
        self._key = secrets.token_hex(8)
        self._rules = Rules(admits, f"skylift-{secrets.token_hex(4)}", secrets.token_urlsafe(24))
        self.port = port or free_port(host)
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="skylift-broker", daemon=True)

    @property
    def url(self) -> str:
        """Where devices connect."""
        return f"mqtt://{self._host}:{self.port}"

    @property
    def own_url(self) -> str:
        """With the server's own user, for this process."""
        return f"mqtt://{self._rules.user}:{self._rules.password}@{self._host}:{self.port}"

    def start(self) -> None:
        """Raises `Unavailable` with what kept it from starting."""
        _RULES[self._key] = self._rules
        self._thread.start()
        if not self._ready.wait(START_S):
            raise Unavailable("the embedded MQTT broker did not start in time")
        if self._failed is not None:
            where = f"{self._host}:{self.port}"
            raise Unavailable(f"the MQTT broker cannot listen on {where}: {self._failed}") from self._failed

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None and self._failed is None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(5)
        _RULES.pop(self._key, None)

    def _run(self) -> None:
        logging.getLogger("amqtt").setLevel(
            logging.CRITICAL
        )  # what keeps it from starting is raised, not logged
        logging.getLogger("transitions").setLevel(logging.ERROR)
        try:
            asyncio.run(self._serve())
        except BaseException as e:  # noqa: BLE001 - handed to whoever started us
            self._failed = e
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        here = f"{__name__}."
        broker = Broker(_config(f"{self._host}:{self.port}", here, self._key))
        await broker.start()
        logging.getLogger("amqtt").setLevel(logging.ERROR)
        self._ready.set()
        await self._stop.wait()
        await broker.shutdown()


def _config(bind: str, here: str, key: str) -> dict[str, Any]:
    return {
        "listeners": {"default": {"type": "tcp", "bind": bind, "max_connections": 100_000}},
        "timeout_disconnect_delay": 2,
        "plugins": {f"{here}Gatekeeper": {"key": key}, f"{here}TopicRules": {"key": key}},
    }


def free_port(host: str) -> int:
    """A TCP port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
