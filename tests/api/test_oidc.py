"""Sign-in by OpenID Connect against a real provider, a lying one, and browsers that began nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from joserfc.jwk import ECKey

from conftest import TestClock
from skylift.core.errors import Rejected
from skylift.engine.oidc import roles_of
from skylift.settings import Settings
from skylift.wiring import build

from .conftest import Api, closed, opened
from .provider import CLIENT, SECRET, Provider, provider

PUBLIC = "https://ota.example"
ADA = {"sub": "0007", "preferred_username": "ada", "groups": ["staff", "ops"]}
PASSWORD = "correct horse battery"


@dataclass
class Door:
    """A server whose people sign in at the provider."""

    api: Api
    at: Provider

    def begin(self, path: str = "/ui/oidc") -> tuple[str, str]:
        """(where the browser is sent, the cookie it keeps)."""
        answer = self.api.call("GET", path, token="")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"], answer.headers["set-cookie"].partition(";")[0]

    def there(self, address: str) -> str:
        """What the provider sends the browser back with: path and query."""
        answer = httpx2.get(address, timeout=60)
        assert answer.status_code == 302, answer.text
        back = urlsplit(answer.headers["location"])
        assert f"{back.scheme}://{back.netloc}" == PUBLIC
        return f"{back.path}?{back.query}"

    def back(self, path: str, cookie: str) -> httpx2.Response:
        return self.api.call("GET", path, token="", headers={"Cookie": cookie})

    def sign_in(self, path: str = "/ui/oidc") -> httpx2.Response:
        address, cookie = self.begin(path)
        return self.back(self.there(address), cookie)

    def users(self) -> dict[str, Any]:
        return {user["name"]: user for user in self.api.get("/api/users").json()["items"]}


@pytest.fixture
def door(tmp_path: Path, database_url: str, clock: TestClock) -> Iterator[Door]:
    clock.now = datetime.now(UTC)  # the provider's clock is the wall's
    with provider(f"{PUBLIC}/ui/oidc/back") as at:
        at.person = dict(ADA)
        given = {
            "public_url": PUBLIC,
            "oidc_issuer": at.issuer,
            "oidc_client_id": CLIENT,
            "oidc_client_secret": SECRET,
            "oidc_title": "Example Ltd",
            "oidc_roles": "chiefs=admin, ops=operator, staff=viewer",
        }
        api = opened(tmp_path, database_url, clock, **given)
        yield Door(api, at)
        closed(api)


def sentence(answer: httpx2.Response) -> str:
    return answer.text.partition('role="alert">')[2].partition("</p>")[0]


def test_somebody_new_comes_in_as_what_the_provider_says_and_is_the_same_the_next_time(
    door: Door,
) -> None:
    door.api.post("/api/users", {"name": "root", "role": "admin", "password": PASSWORD})
    assert "Sign in with Example Ltd" in door.api.call("GET", "/ui/sign-in", token="").text
    answer = door.sign_in("/ui/oidc?next=/ui/devices")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/devices")
    session = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("skylift_session="))
    page = door.api.call("GET", "/ui/devices", token="", headers={"Cookie": session.partition(";")[0]})
    assert page.status_code == 200
    assert ">ada</a>" in page.text
    ada = door.users()["ada"]
    assert (ada["role"], ada["created_by"], ada["elsewhere"]) == ("operator", "oidc", True)
    door.at.person |= {"preferred_username": "ada.l", "groups": "chiefs"}
    assert door.sign_in().status_code == 303
    assert (door.users()["ada"]["id"], door.users()["ada"]["role"]) == (ada["id"], "admin")
    assert set(door.users()) == {"ada", "root"}
    assert door.at.asked.count("configuration") == 1
    form = {"name": "ada", "password": "", "code": ""}
    assert (
        door.api.call("POST", "/ui/sign-in", token="", data=form).status_code == 401
    )  # there is no password


def test_a_name_that_is_somebody_elses_a_role_that_is_none_and_who_is_disabled_stay_out(door: Door) -> None:
    door.api.post("/api/users", {"name": "ada", "role": "admin", "password": PASSWORD})
    assert "ada is the name of somebody who signs in otherwise" in sentence(door.sign_in())
    door.at.person = {**ADA, "preferred_username": "eve", "groups": ["guests"]}
    assert "nothing of what the provider says of you lets you in" in sentence(door.sign_in())
    door.at.person = {**ADA, "preferred_username": "../eve"}
    assert "preferred_username is" in sentence(door.sign_in())
    assert set(door.users()) == {"ada"}
    door.at.person = {**ADA, "preferred_username": "eve"}
    assert door.sign_in().status_code == 303
    door.api.call("PATCH", "/api/users/eve", json={"disabled": True})
    refused = door.sign_in()
    assert (refused.status_code, "eve is disabled here" in refused.text) == (403, True)
    door.at.person = {}
    assert "Example Ltd says" in sentence(door.sign_in())


def test_what_another_browser_or_another_sign_in_began_is_not_taken(door: Door) -> None:
    address, cookie = door.begin()
    back = door.there(address)
    _, other = door.begin()
    assert "belongs to another sign-in" in sentence(door.back(back, other))
    assert "has not begun to sign in" in sentence(door.back(back, "skylift_oidc=s1:AAAA"))
    assert "has not begun to sign in" in sentence(door.back(back, ""))
    wrong = door.back(back + "&iss=https://evil.example", cookie)
    assert "from another provider" in sentence(wrong)
    assert door.back(back, cookie).status_code == 303
    again = door.back(back, cookie)  # a code is good for one sign-in
    assert (again.status_code, "refuses the code" in again.text) == (403, True)
    address, cookie = door.begin()
    back = door.there(address)
    door.api.clock.forward(minutes=11)
    assert "more than ten minutes" in sentence(door.back(back, cookie))


LIES = (
    ({"aud": "another client"}, "aud"),
    ({"aud": [CLIENT, "another"]}, "azp"),
    ({"iss": "https://evil.example"}, "iss"),
    ({"nonce": "another"}, "nonce"),
    ({"exp": 1}, "exp"),
    ({"exp": "tomorrow"}, "exp"),
    ({"iat": 9_999_999_999}, "iat"),
    ({"sub": ""}, "sub"),
)


def test_a_token_that_is_not_for_this_sign_in_here_and_now_is_refused(door: Door) -> None:
    for lies, claim in LIES:
        door.at.lies = lies
        answer = door.sign_in()
        assert answer.status_code == 403
        assert sentence(answer).endswith(f"{claim} is wrong"), (lies, sentence(answer))
    assert not door.users()


def test_a_key_that_is_not_published_signs_for_nobody_and_one_that_was_changed_is_fetched(door: Door) -> None:
    assert door.sign_in().status_code == 303
    published, door.at.signs_with = door.at.signs_with, ECKey.generate_key("P-256", {"kid": "1"})
    assert "does not verify" in sentence(door.sign_in())
    door.at.shows = [door.at.signs_with]
    assert door.sign_in().status_code == 303
    door.at.signs_with = published
    assert "does not verify" in sentence(door.sign_in())


def test_a_provider_that_does_not_answer_is_said_to_be_away(door: Door) -> None:
    door.at.issuer = "http://elsewhere.example"  # it calls itself something else
    answer = door.api.call("GET", "/ui/oidc", token="")
    assert answer.status_code == 503


def test_half_a_setting_does_not_start(tmp_path: Path) -> None:
    given = Settings(data_dir=tmp_path, mqtt_url="off", oidc_issuer="https://id.example", oidc_client_id="x")
    with pytest.raises(Rejected, match="public_url"):
        build(given)
    for wrong in ("ops", "=viewer", "ops=king"):
        with pytest.raises(Rejected):
            roles_of(wrong)
    assert roles_of("a=b=admin, *=viewer") == (("a=b", "admin"), ("*", "viewer"))
