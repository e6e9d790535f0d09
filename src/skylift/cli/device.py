"""`skylift device`: list, show, timeline, enroll, claims, decommission, revoke, authorities."""

import secrets
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from skylift.cli.context import Session, YesOption, at_server, must_confirm

app = typer.Typer(help="Devices.", no_args_is_help=True)
Device = Annotated[str, typer.Argument(help="A device's id.")]


@at_server(app, "list")
def list_(
    this: Session,
    device_type: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    version: Annotated[str | None, typer.Option(help="Only those that run it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 100,
) -> None:
    """Devices by name."""
    found = this.client.get("/api/devices", limit=limit, device_type=device_type, current_version=version)
    columns = ("device_id", "device_type", "current_version", "config_version", "status", "last_seen")
    this.output.many(found["items"], columns)


@at_server(app)
def show(this: Session, device: Device) -> None:
    """One device, with its certificate and the days it has left."""
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


@at_server(app)
def timeline(this: Session, device: Device, limit: Annotated[int, typer.Option(min=1, max=500)] = 50) -> None:
    """What happened to it, newest first."""
    found = this.client.get(f"/api/devices/{device}/timeline", limit=limit)
    this.output.many(found["items"], ("at", "kind", "deployment", "data"))


@at_server(app)
def enroll(
    this: Session,
    device: Annotated[str | None, typer.Argument(help="A device's id; none makes a claim token.")] = None,
    device_type: Annotated[str, typer.Option("--type", help="Its type, such as sensor-v2.")] = "",
    uses: Annotated[int, typer.Option(min=1, help="How many devices a claim lets in.")] = 1,
    hours: Annotated[float, typer.Option(min=0.01, help="How long a claim is good.")] = 24.0,
) -> None:
    """Let a device in: by name (prints its token), or any device that shows a claim token.

    skylift device enroll --type sensor-v2 --uses 100
    """
    if device is None:
        body = {"device_type": device_type or None, "uses": uses, "expires_in_hours": hours}
        this.output.one(this.client.post("/api/claims", body))
        return
    own = "dev_" + secrets.token_urlsafe(32)
    made = this.client.post("/api/devices", {"device_id": device, "device_type": device_type, "token": own})
    this.output.one({**made, "token": own})


@at_server(app)
def decommission(this: Session, device: Device, yes: YesOption = False) -> None:
    """Its token and its certificate are refused from now on; its history stays."""
    must_confirm(f"decommission {device}?", yes)
    this.output.one(this.client.post(f"/api/devices/{device}:decommission"))


@at_server(app)
def revoke(this: Session, device: Device, yes: YesOption = False) -> None:
    """It is in other hands: out like a decommissioned one, and the key it had never comes back."""
    must_confirm(f"revoke {device}?", yes)
    this.output.one(this.client.post(f"/api/devices/{device}:revoke"))


@at_server(app)
def claims(
    this: Session,
    revoke: Annotated[str | None, typer.Option(help="Let nobody in by this claim any more, clm_...")] = None,
) -> None:
    """The claims that were made; their tokens were shown once."""
    if revoke is not None:
        this.output.one(this.client.post(f"/api/claims/{revoke}:revoke"))
        return
    found = this.client.get("/api/claims", limit=500)["items"]
    this.output.many(found, ("id", "device_type", "uses_left", "expires_at", "revoked_at", "created_by"))


@at_server(app)
def authorities(
    this: Session,
    rotate: Annotated[bool, typer.Option("--rotate", help="A new one issues from now on.")] = False,
    retire: Annotated[int | None, typer.Option(help="Trust this one no more.", min=1)] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Although devices depend on it: it is stolen.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Who vouches for devices' keys, and how many devices depend on each alone."""
    if rotate:
        found = this.client.post("/api/authorities:rotate")
    elif retire is not None:
        must_confirm(f"retire authority {retire}?", yes)
        found = this.client.post(f"/api/authorities/{retire}:retire", {"force": force})
    else:
        found = this.client.get("/api/authorities")
    this.output.many(found["items"], ("authority", "issues", "expires_at", "days_left", "devices"))
