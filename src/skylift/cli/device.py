"""`skylift device`: list, show, timeline, enroll, claims, decommission, revoke, authorities."""

import secrets
from collections.abc import Iterator
from typing import Annotated, Any

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

app = typer.Typer(help="Devices.", no_args_is_help=True)
Device = Annotated[str, typer.Argument(help="A device's id.")]


@app.command("list")
def list_(
    device_type: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    version: Annotated[str | None, typer.Option(help="Only those that run it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 100,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Devices by name."""
    this = session(server, token, output, as_json)
    found = this.client.get("/api/devices", limit=limit, device_type=device_type, current_version=version)
    columns = ("device_id", "device_type", "current_version", "config_version", "status", "last_seen")
    this.output.many(found["items"], columns)


@app.command()
def show(
    device: Device,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """One device, with its certificate and the days it has left."""
    this = session(server, token, output, as_json)
    found = this.client.get(f"/api/devices/{device}")
    this.output.one(found, _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        yield name, _certificate(value) if name == "certificate" else value


def _certificate(found: dict[str, Any] | None) -> str:
    if found is None:
        return "none: it has a token only"
    left = f"{found['days_left']} days left" if found["days_left"] >= 0 else "has run out"
    return (
        f"{found['subject']}, key {found['key']}, until {found['expires_at'][:10]}, {left}, "
        f"by authority {found['authority']}"
    )


@app.command()
def timeline(
    device: Device,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """What happened to it, newest first."""
    this = session(server, token, output, as_json)
    found = this.client.get(f"/api/devices/{device}/timeline", limit=limit)
    this.output.many(found["items"], ("at", "kind", "deployment", "data"))


@app.command()
def enroll(
    device: Annotated[str | None, typer.Argument(help="A device's id; none makes a claim token.")] = None,
    device_type: Annotated[str, typer.Option("--type", help="Its type, such as sensor-v2.")] = "",
    uses: Annotated[int, typer.Option(min=1, help="How many devices a claim lets in.")] = 1,
    hours: Annotated[float, typer.Option(min=0.01, help="How long a claim is good.")] = 24.0,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Let a device in: by name (prints its token), or any device that shows a claim token.

    skylift device enroll --type sensor-v2 --uses 100
    """
    this = session(server, token, output, as_json)
    if device is None:
        body = {"device_type": device_type or None, "uses": uses, "expires_in_hours": hours}
        this.output.one(this.client.post("/api/claims", body))
        return
    own = "dev_" + secrets.token_urlsafe(32)
    made = this.client.post("/api/devices", {"device_id": device, "device_type": device_type, "token": own})
    this.output.one({**made, "token": own})


@app.command()
def decommission(
    device: Device,
    yes: YesOption = False,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Its token and its certificate are refused from now on; its history stays."""
    must_confirm(f"decommission {device}?", yes)
    this = session(server, token, output, as_json)
    this.output.one(this.client.post(f"/api/devices/{device}:decommission"))


@app.command()
def revoke(
    device: Device,
    yes: YesOption = False,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """It is in other hands: out like a decommissioned one, and the key it had never comes back."""
    must_confirm(f"revoke {device}?", yes)
    this = session(server, token, output, as_json)
    this.output.one(this.client.post(f"/api/devices/{device}:revoke"))


@app.command()
def claims(
    revoke: Annotated[str | None, typer.Option(help="Let nobody in by this claim any more, clm_...")] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """The claims that were made; their tokens were shown once."""
    this = session(server, token, output, as_json)
    if revoke is not None:
        this.output.one(this.client.post(f"/api/claims/{revoke}:revoke"))
        return
    found = this.client.get("/api/claims", limit=500)["items"]
    this.output.many(found, ("id", "device_type", "uses_left", "expires_at", "revoked_at", "created_by"))


@app.command()
def authorities(
    rotate: Annotated[bool, typer.Option("--rotate", help="A new one issues from now on.")] = False,
    retire: Annotated[int | None, typer.Option(help="Trust this one no more.", min=1)] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Although devices depend on it: it is stolen.")
    ] = False,
    yes: YesOption = False,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Who vouches for devices' keys, and how many devices depend on each alone."""
    this = session(server, token, output, as_json)
    if rotate:
        found = this.client.post("/api/authorities:rotate")
    elif retire is not None:
        must_confirm(f"retire authority {retire}?", yes)
        found = this.client.post(f"/api/authorities/{retire}:retire", {"force": force})
    else:
        found = this.client.get("/api/authorities")
    this.output.many(found["items"], ("authority", "issues", "expires_at", "days_left", "devices"))
