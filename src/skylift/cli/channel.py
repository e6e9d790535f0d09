"""`skylift channel`: where people are told, and what came of each message."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli.context import Session, YesOption, at_server, must_confirm
from skylift.cli.exits import Exit, Leave

app = typer.Typer(help="Channels: webhooks, mail and chats that people are told by.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The channel's name, or its id.")]
COLUMNS = ("name", "kind", "address", "wants", "disabled", "failures", "created_by")
DELIVERIES = ("id", "created_at", "channel", "type", "state", "attempts", "answer", "sentence")
ARRIVES_S = 20.0


@at_server(app)
def add(
    this: Session,
    name: Name,
    kind: Annotated[str, typer.Argument(help="webhook, mail or chat")],
    address: Annotated[str, typer.Argument(help="A URL, or a mail address.")],
    want: Annotated[
        list[str] | None,
        typer.Option(help="What it hears: deployment, release, phase, deployment.stopped...; repeatable."),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help='A chat\'s JSON, such as {"text": "{sentence} {link}"}, in a file.')
    ] = None,
) -> None:
    """A new one. A webhook's signing secret is shown this once.

    skylift channel add ci webhook https://ci.example/hooks/skylift --want deployment.stopped

    skylift channel add ops mail ops@example.com
    """
    body: dict[str, Any] = {"name": name, "kind": kind, "address": address, "wants": want or None}
    if template is not None:
        body["template"] = template.read_text()
    this.output.one(this.client.post("/api/channels", body))


@at_server(app, "list")
def list_(this: Session) -> None:
    """All of them."""
    this.output.many(this.client.get("/api/channels")["items"], COLUMNS)


@at_server(app, "test")
def try_(this: Session, name: Name) -> None:
    """Say something there, and wait until it arrives. Exits 1 where it does not."""
    asked = this.client.post(f"/api/channels/{name}:test")
    until = time.monotonic() + ARRIVES_S
    while asked["state"] == "waiting" and not asked["attempts"] and time.monotonic() < until:
        time.sleep(0.2)
        known = this.client.get("/api/deliveries", channel=name, limit=50)["items"]
        asked = next((one for one in known if one["id"] == asked["id"]), asked)
    this.output.many([asked], DELIVERIES)
    if asked["state"] != "delivered":
        raise Leave(Exit.ERROR, f"{name}: not delivered ({asked['answer'] or 'no answer yet'})")


@at_server(app)
def log(
    this: Session,
    name: Annotated[str | None, typer.Argument(help="Only of this channel.")] = None,
    state: Annotated[str | None, typer.Option(help="waiting, delivered or given_up")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
) -> None:
    """The latest messages and what came of them."""
    found = this.client.get("/api/deliveries", channel=name, state=state, limit=limit)
    this.output.many(found["items"], DELIVERIES)


@at_server(app)
def replay(this: Session, delivery: Annotated[int, typer.Argument(help="A delivery's number.")]) -> None:
    """The same message once more, under the same id."""
    this.output.many([this.client.post(f"/api/deliveries/{delivery}:replay")], DELIVERIES)


@at_server(app)
def renew(this: Session, name: Name) -> None:
    """A new signing secret; the old one signs beside it for a day."""
    this.output.one(this.client.post(f"/api/channels/{name}:renew"))


@at_server(app)
def disable(this: Session, name: Name) -> None:
    """Nothing more is said there."""
    this.output.one(this.client.patch(f"/api/channels/{name}", {"disabled": True}))


@at_server(app)
def enable(this: Session, name: Name) -> None:
    """Something is said there again."""
    this.output.one(this.client.patch(f"/api/channels/{name}", {"disabled": False}))


@at_server(app)
def remove(this: Session, name: Name, yes: YesOption = False) -> None:
    """Gone, with its delivery log."""
    must_confirm(f"remove {name}?", yes)
    this.client.delete(f"/api/channels/{name}")
    this.output.one({"removed": name})
