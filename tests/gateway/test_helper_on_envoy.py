"""What the helper beside Envoy decides, on a real Envoy: opaque tokens, passwords, several backends in one
answer."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from gateway.backends import Echo, serving
from gateway.conftest import Answer
from gateway.door import Door
from skylift.testkit.ports import free_port


@pytest.fixture(scope="module")
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


@pytest.fixture(scope="module")
def other() -> Iterator[Echo]:
    with serving(Echo("other")) as echo:
        yield echo


# --- opaque tokens --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issuer() -> Iterator[Echo]:
    with serving(Echo("issuer")) as echo:
        yield echo


INTROSPECTS = """
gateway: 1
services: {s: {targets: ['@backend']}}
shared:
  token:
    introspection:
      url: http://@issuer/introspect
      client_id: gateway
      client_secret: s3cret
      scopes: [read]
      cache: 1h
      timeout: 20s
      claim_headers: {sub: X-User}
routes:
  - {name: roles, path: /roles, to: s, policies: [token, {require: {claim: roles, any: [operator, admin]}}]}
  - {name: tokens, path: /, to: s, policies: [token]}
"""


@pytest.fixture
def introspecting(door: Door, backend: Echo, issuer: Echo) -> Door:
    door.open(INTROSPECTS, {"backend": backend, "issuer": issuer})
    issuer.status, issuer.body = 200, json.dumps({"active": True, "scope": "read write", "sub": "ada"})
    issuer.asked.clear()
    backend.asked.clear()
    return door


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_an_opaque_token_is_asked_about_once_and_believed_for_a_while(
    introspecting: Door, backend: Echo, issuer: Echo
) -> None:
    for _ in range(3):
        assert introspecting.ask("/", x_user="root", **bearer("once")).status == 200
    assert [asked["headers"]["x-user"] for asked in backend.asked] == ["ada"] * 3
    assert not [name for name in backend.asked[0]["headers"] if name.startswith("x-sl-")]
    (asked,) = issuer.asked
    assert (asked["method"], asked["path"]) == ("POST", "/introspect")
    assert "token=once" in asked["body"]
    login = base64.b64decode(asked["headers"]["authorization"].removeprefix("Basic ")).decode()
    assert login == "gateway:s3cret"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"active": False}, 401),
        ({"active": "true", "scope": "read"}, 401),
        ({"active": True}, 403),
        ({"active": True, "scope": "write readonly"}, 403),
        ([], 500),
    ],
    ids=["not active", "no boolean", "no scope", "another scope", "no object"],
)
def test_a_token_that_does_not_hold_reaches_nobody(
    introspecting: Door, backend: Echo, issuer: Echo, said: object, status: int
) -> None:
    issuer.body = json.dumps(said)
    answer = introspecting.ask("/", **bearer(f"bad-{status}-{said}"))
    assert answer.status == status
    assert answer.headers.get("www-authenticate", "Bearer") == "Bearer"
    assert json.loads(answer.body)["status"] == status
    assert backend.asked == []


def test_without_a_token_nobody_is_asked(introspecting: Door, issuer: Echo) -> None:
    answer = introspecting.ask("/")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert introspecting.ask("/", authorization="Basic YTpi").status == 401
    assert issuer.asked == []


def test_an_issuer_that_fails_lets_nobody_in(introspecting: Door, backend: Echo, issuer: Echo) -> None:
    issuer.status = 503
    assert introspecting.ask("/", **bearer("while it fails")).status == 500
    issuer.status = 200
    assert introspecting.ask("/", **bearer("while it fails")).status == 200  # a failure is not remembered
    assert len(backend.asked) == 1


@pytest.mark.parametrize(
    ("roles", "status"),
    [(["operator", "x"], 200), (["guest"], 403), ("x admin", 200), ([], 403), (None, 403)],
)
def test_roles_of_an_opaque_token_are_looked_at(
    introspecting: Door, issuer: Echo, roles: object, status: int
) -> None:
    issuer.body = json.dumps({"active": True, "scope": "read", "roles": roles})
    answer = introspecting.ask("/roles", x_sl_claim_roles="admin", **bearer(f"with {roles}"))
    assert answer.status == status


def test_of_many_requests_with_one_new_token_one_asks(introspecting: Door, issuer: Echo) -> None:
    issuer.gate.clear()
    answers: list[int] = []
    callers = [
        threading.Thread(target=lambda: answers.append(introspecting.ask("/", **bearer("new")).status))
        for _ in range(5)
    ]
    for caller in callers:
        caller.start()
    issuer.gate.set()
    for caller in callers:
        caller.join()
    assert answers == [200] * 5
    assert len(issuer.asked) == 1


# --- passwords ------------------------------------------------------------------------------------------

HASHES = {
    "bcrypt": bcrypt.hashpw(b"open: sesame", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
    "apache": "$apr1$abcdefgh$MbLznTJAdyT56DBhYgoRl.",  # openssl passwd -apr1
    "sha": "{SHA}" + base64.b64encode(hashlib.sha1(b"open: sesame", usedforsecurity=False).digest()).decode(),
}
USERS = """
http:
  routers: {r: {rule: 'PathPrefix(`/`)', service: s, middlewares: [known]}}
  services: {s: {loadBalancer: {servers: [{url: 'http://@backend'}]}}}
  middlewares:
    known: {basicAuth: {users: %s, headerField: X-User, removeHeader: true, realm: inside}}
"""


@pytest.fixture
def passwords(door: Door, backend: Echo) -> Door:
    users = json.dumps([f"{name}:{value}" for name, value in HASHES.items()])
    door.open(USERS % users, {"backend": backend}, "traefik.yaml")
    backend.asked.clear()
    return door


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.mark.parametrize("name", HASHES)
def test_a_password_of_any_hash_lets_in_and_goes_no_further(
    passwords: Door, backend: Echo, name: str
) -> None:
    for _ in range(2):  # the second time it is known
        assert passwords.ask("/", **basic(name, "open: sesame")).status == 200
    headers = backend.asked[-1]["headers"]
    assert headers["x-user"] == name
    assert "authorization" not in headers
    assert passwords.ask("/", **basic(name, "open: sesamE")).status == 401


def test_a_users_file_lets_its_users_in(door: Door, backend: Echo, tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_text(f"  # who may\nbcrypt:{HASHES['bcrypt']}\n")
    text = USERS.replace("users: %s", f"usersFile: '{file}', users: ['sha:{HASHES['sha']}']")
    door.open(text, {"backend": backend}, "traefik.yaml")
    given = {name: door.ask("/", **basic(name, "open: sesame")).status for name in HASHES}
    assert given == {"bcrypt": 200, "sha": 200, "apache": 401}


@pytest.mark.parametrize(
    "given", [{}, basic("nobody", "x"), basic("bcrypt", ""), {"authorization": "Basic !"}, bearer("x")]
)
def test_a_wrong_password_is_401_with_the_realm(
    passwords: Door, backend: Echo, given: dict[str, str]
) -> None:
    answer = passwords.ask("/", **given)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="inside"'
    assert backend.asked == []


OPTIONAL = """
_format_version: "3.0"
services: [{name: s, url: 'http://@backend', routes: [{name: r, paths: [/]}]}]
consumers:
  - {username: ada, basicauth_credentials: [{username: ada, password: right}]}
  - {username: guest}
plugins: [{name: basic-auth, config: {anonymous: guest, hide_credentials: true}}]
"""


@pytest.mark.parametrize(
    ("given", "who"),
    [({}, "guest"), (basic("ada", "right"), "ada"), (basic("ada", "wrong"), "guest"), (bearer("x"), "guest")],
)
def test_a_password_that_is_optional_says_who_it_is_or_somebody_is_the_guest(
    door: Door, backend: Echo, given: dict[str, str], who: str
) -> None:
    door.open(OPTIONAL, {"backend": backend}, "kong.yaml")
    assert door.ask("/", x_consumer_username="root", **given).status == 200
    headers = backend.asked[-1]["headers"]
    assert headers["x-consumer-username"] == who
    assert headers.get("x-anonymous-consumer") == (None if who == "ada" else "true")
    assert "authorization" not in headers


# --- several backends, one answer ---------------------------------------------------------------------------

GATHERS = """
gateway: 1
services: {one: {targets: ['@backend']}, two: {targets: ['@other']}, gone: {targets: ['127.0.0.1:@gone']}}
routes:
  - name: page
    path: /page
    policies:
      - correlation_id: {}
      - aggregate:
          timeout: @time
          sources:
            user: {service: one, path: '/users/$(query_params.id)', required: true}
            orders: {service: two, path: /mine}
            news: {service: gone}
"""


def gather(door: Door, backend: Echo, other: Echo, time: str) -> None:
    text = GATHERS.replace("127.0.0.1:@gone", f"127.0.0.1:{free_port()}").replace("@time", time)
    door.open(text, {"backend": backend, "other": other})


@pytest.fixture
def gathering(door: Door, backend: Echo, other: Echo) -> Iterator[Door]:
    gather(door, backend, other, "20s")
    backend.asked.clear()
    other.asked.clear()
    backend.body, other.body = '{"id": 12345678901234567890}', "[1.50]"
    yield door
    backend.status, backend.body, other.status, other.body = 200, None, 200, None
    other.gate.set()


def page(door: Door, **headers: str) -> Answer:
    return door.ask("/page?id=a%2Fb%3F", **headers)


def test_several_backends_are_one_answer_and_who_failed_is_named(
    gathering: Door, backend: Echo, other: Echo
) -> None:
    answer = page(gathering, authorization="Bearer x", x_request_id="r1")
    assert answer.status == 200
    assert answer.body == '{"user": {"id": 12345678901234567890}, "orders": [1.50], "_failed": ["news"]}'
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert backend.asked[0]["path"] == "/users/a%2Fb%3F"  # a value stays one segment
    for asked in (backend.asked[0], other.asked[0]):
        assert asked["headers"]["authorization"] == "Bearer x"
        assert asked["headers"]["x-request-id"] == "r1"
        assert not [name for name in asked["headers"] if name.startswith("x-sl-")]


def test_they_are_asked_at_once(gathering: Door, backend: Echo, other: Echo) -> None:
    """Each holds its answer until the other was asked: one after the other would end in the time limit."""
    both = threading.Barrier(2)
    for echo in (backend, other):
        echo.gate = Meeting(both)  # type: ignore[assignment]
    try:
        answer = page(gathering)
    finally:
        for echo in (backend, other):
            echo.gate = threading.Event()
            echo.gate.set()
    assert json.loads(answer.body)["_failed"] == ["news"]


class Meeting:
    """A gate that opens when two stand before it."""

    def __init__(self, both: threading.Barrier) -> None:
        self._both = both

    def wait(self, seconds: float) -> None:
        self._both.wait(seconds)

    def set(self) -> None:
        self._both.abort()


def test_one_that_is_late_is_left_out(gathering: Door, backend: Echo, other: Echo) -> None:
    gather(gathering, backend, other, "3s")
    other.gate.clear()
    assert json.loads(page(gathering).body)["_failed"] == ["orders", "news"]


@pytest.mark.parametrize(("status", "body"), [(500, "{}"), (404, "{}"), (200, "{broken")])
def test_without_one_that_is_needed_there_is_no_answer(
    gathering: Door, backend: Echo, status: int, body: str
) -> None:
    backend.status, backend.body = status, body
    answer = page(gathering)
    assert (answer.status, json.loads(answer.body)) == (502, {"title": "Bad Gateway", "status": 502})


def test_it_survives_a_fresh_envoy(gathering: Door) -> None:
    gathering.supervisor.swap()
    assert page(gathering).status == 200


def test_nobody_asks_the_helper_or_the_inner_listener_from_outside(gathering: Door) -> None:
    root = gathering.supervisor.place
    for name in ("helper.sock", "inside.sock", "helper.json"):
        assert (root / name).stat().st_mode & 0o077 == 0
    assert isinstance(root, Path)
