"""The user's own files, as they are, on a real Envoy before real backends."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from gateway.backends import Echo, serving
from gateway.conftest import Answer, ask
from skylift.gateway.envoy.compiler import compiled
from skylift.gateway.envoy.process import Options
from skylift.gateway.envoy.supervisor import Supervisor
from skylift.gateway.loading import load, loads
from skylift.gateway.model import Gateway
from skylift.gateway.read import read_documents
from skylift.testkit.ports import free_port

SEED = Path(__file__).parent / "seed"
SECRET = "a secret that is longer than thirty-two bytes"
# What the seed leaves open: who may come, and where the names are.
ADA = f"""
consumers:
  - username: ada
    custom_id: "7"
    jwt_secrets: [{{key: fleet, secret: {SECRET}}}]
"""


class Running:
    """A gateway of some of the seed's files, and the backends they name."""

    def __init__(self, files: list[str], more: str, backends: dict[str, Echo]) -> None:
        self.backends = backends
        self.port = free_port()
        self.more = more
        places = {f"{name}:8080": f"127.0.0.1:{backend.port}" for name, backend in backends.items()}
        where = json.dumps({"inventory": places})
        documents = [
            *load([SEED / file for file in files]),
            *loads(more, "more.yaml"),
            *loads(where, "i.json"),
        ]
        self.gateway = self._here(read_documents(documents))
        self.supervisor = Supervisor(lambda: compiled(self.gateway), lambda _: None, Options(drain_s=1))
        self.supervisor.start()

    def _here(self, gateway: Gateway) -> Gateway:
        first = gateway.listeners[0]
        return replace(gateway, listeners=(replace(first, address="127.0.0.1", port=self.port),))

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return ask(self.port, path, method, None, **headers)

    def seen(self, path: str, **headers: str) -> dict[str, Any]:
        """What the backend saw of a request that passed."""
        answer = self.ask(path, **headers)
        assert answer.status == 200, answer
        return dict(json.loads(answer.body))


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, Echo]]:
    names = ("user-service", "order-service", "auth-service")
    with serving(Echo(names[0])) as user, serving(Echo(names[1])) as order, serving(Echo(names[2])) as auth:
        yield {"user-service": user, "order-service": order, "auth-service": auth}


@pytest.fixture(scope="module")
def kong(limits_filter: Path, backends: dict[str, Echo]) -> Iterator[Running]:
    """Kong's four fragments, read together."""
    files = ["kong-routes.yaml", "kong-rate-limiting.yaml", "kong-jwt.yaml", "kong-request-transformer.yaml"]
    running = Running(files, ADA, backends)
    yield running
    running.supervisor.stop()


@pytest.fixture(scope="module")
def traefik(limits_filter: Path, backends: dict[str, Echo]) -> Iterator[Running]:
    """Traefik's route and its two middlewares."""
    running = Running(["traefik-ingressroute.yaml", "traefik-middlewares.yaml"], "", backends)
    yield running
    running.supervisor.stop()


def token(issuer: str = "fleet", secret: str = SECRET, **claims: object) -> str:
    key = OctKey.import_key(secret)
    return "Bearer " + jwt.encode({"alg": "HS256"}, {"iss": issuer, **claims}, key)


def good() -> str:
    return token(exp=int(time.time()) + 60)


# --- Kong -----------------------------------------------------------------------------------------------


def test_a_path_leads_to_its_service_without_its_prefix(kong: Running) -> None:
    users = kong.seen("/api/users/7?full=1", Authorization=good())
    assert (users["service"], users["path"]) == ("user-service", "/7?full=1")
    assert kong.seen("/api/orders", Authorization=good())["path"] == "/"
    assert users["headers"]["host"] == "user-service:8080"
    assert users["headers"]["x-forwarded-prefix"] == "/api/users"


def test_what_no_route_takes_is_404_in_kongs_words(kong: Running) -> None:
    answer = kong.ask("/nowhere")
    assert answer.status == 404
    assert json.loads(answer.body)["message"] == "no Route matched with those values"


@pytest.mark.parametrize(
    ("credential", "says"),
    [
        (lambda: None, {"message": "Unauthorized"}),
        (lambda: token(exp=int(time.time()) - 60), {"exp": "token expired"}),
        (lambda: token("stranger", exp=9999999999), {"message": "No credentials found for given 'iss'"}),
        (
            lambda: token(secret=SECRET[::-1], exp=9999999999),
            {"message": "Invalid signature"},
        ),
    ],
    ids=["no token", "expired", "unknown issuer", "another's signature"],
)
def test_a_token_that_does_not_hold_is_401_in_kongs_words(
    kong: Running, credential: Any, says: dict[str, str]
) -> None:
    given = credential()
    answer = kong.ask("/api/users", **({"Authorization": given} if given else {}))
    assert answer.status == 401
    assert json.loads(answer.body) == says
    assert "127.0.0.1" not in answer.headers.get("www-authenticate", "")


def test_a_token_without_exp_is_refused_because_the_file_asks_for_it(kong: Running) -> None:
    assert kong.ask("/api/users", Authorization=token()).status == 401


def test_an_unsigned_token_is_refused(kong: Running) -> None:
    head, claims, _ = good().split(".")
    none = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    assert kong.ask("/api/users", Authorization=f"Bearer {none}.{claims}.").status == 401
    assert head.startswith("Bearer ")


def test_a_token_may_stand_in_the_query(kong: Running) -> None:
    assert kong.seen(f"/api/users?jwt={good().removeprefix('Bearer ')}")["service"] == "user-service"


def test_the_backend_is_told_who_asks_and_a_client_cannot_say_so_itself(kong: Running) -> None:
    headers = kong.seen("/api/users", Authorization=good(), X_Consumer_Username="root", X_Consumer_ID="0")[
        "headers"
    ]
    assert headers["x-consumer-username"] == "ada"
    assert headers["x-consumer-custom-id"] == "7"
    assert headers["x-consumer-id"] != "0"
    assert not [name for name in headers if name.startswith("x-sl-")]


def test_the_transformer_adds_a_fresh_uuid_and_removes_what_it_names(kong: Running) -> None:
    first = kong.seen("/api/orders", Authorization=good(), X_Internal_Header="secret")["headers"]
    second = kong.seen("/api/orders", Authorization=good())["headers"]
    assert first["x-forwarded-service"] == "user-service"
    assert "x-internal-header" not in first
    assert len(first["x-request-id"]) == 36
    assert first["x-request-id"] != second["x-request-id"]


def test_the_limit_tells_where_a_client_stands_and_refuses_the_one_hundred_and_first(kong: Running) -> None:
    # Each minute begins anew: the hundred and first of one minute is met before two minutes' worth are sent.
    credential = good()
    answers = [kong.ask("/api/users", Authorization=credential) for _ in range(201)]
    first_refused = next(n for n, answer in enumerate(answers) if answer.status == 429)
    refused, before = answers[first_refused], answers[first_refused - 1]
    assert before.headers["x-ratelimit-limit-minute"] == "100"
    assert before.headers["x-ratelimit-remaining-minute"] == "0"
    assert before.headers["x-ratelimit-limit-hour"] == "1000"
    assert json.loads(refused.body)["message"] == "API rate limit exceeded"
    assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
    assert kong.ask("/api/orders", Authorization=credential).status == 200  # the limit is user-service's


# --- Traefik --------------------------------------------------------------------------------------------


def test_the_auth_service_is_asked_with_the_request_in_headers(traefik: Running) -> None:
    traefik.backends["auth-service"].asked.clear()
    seen = traefik.seen("/api/users/7?full=1", Cookie="session=1")
    assert (seen["service"], seen["path"]) == ("user-service", "/api/users/7?full=1")
    assert seen["headers"]["host"].startswith("127.0.0.1")  # Traefik passes the client's host on
    asked = traefik.backends["auth-service"].asked[-1]
    assert asked["path"] == "/verify"
    assert asked["headers"]["x-forwarded-uri"] == "/api/users/7?full=1"
    assert asked["headers"]["x-forwarded-method"] == "GET"
    assert asked["headers"]["cookie"] == "session=1"


def test_what_the_auth_service_refuses_is_its_answer(traefik: Running) -> None:
    auth = traefik.backends["auth-service"]
    auth.status, auth.body = 401, "who are you?"
    try:
        answer = traefik.ask("/api/users")
        assert (answer.status, answer.body) == (401, "who are you?")
    finally:
        auth.status, auth.body = 200, None


def test_traefiks_bucket_lets_its_burst_in_and_says_when_to_come_back(traefik: Running) -> None:
    answers = [traefik.ask("/api/users") for _ in range(80)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert sum(answer.status == 200 for answer in answers) >= 40  # the others of 50 went to earlier tests
    assert refused[0].body == "Too Many Requests"
    assert int(refused[0].headers["retry-after"]) >= 1


def test_what_no_rule_takes_is_404_in_traefiks_words(traefik: Running) -> None:
    answer = traefik.ask("/other")
    assert (answer.status, answer.body) == (404, "404 page not found\n")
