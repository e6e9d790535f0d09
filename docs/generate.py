"""Writes the parts of the docs that are the code: `python docs/generate.py [--check]`.

A page says `<!-- begin NAME -->` and `<!-- end NAME -->`; what stands between them is made here from the
tables, the command line, the routes and the settings themselves. `tests/docs` fails where a page is stale.
"""

import ast
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

DOCS = Path(__file__).resolve().parent
_PART = re.compile(r"(<!-- begin ([a-z-]+) -->\n)(.*?)(<!-- end \2 -->)", re.DOTALL)


# --- lifecycle ----------------------------------------------------------------------------------------


def update_diagram() -> Iterator[str]:
    """The moves of an update. What every open stage may do is drawn once, from the box of them all."""
    from skylift.core.lifecycle import OPEN, UPDATE_MOVES

    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {OPEN[0]}"
    yield "    state open {"
    yield from (f"        {a} --> {b}" for a, b in itertools.pairwise(OPEN))
    yield "    }"
    targets = {to for _, to in UPDATE_MOVES if to not in OPEN}
    shared = {to for to in targets if all((state, to) in UPDATE_MOVES for state in OPEN)}
    yield from (f"    open --> {to}" for to in sorted(shared))
    for a, b in UPDATE_MOVES:
        if not (a in OPEN and (b in OPEN or b in shared)):
            yield f"    {a} --> {b}"
    yield "```"


def update_moves() -> Iterator[str]:
    from skylift.core.lifecycle import UPDATE_MOVES

    yield "| from | to | who |"
    yield "|---|---|---|"
    for (a, b), movers in UPDATE_MOVES.items():
        yield f"| `{a}` | `{b}` | {', '.join(sorted(movers))} |"


def deployment_diagram() -> Iterator[str]:
    from skylift.core.lifecycle import DEPLOYMENT_MOVES, ENDED, DeploymentStatus

    order = list(DeploymentStatus)
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    [*] --> scheduled"
    yield "    [*] --> draft"
    for a, b in sorted(DEPLOYMENT_MOVES, key=lambda move: (order.index(move[0]), order.index(move[1]))):
        yield f"    {a} --> {b}"
    yield from (f"    {ended} --> [*]" for ended in ENDED)
    yield "```"


def reasons() -> Iterator[str]:
    from skylift.core.lifecycle import Reason

    yield ", ".join(f"`{reason}`" for reason in Reason) + "."


def deadlines() -> Iterator[str]:
    from skylift.core.deadlines import DEFAULTS

    yield "| stage | silence that makes it `failed(timeout)` |"
    yield "|---|---|"
    for state, time in DEFAULTS.items():
        yield f"| `{state}` | {time.total_seconds() / 60:g} minutes |"


# --- command line -------------------------------------------------------------------------------------


def cli() -> Iterator[str]:
    """Every command with its arguments and options, in the words of its own help."""
    from typer.main import get_command

    from skylift.cli.app import app

    yield from _command("skylift", get_command(app))


def _command(name: str, command: Any) -> Iterator[str]:
    if inner := getattr(command, "commands", None):
        if name.count(" "):
            yield from (f"## {name}", "", _first(command.help), "")
        for sub, found in inner.items():
            yield from _command(f"{name} {sub}", found)
        return
    arguments = [p for p in command.params if type(p).__name__ == "TyperArgument"]
    options = [p for p in command.params if type(p).__name__ == "TyperOption" and p.name != "help"]
    shown = "".join(f" {'' if p.required else '['}{p.name.upper()}{_many(p)}{'' if p.required else ']'}"
                    for p in arguments)  # fmt: skip
    yield from (f"### {name}{shown}", "", *_prose(command.help), "")
    own = [p for p in options if p.name not in _EVERYWHERE]
    if arguments or own:
        yield from ("| | |", "|---|---|")
        yield from (f"| `{p.name.upper()}` | {_cell(p.help)} |" for p in arguments if p.help)
        yield from (f"| {_option(p)} | {_cell(p.help)}{_default(p)} |" for p in own)
        yield ""


_EVERYWHERE = ("server", "token", "output", "as_json")  # said once, at the top of the page


def _first(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _prose(text: str | None) -> Iterator[str]:
    """The help's paragraphs; a line that begins with `skylift` is an example."""
    for paragraph in re.split(r"\n\s*\n", (text or "").strip()):
        flat = " ".join(line.strip() for line in paragraph.splitlines())
        yield f"`{flat}`" if flat.startswith("skylift ") else flat
        yield ""


def _many(parameter: Any) -> str:
    return "..." if parameter.nargs == -1 else ""


def _option(parameter: Any) -> str:
    return ", ".join(f"`{name}`" for name in parameter.opts) + (" (repeatable)" if parameter.multiple else "")


def _cell(text: str | None) -> str:
    return (text or "").replace("; repeatable", "").replace("|", "\\|")


def _default(parameter: Any) -> str:
    if parameter.required:
        return " (needed)"
    if parameter.is_flag or parameter.default in (None, ""):
        return ""
    default = getattr(parameter.default, "value", parameter.default)
    return f" (default `{default:g}`)" if isinstance(default, float) else f" (default `{default}`)"


# --- HTTP ---------------------------------------------------------------------------------------------


def http() -> Iterator[str]:
    """Every route, by who speaks to it, from the OpenAPI document."""
    from skylift.api.app import build

    app: Any = build(cast(Any, SimpleNamespace(max_body=0, metrics=None)))  # routes need no running parts
    document = app.app.openapi()
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            by_tag.setdefault(tag, []).append((path, method.upper(), operation))
    for tag, routes in by_tag.items():
        yield from (f"## {tag[0].upper()}{tag[1:]}", "", "| | | asks for |", "|---|---|---|")
        for path, method, operation in sorted(routes, key=lambda route: route[0]):
            yield f"| `{method} {path}` | {_said(operation)} | {_asks(document, operation)} |"
        yield ""


def _said(operation: Mapping[str, Any]) -> str:
    said = str(operation.get("description") or operation["summary"])
    return " ".join(said.split()).replace("|", "\\|").removesuffix(".")


def _asks(document: Mapping[str, Any], operation: Mapping[str, Any]) -> str:
    query = [p for p in operation.get("parameters", ()) if p["in"] == "query"]
    names = [f"`{p['name']}`" if p.get("required") else f"[`{p['name']}`]" for p in query]
    content = operation.get("requestBody", {}).get("content", {})
    if content.keys() - {"application/json"}:
        names.append("the bytes")
    schema = content.get("application/json", {}).get("schema", {})
    references = [schema, *schema.get("anyOf", ())]
    for reference in references:
        if "$ref" in reference:
            body = document["components"]["schemas"][reference["$ref"].rpartition("/")[2]]
            needed = body.get("required", ())
            names += [f"`{n}`" if n in needed else f"[`{n}`]" for n in body.get("properties", ())]
    return ", ".join(names)


# --- settings and the agent ---------------------------------------------------------------------------


def settings() -> Iterator[str]:
    from skylift.settings import Settings

    yield "| `skylift.toml` | variable | default | |"
    yield "|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        yield f"| `{name}` | `SKYLIFT_{name.upper()}` | {default} | {_cell(field.description)} |"


def agent_fields() -> Iterator[str]:
    from skylift.agent.config import Config

    yield "| field | default |"
    yield "|---|---|"
    for field in fields(Config):
        if field.default is MISSING:
            shown = "needed"
        elif field.name == "build_time":
            shown = "the beginning of 2026"
        elif field.default in ("", ()):
            shown = ""
        else:
            shown = f"`{field.default}`"
        yield f"| `{field.name}` | {shown} |"


def agent_machine() -> Iterator[str]:
    """The table in the machine's own docstring."""
    from skylift.agent import machine

    yield from (line for line in (machine.__doc__ or "").splitlines() if line.startswith("|"))


def deployment_fields() -> Iterator[str]:
    """The fields of a deployment, and of a phase."""
    from skylift.core.rollout import DeploymentConfig, PhaseConfig

    for shape in (DeploymentConfig, PhaseConfig):
        yield from (f"**{'A phase' if shape is PhaseConfig else 'A deployment'}**", "")
        yield from ("| field | default |", "|---|---|")
        for field in fields(shape):
            empty = field.default in (None, "", ())
            shown = field.default.value if hasattr(field.default, "value") else field.default
            yield f"| `{field.name}` | {'' if empty else f'`{_json(shown)}`'} |"
        yield ""


def _json(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- errors -------------------------------------------------------------------------------------------


def errors() -> Iterator[str]:
    """Every stable code, as it stands in the source: the HTTP status, the places that say it."""
    source = DOCS.parent / "src" / "skylift"
    found: dict[str, str] = {}
    said_by: dict[str, set[str]] = {}
    for path in sorted(source.rglob("*.py")):
        place = path.relative_to(source).parts[0].removesuffix(".py")
        if place not in ("agent", "cli", "testkit"):
            for code, kind in _codes(ast.parse(path.read_text())):
                found.setdefault(code, kind)
                said_by.setdefault(code, set()).add(place)
    yield from ("| code | status | said by |", "|---|---|---|")
    for code, kind in sorted(found.items()):
        yield f"| `{code}` | {_status(kind)} | {', '.join(sorted(said_by[code]))} |"


def _codes(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(code, kind or status) of each `Rejected(...)`, `invalid(...)` and `problem(...)` in a module."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "id", "")
        given = {word.arg: word.value for word in call.keywords}
        if name == "Rejected" and call.args:
            kind = getattr(given.get("kind"), "attr", "INVALID")
            yield from ((code, kind) for code in _texts(call.args[0]))
        elif name == "invalid":
            yield from (
                (code, "INVALID") for code in _texts(given.get("code", ast.Constant("invalid_value")))
            )
        elif name == "problem" and len(call.args) > 1 and isinstance(call.args[0], ast.Constant):
            yield from ((code, str(call.args[0].value)) for code in _texts(call.args[1]))


def _texts(node: ast.AST) -> Iterator[str]:
    """The constant texts of an expression: a constant, or both sides of a choice."""
    return (n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))


def _status(kind: str) -> str:
    from skylift.api.problems import STATUS
    from skylift.core.errors import Kind

    return kind if kind.isdecimal() else str(STATUS[Kind[kind]])


# --- trust --------------------------------------------------------------------------------------------


def threat_matrix() -> Iterator[str]:
    from skylift.testkit.threats import MATRIX

    yield "| attacker owns | can | cannot | played by |"
    yield "|---|---|---|---|"
    for row in MATRIX:
        yield f"| {row.owns} | {row.can} | {row.cannot} | `{row.test}` |"


def threats() -> Iterator[str]:
    from skylift.testkit.threats import ATTACKS

    yield "| attack | what meets it | the device reports | test |"
    yield "|---|---|---|---|"
    for attack in ATTACKS:
        yield f"| {attack.name} | {attack.met_by} | {attack.reason} | `{attack.test}` |"


# --- pages --------------------------------------------------------------------------------------------


# --- gateway ------------------------------------------------------------------------------------------


def _conformance(dialect: str) -> Iterator[str]:
    """The rows that tests run, on paper and on Envoy, with how many requests show each."""
    from skylift.gateway.loading import load

    file = DOCS.parent / "conformance" / "gateway" / f"{dialect}.yaml"
    yield "| | what it does | requests | on Envoy |"
    yield "|---|---|---|---|"
    for row in load([file])[0].value["rows"]:
        feature, means = (row[name].replace("|", r"\|") for name in ("feature", "means"))
        yield f"| {feature} | {means} | {len(row['tests'])} | {row.get('on_envoy', 'the same')} |"


def gateway_patterns() -> Iterator[str]:
    """Every pattern with the tests that show it."""
    from skylift.gateway.loading import load

    yield "| pattern | shown by (`tests/gateway/`) |"
    yield "|---|---|"
    for row in load([DOCS.parent / "conformance" / "gateway-patterns.yaml"])[0].value:
        tests = ", ".join(f"`{test.partition('::')[2]}`" for test in row["tests"])
        yield f"| {row['pattern']} | {tests} |"


def _table(rows: Mapping[str, str]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    yield from (f"| `{name}` | {sentence} |" for name, sentence in rows.items())


def _becomes(made: Mapping[str, Callable[..., Any]]) -> dict[str, str]:
    """What a reader's function says of itself, else nothing."""
    return {name: (function.__doc__ or "").partition("\n")[0] for name, function in made.items()}


def gateway_kong_plugins() -> Iterator[str]:
    from skylift.gateway.kong.absent import BUILT_IN
    from skylift.gateway.kong.plugins import PLUGINS

    ordered = sorted(PLUGINS, key=lambda name: -PLUGINS[name].priority)
    yield ", ".join(f"`{name}`" for name in ordered) + "."
    yield ""
    yield from (f"`{name}`: {sentence}." for name, sentence in BUILT_IN.items())


def gateway_kong_absent() -> Iterator[str]:
    from skylift.gateway.kong.absent import ABSENT

    yield from _table(ABSENT)


def gateway_traefik_middlewares() -> Iterator[str]:
    from skylift.gateway.traefik.middlewares import TYPES

    yield ", ".join(f"`{name}`" for name in sorted([*TYPES, "chain"])) + "."


def gateway_traefik_absent() -> Iterator[str]:
    from skylift.gateway.traefik.middlewares import ABSENT

    yield from _table(ABSENT)


def gateway_native_policies() -> Iterator[str]:
    from skylift.gateway.native.policies import TYPES

    yield from _table({**_becomes(TYPES), "plan": "Every consumer its own plan's limit."})


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "update-diagram": update_diagram,
    "update-moves": update_moves,
    "deployment-diagram": deployment_diagram,
    "reasons": reasons,
    "deadlines": deadlines,
    "cli": cli,
    "http": http,
    "errors": errors,
    "settings": settings,
    "agent-fields": agent_fields,
    "agent-machine": agent_machine,
    "deployment-fields": deployment_fields,
    "threat-matrix": threat_matrix,
    "threats": threats,
    "gateway-patterns": gateway_patterns,
    "gateway-kong": lambda: _conformance("kong"),
    "gateway-kong-plugins": gateway_kong_plugins,
    "gateway-kong-absent": gateway_kong_absent,
    "gateway-traefik": lambda: _conformance("traefik"),
    "gateway-traefik-middlewares": gateway_traefik_middlewares,
    "gateway-traefik-absent": gateway_traefik_absent,
    "gateway-native-policies": gateway_native_policies,
}


def render(text: str) -> str:
    """The page with its generated parts as they must be now."""

    def part(found: re.Match[str]) -> str:
        lines = "\n".join(PARTS[found[2]]()).strip("\n")
        return f"{found[1]}{lines}\n{found[4]}"

    return _PART.sub(part, text)


def pages() -> Iterator[Path]:
    """Every page that has a generated part."""
    for page in sorted(DOCS.rglob("*.md")):
        if _PART.search(page.read_text()):
            yield page


def main(check: bool) -> int:
    stale = [page for page in pages() if render(page.read_text()) != page.read_text()]
    for page in stale:
        if not check:
            page.write_text(render(page.read_text()))
        print(f"{page.relative_to(DOCS)}: {'stale' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
