"""One real Envoy that takes one configuration after the other, and real backends behind it."""

from collections.abc import Mapping
from dataclasses import replace

from gateway.backends import Echo
from gateway.conftest import Answer, ask
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.snapshot import Snapshot
from skylift.gateway.envoy.supervisor import Supervisor
from skylift.gateway.loading import loads
from skylift.gateway.model import Dialect, Gateway, Listener
from skylift.gateway.read import read_documents
from skylift.testkit.ports import free_port


class Door:
    """`open` it with a configuration's text, in which `@name` stands for a backend's address."""

    def __init__(self, workers: int = 2) -> None:
        self.port = free_port()
        self._listener = Listener("web", self.port, "127.0.0.1")
        self._gateway = Gateway(Dialect.NATIVE, listeners=(self._listener,))
        options = Options(concurrency=workers, drain_s=1)
        self.supervisor = Supervisor(lambda: compiled(self._gateway), lambda _: None, options)
        self.supervisor.start()

    def open(self, text: str, backends: Mapping[str, Echo] | None = None, name: str = "gateway.yaml") -> None:
        """Behind this the configuration is in place, all of it."""
        for backend, echo in (backends or {}).items():
            text = text.replace(f"@{backend}", f"127.0.0.1:{echo.port}")
        gateway = read_documents(loads(text, name))
        routes = tuple(replace(route, listeners=()) for route in gateway.routes)
        self._gateway = replace(gateway, routes=routes, listeners=(self._listener,))
        self.supervisor.look()
        error = self.supervisor.status.error
        assert error == "", error

    @property
    def gateway(self) -> Gateway:
        """What is open."""
        return self._gateway

    def compiled(self) -> Snapshot:
        return compiled(self._gateway)

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        return ask(self.port, path, method, body, **headers)

    def close(self) -> None:
        self.supervisor.stop()
