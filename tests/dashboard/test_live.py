"""A deployment that stops itself, watched live: nobody touches the page, and it says what happened."""

from collections.abc import Callable

import httpx2
import pytest
from playwright.sync_api import BrowserContext, expect

from conftest import wait_until
from skylift.testkit.showroom import DEVICE_TYPE, Showroom

from .conftest import shoot, sign_in, violations

DEVICES = [f"unit-{number}" for number in range(4)]


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer dev_{name}-0123456789abcdef"}


def ask(room: Showroom, name: str) -> bool:
    asked = {"device_id": name, "device_type": DEVICE_TYPE, "current_version": "1.0.0"}
    answer = httpx2.get(f"{room.url}/api/updates/check", params=asked, headers=bearer(name), timeout=60)
    found: bool = answer.json()["update_available"]
    return found


def say(room: Showroom, name: str, deployment: str, state: str, **more: str) -> None:
    told = {"device_id": name, "deployment": deployment, "state": state, **more}
    answer = httpx2.post(f"{room.url}/api/updates/status", json=told, headers=bearer(name), timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def deployment(room: Showroom, images: Callable[[str], bytes]) -> str:
    """To four devices that have asked once, and do what a test says."""
    room.people()
    room.ceremony()
    room.publish("1.1.0", images("1.1.0"))
    for name in DEVICES:
        body = {"device_id": name, "device_type": DEVICE_TYPE, "token": f"dev_{name}-0123456789abcdef"}
        room.post("/api/devices", body | {"labels": {"hw": "rev-b" if name == DEVICES[2] else "rev-a"}})
        ask(room, name)
    made = room.deploy(
        "1.1.0", phases=[{"percent": 100}], failure_threshold_percent=30, failure_min_devices=3
    )
    for name in DEVICES:
        wait_until(lambda name=name: ask(room, name), what="the first offer")  # type: ignore[misc] # a lambda's default has no type
    return made


def test_a_page_that_nobody_touches_follows_a_deployment_until_it_stops_itself(
    room: Showroom, deployment: str, visitor: Callable[..., BrowserContext]
) -> None:
    page = sign_in(visitor(), room, "olga", f"/ui/deployments/{deployment}")
    expect(page.locator("#live")).to_have_attribute("data-line", "open")
    state = page.locator("#live-status .pill")
    expect(state).to_have_text("running")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.evaluate("window.neverLoadedAgain = true")

    say(room, DEVICES[0], deployment, "complete")
    expect(page.locator("#live-cards .big").first).to_have_text("1")
    say(room, DEVICES[1], deployment, "downloading")
    expect(page.locator("#live-cards")).to_contain_text("1 downloading")
    say(room, DEVICES[2], deployment, "failed", reason="no_space", error_message="flash is full")
    expect(page.locator("#live-failures")).to_contain_text("flash is full")
    say(room, DEVICES[3], deployment, "rolled_back", reason="boot_failed")

    expect(state).to_have_text("paused")
    found = room.deployment(deployment)
    assert found["paused_by"] == "failure_threshold"
    expect(page.locator("#live-waits")).to_contain_text(found["sentence"])
    assert "2 of 3 decided devices failed or rolled back (66.7 %)" in found["sentence"]
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    expect(page.get_by_text("Resume…")).to_be_visible()
    assert page.evaluate("window.neverLoadedAgain")
    shoot(page, "stopped-itself")
    assert not violations(page)

    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_text(found["sentence"])).to_be_visible()  # the same sentence: it needs a person


def test_a_browser_that_slept_for_an_hour_shows_what_is_so_now(
    room: Showroom, deployment: str, visitor: Callable[..., BrowserContext]
) -> None:
    context = visitor()
    page = sign_in(context, room, "vera", "/ui/")
    page.clock.install()
    page.goto(f"{room.url}/ui/deployments/{deployment}")
    expect(page.locator("#live")).to_have_attribute("data-line", "open")
    state = page.locator("#live-status .pill")
    expect(state).to_have_text("paused")
    page.evaluate("window.neverLoadedAgain = true")

    context.set_offline(True)  # the lid is closed
    room.post(f"/api/deployments/{deployment}:resume", {"failure_threshold_percent": 100})
    say(room, DEVICES[1], deployment, "complete")
    page.clock.fast_forward("01:00:00")
    context.set_offline(False)

    expect(state).to_have_text("complete")
    expect(page.locator("#live-cards .big").first).to_have_text("2")
    assert page.evaluate("window.neverLoadedAgain")
