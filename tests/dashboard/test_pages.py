"""Every page in both themes at phone and desk width: nothing for axe to find, nothing sticks out, pictures
in build/screens; by keyboard; without JavaScript."""

from collections.abc import Callable
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from conftest import wait_until
from skylift.testkit import esp32
from skylift.testkit.behaviours import Behaviour
from skylift.testkit.showroom import Showroom

from .conftest import PATIENCE_MS, SIZES, shoot, sign_in, violations

STEADY = (
    Behaviour("well", 70, think_s=(0.02, 0.1)),
    Behaviour(
        "rev-b", 30, think_s=(0.02, 0.1), labels={"hw": "rev-b"}, ends={"failed": 60, "rolled_back": 40}
    ),
)
WIZARD = "/ui/deployments/new?preview=1&phases=10,50,100&to=all&soak=60&wait=30&threshold=40&gate=threshold"
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def pages(room: Showroom, images: Callable[[str], bytes]) -> dict[str, str]:
    """A server with something on every page; name -> path."""
    room.people()
    room.ceremony()
    room.publish("1.0.0", images("1.0.0"))
    release = room.publish("1.1.0", images("1.1.0"), notes="Faster, and <i>safer</i>.")
    with room.devices(24, STEADY):
        deployment = room.deploy("1.1.0", failure_threshold_percent=10, failure_min_devices=1)
        assert room.ended(deployment)["status"] == "paused"
    room.post("/api/groups", {"name": "eu", "query": "label.region = eu"})
    room.post("/api/groups", {"name": "lab", "devices": ["sim-0000000"]})
    room.post("/api/channels", {"name": "chat", "kind": "chat", "address": "http://127.0.0.1:1/secret-path"})
    room.post("/api/channels", {"name": "ci", "kind": "webhook", "address": "http://127.0.0.1:1/hook"})
    draft = room.draft("1.2.0", images("1.2.0"))
    return {
        "overview": "/ui/",
        "deployments": "/ui/deployments",
        "deployment": f"/ui/deployments/{deployment}",
        "why": f"/ui/deployments/{deployment}/why",
        "deployment-devices": f"/ui/deployments/{deployment}/devices?state=failed",
        "wizard": WIZARD,
        "devices": "/ui/devices?q=device_type+%3D+sensor-v2",
        "device": "/ui/devices/sim-0000003",
        "enroll": "/ui/devices/enroll",
        "releases": "/ui/releases",
        "release": f"/ui/releases/{release}",
        "release-half-signed": f"/ui/releases/{draft}",
        "release-new": "/ui/releases/new",
        "groups": "/ui/groups?preview=1&query=device_type+%3D+sensor-v2",
        "group": "/ui/groups/lab",
        "trust": "/ui/trust",
        "audit": "/ui/audit",
        "settings": "/ui/settings",
        "channels": "/ui/settings/channels",
        "account": "/ui/account",
        "failed": "/ui/devices/nobody",
        "sign-in": "/ui/sign-in",
    }


@pytest.fixture(scope="module")
def signed_in(room: Showroom, pages: dict[str, str], browser: Browser) -> Page:
    """An admin's page, the same for all looks."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    return sign_in(context, room)


PAGES = (
    *("overview", "deployments", "deployment", "why", "deployment-devices", "wizard", "devices", "device"),
    *("enroll", "releases", "release", "release-half-signed", "release-new", "groups", "group", "trust"),
    *("audit", "settings", "channels", "account", "failed", "sign-in"),
)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_reads_well_in_both_themes_at_desk_and_phone(
    room: Showroom, pages: dict[str, str], signed_in: Page, name: str
) -> None:
    page, wrong = signed_in, []
    page.once("pageerror", lambda error: wrong.append(f"script: {error}"))
    if name == "sign-in":
        page.context.clear_cookies()
    page.goto(room.url + pages[name])
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        for size, pixels in SIZES.items():
            page.set_viewport_size(pixels)  # type: ignore[arg-type] # a TypedDict by its keys
            shoot(page, f"{name}-{size}-{theme}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > pixels["width"]:
                wrong.append(f"{size}: {wide} pixels wide")
            if size == "desk" or theme == "light":  # colours are the same at every width
                wrong += [f"{size}, {theme}: {found}" for found in violations(page)]
    assert not wrong, "\n".join(wrong)


def test_the_switch_outweighs_the_system(
    room: Showroom, pages: dict[str, str], visitor: Callable[..., BrowserContext]
) -> None:
    page = sign_in(visitor(theme="light"), room)
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Theme: auto; change to dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(paper) != light
    page.get_by_role("button", name="Theme: dark; change to light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert page.evaluate(paper) == light


def test_a_page_is_small_and_asks_nobody_else(
    room: Showroom, pages: dict[str, str], visitor: Callable[..., BrowserContext]
) -> None:
    page = sign_in(visitor(), room)
    asked: list[tuple[str, int]] = []
    page.on("response", lambda answer: asked.append((answer.url, len(answer.body()))))
    page.goto(room.url + pages["devices"], wait_until="networkidle")
    assert all(url.startswith(room.url) for url, _ in asked)
    assert sum(size for _, size in asked) < 60_000, asked


def test_an_operator_pauses_and_resumes_with_the_keyboard_alone(
    room: Showroom, pages: dict[str, str], visitor: Callable[..., BrowserContext]
) -> None:
    page = sign_in(visitor(), room)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the page")
    page.goto(room.url + pages["deployment"])
    reach(page, "Resume…")
    page.keyboard.press("Enter")
    reach(page, "Resume")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("100")
    page.keyboard.press("Enter")
    expect(page.get_by_text("It goes on.")).to_be_visible()
    reach(page, "Pause")
    page.keyboard.press("Enter")
    expect(page.locator("#live-waits")).to_contain_text("paused by ada")


def test_who_just_changed_something_is_never_shown_what_was_before(
    room: Showroom, pages: dict[str, str], visitor: Callable[..., BrowserContext]
) -> None:
    page = sign_in(visitor(), room, path=pages["deployment"])
    expect(page.locator("#live[data-line=open]")).to_be_visible()
    api = pages["deployment"].replace("/ui/", "/api/")
    first = """url => new Promise(done => {
        const line = new EventSource(url);
        line.onmessage = ({ data }) => { line.close(); done(JSON.parse(data).status); };
    })"""
    for verb, status in (("resume", "running"), ("pause", "paused")) * 4:
        room.post(f"{api}:{verb}", {"failure_threshold_percent": 100} if verb == "resume" else {})
        assert page.evaluate(first, room.url + pages["deployment"] + "/live") == status


def reach(page: Page, text: str) -> None:
    """Tab until this has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip() == text:
            return
    raise AssertionError(f"{text!r} is not reached by Tab")


def test_the_filter_completes_by_keyboard(
    room: Showroom, pages: dict[str, str], visitor: Callable[..., BrowserContext]
) -> None:
    page = sign_in(visitor(), room, path="/ui/devices")
    field = page.get_by_role("combobox", name="Filter")
    for typed, chosen in (("label.", "label.hw"), ("=", "="), ("rev", "rev-b")):
        field.press_sequentially(typed)
        if chosen == "=":
            field.press_sequentially(" ")
            continue
        option = page.get_by_role("option", name=chosen)
        expect(option).to_be_visible()
        field.press("ArrowDown")
        field.press("Enter")
    expect(field).to_have_value("label.hw = rev-b ")
    field.press("Escape")
    field.press("Enter")
    expect(page.locator("tbody tr").first).to_contain_text("hw=rev-b")


LATE = """
const now = window.fetch;
window.fetch = async (url, options) => {
  if (!String(url).endsWith("rev")) return now(url, options);
  await new Promise(done => { window.comes = done; });
  const answer = await now(url, options);
  setTimeout(() => { document.title = "it came"; }, 200);
  return answer;
};
"""


def test_an_answer_that_comes_late_takes_no_choice_away(
    room: Showroom, pages: dict[str, str], visitor: Callable[..., BrowserContext]
) -> None:
    context = visitor()
    context.add_init_script(LATE)
    page = sign_in(context, room, path="/ui/devices")
    field = page.get_by_role("combobox", name="Filter")
    field.press_sequentially("label.hw = re")
    expect(page.get_by_role("option", name="rev-b")).to_be_visible()
    field.press_sequentially("v")
    field.press("ArrowDown")
    wait_until(lambda: page.evaluate("!!window.comes"))
    page.evaluate("window.comes()")
    expect(page).to_have_title("it came")
    field.press("Enter")
    expect(field).to_have_value("label.hw = rev-b ")


def test_a_draft_is_made_of_what_an_image_says(
    room: Showroom, pages: dict[str, str], visitor: Callable[..., BrowserContext]
) -> None:
    page = sign_in(visitor(), room, "olga", "/ui/releases/new")
    page.get_by_label("Belongs to").fill("sensor")
    page.get_by_label("Hardware").fill("sensor-c3")
    body = esp32.image("7.1.0", size=4096, security_version=4)
    image = {"name": "firmware.bin", "mimeType": "application/octet-stream", "buffer": body}
    page.get_by_label("File").set_input_files([image])  # type: ignore[list-item] # a TypedDict by its keys
    page.get_by_role("button", name="Read the image").click()
    expect(page.get_by_role("heading", name="sensor 7.1.0")).to_be_visible()
    expect(page.get_by_role("cell", name="chip ESP32-C3")).to_be_visible()
    assert room.call("GET", f"/api/releases/{page.url.rpartition('/')[2]}")["security_version"] == 4
    # Again: that version is there already.
    page = sign_in(visitor(java_script_enabled=False), room, "olga", "/ui/releases/new")
    page.get_by_label("Belongs to").fill("sensor")
    page.get_by_label("File").set_input_files([image])  # type: ignore[list-item] # as above
    page.get_by_role("button", name="Read the image").click()
    expect(page.get_by_text("sensor has a release of that version already")).to_be_visible()


def test_without_javascript_everything_but_live_works(
    room: Showroom,
    pages: dict[str, str],
    visitor: Callable[..., BrowserContext],
    images: Callable[[str], bytes],
) -> None:
    page = sign_in(visitor(java_script_enabled=False), room, "olga", "/ui/releases/new")
    page.get_by_label("Product").fill("sensor")
    page.get_by_label("Version", exact=True).fill("2.0.0")
    page.get_by_role("button", name="Make the draft").click()
    page.get_by_label("Device type").fill("sensor-v2")
    image = {
        "name": "2.0.0.pyz",
        "mimeType": "application/zip",
        "buffer": b"firmware" + bytes(2 << 20),
    }
    page.get_by_label("Image", exact=False).set_input_files([image])  # type: ignore[list-item] # a TypedDict by its keys
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("cell", name="2.1 MB")).to_be_visible()  # more than any other request may carry
    page.goto(room.url + pages["deployment"])
    page.get_by_text("Abort…").click()
    page.get_by_label("Why").fill("for the test")
    page.get_by_role("button", name="Abort").click()
    expect(page.locator("#live-waits")).to_contain_text("for the test")
    expect(page.get_by_role("link", name="Settings")).to_have_count(0)  # olga is no admin
