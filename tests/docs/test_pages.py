"""The docs are true: links lead somewhere, generated parts are what the code says now, named things exist."""

import importlib
import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *ROOT.glob("*.md"),
        *(ROOT / "bench").glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link may point to inside a page: its headings, as they are rendered."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_something_in_the_repository(page: Path) -> None:
    broken = []
    for _, target in _LINK.findall(prose(page)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        to = (page.parent / file).resolve() if file else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            broken.append(target)
    assert not broken


def test_every_page_is_reached_from_the_index() -> None:
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [
            (page.parent / target.partition("#")[0]).resolve()
            for _, target in _LINK.findall(prose(page))
            if not target.startswith(("http", "#", "mailto:"))
        ]
    assert {name(page) for page in DOCS.rglob("*.md")} <= {name(page) for page in reached}


# --- generated parts ----------------------------------------------------------------------------------


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_what_the_code_says_now() -> None:
    made = generator()
    stale = [name(page) for page in made.pages() if made.render(page.read_text()) != page.read_text()]
    assert not stale, f"python3 dev.py docs writes them anew: {stale}"


def test_every_generated_part_stands_on_a_page() -> None:
    text = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    missing = [part for part in generator().PARTS if f"<!-- begin {part} -->" not in text]
    assert not missing


# --- the tour -----------------------------------------------------------------------------------------


def named_in_tour() -> list[tuple[str, str]]:
    links = _LINK.findall((DOCS / "tour.md").read_text())
    return [(text.strip("`"), target) for text, target in links if re.fullmatch(r"`[a-z_]+(\.\w+)+`", text)]


def test_the_tour_names_the_walk() -> None:
    assert len(named_in_tour()) >= 30


@pytest.mark.parametrize(("what", "file"), named_in_tour(), ids=lambda part: part)
def test_what_the_tour_names_exists_where_it_says(what: str, file: str) -> None:
    found = resolve(f"skylift.{what}")
    assert Path(inspect.getfile(found)).resolve() == (DOCS / file).resolve()


def resolve(dotted: str) -> Any:
    """The function or class of this name."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise LookupError(dotted)


# --- commands -----------------------------------------------------------------------------------------


def commands(page: Path) -> list[list[str]]:
    """The `skylift` and `dev.py` command lines of a page's code blocks."""
    blocks = re.findall(r"^```.*?\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    begins = re.compile(r"(?:^|\(|(?<!Skylift)/)(skylift (?!\|).*|python3 dev\.py .*)")
    found = [begins.search(line) for line in lines]
    return [shlex.split(match[1].split("|")[0].rstrip("&) "), comments=True) for match in found if match]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_every_command_on_a_page_is_one_that_exists(page: Path) -> None:
    wrong = [" ".join(words) for words in commands(page) if not known(words)]
    assert not wrong


def known(words: list[str]) -> bool:
    """Whether the command and each of its options exist."""
    if words[0] == "python3":
        return words[2] in dev_commands() and (words[2] != "bench" or is_bench(words[3:4]))
    from typer.main import get_command

    from skylift.cli.app import app

    command: Any = get_command(app)
    rest = words[1:]
    while rest and hasattr(command, "commands"):
        if rest[0] not in command.commands:
            return False
        command, rest = command.commands[rest[0]], rest[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    return all(word.partition("=")[0] in options for word in rest if word.startswith("--"))


def dev_commands() -> set[str]:
    return set(re.findall(r'^    "(\w+)": \1,$', (ROOT / "dev.py").read_text(), re.MULTILINE))


def is_bench(words: list[str]) -> bool:
    return bool(words) and (ROOT / "bench" / f"{words[0].replace('-', '_')}.py").exists()


def test_the_pages_say_what_python_finds_here() -> None:
    assert sys.version_info >= (3, 11)
    assert {"demo", "test", "check", "bench", "docs"} == dev_commands()
