"""Channels over HTTP: where people are told, and what came of each message."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from skylift.api import views
from skylift.api.auth import Admin
from skylift.api.context import context_of
from skylift.api.deployments import Limit
from skylift.api.idempotency import answer_once
from skylift.engine import channels as deeds
from skylift.store import channels
from skylift.store.channels import Channel, Delivery
from skylift.store.db import Connection

router = APIRouter(tags=["channels"])
Name = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Number = Annotated[int, Path(ge=1, le=2**62)]
Wants = Annotated[list[Annotated[str, Field(max_length=40)]] | None, Field(max_length=40)]


class NewChannel(BaseModel):
    """`address`: a URL, or a mail address. `template`: a chat's JSON. `wants`: what it hears; else everything
    but phases."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    kind: Literal["webhook", "mail", "chat"]
    address: str = Field(min_length=1, max_length=deeds.MAX_ADDRESS)
    template: str | None = Field(default=None, max_length=deeds.MAX_TEMPLATE)
    wants: Wants = None


class ChannelChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    disabled: bool | None = None
    wants: Wants = None


def view(found: Channel) -> dict[str, Any]:
    """A channel as people see it: nothing that is secret."""
    return {
        "id": found.id,
        "name": found.name,
        "kind": found.kind,
        "address": found.address,
        "template": found.template,
        "wants": found.wants,
        "disabled": found.disabled_at is not None,
        "disabled_why": found.disabled_why,
        "failures": found.failures,
        "quiet_until": views.instant(found.quiet_until),
        "created_at": views.instant(found.created_at),
        "created_by": found.created_by,
    }


def delivery_view(found: Delivery) -> dict[str, Any]:
    return {
        "id": found.pk,
        "channel": found.channel,
        "message": found.message_id,
        "type": found.type,
        "sentence": found.body["data"]["sentence"],
        "state": found.state,
        "attempts": found.attempts,
        "answer": found.answer,
        "created_at": views.instant(found.created_at),
        "tried_at": views.instant(found.tried_at),
        "body": found.body,
    }


@router.get("/api/channels")
def page(request: Request, who: Admin) -> Any:
    """Where people are told."""
    with context_of(request).database.read() as conn:
        return {"items": [view(found) for found in channels.everything(conn)], "next": None}


@router.post("/api/channels", status_code=201)
def add(request: Request, body: NewChannel, who: Admin) -> Response:
    """A new one. A webhook's signing secret is in this answer and nowhere else."""
    context = context_of(request)
    new = deeds.NewChannel(**body.model_dump())

    def deed(conn: Connection) -> Any:
        made, secret = deeds.add(conn, context.seal, new, context.can_mail, who.name, context.clock())
        return {**view(deeds.find(conn, made)), "secret": secret or None}

    return answer_once(request, context, who.name, body.model_dump(), 201, deed, withheld="secret")


@router.patch("/api/channels/{channel}")
def change(request: Request, channel: Name, body: ChannelChange, who: Admin) -> Any:
    """On or off, and what it hears."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        if body.disabled is not None:
            deeds.set_disabled(conn, channel, body.disabled, who.name, context.clock())
        if "wants" in body.model_fields_set:
            deeds.set_wants(conn, channel, body.wants, who.name, context.clock())
        return view(deeds.find(conn, channel))

    return context.write(deed)


@router.delete("/api/channels/{channel}", status_code=204)
def remove(request: Request, channel: Name, who: Admin) -> None:
    """Gone, with its delivery log."""
    context = context_of(request)
    context.write(lambda conn: deeds.remove(conn, channel, who.name, context.clock()))


@router.post("/api/channels/{channel}:test")
def test(request: Request, channel: Name, who: Admin) -> Any:
    """Say something there. The delivery, which the log then shows as delivered or not."""
    context = context_of(request)
    return context.write(lambda conn: delivery_view(deeds.test(conn, channel, who.name, context.clock())))


@router.post("/api/channels/{channel}:renew")
def renew(request: Request, channel: Name, who: Admin) -> Any:
    """A new signing secret, shown in this answer; the old one signs beside it for a day."""
    context = context_of(request)

    def deed(conn: Connection) -> Any:
        secret = deeds.renew_secret(conn, context.seal, channel, who.name, context.clock())
        return {**view(deeds.find(conn, channel)), "secret": secret}

    return context.write(deed)


@router.get("/api/deliveries")
def log(
    request: Request,
    who: Admin,
    limit: Limit = 100,
    cursor: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    channel: Annotated[str | None, Query(max_length=64, pattern="^[A-Za-z0-9._-]*$")] = None,
    state: Literal["waiting", "delivered", "given_up"] | None = None,
) -> Any:
    """Every message and what came of it, newest first; for thirty days."""
    with context_of(request).database.read() as conn:
        named = deeds.find(conn, channel).id if channel else None
        found = channels.page(conn, limit=limit, before=cursor, channel=named, state=state)
    items = [delivery_view(one) for one in found]
    return {"items": items, "next": found[-1].pk if len(found) == limit else None}


@router.post("/api/deliveries/{number}:replay")
def replay(request: Request, number: Number, who: Admin) -> Any:
    """The same message once more, under the same id."""
    context = context_of(request)
    return context.write(lambda conn: delivery_view(deeds.replay(conn, number, who.name, context.clock())))
