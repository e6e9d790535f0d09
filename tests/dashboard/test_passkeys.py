"""A passkey as the second factor: Chromium's own authenticator, in hardware that is not there."""

import re
from collections.abc import Callable
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from skylift.testkit.showroom import PASSWORD, Showroom

from .conftest import shoot, violations


@pytest.fixture(scope="module", autouse=True)
def people(room: Showroom) -> None:
    room.people()


def known_as(room: Showroom) -> str:
    """No passkey is made for a bare address."""
    return room.url.replace("127.0.0.1", "localhost")


def holder(context: BrowserContext, room: Showroom) -> Page:
    """A browser with an authenticator in it, at the sign-in."""
    page = context.new_page()
    line = context.new_cdp_session(page)
    line.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    line.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    page.goto(f"{known_as(room)}/ui/sign-in")
    return page


def say_password(page: Page, name: str = "olga") -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_whoever_has_a_passkey_signs_in_with_it_and_the_password_alone_is_not_enough(
    room: Showroom, visitor: Callable[..., BrowserContext]
) -> None:
    page = holder(visitor(), room)
    say_password(page)
    page.get_by_role("link", name="olga").click()
    page.get_by_label("What to call it").fill("my <b>phone</b>")
    form = page.locator("[data-passkey-new]")
    form.get_by_label("Your password").fill("not the password")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.locator("[data-passkey-said]")).to_contain_text("password: is wrong")
    form.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.get_by_text("From now on a sign-in needs your passkey")).to_be_visible()
    expect(page.get_by_text("my <b>phone</b>", exact=False).first).to_be_visible()
    shoot(page, "passkeys")
    assert not violations(page)

    page.get_by_role("button", name="Sign out").click()
    say_password(page)
    expect(page.get_by_role("heading", name="Your passkey")).to_be_visible()
    shoot(page, "sign-in-key")
    assert not violations(page)
    sent: list[str] = []
    page.on("request", lambda one: sent.append(one.post_data or "") if "/passkey" in one.url else None)
    page.get_by_role("button", name="Use the passkey").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()

    stranger = visitor()  # who knows the password, and has seen the whole proof
    said = {name: values[0] for name, values in parse_qs(sent[-1]).items()}
    replayed = stranger.request.post(f"{known_as(room)}/ui/sign-in/passkey", form=said)
    assert replayed.status == 403
    assert "was done before: begin again" in replayed.text()
    other = holder(stranger, room)
    say_password(other)
    other.get_by_role("button", name="Use the passkey").click()
    expect(other.locator("[data-passkey-said]")).to_contain_text("No passkey")
    half = other.locator("[name=half]").input_value()
    for answer in ("{}", "", said["answer"]):
        wrong = stranger.request.post(
            f"{known_as(room)}/ui/sign-in/passkey", form={"half": half, "answer": answer}
        )
        assert wrong.status in (401, 403)
    listed = {user["name"]: user for user in room.call("GET", "/api/users")["items"]}
    assert (listed["olga"]["second_factor"], listed["vera"]["second_factor"]) == (True, False)

    page.get_by_role("link", name="olga").click()
    page.get_by_text("Remove my").click()
    page.locator("li").get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_text("That passkey counts no more.")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    say_password(page)
    expect(page).to_have_url(re.compile("/ui/$"))


def test_an_admins_reset_takes_a_lost_passkey_away(
    room: Showroom, visitor: Callable[..., BrowserContext]
) -> None:
    page = holder(visitor(), room)
    say_password(page, "vera")
    page.get_by_role("link", name="vera").click()
    page.locator("[data-passkey-new]").get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.get_by_text("From now on a sign-in needs your passkey")).to_be_visible()
    room.call("PATCH", "/api/users/vera", json={"password": PASSWORD})
    page = visitor().new_page()
    page.goto(f"{known_as(room)}/ui/sign-in")
    say_password(page, "vera")
    expect(page).to_have_url(re.compile("/ui/$"))
