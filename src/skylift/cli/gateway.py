"""`skylift gateway`: check, explain, diff, test and convert gateway configurations; offline."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skylift.cli.context import FormatOption, JsonOption
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format, Output

if TYPE_CHECKING:
    from skylift.gateway.model import Gateway

app = typer.Typer(help="The API gateway: Kong's, Traefik's and our own files.", no_args_is_help=True)
Files = Annotated[
    list[Path],
    typer.Argument(exists=True, help="Files or directories; together they are one configuration."),
]
ListenerOption = Annotated[str, typer.Option(help="The listener (entry point) it comes in by; else any.")]


@contextmanager
def _every_problem(shown: Output) -> Iterator[None]:
    """A refused configuration: every problem on stderr, or as JSON, and exit 3."""
    from skylift.gateway.errors import Refused

    try:
        yield
    except Refused as refused:
        if shown.form is Format.JSON:
            problems = [
                {
                    "severity": "error",
                    "code": problem.code,
                    "file": problem.file,
                    "line": problem.line,
                    "path": problem.path,
                    "sentence": str(problem),
                    "suggestion": problem.suggestion,
                }
                for problem in refused.problems
            ]
            shown.one({"ok": False, "findings": problems})
            raise Leave(Exit.FAILED) from None
        for problem in refused.problems[1:]:
            print(f"error: {problem} [{problem.code}]")
        raise Leave(Exit.FAILED, str(refused.problems[0])) from None


def _read(files: list[Path], shown: Output) -> "Gateway":
    from skylift.gateway.read import read

    with _every_problem(shown):
        return read(files)


@app.command()
def check(
    files: Files,
    strict: Annotated[bool, typer.Option(help="Warnings too make it exit 3.")] = False,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Read the files and say what is wrong with them, or likely to be. Exit 3 if anything is."""
    from skylift.gateway.lint import Severity, counts, lint

    shown = Output(Format.JSON if as_json else output)
    gateway = _read(files, shown)
    found = lint(gateway)
    number = counts(found)
    bad = bool(number[Severity.ERROR] or (strict and number[Severity.WARNING]))
    if shown.form is Format.JSON:
        findings = [
            {
                "severity": finding.severity,
                "code": finding.code,
                "file": finding.origin.file,
                "path": finding.origin.path,
                "sentence": finding.sentence,
            }
            for finding in found
        ]
        shown.one({"ok": not bad, "routes": len(gateway.routes), "findings": findings})
    else:
        for finding in found:
            print(finding)
        words = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in number.items())
        shown.say(f"{len(gateway.routes)} routes, {len(gateway.services)} services: {words}")
    if bad:
        raise Leave(Exit.FAILED)


@app.command()
def explain(
    files: Files,
    request: Annotated[
        str, typer.Option(help="""As curl has it: "GET /api/users -H 'Accept: text/html' -d '{}'".""")
    ],
    client: Annotated[str, typer.Option(help="The address it comes from.")] = "192.0.2.1",
    at: Annotated[datetime | None, typer.Option(help="When, in UTC; now if not given.")] = None,
    repeat: Annotated[int, typer.Option(min=1, max=100_000, help="The last of so many, at once.")] = 1,
    listener: ListenerOption = "",
    every: Annotated[bool, typer.Option("--all", help="Every route that does not take it.")] = False,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Say what becomes of a request: which route, why not the others, which policies, what is sent on."""
    from skylift.gateway.decision import NO_COUNTERS
    from skylift.gateway.explain import as_json as described
    from skylift.gateway.explain import lines
    from skylift.gateway.match import decide
    from skylift.gateway.request import parse

    shown = Output(Format.JSON if as_json else output)
    gateway, asked = _read(files, shown), parse(request, client)
    world = _world(at)
    found = decide(gateway, asked, world, NO_COUNTERS, listener)
    for _ in range(repeat - 1):
        found = decide(gateway, asked, world, found.counters, listener)
    if shown.form is Format.JSON:
        shown.one(described(found))
        return
    for line in lines(found, every=every):
        print(line)


def _world(at: datetime | None) -> Any:
    from datetime import UTC

    from skylift.gateway.decision import World
    from skylift.gateway.signatures import verify

    now = time.time() if at is None else at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    return World(now=now, verify=verify)


@app.command("test")
def run_table(
    table: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Requests and expectations.")],
    files: Annotated[list[Path] | None, typer.Argument(exists=True, help="The configuration.")] = None,
    against: Annotated[str, typer.Option(help="A running gateway, such as http://127.0.0.1:8000.")] = "",
    at: Annotated[datetime | None, typer.Option(help="When, in UTC; now if not given.")] = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Run a table of requests and expectations on paper, against a gateway, or both. Exit 3 if one fails."""
    from skylift.gateway.loading import load
    from skylift.gateway.trial import read_cases, run, run_against

    shown = Output(Format.JSON if as_json else output)
    with _every_problem(shown):
        cases = read_cases(load([table]))
    results = [("on paper", each) for each in run(_read(files, shown), cases, _world(at))] if files else []
    results += [(against, each) for each in run_against(against, cases)] if against else []
    if not files and not against:
        raise Leave(Exit.USAGE, "give the configuration's files, or --against the URL of a gateway")
    failed = sum(bool(result.failures) for _, result in results)
    if shown.form is Format.JSON:
        rows = [
            {
                "name": r.case.name,
                "where": where,
                "ok": not r.failures,
                "failures": r.failures,
                "not_seen": r.skipped,
            }
            for where, r in results
        ]
        shown.one({"ok": not failed, "tests": rows})
    else:
        for where, result in results:
            place = f"  ({where})" if files and against else ""
            print(f"{'failed' if result.failures else 'ok':<6}  {result.case.name}{place}")
            for failure in result.failures:
                print(f"        {failure}")
            if result.skipped:
                print(f"        not seen from outside: {', '.join(result.skipped)}")
    if failed:
        raise Leave(Exit.FAILED, f"{failed} of {len(results)} failed")


@app.command()
def run(
    files: Annotated[
        list[str], typer.Argument(help="Files and directories that are one configuration, or one URL.")
    ],
    listen: Annotated[
        list[str] | None,
        typer.Option(help="Where a listener listens here: web=127.0.0.1:8080. May be given several times."),
    ] = None,
    admin: Annotated[
        str, typer.Option(help="Where the admin view and the metrics are; empty: nowhere.")
    ] = "127.0.0.1:9901",
    access_log: Annotated[str, typer.Option(help="A file, or /dev/stdout: a line of JSON a request.")] = "",
    traces: Annotated[str, typer.Option(help="Where spans go: an OTLP URL over HTTP.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Envoy's worker threads.")] = 2,
    until_eof: Annotated[bool, typer.Option(help="End when standard input does.")] = False,
) -> None:
    """Run the gateway: Envoy, with these files, which may change while it runs. SIGHUP swaps Envoy itself."""
    try:
        from skylift.gateway.envoy.running import Wanted
        from skylift.gateway.envoy.running import run as run_it
    except ModuleNotFoundError as e:
        raise Leave(Exit.ERROR, f"{e.name} is not installed: pip install 'skylift[gateway]'") from e

    with _every_problem(Output(Format.TABLE)):
        run_it(Wanted(tuple(files), tuple(listen or ()), admin, access_log, traces, workers, until_eof))


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(exists=True, help="A file or directory.")],
    new: Annotated[Path, typer.Argument(exists=True, help="A file or directory.")],
    with_files: Annotated[
        list[Path] | None, typer.Option("--with", exists=True, help="A file that belongs to both.")
    ] = None,
    at: Annotated[datetime | None, typer.Option(help="When, in UTC; now if not given.")] = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Say which requests change their fate, tried by representatives of every route. Exit 3 if any does."""
    from skylift.gateway.compare import compare

    shown = Output(Format.JSON if as_json else output)
    both = with_files or []
    found = compare(_read([old, *both], shown), _read([new, *both], shown), _world(at))
    if shown.form is Format.JSON:
        changes = [
            {"what": change.what, "requests": change.count, "examples": change.examples}
            for change in found.changes
        ]
        shown.one({"same": not changes, "tried": found.tried, "changes": changes})
    else:
        for change in found.changes:
            more = f" and {change.count - len(change.examples)} more" * (change.count > len(change.examples))
            print(f"{'; '.join(change.examples)}{more}:")
            for sentence in change.what:
                print(f"  {sentence}")
        shown.say(f"{found.tried} representative requests: {sum(c.count for c in found.changes)} change")
    if found.changes:
        raise Leave(Exit.FAILED)


@app.command()
def convert(
    files: Files,
    to: Annotated[str, typer.Option(help="kong or traefik.")],
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write the files in another dialect; what is lost is named on stderr. Exit 3 if anything is."""
    from skylift.core.errors import invalid
    from skylift.gateway.convert import convert as converted
    from skylift.gateway.model import Dialect

    shown = Output(Format.JSON if as_json else output)
    if to not in (Dialect.KONG, Dialect.TRAEFIK):
        raise invalid("to", to, "it must be kong or traefik")
    gateway = _read(files, shown)
    with _every_problem(shown):
        found = converted(gateway, Dialect(to), _world(None))
    if shown.form is Format.JSON:
        differs = [{"what": change.what, "examples": change.examples} for change in found.differs]
        shown.one({"to": to, "text": found.text, "lost": found.lost, "differs": differs})
    else:
        print(found.text, end="")
        for sentence in found.lost:
            shown.say(f"lost: {sentence}")
        for change in found.differs:
            shown.say(f"differs: {'; '.join(change.examples)}: {'; '.join(change.what)}")
    if found.lost or found.differs:
        raise Leave(Exit.FAILED)
