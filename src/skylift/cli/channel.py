"""`skylift channel`: where people are told, and what came of each message."""

import time
from pathlib import Path
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
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format

app = typer.Typer(help="Channels: webhooks, mail and chats that people are told by.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The channel's name, or its id.")]
COLUMNS = ("name", "kind", "address", "wants", "disabled", "failures", "created_by")
DELIVERIES = ("id", "created_at", "channel", "type", "state", "attempts", "answer", "sentence")
ARRIVES_S = 20.0


@app.command()
def add(
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
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """A new one. A webhook's signing secret is shown this once.

    skylift channel add ci webhook https://ci.example/hooks/skylift --want deployment.stopped

    skylift channel add ops mail ops@example.com
    """
    this = session(server, token, output, as_json)
    body: dict[str, Any] = {"name": name, "kind": kind, "address": address, "wants": want or None}
    if template is not None:
        body["template"] = template.read_text()
    this.output.one(this.client.post("/api/channels", body))


@app.command("list")
def list_(
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """All of them."""
    this = session(server, token, output, as_json)
    this.output.many(this.client.get("/api/channels")["items"], COLUMNS)


@app.command("test")
def try_(
    name: Name,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Say something there, and wait until it arrives. Exits 1 where it does not."""
    this = session(server, token, output, as_json)
    asked = this.client.post(f"/api/channels/{name}:test")
    until = time.monotonic() + ARRIVES_S
    while asked["state"] == "waiting" and not asked["attempts"] and time.monotonic() < until:
        time.sleep(0.2)
        known = this.client.get("/api/deliveries", channel=name, limit=50)["items"]
        asked = next((one for one in known if one["id"] == asked["id"]), asked)
    this.output.many([asked], DELIVERIES)
    if asked["state"] != "delivered":
        raise Leave(Exit.ERROR, f"{name}: not delivered ({asked['answer'] or 'no answer yet'})")


@app.command()
def log(
    name: Annotated[str | None, typer.Argument(help="Only of this channel.")] = None,
    state: Annotated[str | None, typer.Option(help="waiting, delivered or given_up")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """The latest messages and what came of them."""
    this = session(server, token, output, as_json)
    found = this.client.get("/api/deliveries", channel=name, state=state, limit=limit)
    this.output.many(found["items"], DELIVERIES)


@app.command()
def replay(
    delivery: Annotated[int, typer.Argument(help="A delivery's number.")],
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """The same message once more, under the same id."""
    this = session(server, token, output, as_json)
    this.output.many([this.client.post(f"/api/deliveries/{delivery}:replay")], DELIVERIES)


@app.command()
def renew(
    name: Name,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """A new signing secret; the old one signs beside it for a day."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.post(f"/api/channels/{name}:renew"))


@app.command()
def disable(
    name: Name,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Nothing more is said there."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.patch(f"/api/channels/{name}", {"disabled": True}))


@app.command()
def enable(
    name: Name,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Something is said there again."""
    this = session(server, token, output, as_json)
    this.output.one(this.client.patch(f"/api/channels/{name}", {"disabled": False}))


@app.command()
def remove(
    name: Name,
    yes: YesOption = False,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Gone, with its delivery log."""
    must_confirm(f"remove {name}?", yes)
    this = session(server, token, output, as_json)
    this.client.delete(f"/api/channels/{name}")
    this.output.one({"removed": name})
