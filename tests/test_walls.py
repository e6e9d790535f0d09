"""The walls of the house, read from the source: who may import whom, which library has which door, and why.

Each wall carries its reason and prints it when something leans over. A wall without a reason should fall;
a reason that no longer holds is a reason to take the wall down, here, in the open.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from conftest import leaning

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "skylift"


# --- what there is ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, absolute, and where. `names`: what `from` takes out of it."""

    where: str
    module: str
    names: tuple[str, ...] = ()

    @property
    def library(self) -> str:
        return self.module.partition(".")[0]

    @property
    def place(self) -> str:
        """Which place of ours it is: `store`, `wiring`; empty for other libraries."""
        return _place(self.module)


def _place(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "skylift" and len(parts) > 1 else ""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def modules(place: str) -> list[Path]:
    """The source files of a place: a package, or a single module."""
    folder = PACKAGE / place
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{place}.py"]


def places() -> list[str]:
    found = [p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    return sorted(name for name in found if name != "__init__")


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every import of a file, also those inside functions and under TYPE_CHECKING; looked for once."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    where = str(path.relative_to(ROOT))
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (Import(f"{where}:{node.lineno}", alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module, names = node.module or "", tuple(alias.name for alias in node.names)
            if module == "skylift":  # `from skylift import store` imports skylift.store
                for name in names:
                    yield Import(f"{where}:{node.lineno}", f"skylift.{name}")
            else:
                yield Import(f"{where}:{node.lineno}", module, names)


# --- who may import whom ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wall:
    """What a place may import of ours, and why no more."""

    place: str
    may: frozenset[str]
    reason: str


EVERYTHING = frozenset(
    {"core", "firmware", "trust", "store", "engine", "api", "agent", "cli", "gateway", "settings", "testkit"}
)
WALLS = (
    Wall(
        "core", frozenset(), "core decides on paper: a planner that runs a million times in a property test"
    ),
    Wall("firmware", frozenset({"core"}), "firmware is the only part that may one day be native"),
    Wall("trust", frozenset({"core"}), "trust is reviewed by other eyes, at another pace"),
    Wall("store", frozenset({"core"}), "store is two dialects, and the one place where a query may be slow"),
    Wall(
        "engine",
        frozenset({"core", "firmware", "trust", "store"}),
        "the engine acts; if it knew HTTP, two protocols would be two meanings of 'report a result'",
    ),
    Wall(
        "api",
        frozenset({"core", "engine", "store"}),
        "the API translates, calls the engine, translates back; it never makes a decision twice",
    ),
    Wall(
        "gateway", frozenset({"core"}), "the gateway may run alone, on machines where nothing else of ours is"
    ),
    Wall(
        "agent",
        frozenset({"core", "firmware", "trust"}),
        "the agent ships to devices: nothing of the server rides along, auditors count what is there",
    ),
    Wall(
        "cli",
        frozenset({"core", "firmware", "trust", "gateway"}),
        "if the CLI could reach the store or the engine it could cheat, and the API would stay incomplete",
    ),
    Wall("settings", frozenset({"core"}), "settings are read once and handed down as values"),
    Wall("wiring", EVERYTHING - {"testkit"}, "what is shipped to production does not contain its simulators"),
    Wall("__main__", frozenset({"cli"}), "`python -m skylift` is the `skylift` command and nothing else"),
    Wall("testkit", EVERYTHING, "simulators may stand anywhere; nothing imports wiring"),
)

# Four commands reach further than HTTP, each by one import inside its function.
DOORS = {
    ("cli/serve.py", "wiring"): "`skylift serve` is the server",
    ("cli/serve.py", "settings"): "and hands it its settings",
    ("cli/agent.py", "agent"): "`skylift agent run` is the device",
    ("cli/demo.py", "testkit"): "`skylift demo` plays both, with simulators",
    ("cli/simulate.py", "testkit"): "`skylift simulate` is a fleet of them",
}


def _through_a_door(found: Import) -> bool:
    file = found.where.partition(":")[0].removeprefix("src/skylift/")
    return (file, found.place) in DOORS


@pytest.mark.parametrize("wall", WALLS, ids=lambda wall: wall.place)
def test_a_place_imports_only_what_its_wall_allows(wall: Wall) -> None:
    offenders = [
        f"{found.where} imports {found.module}"
        for path in modules(wall.place)
        for found in imports(path)
        if found.place not in {"", "__version__", wall.place, *wall.may} and not _through_a_door(found)
    ]
    assert not offenders, leaning(offenders, f"{wall.place} may import {sorted(wall.may)}: {wall.reason}")


def test_every_place_has_a_wall() -> None:
    without = set(places()) - {wall.place for wall in WALLS}
    assert not without, f"no wall for {sorted(without)}: a place that nothing bounds imports everything"


def test_imports_are_absolute_so_that_walls_can_be_read() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not offenders, leaning(offenders, "a relative import hides which wall it passes")


@pytest.mark.parametrize(("file", "place"), DOORS, ids=lambda part: part)
def test_a_door_opens_only_when_its_command_runs(file: str, place: str) -> None:
    top_level = [node for node in tree(PACKAGE / file).body if isinstance(node, ast.Import | ast.ImportFrom)]
    early = [
        node.lineno
        for node in top_level
        if isinstance(node, ast.ImportFrom) and _place(node.module or "") == place
    ]
    assert not early, f"{file}:{early} imports {place} at start-up: {DOORS[file, place]}, but only when asked"


# --- one library, one door ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Door:
    """A library, the places (or modules) that may know it, and why."""

    libraries: tuple[str, ...]
    places: tuple[str, ...]
    reason: str


LIBRARY_DOORS = (
    Door(
        ("sqlalchemy", "alembic", "pg8000", "asyncpg", "sqlite3"),
        ("store",),
        "SQL lives in store: one place may be slow",
    ),
    Door(("tuf", "securesystemslib", "cryptography"), ("trust",), "what is signed is decided in one place"),
    Door(
        ("fastapi", "starlette", "uvicorn", "prometheus_client"),
        ("api", "wiring"),
        "the web framework is a detail of the HTTP edge",
    ),
    Door(
        ("paho", "amqtt"),
        ("engine/notify.py", "engine/broker.py", "agent"),
        "MQTT is a doorbell; what it says is never trusted, so few may listen",
    ),
    Door(
        ("httptools",),
        ("testkit/fuzz/server.py",),
        "the HTTP server's parser: what the door reads itself is held to it",
    ),
    Door(("uvloop",), ("wiring", "testkit/press.py"), "an event loop is chosen where a process begins"),
    Door(("typer", "rich", "click"), ("cli", "testkit"), "hands and pictures belong to people"),
    Door(
        ("httpx2",),
        ("cli", "testkit", "engine/post.py", "engine/oidc.py"),
        "people ask the server; the server itself calls nobody but whom an admin named",
    ),
    Door(("urllib3",), ("agent",), "the device's HTTP is small enough to audit"),
    Door(("obstore",), ("engine/bucket.py",), "a bucket is one place for bytes among others"),
    Door(("hdiffpatch",), ("firmware",), "a delta library must be replaceable in one place"),
    Door(
        ("zstandard", "compression"),
        ("firmware/packed.py",),
        "devices may lack it: one place knows whether it is there, and bounds what it unpacks to",
    ),
    Door(("pydantic", "pydantic_settings"), ("settings", "api"), "shapes are checked where bytes enter"),
    Door(
        ("yaml",),
        ("gateway", "testkit/behaviours.py"),
        "YAML is for people who write files; nothing else reads it",
    ),
    Door(
        ("joserfc",),
        ("gateway/signatures.py", "gateway/envoy/auth.py", "engine/oidc.py"),
        "whose signature a token has is decided on paper, and told to Envoy as keys; and at the sign-in",
    ),
    Door(("aiohttp",), ("gateway/helper",), "who asks and is asked beside Envoy is one small process"),
    Door(("redis",), ("gateway/helper/limits.py",), "counts that gateways share are kept in one place"),
    Door(("bcrypt",), ("gateway/helper/passwords.py",), "how a password is right is decided in one place"),
    Door(
        ("cyclonedx", "jsonschema_rs"),
        ("engine/bill.py",),
        "bills of materials are judged where they are taken in; nobody else carries the schemas",
    ),
    Door(("structlog",), ("engine", "api", "wiring"), "only the server writes a structured log"),
    Door(
        ("jinja2", "markupsafe"),
        ("api/dashboard/render.py", "api/dashboard/draw.py"),
        "what is escaped, and what is not, is decided in one place",
    ),
    Door(("argon2", "pyotp"), ("engine/people.py",), "how people prove who they are is decided in one place"),
    Door(("webauthn",), ("engine/passkeys.py",), "as are their passkeys"),
)


def _may_use(door: Door, file: str) -> bool:
    return any(
        file == place or file == f"{place}.py" or file.startswith(f"{place}/") for place in door.places
    )


@pytest.mark.parametrize("door", LIBRARY_DOORS, ids=lambda door: door.libraries[0])
def test_a_library_is_used_only_behind_its_door(door: Door) -> None:
    offenders = [
        f"{found.where} imports {found.module}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for found in imports(path)
        if found.library in door.libraries and not _may_use(door, str(path.relative_to(PACKAGE)))
    ]
    allowed = ", ".join(door.places)
    assert not offenders, leaning(offenders, f"{door.libraries[0]} only in {allowed}: {door.reason}")


def test_every_third_party_library_has_a_door() -> None:
    known = {library for door in LIBRARY_DOORS for library in door.libraries}
    strangers = {
        f"{found.where} imports {found.library}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for found in imports(path)
        if found.library not in {*sys.stdlib_module_names, *known, "skylift"}
    }
    assert not strangers, leaning(
        sorted(strangers), "dependencies are few and have one door each: name it here"
    )


# --- core is paper ------------------------------------------------------------------------------------

ON_PAPER = frozenset(
    {"bisect", "collections", "dataclasses", "datetime", "decimal", "enum", "fnmatch", "fractions"}
    | {"functools", "hashlib", "itertools", "math", "operator", "random", "re", "types", "typing"}
)
CLOCKS = frozenset({"now", "utcnow", "today", "monotonic", "perf_counter"})


def test_core_is_stdlib_only_without_clock_io_or_async() -> None:
    offenders = [finding for path in modules("core") for finding in _not_paper(path)]
    assert not offenders, leaning(
        offenders, "core takes time and bytes as arguments: what it decides can be replayed at any desk"
    )


def _not_paper(path: Path) -> Iterator[str]:
    where = path.relative_to(ROOT)
    for found in imports(path):
        if found.library not in {*ON_PAPER, "skylift"}:
            yield f"{found.where} imports {found.module}"
        if found.library == "random" and found.names != ("Random",):
            yield f"{found.where} draws from a generator that nobody seeded"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Random" and not node.args:
            yield f"{where}:{node.lineno} makes a Random without a seed"
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{where}:{node.lineno} is async"
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
                yield f"{where}:{node.lineno} looks at a clock"
            if isinstance(node.func, ast.Name) and node.func.id in ("open", "print", "input"):
                yield f"{where}:{node.lineno} does I/O"


def test_the_agents_machine_is_a_table_and_nothing_else() -> None:
    allowed = {"dataclasses", "enum", "skylift.agent.boot", "skylift.agent.journal"}
    offenders = [
        f"{found.where} imports {found.module}"
        for found in imports(PACKAGE / "agent" / "machine.py")
        if found.module not in allowed
    ]
    assert not offenders, leaning(offenders, "the same two files give the same step after any power cut")


# --- the API reads, the engine writes -----------------------------------------------------------------

WRITES = frozenset({"insert", "update", "delete"})


@cache
def _store_writers() -> frozenset[tuple[str, str]]:
    """(module, function) of store functions that change rows, themselves or through another of store's."""
    functions = {
        (path.stem, node.name): (path, node)
        for path in modules("store")
        if "migrations" not in path.parts
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef)
    }
    writers = {key for key, (path, node) in functions.items() if _changes_rows(path, node)}
    uses = {key: set(_uses(node, _store_names(path))) for key, (path, node) in functions.items()}
    while True:
        more = {key for key, used in uses.items() if key not in writers and writers & used}
        if not more:
            return frozenset(writers)
        writers |= more


def _changes_rows(path: Path, function: ast.FunctionDef) -> bool:
    """Whether it says `sa.insert`, `devices.update()` and the like."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in WRITES
        and isinstance(node.value, ast.Name)
        and node.value.id in _statement_makers(path)
        for node in ast.walk(function)
    )


@cache
def _statement_makers(path: Path) -> frozenset[str]:
    """Names that this file can make a statement of."""
    tables = {
        alias.asname or alias.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == "skylift.store.tables"
        for alias in node.names
    }
    return frozenset(tables | {"sa", "postgresql", "sqlite"})


@cache
def _store_names(path: Path) -> dict[str, tuple[str, str]]:
    """Local name -> (store module, function or "" for the module itself), for a file of any place."""
    found: dict[str, tuple[str, str]] = {}
    if path.parent == PACKAGE / "store":
        found = {n.name: (path.stem, n.name) for n in tree(path).body if isinstance(n, ast.FunctionDef)}
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("skylift.store"):
            continue
        _, _, module = (node.module or "").removeprefix("skylift.").partition(".")
        for alias in node.names:
            local = alias.asname or alias.name
            found[local] = (module, alias.name) if module else (alias.name, "")
    return found


def _uses(node: ast.AST, names: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The store functions this code names."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in names and names[part.id][1]:
            yield names[part.id]
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            module, function = names.get(part.value.id, ("", ""))
            if module and not function:
                yield module, part.attr


def test_the_store_has_functions_that_write_so_that_the_next_wall_means_something() -> None:
    assert {("devices", "insert"), ("groups", "delete"), ("updates", "insert")} <= _store_writers()


def test_the_api_only_reads_from_the_store() -> None:
    offenders = [
        f"{path.relative_to(ROOT)} uses store.{module}.{function}"
        for path in modules("api")
        for module, function in sorted(set(_uses(tree(path), _store_names(path))) & _store_writers())
    ]
    assert not offenders, leaning(
        offenders, "every write goes through the engine: five protocols share one meaning of each deed"
    )


# --- what is loaded when it runs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "never", "reason"),
    [
        (
            "import skylift.agent.__main__",
            {"sqlalchemy", "fastapi", "starlette", "uvicorn", "typer", "rich", "pydantic", "amqtt"},
            "the agent runs where only its own libraries are installed",
        ),
        (
            "import skylift.cli.app",
            {"sqlalchemy", "fastapi", "starlette", "uvicorn", "pydantic", "amqtt", "tuf", "hdiffpatch"},
            "`skylift --help` answers at once, and the CLI installs without the server",
        ),
        (
            "import skylift.core.planner, skylift.core.audit, skylift.core.rollout, skylift.core.query",
            {"sqlalchemy", "httpx2", "asyncio", "socket", "logging"},
            "core is paper",
        ),
        (
            "import skylift.trust.ceremony, skylift.trust.verify, skylift.trust.keyring, tuf.ngclient",
            {"boto3", "botocore", "pkcs11", "google", "azure", "hvac"},
            "libraries of key services are loaded when a key of theirs is used",
        ),
    ],
    ids=["agent", "cli", "core", "trust"],
)
def test_what_runs_loads_nothing_it_does_not_need(code: str, never: set[str], reason: str) -> None:
    asked = f"{code}; import sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    ).stdout.split()
    tops = {name.partition(".")[0] for name in loaded}
    assert not tops & never, f"{code} loads {sorted(tops & never)}: {reason}"
