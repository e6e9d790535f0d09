"""`skylift group`: create, list, show, add, remove, delete."""

from typing import Annotated

import typer

from skylift.cli.context import Session, YesOption, at_server, must_confirm

app = typer.Typer(help="Groups: a list of devices, or a query that stays live.", no_args_is_help=True)
Group = Annotated[str, typer.Argument(help="A group's id or name.")]
COLUMNS = ("id", "name", "kind", "query", "created_at")


@at_server(app)
def create(
    this: Session,
    name: Annotated[str, typer.Argument()],
    query: Annotated[str | None, typer.Option(help="Live, such as: label.region = eu")] = None,
    device: Annotated[list[str] | None, typer.Option("--device", help="A member; repeatable.")] = None,
) -> None:
    """A new group."""
    body = {"name": name, "query": query} if query else {"name": name, "devices": device or []}
    this.output.one(this.client.post("/api/groups", body))


@at_server(app, "list")
def list_(this: Session) -> None:
    """All groups."""
    this.output.many(this.client.get("/api/groups")["items"], COLUMNS)


@at_server(app)
def show(this: Session, group: Group) -> None:
    """One group, with how many devices it holds now."""
    this.output.one(this.client.get(f"/api/groups/{group}"))


@at_server(app)
def add(
    this: Session,
    group: Group,
    device: Annotated[list[str], typer.Argument(help="Devices to add.")],
) -> None:
    """Add devices to a list."""
    this.output.one(this.client.put(f"/api/groups/{group}/devices", {"add": device}))


@at_server(app)
def remove(
    this: Session,
    group: Group,
    device: Annotated[list[str], typer.Argument(help="Devices to take out.")],
) -> None:
    """Take devices out of a list."""
    this.output.one(this.client.put(f"/api/groups/{group}/devices", {"remove": device}))


@at_server(app)
def delete(this: Session, group: Group, yes: YesOption = False) -> None:
    """Delete a group that no live deployment uses."""
    must_confirm(f"delete {group}?", yes)
    this.client.delete(f"/api/groups/{group}")
    this.output.one({"deleted": group})
