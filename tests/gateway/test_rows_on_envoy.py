"""The conformance rows on a real Envoy: what a row says on paper happens on the wire too.

One Envoy takes one row's configuration after the other. Requests from other addresses than this machine's,
and https, are left to the table on paper; so are numbers that the clock decides.
"""

import http.client
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.backends import Echo, serving
from gateway.conftest import clear_of_the_minutes_edge
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.supervisor import Supervisor
from skylift.gateway.loading import Document, load, loads
from skylift.gateway.model import Dialect, Gateway, Listener
from skylift.gateway.read import read_documents
from skylift.gateway.request import Request
from skylift.gateway.trial import Case, Expected, read_cases
from skylift.testkit.ports import free_port

ROWS = Path(__file__).resolve().parents[2] / "conformance" / "gateway"
BY_THE_CLOCK = {"retry-after", "ratelimit-reset"}
HERE = "192.0.2.1"  # what a table says of a client when it says nothing


class Wire:
    """One Envoy, and one backend for all names."""

    def __init__(self, echo: Echo) -> None:
        self.echo, self.port = echo, free_port()
        self.gateway = Gateway(Dialect.NATIVE, listeners=(Listener("web", self.port, "127.0.0.1"),))
        self.supervisor = Supervisor(lambda: compiled(self.gateway), lambda _: None, Options(concurrency=1))
        self.supervisor.start()

    def take(self, gateway: Gateway) -> str:
        """What Envoy, or the compiler for it, has against it."""
        names = {
            f"{target.host}:{target.port}": (f"127.0.0.1:{self.echo.port}",)
            for upstream in gateway.upstreams.values()
            for target in upstream.targets
        }
        listener = Listener("web", self.port, "127.0.0.1")
        routes = tuple(replace(route, listeners=()) for route in gateway.routes)
        inventory = {**names, "auth:80": (f"127.0.0.1:{self.echo.port}",)}
        self.gateway = replace(gateway, routes=routes, listeners=(listener,), inventory=inventory)
        self.supervisor.look()
        return self.supervisor.status.error

    def ask(self, request: Request) -> tuple[int, dict[str, str], str, dict[str, Any] | None]:
        """Status, headers, body, and what the backend saw where it was reached."""
        self.echo.asked.clear()
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            line.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            port = "" if request.port == 80 else f":{request.port}"
            line.putheader("Host", request.host + port)
            for name, value in request.headers:
                line.putheader(name, value)
            line.putheader("Content-Length", str(len(request.body)))
            line.endheaders(request.body)
            answer = line.getresponse()
            body = answer.read().decode()
            headers = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            line.close()
        reached = headers.get("content-type", "").startswith("application/json") and '"service":' in body
        return answer.status, headers, body, json.loads(body) if reached else None


@pytest.fixture(scope="module")
def wire(envoy: Path, limits_filter: Path) -> Iterator[Wire]:
    with serving(Echo("backend")) as echo:
        made = Wire(echo)
        yield made
        made.supervisor.stop()


def rows() -> list[Any]:
    return [
        pytest.param(file.stem, row, id=f"{file.stem}: {row['feature']}")
        for file in sorted(ROWS.glob("*.yaml"))
        for row in load([file])[0].value["rows"]
    ]


def on_the_wire(case: Case) -> bool:
    return case.request.client == HERE and case.request.scheme == "http"


@pytest.mark.parametrize(("dialect", "row"), rows())
def test_a_row_happens_on_the_wire_or_says_what_differs(
    wire: Wire, dialect: str, row: dict[str, Any]
) -> None:
    found = list(otherwise(wire, dialect, row))
    if "on_envoy" in row:
        assert found, "nothing differs any more: the row's note is to go"
    else:
        assert found == []


def otherwise(wire: Wire, dialect: str, row: dict[str, Any]) -> Iterator[str]:
    """What is not as the row says."""
    refused = wire.take(read_documents(loads(row["config"], f"{dialect}.yaml")))
    if refused:
        yield refused
        return
    if "minute:" in row["config"]:
        clear_of_the_minutes_edge()
    for case in read_cases([Document("row", {"tests": row["tests"]})]):
        if on_the_wire(case):
            for _ in range(case.repeat):
                seen = wire.ask(case.request)
            yield from (f"{case.name}: {word}" for word in differences(case.expected, *seen))


def differences(
    expected: Expected, status: int, headers: dict[str, str], body: str, seen: dict[str, Any] | None
) -> Iterator[str]:
    if expected.status is not None and status != expected.status:
        yield f"status is {status}, not {expected.status}: {body[:200]}"
    for name, value in expected.answer:
        have = headers.get(name.lower())
        if have != value and not (name.lower() in BY_THE_CLOCK and have):
            yield f"{name} is {have}, not {value}"
    if expected.body is not None and expected.body not in body:
        yield f"body is {body[:200]!r}, without {expected.body!r}"
    if seen is None:
        return
    path, _, query = seen["path"].partition("?")
    for what, have, wanted in (
        ("path", path, expected.path),
        ("query", query, expected.query),
        ("host", seen["headers"].get("host"), expected.host),
        ("method", seen["method"], expected.method),
    ):
        if wanted is not None and have != wanted:
            yield f"{what} is {have}, not {wanted}"
    for name, value in expected.headers:
        have = seen["headers"].get(name.lower())
        if have != value and not (value == "<uuid>" and have):
            yield f"the backend's header {name} is {have}, not {value}"
