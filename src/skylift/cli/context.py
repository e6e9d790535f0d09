"""What commands share: a session at a server, and the options that make it; being sure."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any, TypeVar

import typer

from skylift.cli.client import Client
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format, Output, confirm

ServerOption = Annotated[
    str | None,
    typer.Option("--server", envvar="SKYLIFT_SERVER", help="The server, such as https://ota.example."),
]
TokenOption = Annotated[
    str | None, typer.Option("--token", envvar="SKYLIFT_TOKEN", help="An operator's token.", show_envvar=True)
]
FormatOption = Annotated[Format, typer.Option("-o", "--output", help="table or json")]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as -o json.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Session:
    """A client and an output."""

    client: Client
    output: Output


def session(server: str | None, token: str | None, form: Format, as_json: bool) -> Session:
    return Session(Client(server, token), Output(Format.JSON if as_json else form))


_OPTIONS = tuple(
    Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=option)
    for name, option, default in (
        ("server", ServerOption, None),
        ("token", TokenOption, None),
        ("output", FormatOption, Format.TABLE),
        ("as_json", JsonOption, False),
    )
)


def at_server(app: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """A command whose first parameter is its `Session`: the options that make one stand behind its own."""

    def register(command: Command) -> Command:
        @wraps(command)
        def run(*, server: str | None, token: str | None, output: Format, as_json: bool, **own: Any) -> Any:
            return command(session(server, token, output, as_json), **own)

        asked = list(inspect.signature(command).parameters.values())[1:]
        run.__signature__ = inspect.Signature([*asked, *_OPTIONS])  # type: ignore[attr-defined] # what typer reads
        app.command(name)(run)
        return command

    return register


def must_confirm(question: str, yes: bool) -> None:
    """Destructive verbs ask unless `--yes`."""
    if not confirm(question, yes):
        raise Leave(Exit.USAGE, "not done: confirm, or give --yes")
