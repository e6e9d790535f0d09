"""requirements.lock: everything pinned and hashed, what pyproject.toml asks for, and nothing else."""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import leaning

ROOT = Path(__file__).resolve().parents[1]


@cache
def locked() -> dict[str, str]:
    """Package -> version, of requirements.lock."""
    text = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def test_everything_in_the_lock_is_pinned_and_hashed() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", re.sub(r"(?m)^\s*#.*\n", "", text))
    loose = [
        entry.splitlines()[0]
        for entry in entries
        if entry.strip() and not ("==" in entry.splitlines()[0] and "--hash=sha256:" in entry)
    ]
    assert not loose, leaning(loose, "what is installed is what was reviewed, byte by byte")
    options = [line for line in text.splitlines() if line.startswith("-")]
    assert not options, leaning(options, "the lock says what, never from where")


def _declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    every = [Requirement(text) for group in groups for text in group]
    build = [Requirement(text) for text in project["build-system"]["requires"]]
    return [requirement for requirement in every + build if requirement.name != "skylift"]


def test_the_lock_satisfies_what_pyproject_asks_for() -> None:
    wrong = [
        f"{requirement}: locked is {locked().get(canonicalize_name(requirement.name))}"
        for requirement in _declared()
        if not requirement.specifier.contains(
            locked().get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
    ]
    assert not wrong, leaning(wrong, "pyproject says what works, the lock what is installed: they must agree")


def test_the_lock_holds_what_is_needed_and_nothing_else() -> None:
    needed = set(_closure(_declared()))
    missing = sorted(needed - set(locked()))
    assert not missing, leaning(missing, "an unlocked dependency is installed unhashed, or not at all")
    idle = sorted(set(locked()) - needed - {canonicalize_name(name) for name in _elsewhere()})
    assert not idle, leaning(idle, "a package nobody asks for is only attack surface")


def _closure(asked: list[Requirement]) -> Iterator[str]:
    """Names of everything installed that these requirements reach on this machine."""
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, extra) for requirement in asked for extra in ("", *requirement.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        yield name
        try:
            further = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue  # for another platform; if it is not locked the caller finds it missing
        waiting += [
            (found, inner)
            for found in further
            if found.marker is None or found.marker.evaluate({"extra": extra})
            for inner in ("", *found.extras)
        ]


def _elsewhere() -> Iterator[str]:
    """Locked for other platforms or Python versions: asked for by a marker that is false here."""
    for name in locked():
        try:
            further = requires(name) or ()
        except PackageNotFoundError:
            yield name
            continue
        yield from (Requirement(text).name for text in further if ";" in text and "extra" not in text)
