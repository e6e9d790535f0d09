"""`skylift user`: who may sign in to the dashboard."""

import os
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
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format

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


@app.command("list")
def list_(
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Everybody."""
    this = session(server, token, output, as_json)
    this.output.many(this.client.get("/api/users")["items"], COLUMNS)


@app.command()
def add(
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, operator or admin")] = "viewer",
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Somebody new. The password is asked for, or taken from SKYLIFT_PASSWORD.

    skylift user add ada --role operator
    """
    this = session(server, token, output, as_json)
    body = {"name": name, "role": role, "password": _password()}
    this.output.one(this.client.post("/api/users", body))


@app.command()
def role(
    name: Name,
    role: Annotated[str, typer.Argument(help="viewer, operator or admin")],
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Another role; who is signed in signs in again."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.patch(f"/api/users/{name}", {"role": role}))


@app.command()
def grant(
    name: Name,
    product: Annotated[str, typer.Argument(help="The product, as its releases name it.")],
    role: Annotated[str, typer.Argument(help="viewer, operator or admin; none takes it away")],
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """What they may do to one product, beside what they may do to all.

    skylift user grant olga sensor operator
    """
    this = session(server, token, output, as_json)
    where = f"/api/users/{name}/products/{product}"
    if role == "none":
        this.client.delete(where)
        this.output.one({"name": name, "product": product, "role": None})
        return
    this.output.one(this.client.put(where, {"role": role}))


@app.command()
def password(
    name: Name,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """A new password; the second factor is taken away, every session ends."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.patch(f"/api/users/{name}", {"password": _password()}))


@app.command()
def disable(
    name: Name,
    yes: YesOption = False,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Out, at once. History keeps the name."""
    must_confirm(f"disable {name}?", yes)
    this = session(server, token, output, as_json)
    this.output.one(this.client.patch(f"/api/users/{name}", {"disabled": True}))


@app.command()
def enable(
    name: Name,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """In again."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.patch(f"/api/users/{name}", {"disabled": False}))
