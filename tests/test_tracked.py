"""What may stand in a file that git has: no registry, no path of somebody's machine."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from conftest import leaning

ROOT = Path(__file__).resolve().parents[1]


@cache
def tracked() -> tuple[Path, ...]:
    """What git has, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(path for name in sorted(set(listed.split("\0"))) if name and (path := ROOT / name).is_file())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except UnicodeDecodeError:
        return []  # a picture


# Written in pieces, so that this file is not its own finding.
REGISTRIES = re.compile(
    "|".join(
        re.escape(start + end)
        for start, end in (
            ("pypi.", "org"),
            ("python", "hosted"),
            ("registry.", "npmjs"),
            ("deb.", "debian.org"),
            ("crates.", "io/api"),
            ("proxy.", "golang.org"),
        )
    )
)
MACHINE_PATHS = re.compile(
    "(?<![A-Za-z0-9_.-])/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "home/[a-z]+")) + ")/"
)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (REGISTRIES, "where packages come from is the reader's choice: a mirror, a cache, a stick"),
        (MACHINE_PATHS, "a path of one machine works on one machine"),
    ],
    ids=["registry", "path"],
)
def test_no_tracked_file_names_a_registry_or_somebodys_machine(pattern: re.Pattern[str], reason: str) -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        for number, line in enumerate(_lines(path), 1)
        if pattern.search(line)
    ]
    assert not offenders, leaning(offenders, reason)
