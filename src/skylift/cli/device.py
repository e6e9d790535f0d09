"""`skylift device`: list, show, timeline, enroll, decommission."""

import secrets
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
    """One device."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.get(f"/api/devices/{device}"))


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
    """Its token is refused from now on; its history stays."""
    must_confirm(f"decommission {device}?", yes)
    this = session(server, token, output, as_json)
    this.output.one(this.client.post(f"/api/devices/{device}:decommission"))
