"""The first five minutes in a browser: an empty server, and whoever reads its page gets to a first update."""

import re
from collections.abc import Callable

from playwright.sync_api import BrowserContext, Page, expect

from skylift.testkit.behaviours import Behaviour
from skylift.testkit.showroom import PASSWORD, Showroom

from .conftest import shoot, violations


def come_in(page: Page, room: Showroom) -> None:
    """The first admin, with the token of the first start."""
    page.goto(room.url)
    expect(page).to_have_url(re.compile("/ui/welcome$"))
    shoot(page, "welcome")
    page.get_by_label("Token").fill("op_wrong")
    page.get_by_label("Your name").fill("ada")
    for label in ("Password", "The same again"):
        page.get_by_label(label).fill(PASSWORD)
    page.get_by_role("button", name="Come in").click()
    expect(page.get_by_role("alert")).to_contain_text("is not a good admin's token")
    page.get_by_label("Token").fill(room.admin_token)
    for label in ("Password", "The same again"):
        page.get_by_label(label).fill(PASSWORD)
    page.get_by_role("button", name="Come in").click()
    expect(page.get_by_role("heading", name="The first five minutes")).to_be_visible()


def step(page: Page, number: int) -> str:
    return page.locator(".steps li").nth(number - 1).get_attribute("class") or ""


def test_an_empty_server_leads_to_a_first_update(
    room: Showroom, visitor: Callable[..., BrowserContext], images: Callable[[str], bytes]
) -> None:
    page = visitor().new_page()
    come_in(page, room)
    assert [step(page, n) for n in (1, 2, 3, 4)] == ["now", "later", "later", "later"]
    assert "skylift trust init" in page.locator(".steps li").first.inner_text()
    shoot(page, "first-five-minutes")
    assert not violations(page)

    room.ceremony()  # what the page told them to type
    page.reload()
    assert [step(page, n) for n in (1, 2)] == ["ok", "now"]

    page.get_by_role("link", name="Make a release").click()
    page.get_by_label("Product").fill("sensor")
    page.get_by_label("Version", exact=True).fill("1.1.0")
    page.get_by_label("Notes").fill("The <b>first</b> one")
    page.get_by_role("button", name="Make the draft").click()
    page.get_by_label("Device type").fill("sensor-v2")
    image = {"name": "1.1.0.pyz", "mimeType": "application/zip", "buffer": images("1.1.0")}
    page.get_by_label("Image", exact=False).set_input_files([image])  # type: ignore[list-item] # a TypedDict by its keys
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("cell", name="format zip")).to_be_visible()
    page.get_by_role("button", name="Seal it").click()
    expect(page.get_by_role("heading", name="Waits for 2 more signatures")).to_be_visible()
    shoot(page, "half-signed")
    room.sign(1)
    page.reload()
    expect(page.get_by_role("heading", name="Waits for 1 more signature", exact=True)).to_be_visible()
    room.sign(2)
    page.reload()
    expect(page.locator(".head .pill")).to_have_text("published")

    page.get_by_role("link", name="Overview").click()
    page.get_by_role("link", name="Enroll a device").click()
    page.get_by_label("Device type").fill("sensor-v2")
    page.get_by_role("button", name="Make the claim").click()
    expect(page.get_by_text("Shown this once")).to_be_visible()
    shoot(page, "enroll")
    follow_the_micropython_lines(page)
    page.get_by_role("link", name="Is it there?").click()
    expect(page.get_by_role("link", name="my-first")).to_be_visible()

    with room.devices(3, [Behaviour(think_s=(0.05, 0.2))]):
        page.get_by_role("link", name="Overview").click()
        page.get_by_role("link", name="Plan a deployment").click()
        expect(page.locator("[data-counted]")).to_contain_text(re.compile("^[34] devices:"))
        page.get_by_label("These devices").check()
        page.get_by_label("Their names").fill("sim-0000000, sim-0000001 sim-0000002")
        expect(page.locator("[data-counted]")).to_contain_text("3 devices:")
        page.get_by_label("Cumulative percentages").fill("40, 100")
        page.get_by_label("Soak, minutes").fill("0")
        page.get_by_role("button", name="Preview").click()
        expect(page.get_by_role("heading", name="What it comes to")).to_be_visible()
        shoot(page, "wizard")
        assert not violations(page)
        page.get_by_role("button", name="Start").click()
        expect(page.locator("#live-status .pill")).to_have_text("complete")
        expect(page.locator("#live-cards .big").first).to_have_text("3")
        shoot(page, "first-deployment")
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="The first five minutes")).to_have_count(0)


def follow_the_micropython_lines(page: Page) -> None:
    """What the page shows, run as it stands: MicroPython's `requests` is called like the one here."""
    page.get_by_text("MicroPython", exact=True).click()
    code = page.get_by_label("MicroPython code").inner_text()
    told: list[object] = []
    exec(code.replace('"TOKEN"', '"dev_0123456789abcdef"'), {"print": lambda *said: told.extend(said)})  # noqa: S102 - the lines a person would copy
    assert told[0] == 201
    assert isinstance(told[-1], dict)
    assert told[-1]["update_available"] is False
