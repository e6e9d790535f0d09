"""A real server, a real browser: one of each for every module."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from conftest import missing
from skylift.testkit.image import build
from skylift.testkit.showroom import PASSWORD, Showroom

SCREENS = Path(__file__).resolve().parents[2] / "build" / "screens"
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
PATIENCE_MS = 40_000


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Showroom]:
    """An empty server."""
    opened = Showroom(tmp_path_factory.mktemp("room"))
    opened.open()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    found = shutil.which("chromium")
    if found is None:
        missing("Chromium")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = playwright.chromium.launch(executable_path=found, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Browsers of people who do not know each other."""
    made: list[BrowserContext] = []

    def visit(size: str = "desk", theme: str = "light", **options: Any) -> BrowserContext:
        found = browser.new_context(viewport=SIZES[size], color_scheme=theme, **options)  # type: ignore[arg-type] # a TypedDict and a Literal, by name
        found.set_default_timeout(PATIENCE_MS)
        made.append(found)
        return found

    yield visit
    for one in made:
        one.close()


def sign_in(context: BrowserContext, room: Showroom, name: str = "ada", path: str = "/ui/") -> Page:
    """A page of this person's, signed in by the form."""
    page = context.new_page()
    page.goto(f"{room.url}/ui/sign-in?{urlencode({'next': path})}")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{room.url}{path}")
    return page


def shoot(page: Page, name: str) -> None:
    """A picture for people, in build/screens."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png", full_page=True)


def violations(page: Page) -> list[str]:
    """What axe finds, in a line each."""
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['help']}: {[n['target'] for n in v['nodes']][:3]}" for v in found]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """A small image of this version."""
    folder = tmp_path_factory.mktemp("images")

    def image(version: str) -> bytes:
        return build(folder / f"{version}.pyz", version, size=4096).read_bytes()

    return image
