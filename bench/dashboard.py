"""The dashboard: is its first paint there in half a second, are its pages small, what do 300 viewers of a
live deployment cost, and how long does the devices page take at a million devices?

A real `skylift serve`, Debian's Chromium over loopback, simulated devices at work. Viewers are sockets that
read the live stream as browsers do; what they cost is the server's CPU with them less its CPU without them,
in turns, over the same deployment. The devices page is timed for every filter that an index answers, and for
one that none does: that one must say so. A figure that was not measured is absent.

    python3 dev.py bench dashboard [--json] [--devices N] [--pictures DIR]

`--pictures` writes the pictures of the README.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import httpx2
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from skylift.api.dashboard.live import LINGER_S
from skylift.store import devices
from skylift.store.db import Database, migrate
from skylift.testkit.behaviours import Behaviour
from skylift.testkit.image import build
from skylift.testkit.server import wait
from skylift.testkit.showroom import PASSWORD, Showroom

MILLION = 1_000_000
VIEWERS = 300
ROUNDS, ROUND_S = 3, 6.0
LIVE = 400  # devices of the watched deployment
LOOKS = 5  # of each page
BATCH = 20_000
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
CHROMIUM = "/usr/bin/chromium"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PHASES = ((45.0, "early"), (100.0, "everyone"))
# Always something under way: a word every dozen seconds from each device, some of them bad.
BUSY = (
    Behaviour("well", 96, think_s=(6.0, 20.0)),
    Behaviour(
        "rev-b", 4, think_s=(6.0, 20.0), labels={"hw": "rev-b"}, ends={"failed": 50, "rolled_back": 50}
    ),
)
FILTERS = {  # found by an index; by version: in one pass over the devices
    "none": "",
    "device_type": "device_type = gauge-9",
    "current_version": "current_version = 1.3.0",
    "a version nobody runs": "current_version = 0.0.9",
    "type and version": "device_type = gauge-9 and current_version = 1.3.0",
    "beginning of the name": 'device_id ~ "million-0099*"',
    "name": "device_id = million-0543210",
    "type and a common label": "device_type = gauge-9 and label.region = eu",
}
BROAD = "label.serial = s-777777"


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


# --- the fleet -----------------------------------------------------------------------------------------


def fill(url: str, count: int) -> None:
    """So many devices, brought over whole, with last contacts."""
    migrate(url)
    database, now = Database(url), datetime.now(UTC)
    for begin in range(0, count, BATCH):
        rows = [
            (
                f"million-{n:07}",
                f"gauge-{n % 10}",
                f"{n:064x}",
                f"1.{n % 7}.0",
                {"region": ("eu", "us", "ap")[n % 3], "serial": f"s-{n}"},
            )
            for n in range(begin, min(begin + BATCH, count))
        ]
        database.write(lambda conn, rows=rows: devices.insert_many(conn, rows, now))  # type: ignore[misc] # a lambda's default has no type
        pks = range(begin + 1, begin + len(rows) + 1)
        database.write(lambda conn, pks=pks: devices.touch(conn, dict.fromkeys(pks, now)))  # type: ignore[misc] # the same
    database.close()


# --- in the browser ------------------------------------------------------------------------------------


def sign_in(page: Page, url: str) -> None:
    page.goto(f"{url}/ui/sign-in")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{url}/ui/")


def look(browser: Browser, url: str, pages: dict[str, str]) -> dict[str, Any]:
    """First paints, sizes and what axe finds, in both themes; a fresh cache for each page."""
    paints: dict[str, float] = {}
    sizes: dict[str, float] = {}
    violations = 0
    for name, path in pages.items():
        context = browser.new_context(viewport=DESK)  # type: ignore[arg-type] # a TypedDict by its keys
        page = context.new_page()
        sign_in(page, url)
        taken = []
        for _ in range(LOOKS):
            page.goto(url + path)
            taken.append(float(wait(partial(page.evaluate, PAINT), "the first paint")))
        paints[name] = median(taken)
        sizes[name] = _weigh(page, url + path)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            found = Axe().run(page).response["violations"]
            violations += len(found)
            for one in found:
                say(f"  {name}, {theme}: {one['id']}: {one['help']}")
        context.close()
    return {
        "fcp_ms": round(max(paints.values()), 1),
        "page_kb": round(max(sizes.values()) / 1000, 1),
        "axe_violations": violations,
        "fcp_ms_by_page": {name: round(ms, 1) for name, ms in paints.items()},
        "page_kb_by_page": {name: round(size / 1000, 1) for name, size in sizes.items()},
    }


def _weigh(page: Page, url: str) -> float:
    """Bytes of the page with everything it asks for, nothing cached, nothing compressed."""
    fresh = page.context.new_page()
    fresh.route("**/live", lambda route: route.abort())  # the stream never ends
    sizes: list[int] = []
    fresh.on("response", lambda answer: sizes.append(len(answer.body())))
    session = page.context.new_cdp_session(fresh)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    fresh.goto(url, wait_until="networkidle")
    fresh.close()
    return float(sum(sizes))


# --- 300 viewers ---------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """CPU seconds of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def watch(
    url: str, cookie: str, deployment: str, count: int, pid: int, seconds: float
) -> tuple[float, int]:
    """The server's CPU while so many viewers watch, and the frames they were sent."""
    host, port = url.removeprefix("http://").split(":")
    frames = 0

    async def viewer() -> None:
        nonlocal frames
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"GET /ui/deployments/{deployment}/live HTTP/1.1",
            f"Host: {host}:{port}",
            f"Cookie: {cookie}",
        )
        writer.write("\r\n".join((*head, "", "")).encode())
        try:
            while data := await reader.read(1 << 16):
                frames += data.count(b"\ndata: ")
        finally:
            writer.close()

    watching = [asyncio.create_task(viewer()) for _ in range(count)]
    # They are connected, and have their first frame; or what was drawn for those before is drawn no more.
    await asyncio.sleep(1.5 if count else LINGER_S + 1.5)
    frames, before = 0, cpu_s(pid)
    await asyncio.sleep(seconds)
    used, told = cpu_s(pid) - before, frames
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return used, told


def viewers(room: Showroom, client: httpx2.Client, deployment: str) -> dict[str, Any]:
    pid = int(room.server.facts["pid"])
    cookie = "; ".join(f"{one.name}={one.value}" for one in client.cookies.jar)
    with_, without, frames = [], [], 0
    for _ in range(ROUNDS):
        alone, _told = asyncio.run(watch(room.url, cookie, deployment, 0, pid, ROUND_S))
        crowd, told = asyncio.run(watch(room.url, cookie, deployment, VIEWERS, pid, ROUND_S))
        without.append(alone)
        with_.append(crowd)
        frames += told
        say(f"  alone {100 * alone / ROUND_S:.1f} %, watched {100 * crowd / ROUND_S:.1f} %, {told} frames")
    cost = median(a - b for a, b in zip(with_, without, strict=True))
    return {
        "viewers_300_core_percent": round(100 * cost / ROUND_S, 1),
        "viewers_frames_per_s": round(frames / VIEWERS / ROUNDS / ROUND_S, 2),
        "server_core_percent_alone": round(100 * median(without) / ROUND_S, 1),
    }


# --- the devices page ----------------------------------------------------------------------------------


def devices_page(client: httpx2.Client, count: int) -> dict[str, Any]:
    taken: dict[str, float] = {}
    for name, text in {**FILTERS, "too broad": BROAD}.items():
        path = f"/ui/devices?{urlencode({'q': text})}"
        assert client.get(path).status_code == 200
        times = []
        for _ in range(LOOKS):
            begun = time.perf_counter()
            body = client.get(path).text
            times.append((time.perf_counter() - begun) * 1000)
        taken[name] = round(median(times), 1)
        if ("Too broad" in body) != (name == "too broad"):
            raise SystemExit(f"{name}: the page says {'too broad' if 'Too broad' in body else 'nothing'}")
        say(f"  {name}: {taken[name]} ms")
    found: dict[str, Any] = {"devices": count, "devices_page_ms_by_filter": taken}
    if count == MILLION:
        found["devices_page_ms_1m"] = max(ms for name, ms in taken.items() if name != "too broad")
    return found


# --- pictures ------------------------------------------------------------------------------------------


def pictures(browser: Browser, url: str, pages: dict[str, str], folder: Path) -> None:
    """What the README shows."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (("deployment", "light", DESK), ("overview", "dark", DESK), ("deployment", "dark", PHONE))
    for name, theme, size in wanted:
        context = browser.new_context(viewport=size, color_scheme=theme)  # type: ignore[arg-type] # by their keys
        page = context.new_page()
        sign_in(page, url)
        page.goto(url + pages[name])
        page.wait_for_timeout(1500)
        kind = "phone" if size is PHONE else "desk"
        page.screenshot(path=folder / f"dashboard-{name}-{kind}-{theme}.png")
        context.close()


# --- the run -------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="said for symmetry: JSON is always the last line")
    parser.add_argument("--devices", type=int, default=MILLION, help="a million unless given")
    parser.add_argument("--pictures", type=Path, help="write the README's pictures into this folder")
    given = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skylift-dashboard-")))
        room = Showroom(home, {"SKYLIFT_ADMIN_TOKEN": ""})
        (home / "data").mkdir(parents=True)
        say(f"{given.devices:,} devices are brought over")
        fill(f"sqlite:///{home / 'data' / 'skylift.db'}", given.devices)
        room.open()
        stack.callback(room.close)
        print(json.dumps(measure(room, stack, given.devices, given.pictures)))
    return 0


def measure(room: Showroom, stack: ExitStack, count: int, folder: Path | None) -> dict[str, Any]:
    room.people()
    room.ceremony()
    for version in ("1.0.0", "1.1.0"):
        room.publish(version, build(room.home / f"{version}.pyz", version, size=4096).read_bytes())
    client = stack.enter_context(httpx2.Client(base_url=room.url, timeout=60, follow_redirects=True))
    client.post("/ui/sign-in", data={"name": "ada", "password": PASSWORD, "code": ""})
    say("the devices page")
    found = devices_page(client, count)
    stack.enter_context(room.devices(LIVE, BUSY))
    phases = [{"percent": end, "min_minutes": 0, "wait_minutes": 60, "name": name} for end, name in PHASES]
    deployment = room.deploy("1.1.0", phases=phases, failure_threshold_percent=20)
    wait(lambda: room.deployment(deployment)["totals"]["downloading"], "the deployment is under way")
    say(f"{VIEWERS} viewers")
    found |= viewers(room, client, deployment)
    pages = {
        "overview": "/ui/",
        "deployment": f"/ui/deployments/{deployment}",
        "deployments": "/ui/deployments",
        "devices": "/ui/devices",
        "device": "/ui/devices/sim-0000001",
        "releases": "/ui/releases",
        "groups": "/ui/groups",
        "trust": "/ui/trust",
        "audit": "/ui/audit",
        "settings": "/ui/settings",
        "account": "/ui/account",
        "wizard": "/ui/deployments/new",
        "enroll": "/ui/devices/enroll",
    }
    say("in the browser")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        if folder is not None:
            pictures(browser, room.url, pages, folder)
        found |= look(browser, room.url, pages)
        browser.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
