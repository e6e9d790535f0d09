"""Options that every command has, as reusable annotations."""

from dataclasses import dataclass
from typing import Annotated

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


@dataclass(frozen=True, slots=True)
class Session:
    """A client and an output."""

    client: Client
    output: Output


def session(server: str | None, token: str | None, form: Format, as_json: bool) -> Session:
    return Session(Client(server, token), Output(Format.JSON if as_json else form))


def must_confirm(question: str, yes: bool) -> None:
    """Destructive verbs ask unless `--yes`."""
    if not confirm(question, yes):
        raise Leave(Exit.USAGE, "not done: confirm, or give --yes")
