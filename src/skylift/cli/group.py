"""`skylift group`: create, list, show, add, remove, delete."""

from typing import Annotated

import typer

from skylift.cli.context import (
    FormatOption,
    JsonOption,
    ServerOption,
    TokenOption,
    YesOption,
    must_confirm,
    session,
)
from skylift.cli.output import Format

app = typer.Typer(help="Groups: a list of devices, or a query that stays live.", no_args_is_help=True)
Group = Annotated[str, typer.Argument(help="A group's id or name.")]
COLUMNS = ("id", "name", "kind", "query", "created_at")


@app.command()
def create(
    name: Annotated[str, typer.Argument()],
    query: Annotated[str | None, typer.Option(help="Live, such as: label.region = eu")] = None,
    device: Annotated[list[str] | None, typer.Option("--device", help="A member; repeatable.")] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """A new group."""
    this = session(server, token, output, as_json)
    body = {"name": name, "query": query} if query else {"name": name, "devices": device or []}
    this.output.one(this.client.post("/api/groups", body))


@app.command("list")
def list_(
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """All groups."""
    this = session(server, token, output, as_json)
    this.output.many(this.client.get("/api/groups")["items"], COLUMNS)


@app.command()
def show(
    group: Group,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """One group, with how many devices it holds now."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.get(f"/api/groups/{group}"))


@app.command()
def add(
    group: Group,
    device: Annotated[list[str], typer.Argument(help="Devices to add.")],
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Add devices to a list."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.put(f"/api/groups/{group}/devices", {"add": device}))


@app.command()
def remove(
    group: Group,
    device: Annotated[list[str], typer.Argument(help="Devices to take out.")],
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Take devices out of a list."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.put(f"/api/groups/{group}/devices", {"remove": device}))


@app.command()
def delete(
    group: Group,
    yes: YesOption = False,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Delete a group that no live deployment uses."""
    must_confirm(f"delete {group}?", yes)
    this = session(server, token, output, as_json)
    this.client.delete(f"/api/groups/{group}")
    this.output.one({"deleted": group})
