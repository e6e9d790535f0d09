"""What strangers, thieves, broken lines and colleagues do to the dashboard, and what does not come of it."""

import csv
import io
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise

import httpx2
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from conftest import wait_until
from skylift.store import devices
from skylift.store.db import Database
from skylift.testkit.showroom import DEVICE_TYPE, PASSWORD, Showroom

from .conftest import shoot, sign_in

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
FORMULA = '=HYPERLINK("http://evil.example","x")'


@pytest.fixture(scope="module", autouse=True)
def deployment(room: Showroom, images: Callable[[str], bytes]) -> str:
    """A release with a script in its notes, devices with scripts in what they say, a deployment under way."""
    room.people()
    room.ceremony()
    room.publish("1.1.0", images("1.1.0"), notes=SCRIPT)
    for number, label in enumerate((SCRIPT[:150], FORMULA, "@SUM(1)", "plain")):
        token = f"dev_{number}-0123456789abcdef"
        body = {"device_id": f"odd-{number}", "device_type": DEVICE_TYPE, "token": token}
        room.post("/api/devices", body | {"labels": {"said": label}})
        ask(room, number)
    room.call("PATCH", "/api/devices/odd-3", json={"labels": {"note": SCRIPT[:100]}})  # into the audit trail
    made = room.deploy("1.1.0", phases=[{"percent": 100}], failure_threshold_percent=100)
    wait_until(lambda: ask(room, 0)["update_available"], what="the first offer")
    told = {"device_id": "odd-0", "deployment": made, "state": "failed", "error_message": SCRIPT}
    answer = httpx2.post(f"{room.url}/api/updates/status", json=told, headers=bearer(0), timeout=60)
    assert answer.status_code == 200
    return made


def bearer(number: int) -> dict[str, str]:
    return {"Authorization": f"Bearer dev_{number}-0123456789abcdef"}


def ask(room: Showroom, number: int) -> dict[str, object]:
    asked = {"device_id": f"odd-{number}", "device_type": DEVICE_TYPE, "current_version": "1.0.0"}
    found: dict[str, object] = httpx2.get(
        f"{room.url}/api/updates/check", params=asked, headers=bearer(number), timeout=60
    ).json()
    return found


@pytest.mark.parametrize("what", ["release", "deployment", "device", "devices", "audit", "filter"])
def test_a_script_in_a_name_a_note_or_a_message_is_text(
    room: Showroom, deployment: str, visitor: Callable[..., BrowserContext], what: str
) -> None:
    page = sign_in(visitor(), room)
    release = room.deployment(deployment)["release"]
    path = {
        "release": f"/releases/{release}",
        "deployment": f"/deployments/{deployment}",
        "device": "/devices/odd-0",
        "devices": "/devices",
        "audit": "/audit",
        "filter": "/devices?q=%3Cscript%3Ealert(1)%3C/script%3E&after=%22%3E%3Cscript%3E",
    }[what]
    page.goto(f"{room.url}/ui{path}")
    page.wait_for_timeout(100)
    assert page.title() != "owned"
    if what != "filter":
        assert "<script>document.title" in page.inner_text("body")
    else:
        expect(page.get_by_role("alert")).to_contain_text("cannot read '/script>'")
    assert page.locator("body script, img").count() == 0


def test_no_page_allows_a_script_or_a_style_of_its_own(room: Showroom) -> None:
    answer = httpx2.get(f"{room.url}/ui/sign-in", timeout=60)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|<script(?! src=)|\sstyle=|\son\w+=", answer.text)


def test_no_cell_of_an_export_is_a_formula(room: Showroom, visitor: Callable[..., BrowserContext]) -> None:
    context = visitor()
    sign_in(context, room)
    text = context.request.get(f"{room.url}/ui/devices.csv").text()
    rows = {row["device_id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert set(rows) == {"odd-0", "odd-1", "odd-2", "odd-3"}
    room.post("/api/tokens", {"name": "x", "role": "viewer"})
    trail = context.request.get(f"{room.url}/ui/audit/csv").text()
    for cell in (cell for body in (text, trail) for row in csv.reader(io.StringIO(body)) for cell in row):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell


# --- sessions ----------------------------------------------------------------------------------------


def cookie(context: BrowserContext) -> str:
    return next(str(one.get("value")) for one in context.cookies() if one.get("name") == "skylift_session")


def test_a_planted_session_is_not_the_one_that_is_signed_in(
    room: Showroom, visitor: Callable[..., BrowserContext]
) -> None:
    attacker = visitor()
    sign_in(attacker, room, "vera")
    planted = cookie(attacker)
    victim = visitor()
    fixed = {"name": "skylift_session", "value": planted, "domain": "127.0.0.1", "path": "/ui"}
    victim.add_cookies([{**fixed, "value": "chosen-by-somebody-else"}])  # type: ignore[list-item] # a TypedDict by its keys
    sign_in(victim, room)
    assert cookie(victim) != "chosen-by-somebody-else"
    victim.clear_cookies()
    victim.add_cookies([fixed])  # type: ignore[list-item] # the same
    page = victim.new_page()
    page.goto(f"{room.url}/ui/")
    page.get_by_role("button", name="Sign out").click()
    sign_in(victim, room)
    attacker.new_page()
    answer = attacker.request.get(f"{room.url}/ui/audit", max_redirects=0)
    assert answer.status == 303  # what was planted is worth nothing to whoever planted it


def test_a_stolen_session_ends_with_its_owner_and_no_script_could_steal_it(
    room: Showroom, visitor: Callable[..., BrowserContext]
) -> None:
    owner = visitor()
    page = sign_in(owner, room, "olga")
    assert page.evaluate("document.cookie") == ""
    stolen = cookie(owner)
    thief = visitor()
    thief.add_cookies([{"name": "skylift_session", "value": stolen, "url": f"{room.url}/ui/"}])
    assert thief.request.get(f"{room.url}/ui/", max_redirects=0).status == 200
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    assert thief.request.get(f"{room.url}/ui/", max_redirects=0).status == 303


def test_a_form_from_elsewhere_changes_nothing(
    room: Showroom, deployment: str, visitor: Callable[..., BrowserContext]
) -> None:
    context = visitor()
    page = sign_in(context, room)
    url = f"{room.url}/ui/deployments/{deployment}/abort"
    token = page.locator("body").get_attribute("data-csrf") or ""
    for headers, form in (
        ({"Origin": "http://evil.example"}, {"csrf": token}),
        ({"Sec-Fetch-Site": "cross-site"}, {"csrf": token}),
        ({}, {}),
        ({}, {"csrf": "0" * 64}),
    ):
        assert context.request.post(url, form=form, headers=headers).status == 403
    assert room.deployment(deployment)["status"] == "running"


def test_a_session_that_ends_in_the_middle_of_the_wizard_loses_nothing(
    room: Showroom, visitor: Callable[..., BrowserContext]
) -> None:
    context = visitor()
    page = sign_in(context, room, path="/ui/deployments/new")
    page.get_by_label("Cumulative percentages").fill("7, 77, 100")
    page.get_by_label("It stops above this failure rate, percent").fill("42")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", name="What it comes to")).to_be_visible()
    before = len(room.call("GET", "/api/deployments")["items"])
    context.clear_cookies()
    context.add_cookies([{"name": "skylift_session", "value": "expired", "url": f"{room.url}/ui/"}])
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Your session has ended. Nothing was changed")).to_be_visible()
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="What it comes to")).to_be_visible()
    expect(page.get_by_label("Cumulative percentages")).to_have_value("7, 77, 100")
    expect(page.get_by_label("It stops above this failure rate, percent")).to_have_value("42")
    assert len(room.call("GET", "/api/deployments")["items"]) == before


def test_the_way_back_from_the_sign_in_never_leads_elsewhere(room: Showroom) -> None:
    for elsewhere in (
        "https://evil.example/",
        "//evil.example",
        "/ui/\\evil.example",
        "/uix",
        "javascript:x",
    ):
        form = {"name": "ada", "password": PASSWORD, "code": "", "next": elsewhere}
        answer = httpx2.post(f"{room.url}/ui/sign-in", data=form, timeout=60)
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/")


@pytest.mark.parametrize("name", ["vera", "olga"])
def test_a_page_is_only_for_who_may_see_it(
    room: Showroom, deployment: str, visitor: Callable[..., BrowserContext], name: str
) -> None:
    context = visitor()
    page = sign_in(context, room, name)
    token = page.locator("body").get_attribute("data-csrf") or ""
    forbidden = {"/ui/settings": "GET"}
    if name == "vera":
        forbidden |= {"/ui/deployments/new": "GET", f"/ui/deployments/{deployment}/pause": "POST"}
    for path, method in forbidden.items():
        answer = context.request.fetch(room.url + path, method=method, form={"csrf": token})
        assert (path, answer.status) == (path, 403)
    if name == "vera":
        page.goto(f"{room.url}/ui/deployments/{deployment}")
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)


# --- colleagues --------------------------------------------------------------------------------------


def test_two_operators_who_pause_and_resume_at_once_each_get_an_answer_and_one_state(
    room: Showroom, deployment: str, visitor: Callable[..., BrowserContext]
) -> None:
    clients = []
    for name in ("ada", "olga"):
        context = visitor()
        page = sign_in(context, room, name)
        token = page.locator("body").get_attribute("data-csrf") or ""
        clients.append((cookie(context), token))

    def press(turn: int) -> int:
        session, token = clients[turn % 2]
        verb = ("pause", "resume")[turn % 2]
        return httpx2.post(
            f"{room.url}/ui/deployments/{deployment}/{verb}",
            data={"csrf": token},
            headers={"Cookie": f"skylift_session={session}"},
            timeout=60,
        ).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(press, range(24)))
    assert set(answers) <= {303, 409}
    found = room.deployment(deployment)
    trail = room.call("GET", "/api/audit", params={"subject": deployment, "limit": "500"})["items"]
    verbs = [row for row in reversed(trail) if row["action"] in ("deployment.pause", "deployment.resume")]
    assert (
        found["status"] == {"deployment.pause": "paused", "deployment.resume": "running"}[verbs[-1]["action"]]
    )
    for earlier, later in pairwise(verbs):  # the trail tells one story, without a gap
        assert later["before"]["status"] == earlier["after"]["status"]
    press(1)


# --- broken lines ------------------------------------------------------------------------------------


def test_an_upload_that_is_cut_at_90_percent_goes_on_from_there(
    room: Showroom, visitor: Callable[..., BrowserContext], images: Callable[[str], bytes]
) -> None:
    release = room.post("/api/releases", {"product": "sensor", "version": "3.0.0"})["id"]
    context = visitor()
    page = sign_in(context, room, "olga", f"/ui/releases/{release}")
    body = b"firmware" + bytes(5 << 20)
    sent: list[int] = []
    page.on(
        "request",
        lambda one: sent.append(int(one.url.partition("offset=")[2])) if "offset=" in one.url else None,
    )
    cut = page.context.route
    cut(re.compile(r"/ui/uploads/\w+\?offset=4718592"), lambda route: route.abort())  # 90 %
    upload(page, body)
    expect(page.locator("[data-said]")).to_contain_text("the line broke")
    page.close()
    context.unroute(re.compile(r"/ui/uploads/\w+\?offset=4718592"))
    page = context.new_page()
    page.on(
        "request",
        lambda one: sent.append(int(one.url.partition("offset=")[2])) if "offset=" in one.url else None,
    )
    page.goto(f"{room.url}/ui/releases/{release}")
    before = len(sent)
    upload(page, body)
    expect(page.get_by_role("cell", name="5.2 MB")).to_be_visible()
    assert sent[before:][0] == 4718592
    assert room.call("GET", f"/api/releases/{release}")["artifacts"][0]["size"] == len(body)


def upload(page: Page, body: bytes) -> None:
    page.get_by_label("Device type").fill("sensor-v2")
    image = {"name": "3.0.0.pyz", "mimeType": "application/zip", "buffer": body}
    page.get_by_label("Image", exact=False).set_input_files([image])  # type: ignore[list-item] # a TypedDict by its keys
    page.get_by_role("button", name="Upload").click()


def test_an_image_that_is_not_whole_is_refused_with_its_reason(
    room: Showroom, visitor: Callable[..., BrowserContext], images: Callable[[str], bytes]
) -> None:
    release = room.post("/api/releases", {"product": "sensor", "version": "3.1.0"})["id"]
    page = sign_in(visitor(), room, "olga", f"/ui/releases/{release}")
    upload(page, images("3.1.0")[:3000])
    expect(page.locator("[data-said]")).to_contain_text("corrupt image")
    assert not room.call("GET", f"/api/releases/{release}")["artifacts"]


def test_a_browser_that_was_away_catches_up(
    room: Showroom, deployment: str, visitor: Callable[..., BrowserContext]
) -> None:
    context = visitor()
    page = sign_in(context, room, path=f"/ui/deployments/{deployment}")
    expect(page.locator("#live")).to_have_attribute("data-line", "open")
    state = page.locator("#live-status .pill")
    expect(state).to_have_text("running")
    context.set_offline(True)
    room.post(f"/api/deployments/{deployment}:pause", {"reason": "while you slept"})
    wait_until(lambda: room.deployment(deployment)["status"] == "paused")
    page.wait_for_timeout(700)
    context.set_offline(False)
    expect(state).to_have_text("paused")
    expect(page.locator("#live-waits")).to_contain_text("while you slept")
    expect(page.get_by_text("Resume…")).to_be_visible()
    room.post(f"/api/deployments/{deployment}:resume", {})
    expect(state).to_have_text("running")


def test_a_live_page_says_when_its_session_is_over(
    room: Showroom, deployment: str, visitor: Callable[..., BrowserContext]
) -> None:
    context = visitor()
    page = sign_in(context, room, "vera", f"/ui/deployments/{deployment}")
    expect(page.locator("#live")).to_have_attribute("data-line", "open")
    room.call("PATCH", "/api/users/vera", json={"password": PASSWORD})  # ends every session of hers
    room.server.kill()
    room.server.start()  # the line breaks, and is made anew
    expect(page.get_by_text("Your session has ended: this page stands still.")).to_be_visible()
    shoot(page, "signed-out")


def test_a_deployment_to_more_than_a_thousand_devices_is_confirmed_by_name(
    room: Showroom, visitor: Callable[..., BrowserContext]
) -> None:
    many = [(f"many-{n:04}", DEVICE_TYPE, f"{n:064x}", "1.0.0", {}) for n in range(1001)]
    database = Database(f"sqlite:///{room.home / 'data' / 'skylift.db'}")
    database.write(lambda conn: devices.insert_many(conn, many, datetime.now(UTC)))
    database.close()
    page = sign_in(visitor(), room, path="/ui/deployments/new?preview=1&phases=1,100")
    page.get_by_label("to confirm").fill("1.0.0")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("type 1.1.0 to send it to 1,0")
    page.goto(f"{room.url}/ui/deployments/new?preview=1&phases=1,100")
    page.get_by_label("to confirm").fill("1.1.0")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Created.")).to_be_visible()
