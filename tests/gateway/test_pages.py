"""The gateway's pages are true: their commands print what they show, their files are read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skylift.gateway.decision import World
from skylift.gateway.lint import lint
from skylift.gateway.loading import load, loads
from skylift.gateway.read import read, read_documents
from skylift.gateway.trial import read_cases, run

ROOT = Path(__file__).resolve().parents[2]
SEED = ROOT / "tests" / "gateway" / "seed"
PAGES = sorted((ROOT / "docs" / "gateway").glob("*.md"))
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, name: str = "") -> list[str]:
    return [
        body
        for page in PAGES
        for lang, word, body in BLOCK.findall(page.read_text())
        if (lang, word) == (language, name)
    ]


def shows(printed: str, line: str) -> bool:
    """Whether a line of the page was printed; `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in line.strip().split("..."))
    return re.search(f"^ *{pattern}$", printed, re.MULTILINE) is not None


@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: block.split()[3])
def test_a_command_prints_what_its_page_shows(block: str) -> None:
    command, *expected = block.strip("\n").splitlines()
    assert command.startswith("$ ")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command[2:]],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 3), done.stderr
    assert [line for line in expected if not shows(done.stdout, line)] == []


def test_the_native_example_is_read_and_nothing_is_wrong_with_it() -> None:
    (example,) = blocks("yaml", "native")
    assert {finding.severity for finding in lint(read_documents(loads(example)))} <= {"warning", "note"}


def test_the_table_of_requests_passes() -> None:
    (table,) = blocks("yaml", "tests")
    gateway = read([SEED / "kong-routes.yaml", SEED / "kong-rate-limiting.yaml"])
    results = list(run(gateway, read_cases(loads(table)), World(now=1_795_867_230.0)))
    assert [result.failures for result in results] == [()] * 3


def test_the_inventory_is_one() -> None:
    (inventory,) = blocks("yaml", "inventory")
    made = read_documents([*load([SEED / "kong-routes.yaml"]), *loads(inventory, "inventory.yaml")])
    assert made.endpoints("user-service", 8080) == (("10.0.0.7", 9000), ("10.0.0.8", 9000))
