"""Everything an operator does is at most three clicks from the overview: counted on the pages themselves.

A click opens a link, unfolds something, or presses a button. Filling in a form is none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest

from .conftest import Api
from .keyed import Keyed
from .test_people import cookies
from .test_sbom import bill

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CLICKS = 3


@dataclass
class Form:
    """One form: where it goes, what it holds, and its buttons with what has to be unfolded before."""

    action: str
    get: bool
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[tuple[str, int, tuple[str, str] | None]] = field(default_factory=list)


class Read(HTMLParser):
    """A page: its links, its forms, its buttons."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[Form] = []
        self._form: Form | None = None
        self._folded = 0
        self._summary = False
        self._button: dict[str, str] | None = None
        self._text = ""
        self._select = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in said:
            self.links.append(said["href"])
        elif tag == "form":
            self._form = Form(said.get("action", ""), said.get("method", "get") == "get")
            if "hidden" not in said:
                self.forms.append(self._form)
        elif tag == "details":
            self._folded += 1
        elif tag == "button":
            self._button, self._text = said, ""
        elif tag == "select":
            self._select = said.get("name", "")
        elif self._form is not None:
            self._value(tag, said)

    def _value(self, tag: str, said: dict[str, str]) -> None:
        assert self._form is not None
        if tag == "option" and self._select and (
            "selected" in said or self._select not in dict(self._form.fields)
        ):  # fmt: skip
            self._form.fields = [pair for pair in self._form.fields if pair[0] != self._select]
            self._form.fields.append((self._select, said.get("value", "")))
        if tag == "input" and "name" in said:
            switch = said.get("type") in ("radio", "checkbox")
            if not switch or "checked" in said:
                self._form.fields.append((said["name"], said.get("value", "")))

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "details":
            self._folded -= 1
        elif tag == "select":
            self._select = ""
        elif tag == "form":
            self._form = None
        elif tag == "button" and self._button is not None and self._form is not None:
            named = (self._button["name"], self._button.get("value", "")) if "name" in self._button else None
            self._form.buttons.append((" ".join(self._text.split()), self._folded, named))
            self._button = None


def walk(api: Api, headers: dict[str, str]) -> Iterator[tuple[int, str, Read]]:
    """Every page within two clicks of the overview, the nearest first: what is on it is the third click."""
    seen, waiting = {"/ui/"}, [(0, "/ui/")]
    while waiting:
        clicks, address = waiting.pop(0)
        answer = api.call("GET", address, token="", headers=headers)
        if answer.status_code != 200 or "text/html" not in answer.headers["content-type"]:
            continue
        page = Read(answer.text)
        yield clicks, address, page
        further = [urljoin(address, link) for link in page.links]
        for form in (form for form in page.forms if form.get):
            for _, folded, named in form.buttons:
                query = urlencode([*form.fields, *([named] if named else [])])
                if not folded:
                    further.append(f"{urljoin(address, form.action) or address}?{query}")
        for found in further:
            path = urlsplit(found)._replace(fragment="").geturl()
            if clicks + 1 < CLICKS and path.startswith("/ui/") and path not in seen:
                seen.add(path)
                waiting.append((clicks + 1, path))


# What an operator does: where the button is, and what it says.
TASKS = {
    "make a release": ("/ui/releases/new", "Make the draft"),
    "add an image to it": ("/ui/releases/rel_", "Upload"),
    "seal it": ("/ui/releases/rel_", "Seal it"),
    "see what a deployment comes to": ("/ui/deployments/new", "Preview"),
    "start a deployment": ("/ui/deployments/new?", "Start"),
    "pause": ("/ui/deployments/dep_", "Pause"),
    "resume": ("/ui/deployments/dep_", "Resume"),
    "open the next phase": ("/ui/deployments/dep_", "Open the next phase"),
    "retry": ("/ui/deployments/dep_", "Retry failed devices"),
    "roll back": ("/ui/deployments/dep_", "Roll back"),
    "abort": ("/ui/deployments/dep_", "Abort"),
    "enroll devices": ("/ui/devices/enroll", "Make the claim"),
    "find devices": ("/ui/devices", "Show"),
    "label a device": ("/ui/devices/a", "Set"),
    "decommission a device": ("/ui/devices/a", "Decommission"),
    "make a group": ("/ui/groups", "Make it"),
    "change a password": ("/ui/account", "Change it"),
    "make a channel": ("/ui/settings/channels", "Add"),
    "make a token": ("/ui/settings", "Make it"),
    "add a user": ("/ui/settings", "Add"),
}
# What is only looked at: a page that far away.
LOOKS = {
    "why devices failed": "/ui/deployments/dep_",
    "every device of a deployment": "/devices",
    "the time line of a device": "/ui/devices/a",
    "who changed something": "/ui/audit",
    "keys and expiries": "/ui/trust",
    "the export of devices": "/ui/devices.csv",
}


@ON_SQLITE
def test_every_task_of_an_operator_is_at_most_three_clicks_away(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    api.publish("1.1.0", image)
    for name in ("a", "b", "c", "d"):
        api.check(name, api.device(name))
    phases = [{"percent": end, "min_minutes": 0} for end in (50, 100)]
    running = api.deploy("1.1.0", all_at_once=False, phases=phases, failure_threshold_percent=100)
    api.publish("1.2.0", image)
    paused = api.deploy("1.2.0", target_devices=["d"])
    api.post(f"/api/deployments/{paused}:pause")
    api.draft("1.3.0")
    api.upload(api.get("/api/releases").json()["items"][0]["id"], image)
    assert api.get(f"/api/deployments/{running}").json()["status"] == "running"
    headers = cookies(api)
    nearest: dict[str, int] = {}
    for clicks, address, page in walk(api, headers):
        for task, (path, label) in TASKS.items():
            for text, folded, _ in (button for form in page.forms for button in form.buttons):
                if address.startswith(path) and re.match(rf"{re.escape(label)}\b", text):
                    nearest[task] = min(nearest.get(task, 99), clicks + folded + 1)
        for look, path in LOOKS.items():
            if any(path in urljoin(address, link) for link in page.links):
                nearest[look] = min(nearest.get(look, 99), clicks + 1)
    missing = {task for task in (*TASKS, *LOOKS) if nearest.get(task, 99) > CLICKS}
    assert not missing, {task: nearest.get(task) for task in missing}


@ON_SQLITE
def test_a_report_that_the_device_signed_is_marked_and_one_that_was_forged_is_told(
    api: Api, image: bytes
) -> None:
    api.hold_ceremony()
    api.publish("1.1.0", image)
    device = Keyed(api)
    device.enroll()
    made = api.deploy("1.1.0", failure_threshold_percent=100)
    assert api.check(device.name, device.token).json()["update_available"]
    forged = device.post("/api/updates/status", device.body(made, "failed"), "MEUCIQ")
    assert forged.status_code == 403
    done = device.send(device.body(made, "failed", reason="no_space"))
    assert done.status_code == 200, done.text
    shown = api.call("GET", f"/ui/devices/{device.name}", token="", headers=cookies(api)).text
    key = device.shown["certificate"]["key"]
    mark = f"signed by the device's own key {key}, and the signature was verified"
    assert mark in shown.replace("&#39;", "'")
    assert '<span class="pill p-failed">refused</span> a report' in shown


@ON_SQLITE
def test_a_releases_page_shows_its_bill_of_materials_and_escapes_it(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    release = api.draft("1.1.0")
    api.upload(release, image)
    headers = cookies(api)

    def page() -> str:
        return api.call("GET", f"/ui/releases/{release}", token="", headers=headers).text

    assert "Bill of materials" not in page()
    body: Any = bill().replace(b'"sensor"', b'"<script>sensor"')
    sent = api.call("POST", f"/api/releases/{release}/sbom", content=body)
    assert sent.status_code == 201, sent.text
    shown = page()
    assert "Bill of materials" in shown
    assert sent.json()["sbom"]["sha256"] in shown
    assert "<script>sensor" not in shown
