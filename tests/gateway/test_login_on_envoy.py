"""The OAuth2 login on a real Envoy, against an issuer that looks at what it is told."""

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.backends import Echo, serving
from gateway.door import Door

LOGIN = """
gateway: 1
services: {s: {targets: ['@backend']}}
routes:
  - {name: health, path_exact: /health, policies: [{respond: {body: ok}}]}
  - name: page
    path: /
    to: s
    policies:
      - login:
          authorization_url: http://@issuer/authorize
          token_url: http://@issuer/token
          client_id: gateway
          client_secret: s3cret of the client
          cookie_secret: 0123456789abcdef0123456789abcdef
          scopes: [openid, profile]
          pass_bearer: true
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[Echo]:
    answer = {"access_token": "the-token", "token_type": "Bearer", "expires_in": 3600}
    with serving(Echo("issuer", body=json.dumps(answer))) as echo:
        yield echo


@pytest.fixture(scope="module")
def backend() -> Iterator[Echo]:
    with serving(Echo("backend")) as echo:
        yield echo


class Browser:
    """Keeps cookies and follows nothing by itself."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.cookies: dict[str, str] = {}

    def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        """Status, where it is sent to, body."""
        line = http.client.HTTPConnection("127.0.0.1", self.door.port, timeout=20)
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        line.request("GET", path, headers={**headers, **({"Cookie": jar} if jar else {})})
        answer = line.getresponse()
        body = answer.read().decode()
        for set_ in answer.headers.get_all("set-cookie") or []:
            name, _, value = set_.partition(";")[0].partition("=")
            if value == "deleted":
                self.cookies.pop(name, None)
                continue
            self.cookies[name] = value
            assert "httponly" in set_.lower()
        line.close()
        return answer.status, answer.headers.get("location", ""), body


@pytest.fixture
def browser(door: Door, backend: Echo, issuer: Echo) -> Browser:
    door.open(LOGIN, {"backend": backend, "issuer": issuer})
    issuer.asked.clear()
    backend.asked.clear()
    return Browser(door)


def come_back(browser: Browser, path: str = "/page?a=1") -> str:
    """To the issuer, and back with a code; where the browser is sent then."""
    status, where, _ = browser.get(path)
    assert status == 302
    asked = parse_qs(urlsplit(where).query)
    back = urlsplit(asked["redirect_uri"][0])
    status, where, body = browser.get(f"{back.path}?code=the-code&state={asked['state'][0]}")
    assert status == 302, body
    return where


def test_who_has_no_session_is_sent_to_the_issuer_with_pkce(browser: Browser, backend: Echo) -> None:
    status, where, _ = browser.get("/page?a=1")
    asked = parse_qs(urlsplit(where).query)
    assert status == 302
    assert where.startswith("http://127.0.0.1:")
    assert urlsplit(where).path == "/authorize"
    assert asked["client_id"] == ["gateway"]
    assert asked["response_type"] == ["code"]
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"http://127.0.0.1:{browser.door.port}/oauth2/callback"]
    assert sorted(asked["scope"][0].split()) == ["openid", "profile"]
    assert backend.asked == []


def test_who_comes_back_has_a_session_and_the_backend_gets_the_token(
    browser: Browser, backend: Echo, issuer: Echo
) -> None:
    _, where, _ = browser.get("/page?a=1")
    challenge = parse_qs(urlsplit(where).query)["code_challenge"][0]
    browser.cookies.clear()
    assert come_back(browser).endswith("/page?a=1")
    (asked,) = issuer.asked
    words = parse_qs(asked["body"])
    assert words["code"] == ["the-code"]
    assert words["grant_type"] == ["authorization_code"]
    made = base64.urlsafe_b64encode(hashlib.sha256(words["code_verifier"][0].encode()).digest())
    assert made.rstrip(b"=").decode() != challenge  # the first login's verifier is the first login's
    status, _, body = browser.get("/page?a=1")
    assert status == 200
    assert json.loads(body)["headers"]["authorization"] == "Bearer the-token"


@pytest.mark.parametrize("cookie", ["OauthHMAC", "OauthExpires"])
def test_a_session_that_somebody_wrote_himself_is_none(browser: Browser, backend: Echo, cookie: str) -> None:
    come_back(browser)
    browser.cookies[cookie] = "9999999999"
    backend.asked.clear()
    assert browser.get("/page")[0] == 302
    assert backend.asked == []


def test_a_code_for_somebody_elses_login_is_refused(browser: Browser, issuer: Echo) -> None:
    _, where, _ = browser.get("/page")
    state = parse_qs(urlsplit(where).query)["state"][0]
    stranger = Browser(browser.door)
    status, _, _ = stranger.get(f"/oauth2/callback?code=stolen&state={state}")
    assert status == 401
    assert issuer.asked == []


def test_health_and_bearers_need_no_login(browser: Browser, backend: Echo) -> None:
    assert browser.get("/health")[2] == "ok"
    assert browser.get("/page", Authorization="Bearer own")[0] == 200
    assert backend.asked[-1]["headers"]["authorization"] == "Bearer own"


def test_who_signs_out_has_no_session_any_more(browser: Browser) -> None:
    come_back(browser)
    assert browser.get("/page")[0] == 200
    browser.get("/oauth2/logout")
    assert browser.get("/page")[0] == 302


def test_the_secrets_stand_in_files_that_only_the_gateway_reads(browser: Browser) -> None:
    root = browser.door.supervisor.place
    assert "s3cret of the client" not in (root / "lds" / "lds.json").read_text()
    files = list((root / "sds").glob("*.json"))
    assert len(files) >= 2
    assert not [file for file in files if file.stat().st_mode & 0o077]
