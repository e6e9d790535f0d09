"""`skylift user`: who may sign in to the dashboard."""

import os
from typing import Annotated

import typer

from skylift.cli.context import Session, YesOption, at_server, must_confirm
from skylift.cli.exits import Exit, Leave

app = typer.Typer(help="Users: who may sign in to the dashboard.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The user's name.")]
COLUMNS = ("name", "role", "products", "second_factor", "disabled", "created_by", "signed_in_at")
VARIABLE = "SKYLIFT_PASSWORD"


def _password() -> str:
    """From the environment, for scripts; else asked for twice. Never a word of the command line."""
    given = os.environ.get(VARIABLE)
    if given is None:
        given = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    if not given:
        raise Leave(Exit.USAGE, f"{VARIABLE} is empty: a password has at least 12 characters")
    return given


@at_server(app, "list")
def list_(this: Session) -> None:
    """Everybody."""
    this.output.many(this.client.get("/api/users")["items"], COLUMNS)


@at_server(app)
def add(
    this: Session,
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, operator or admin")] = "viewer",
) -> None:
    """Somebody new. The password is asked for, or taken from SKYLIFT_PASSWORD.

    skylift user add ada --role operator
    """
    body = {"name": name, "role": role, "password": _password()}
    this.output.one(this.client.post("/api/users", body))


@at_server(app)
def role(
    this: Session,
    name: Name,
    role: Annotated[str, typer.Argument(help="viewer, operator or admin")],
) -> None:
    """Another role; who is signed in signs in again."""
    this.output.one(this.client.patch(f"/api/users/{name}", {"role": role}))


@at_server(app)
def grant(
    this: Session,
    name: Name,
    product: Annotated[str, typer.Argument(help="The product, as its releases name it.")],
    role: Annotated[str, typer.Argument(help="viewer, operator or admin; none takes it away")],
) -> None:
    """What they may do to one product, beside what they may do to all.

    skylift user grant olga sensor operator
    """
    where = f"/api/users/{name}/products/{product}"
    if role == "none":
        this.client.delete(where)
        this.output.one({"name": name, "product": product, "role": None})
        return
    this.output.one(this.client.put(where, {"role": role}))


@at_server(app)
def password(this: Session, name: Name) -> None:
    """A new password; the second factor is taken away, every session ends."""
    this.output.one(this.client.patch(f"/api/users/{name}", {"password": _password()}))


@at_server(app)
def disable(this: Session, name: Name, yes: YesOption = False) -> None:
    """Out, at once. History keeps the name."""
    must_confirm(f"disable {name}?", yes)
    this.output.one(this.client.patch(f"/api/users/{name}", {"disabled": True}))


@at_server(app)
def enable(this: Session, name: Name) -> None:
    """In again."""
    this.output.one(this.client.patch(f"/api/users/{name}", {"disabled": False}))
