"""The `skylift` command: its groups, and the one place where errors become a line and an exit code."""

import sys

import typer

from skylift import __version__
from skylift.cli import (
    agent,
    channel,
    delta,
    demo,
    deploy,
    device,
    gateway,
    group,
    log,
    release,
    rotate,
    serve,
    simulate,
    top,
    user,
)
from skylift.cli.context import at_server
from skylift.cli.examples import teach
from skylift.cli.exits import Exit, Leave
from skylift.core.errors import Rejected, SkyliftError

app = typer.Typer(
    name="skylift",
    help="Updates fleets of devices over the air: create, sign, upload, deploy, monitor, roll back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, part in (
    ("release", release.app),
    ("deploy", deploy.app),
    ("device", device.app),
    ("group", group.app),
    ("trust", rotate.app),  # trust's, with what comes after the ceremony
    ("delta", delta.app),
    ("gateway", gateway.app),
    ("user", user.app),
    ("channel", channel.app),
    ("agent", agent.app),
):
    app.add_typer(part, name=name)
rotate.app.add_typer(log.app, name="log")
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("simulate")(simulate.simulate)
at_server(app, "top")(top.top)
teach(app)


def _version(shown: bool) -> None:
    if shown:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Its version."),
) -> None:
    pass


def run() -> int:
    """Run the command line; the exit code."""
    try:
        code = app(standalone_mode=False)
        return int(code or Exit.OK)
    except Leave as e:
        return _fail(str(e), e.code)
    except typer.TyperException as e:
        said = getattr(e, "format_message", e.__str__)()
        return _fail(said.splitlines()[0] if said else "see --help", Exit.USAGE)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", Exit.ERROR)
    except Rejected as e:
        return _fail(str(e), Exit.USAGE)
    except SkyliftError as e:
        return _fail(str(e), Exit.ERROR)
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        return _fail(f"{where}{e.strerror or e}", Exit.ERROR)


def _fail(sentence: str, code: Exit) -> int:
    if sentence:
        print(f"skylift: {sentence}", file=sys.stderr)
    return int(code)
