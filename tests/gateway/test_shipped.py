"""The configuration that fronts the fleet service, as it is shipped."""

from pathlib import Path

import pytest

from skylift.gateway.lint import Severity, lint
from skylift.gateway.match import decide
from skylift.gateway.model import Gateway
from skylift.gateway.policies import RateLimit
from skylift.gateway.read import read
from skylift.gateway.request import parse

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "gateway"


@pytest.fixture(scope="module")
def gateway() -> Gateway:
    return read([SHIPPED])


def test_it_holds(gateway: Gateway) -> None:
    assert not [finding for finding in lint(gateway) if finding.severity is Severity.ERROR]
    assert gateway.endpoints("fleet", 8080) == (("127.0.0.1", 8080),)


@pytest.mark.parametrize(
    ("request_", "route", "limited"),
    [
        ("GET /healthz", "health", False),
        ("GET /readyz", "health", False),
        ("GET /api/updates/check?device_id=a", "check", True),
        ("POST /api/updates/status", "devices", True),
        ("POST /api/devices/a/health", "devices", True),
        ("GET /image/1.root.json", "trust", False),
        ("GET /director/a/timestamp.json", "trust", False),
        ("GET /api/blobs/0123", "images", False),
        ("GET /api/deployments", "operators", True),
        ("POST /api/artifacts", "operators", True),
        ("GET /ui/", "operators", True),
    ],
)
def test_each_kind_of_request_takes_its_route(
    gateway: Gateway, request_: str, route: str, limited: bool
) -> None:
    decision = decide(gateway, parse(request_))
    assert decision.route is not None
    assert decision.route.name == route
    assert decision.sent is not None
    assert decision.sent.path == parse(request_).path
    assert any(isinstance(ran.step.policy, RateLimit) for ran in decision.ran) is limited


def test_the_numbers_of_the_service_are_not_shown_outside(gateway: Gateway) -> None:
    assert decide(gateway, parse("GET /metrics")).route is None
