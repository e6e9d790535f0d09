"""Operators with tokens of an identity provider, as it is shipped: verified by the gateway, which goes on
with a token of the service's own."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from conftest import wait_until
from gateway.backends import Echo, serving
from gateway.conftest import Answer
from gateway.door import Door
from skylift.engine.access import make_token
from skylift.gateway import environment
from skylift.testkit.identity import Identity
from skylift.testkit.seed import seeded
from skylift.testkit.server import Server

SHIPPED = Path(__file__).resolve().parents[2] / "deploy"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
DEVICES = Identity(seed=8, count=1)


@pytest.fixture(scope="module")
def keys() -> Iterator[Echo]:
    with serving(Echo("keys", body=json.dumps({"keys": [KEY.as_dict(private=False)]}))) as echo:
        yield echo


@pytest.fixture(scope="module")
def fronted(door: Door, keys: Echo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The service, and the shipped files before it, with a provider of this test's."""
    data = tmp_path_factory.mktemp("operators") / "fleet"
    now = datetime.now(UTC)
    database = seeded(data, DEVICES, device_type="sensor-v2", version="1.0.0", now=now)
    tokens = {
        f"SKYLIFT_{role.upper()}_TOKEN": database.write(
            lambda conn, role=role: make_token(conn, f"gateway-{role}", role, "test", now)
        )[1]
        for role in ("viewer", "operator")
    }
    database.close()
    server = Server(data)
    server.start()
    text = "\n---\n".join(
        (SHIPPED / file).read_text() for file in ("gateway/fleet.yaml", "gateway-operators.yaml")
    )
    text, holes = environment.filled(text, tokens, "shipped.yaml")
    assert holes == 2
    text = text.replace("https://id.example/.well-known/jwks.json", f"http://127.0.0.1:{keys.port}/jwks")
    door.open(text.replace("'fleet:8080'", f"'{server.url.removeprefix('http://')}'"))
    wait_until(lambda: look(door, "ota-viewers").status == 200, 60, "the provider's keys are fetched")
    yield door
    server.stop()


def person(*groups: str, key: RSAKey = KEY, **claims: object) -> str:
    said = {"iss": "https://id.example", "aud": "skylift", "sub": "ada", "exp": 9999999999, "groups": groups}
    return "Bearer " + jwt.encode({"alg": "RS256", "kid": "one"}, {**said, **claims}, key)


def look(door: Door, *groups: str) -> Answer:
    return door.ask("/api/deployments", authorization=person(*groups))


def act(door: Door, *groups: str) -> Answer:
    body = json.dumps({"name": "some", "device_ids": []})
    return door.ask(
        "/api/groups", "POST", body, authorization=person(*groups), content_type="application/json"
    )


def test_people_look_and_act_by_the_groups_of_their_token(fronted: Door) -> None:
    assert (look(fronted, "ota-viewers").status, act(fronted, "ota-viewers").status) == (200, 403)
    assert look(fronted, "ota-operators", "staff").status == 200
    acted = act(fronted, "ota-operators")
    assert acted.status not in (401, 403), acted.body
    assert look(fronted, "staff").status == 403


def test_a_token_that_the_provider_did_not_sign_reaches_nobody(fronted: Door) -> None:
    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    for word in (
        person("ota-operators", key=stranger),
        person("ota-operators", exp=1),
        person("ota-operators", aud="others"),
        person("ota-operators", iss="https://other.example"),
        "bearer eyJhbGciOiJub25lIn0.e30.",
    ):
        answer = fronted.ask("/api/deployments", authorization=word)
        assert answer.status in (401, 403)
        assert answer.headers["server"] == "gateway"
        assert answer.headers["content-type"] == "application/problem+json"


def test_devices_and_tokens_of_the_service_go_on_as_they_did(fronted: Door) -> None:
    words = f"device_id={DEVICES.name(0)}&device_type=sensor-v2&current_version=1.0.0"
    device = fronted.ask(f"/api/updates/check?{words}", authorization=f"Bearer {DEVICES.token(0)}")
    assert device.status == 200
    assert fronted.ask("/api/deployments", authorization="Bearer of-nobody").status == 401
    assert fronted.ask("/api/deployments").status == 401
